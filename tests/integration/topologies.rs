//! How Redis may be laid out: TLS, logins, replicas, Sentinel, Cluster.

use crate::support::client::Client;
use crate::support::gateway::{Gateway, SOON, Setup};
use crate::support::redis::Redis;
use crate::support::{Folder, eventually};

/// Three primaries, slots on the move, a primary killed.
pub(crate) mod cluster;
/// Replicas, which may lag.
mod replica;
/// A primary that sentinels watch and replace.
mod sentinel;
/// More stream keys than connections, in all of these.
mod sharing;
/// Certificates, shown and asked for.
mod tls;

/// Sees an entry live, one that it missed, and one that it published itself.
#[track_caller]
fn works(gateway: &Gateway, redis: &Redis) {
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let first = redis.add("events:a", "live");
    assert_eq!(client.entry().last_event_id, first);
    let published = gateway.publish("events:a", "published");
    let event = client.entry();
    assert_eq!((event.data.as_str(), &event.last_event_id), ("published", &published));
    // Another key has no ring yet: this comes from Redis.
    let (old, missed) = (redis.add("events:b", "old"), redis.add("events:b", "missed"));
    let mut back = Client::resume(&gateway.address, "/events/b", &old);
    assert_eq!(back.entry().last_event_id, missed);
    assert_eq!(back.live().0, 1);
}

/// A file with a secret.
fn secret(folder: &Folder, text: &str) -> String {
    let file = folder.0.join("password");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_user_and_a_password_and_a_database_of_a_server_on_tcp() {
    let redis = Redis::on_tcp(&[]);
    let rights = ["on", ">s3cret", "~*", "&*", "+@all"];
    let user: Vec<_> = ["ACL", "SETUSER", "gw"].into_iter().chain(rights).collect();
    redis.run(&user);
    redis.run(&["ACL", "SETUSER", "default", "resetpass", "-@all", "+xadd", "+select", "nopass"]);
    let folder = Folder::new();
    let file = secret(&folder, "s3cret\n");
    let gateway = Setup::with_url(&format!("redis://gw@{}/3", redis.address()))
        .set("source", &format!("password_file = {file:?}"))
        .start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let id = gateway.publish("events:a", "in database 3");
    assert_eq!(client.entry().last_event_id, id);
    redis.add("events:a", "in database 0");
    assert_eq!(client.next_within(SOON / 25), None);
    assert!(!gateway.log().contains("s3cret"), "a password is in the log");
}

#[test]
fn a_wrong_password_is_reported_to_the_operator_and_tried_again() {
    let redis = Redis::on_tcp(&[]);
    redis.run(&["CONFIG", "SET", "requirepass", "right"]);
    let folder = Folder::new();
    let file = secret(&folder, "wrong");
    let gateway = Setup::with_url(&format!("redis://{}", redis.address()))
        .set("source", &format!("password_file = {file:?}"))
        .start();
    eventually("it is logged", || gateway.log().contains("WRONGPASS"));
    assert_eq!(gateway.admin_get("/readyz").status, 503);
}
