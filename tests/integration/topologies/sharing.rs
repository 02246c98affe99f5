//! More stream keys than connections, however Redis is laid out: each client gets every entry in order, or is told of
//! a gap that there is.

use std::slice;
use std::time::Duration;

use super::cluster::{all_heard_all, close_slot, move_key, open_slot, writer_of};
use super::replica::{on_replica, pair, pause_replication, resume_replication};
use super::sentinel::survives_with;
use crate::support::client::Client;
use crate::support::cluster::Cluster;
use crate::support::gateway::{Gateway, Setup};
use crate::support::history::{Listener, Writer};
use crate::support::redis::{Answer, Redis};
use crate::support::sentinel::{NAME, Trio};
use crate::support::{eventually, pause_of_the_scenario, within};

const KEYS: usize = 20;
/// One waits for news of all keys, the other one reads them.
const CONNECTIONS: &str = "connections = 2";
/// A key of a cluster, which says by its slot where it is.
const BY_SLOT: &str =
    "[[route]]\npath = \"/{slot}/{name}\"\nkey = \"{{{slot}}}:{name}\"\naccess = \"public\"\n";

fn names() -> Vec<String> {
    (0..KEYS).map(|number| number.to_string()).collect()
}

fn all_share(gateway: &Gateway) -> bool {
    let streams = gateway.streams();
    streams.as_array().unwrap().iter().all(|stream| stream["connection"]["shared"] == true)
}

#[test]
fn a_killed_primary_is_replaced_for_all_keys() {
    let mut trio = Trio::start();
    let gateway = Setup::with_url(&trio.url()).set("source", CONNECTIONS).start_ready();
    survives_with(&mut trio, &gateway, &names(), |trio, old| {
        assert!(all_share(&gateway));
        trio.servers[old].kill();
    });
    assert!(all_share(&gateway));
}

#[test]
fn a_primary_that_is_demoted_by_order_and_still_answers_is_left_for_all_keys() {
    let mut trio = Trio::start();
    let gateway = Setup::with_url(&trio.url()).set("source", CONNECTIONS).start_ready();
    survives_with(&mut trio, &gateway, &names(), |trio, _| {
        let answer = trio.sentinels[0].run(&["SENTINEL", "FAILOVER", NAME]);
        assert_eq!(answer, Some(Answer::Text("OK".into())));
    });
    assert!(all_share(&gateway));
}

/// Keys of one slot, what is written to them, and a client of each.
struct Slot {
    keys: Vec<String>,
    writer: Writer,
    listeners: Vec<Listener>,
}

impl Slot {
    /// The `nth` slot that this primary has a name for, with so many keys.
    fn start(
        cluster: &Cluster,
        gateway: &Gateway,
        primary: usize,
        nth: usize,
        keys: usize,
    ) -> Self {
        let mut tags = (0..).map(|number| format!("t{number}"));
        let is_there = |tag: &String| cluster.owner(&format!("{{{tag}}}")) == primary;
        let tag = tags.by_ref().filter(is_there).nth(nth).unwrap();
        let listen = |name: usize| {
            let address = gateway.address.clone();
            Listener::start(&format!("/{tag}/{name}"), None, move || address.clone())
        };
        let listeners = (0..keys).map(listen).collect();
        let keys: Vec<_> = (0..keys).map(|name| format!("{{{tag}}}:{name}")).collect();
        Self { writer: writer_of(cluster, &keys), keys, listeners }
    }

    /// Slots of a cluster, two of the first primary, with twenty keys in all.
    fn several(cluster: &Cluster, gateway: &Gateway) -> Vec<Self> {
        let places = [(0, 0, 10), (0, 1, 4), (1, 0, 3), (2, 0, 3)];
        let start = |(primary, nth, keys)| Self::start(cluster, gateway, primary, nth, keys);
        let slots: Vec<_> = places.into_iter().map(start).collect();
        for slot in &slots {
            eventually("all are in the midst of it", || {
                slot.listeners.iter().all(|l| l.count() > 10)
            });
        }
        assert!(all_share(gateway));
        slots
    }

    /// So many more entries are written, by this node.
    #[track_caller]
    fn goes_on(&self, at: &Redis) {
        let by_it = || self.writer.written().iter().filter(|e| e.by == at.address()).count();
        let before = by_it();
        within(Duration::from_secs(30), "writes go on", || by_it() > before + 10 * self.keys.len());
    }

    #[track_caller]
    fn ends_right(self, kept_by: &Redis) {
        self.writer.end();
        for (key, listener) in self.keys.iter().zip(&self.listeners) {
            all_heard_all(slice::from_ref(listener), kept_by, key);
        }
    }
}

fn in_cluster(cluster: &Cluster) -> Gateway {
    let setup = Setup::with_url(&cluster.url()).routes(BY_SLOT);
    setup.set("source", CONNECTIONS).set("source", "block = \"1s\"").start_ready()
}

#[test]
fn keys_whose_slot_moves_are_read_in_each_state_of_it_and_so_are_their_neighbours() {
    let cluster = Cluster::start(0);
    let gateway = in_cluster(&cluster);
    let slots = Slot::several(&cluster, &gateway);
    let (keys, pause) = (slots[0].keys.clone(), Duration::from_millis(700));
    open_slot(&cluster, &keys[0], 0, 1);
    pause_of_the_scenario(pause, "the slot is open, and all keys are where they were");
    let (some, others) = keys.split_at(keys.len() / 2);
    some.iter().for_each(|key| move_key(&cluster, key, 0, 1));
    slots[0].goes_on(&cluster.nodes[1]);
    pause_of_the_scenario(pause, "the keys are at two nodes");
    others.iter().for_each(|key| move_key(&cluster, key, 0, 1));
    pause_of_the_scenario(pause, "all keys have moved, and the slot has not");
    close_slot(&cluster, &keys[0], 0, 1);
    slots[0].goes_on(&cluster.nodes[1]);
    for (slot, node) in slots.into_iter().zip([1, 0, 1, 2]) {
        slot.ends_right(&cluster.nodes[node]);
    }
}

#[test]
fn a_primary_of_a_cluster_that_is_killed_is_replaced_for_all_its_keys() {
    let mut cluster = Cluster::start(1);
    let gateway = in_cluster(&cluster);
    let slots = Slot::several(&cluster, &gateway);
    cluster.nodes[0].kill();
    slots[..2].iter().for_each(|slot| slot.goes_on(&cluster.nodes[3]));
    for (slot, node) in slots.into_iter().zip([3, 3, 1, 2]) {
        slot.ends_right(&cluster.nodes[node]);
    }
}

#[test]
fn a_replica_without_its_primary_is_told_to_all_and_so_is_that_it_is_back() {
    let (primary, replica) = pair();
    let setup = on_replica(&replica).set("source", CONNECTIONS).set("source", "block = \"1s\"");
    let gateway = setup.start_ready();
    let open = |name: String| Client::open(&gateway.address, &format!("/events/{name}"));
    let mut clients: Vec<_> = names().into_iter().map(open).collect();
    clients.iter_mut().for_each(|client| drop(client.live()));
    let add = |payload: &str| -> Vec<_> {
        names().iter().map(|name| primary.add(&format!("events:{name}"), payload)).collect()
    };
    for (client, id) in clients.iter_mut().zip(add("known")) {
        assert_eq!(client.event().last_event_id, id);
    }
    assert!(all_share(&gateway));
    pause_replication(&primary);
    let missed = add("missed");
    clients.iter_mut().for_each(|client| client.comment("reconnecting"));
    resume_replication(&primary);
    for (client, id) in clients.iter_mut().zip(missed) {
        client.comment("reconnected");
        assert_eq!(client.event().last_event_id, id);
    }
}
