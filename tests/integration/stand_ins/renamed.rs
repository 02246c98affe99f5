//! A name, of a balancer or in DNS, that leads to another server after a failover.

use std::sync::{Arc, Mutex};

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
    /// Of `events:0`, `events:1` and so on.
    clients: Vec<Client>,
}

/// With a client on each of so many keys, whose readers have so many connections.
fn scene(keys: usize, connections: usize) -> Scene {
    let (old, new) = (Redis::on_tcp(&[]), Redis::on_tcp(&[]));
    new.follow(&old);
    let leads_to = Arc::new(Mutex::new(old.socket()));
    let name = StandIn::at(leads_to.clone(), |_| Treatment::Pass);
    let setup = Setup::with_url(&name.url()).set("source", super::SHORT_BLOCK);
    let gateway = setup.set("source", &format!("connections = {connections}")).start_ready();
    let open = |key| Client::open(&gateway.address, &format!("/events/{key}"));
    let mut clients: Vec<_> = (0..keys).map(open).collect();
    clients.iter_mut().for_each(|client| drop(client.live()));
    for (key, client) in clients.iter_mut().enumerate() {
        gateway.publish(&format!("events:{key}"), "before");
        assert_eq!(client.entry().data, "before");
    }
    // A client that resumes opens a shared connection.
    let mut resumed = Client::open(&gateway.address, "/events/0?last_event_id=earliest");
    assert_eq!(resumed.entry().data, "before");
    let last = format!("events:{}", keys - 1);
    within(SOON, "the replica has it", || new.run(&["XLEN", &last]) == old.run(&["XLEN", &last]));
    Scene { old, new, leads_to, gateway, clients }
}

/// The old primary gets nothing from the new one: it is kept, and does not find its primary.
#[test]
fn a_reader_leaves_a_demoted_server_for_the_one_that_its_name_leads_to() {
    leaves_a_demoted_server(scene(1, 64));
}

/// As `a_reader_leaves_a_demoted_server_for_the_one_that_its_name_leads_to`.
#[test]
fn readers_that_share_connections_leave_a_demoted_server_as_well() {
    leaves_a_demoted_server(scene(20, 2));
}

#[track_caller]
fn leaves_a_demoted_server(mut scene: Scene) {
    scene.new.run(&["REPLICAOF", "NO", "ONE"]);
    scene.old.run(&["REPLICAOF", "127.0.0.1", "1"]);
    // Every reader has come back to the old one by now, as the name still leads there.
    within(SOON, "the reader is back", || scene.old.blocked() > 0);
    *scene.leads_to.lock().unwrap() = scene.new.socket();
    within(4 * SOON, "the new primary is published to", || {
        scene.gateway.post("events:0", "after").status == 200
    });
    for key in 1..scene.clients.len() {
        scene.gateway.publish(&format!("events:{key}"), "after");
    }
    for client in &mut scene.clients {
        assert_eq!(client.event().data, "after", "and no gap before it");
    }
    let mut resumed = Client::open(&scene.gateway.address, "/events/0?last_event_id=earliest");
    assert_eq!([resumed.entry().data, resumed.entry().data], ["before", "after"]);
}
