//! A name, of a balancer or in DNS, that leads to another server after a failover.

use std::sync::{Arc, Mutex};

use super::is;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, SOON, Setup};
use crate::support::redis::Redis;
use crate::support::stand_in::{StandIn, Treatment};
use crate::support::within;

/// Two servers, and a name that leads to one of them.
struct Scene {
    old: Redis,
    new: Redis,
    leads_to: Arc<Mutex<std::path::PathBuf>>,
    gateway: Gateway,
    client: Client,
}

fn scene() -> Scene {
    let (old, new) = (Redis::on_tcp(&[]), Redis::on_tcp(&[]));
    new.follow(&old);
    let leads_to = Arc::new(Mutex::new(old.socket()));
    // The stand-in passes RESP2 on, and no other protocol.
    let name = StandIn::at(leads_to.clone(), |words| match is(words, "HELLO") {
        true => Treatment::Answer(b"-ERR unknown command 'HELLO'\r\n".to_vec()),
        false => Treatment::Pass,
    });
    let setup = Setup::with_url(&name.url()).set("source", super::SHORT_BLOCK);
    let gateway = setup.set("admin", "publish = true").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    gateway.publish("events:a", "before");
    assert_eq!(client.entry().data, "before");
    // A client that resumes opens a shared connection.
    let mut resumed = Client::open(&gateway.address, "/events/a?last_event_id=earliest");
    assert_eq!(resumed.entry().data, "before");
    within(SOON, "the replica has it", || {
        new.run(&["XLEN", "events:a"]) == old.run(&["XLEN", "events:a"])
    });
    Scene { old, new, leads_to, gateway, client }
}

/// The old primary gets nothing from the new one: it is kept, and does not find its primary.
#[test]
fn a_reader_leaves_a_demoted_server_for_the_one_that_its_name_leads_to() {
    let mut scene = scene();
    scene.new.run(&["REPLICAOF", "NO", "ONE"]);
    scene.old.run(&["REPLICAOF", "127.0.0.1", "1"]);
    // Every reader has come back to the old one by now, as the name still leads there.
    within(SOON, "the reader is back", || scene.old.blocked() > 0);
    *scene.leads_to.lock().unwrap() = scene.new.socket();
    let mut payload = String::new();
    within(4 * SOON, "the new primary is published to", || {
        let answer = scene.gateway.post("events:a", "after");
        payload = answer.body;
        answer.status == 200
    });
    assert_eq!(scene.client.entry().data, "after");
    let mut resumed = Client::open(&scene.gateway.address, "/events/a?last_event_id=earliest");
    assert_eq!([resumed.entry().data, resumed.entry().data], ["before", "after"]);
}
