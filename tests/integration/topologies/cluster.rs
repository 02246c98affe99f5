//! A cluster: keys on every node, a slot on the move, a primary that is killed or frozen.

use std::time::{Duration, Instant};

use super::replica::pause_replication;
use crate::support::client::Client;
use crate::support::cluster::Cluster;
use crate::support::gateway::{Gateway, Setup};
use crate::support::history::{Listener, Writer, ids};
use crate::support::redis::{Answer, Connection, PORT, Redis};
use crate::support::{eventually, pause_of_the_scenario, within};

const RECOVERY: Duration = Duration::from_secs(3);
/// `source.block` by default, and what a silent connection may take beyond it.
const BLOCK: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(3);

fn listeners(gateway: &Gateway, path: &str, count: usize) -> Vec<Listener> {
    let listen = |_| {
        let address = gateway.address.clone();
        Listener::start(path, None, move || address.clone())
    };
    (0..count).map(listen).collect()
}

/// All clients heard the last entry of the stream, and every gap.
#[track_caller]
pub(super) fn all_heard_all(listeners: &[Listener], kept_by: &Redis, key: &str) {
    let kept = ids(kept_by, key);
    let last = *kept.last().unwrap();
    eventually("all are level", || listeners.iter().all(|listener| listener.has(last)));
    for listener in listeners {
        let heard = listener.heard();
        heard.is_right(&kept);
        assert_eq!(heard.connections, 1, "nobody was cut off");
    }
}

fn writer(cluster: &Cluster, key: &str) -> Writer {
    writer_of(cluster, &[key.to_owned()])
}

/// Of keys of one slot.
pub(super) fn writer_of(cluster: &Cluster, keys: &[String]) -> Writer {
    let nodes: Vec<_> = cluster.nodes.iter().map(Redis::address).collect();
    let key_of = keys[0].clone();
    let find = move || {
        let ask = |address: &String| {
            let patience = Duration::from_millis(300);
            let mut node = Connection::to(address, patience)?;
            match node.run(&["XLEN", &key_of])? {
                Answer::Number(_) => Some(address.clone()),
                Answer::Error(words) if words.starts_with("MOVED") => {
                    Some(words.split(' ').nth(2)?.to_owned())
                }
                _ => None,
            }
        };
        // The one that is lost is the first, and frozen it would be waited for each time.
        nodes.iter().rev().find_map(ask)
    };
    Writer::start_on(keys, PAUSE, 0, find)
}

#[test]
fn keys_of_every_node_are_read_resumed_and_published_to() {
    let cluster = Cluster::start(0);
    let gateway = Setup::with_url(&cluster.url()).start_ready();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let name = cluster.name_at(index);
        let (path, key) = (format!("/events/{name}"), format!("events:{name}"));
        let mut client = Client::open(&gateway.address, &path);
        client.live();
        let id = node.add(&key, "live");
        assert_eq!(client.entry().last_event_id, id);
        let published = gateway.publish(&key, "published");
        assert_eq!(client.entry().last_event_id, published);
        assert!(node.calls("xread") > 0);
    }
    assert!(!gateway.log().contains("reader cannot read"), "{}", gateway.log());
}

#[test]
fn what_was_missed_is_replayed_from_the_node_that_has_it() {
    let cluster = Cluster::start(0);
    let ids: Vec<Vec<String>> = (0..3)
        .map(|node| {
            let key = format!("events:{}", cluster.name_at(node));
            (0..50).map(|number| cluster.nodes[node].add(&key, &number.to_string())).collect()
        })
        .collect();
    let gateway = Setup::with_url(&cluster.url()).start_ready();
    for (node, ids) in ids.iter().enumerate() {
        let path = format!("/events/{}", cluster.name_at(node));
        let mut client = Client::resume(&gateway.address, &path, &ids[9]);
        for id in &ids[10..] {
            assert_eq!(&client.entry().last_event_id, id);
        }
        assert_eq!(client.live().0, 40);
        let mut client = Client::open(&gateway.address, &format!("{path}?last=3"));
        assert_eq!(client.entry().last_event_id, ids[47]);
    }
}

/// As `redis-cli --cluster reshard` does it, with a pause in each state.
fn move_slot(cluster: &Cluster, key: &str, from: usize, to: usize) {
    let pause = || pause_of_the_scenario(Duration::from_millis(700), "each state lasts");
    open_slot(cluster, key, from, to);
    pause();
    move_key(cluster, key, from, to);
    pause();
    close_slot(cluster, key, from, to);
}

fn set_slot(cluster: &Cluster, key: &str, node: usize, words: &[&str]) {
    let slot = cluster.slot(key).to_string();
    let command: Vec<_> = ["CLUSTER", "SETSLOT", &slot].iter().chain(words).copied().collect();
    assert_eq!(cluster.nodes[node].run(&command), Answer::Text("OK".into()));
}

/// The slot is on its way; a client that asks for a key that is gone from there is redirected with ASK.
pub(crate) fn open_slot(cluster: &Cluster, key: &str, from: usize, to: usize) {
    set_slot(cluster, key, to, &["IMPORTING", &Cluster::id(&cluster.nodes[from])]);
    set_slot(cluster, key, from, &["MIGRATING", &Cluster::id(&cluster.nodes[to])]);
}

pub(crate) fn move_key(cluster: &Cluster, key: &str, from: usize, to: usize) {
    let (ip, port) = (&cluster.nodes[to].ip, PORT.to_string());
    let moved = cluster.nodes[from].run(&["MIGRATE", ip, &port, "", "0", "5000", "KEYS", key]);
    assert_eq!(moved, Answer::Text("OK".into()));
}

/// The slot has arrived.
pub(crate) fn close_slot(cluster: &Cluster, key: &str, from: usize, to: usize) {
    let id = Cluster::id(&cluster.nodes[to]);
    [to, from].into_iter().for_each(|node| set_slot(cluster, key, node, &["NODE", &id]));
}

#[test]
fn a_slot_that_moves_under_load_takes_its_readers_along() {
    let cluster = Cluster::start(0);
    let gateway = Setup::with_url(&cluster.url()).set("source", "block = \"1s\"").start_ready();
    let name = cluster.name_at(0);
    let key = format!("events:{name}");
    let writer = writer(&cluster, &key);
    let listeners = listeners(&gateway, &format!("/events/{name}"), 5);
    eventually("all are in the midst of it", || listeners.iter().all(|l| l.count() > 100));
    move_slot(&cluster, &key, 0, 1);
    let there = |count| {
        let address = cluster.nodes[1].address();
        writer.written().iter().filter(|entry| entry.by == address).count() > count
    };
    eventually("the other node takes the writes", || there(200));
    move_slot(&cluster, &key, 1, 2);
    let before = writer.written().len();
    eventually("writes go on", || writer.written().len() > before + 200);
    writer.end();
    all_heard_all(&listeners, &cluster.nodes[2], &key);
}

#[test]
fn a_read_that_blocks_while_its_slot_moves_is_answered_by_the_new_node() {
    let cluster = Cluster::start(0);
    let gateway = Setup::with_url(&cluster.url()).set("source", "block = \"1s\"").start_ready();
    let name = cluster.name_at(0);
    let key = format!("events:{name}");
    cluster.nodes[0].add(&key, "before");
    let path = format!("/events/{name}");
    let mut client = Client::open(&gateway.address, &path);
    let before = client.live().1;
    open_slot(&cluster, &key, 0, 1);
    move_key(&cluster, &key, 0, 1);
    let add = |text: &str| {
        let mut target = Connection::open(&cluster.nodes[1]).unwrap();
        target.run(&["ASKING"]).unwrap();
        match target.run(&["XADD", &key, "*", "payload", text]) {
            Some(Answer::Text(id)) => id,
            other => panic!("{other:?}"),
        }
    };
    // The key has arrived and the slot has not.
    let began = Instant::now();
    let id = add("on the way");
    assert_eq!(client.event().last_event_id, id);
    assert!(began.elapsed() < Duration::from_secs(4), "block and 3 s: {:?}", began.elapsed());
    let id = add("and on");
    assert_eq!(client.event().last_event_id, id);
    let published = gateway.publish(&key, "published");
    assert_eq!(client.event().last_event_id, published);
    assert_eq!(Client::resume(&gateway.address, &path, &before).entry().data, "on the way");
    close_slot(&cluster, &key, 0, 1);
    let id = cluster.nodes[1].add(&key, "there");
    assert_eq!(client.event().last_event_id, id);
}

/// Writes on while the first primary is lost, and holds what clients heard against the stream; when the
/// loss began, when its replica took the first write, and when each client heard of one.
fn replaced(
    cluster: &mut Cluster,
    lose: impl FnOnce(&mut Redis),
) -> (Instant, Instant, Vec<Instant>) {
    let gateway = Setup::with_url(&cluster.url()).start_ready();
    let name = cluster.name_at(0);
    let key = format!("events:{name}");
    let writer = writer(cluster, &key);
    let listeners = listeners(&gateway, &format!("/events/{name}"), 5);
    eventually("all are in the midst of it", || listeners.iter().all(|l| l.count() > 100));
    let began = Instant::now();
    lose(&mut cluster.nodes[0]);
    let replica = cluster.nodes[3].address();
    let by_replica = || writer.written().iter().filter(|e| e.by == replica).count() > 200;
    within(Duration::from_secs(30), "the replica takes the writes", by_replica);
    let written = writer.end();
    all_heard_all(&listeners, &cluster.nodes[3], &key);
    let after: Vec<_> = written.into_iter().filter(|entry| entry.by == replica).collect();
    let recovered = listeners.iter().map(|l| l.heard().heard_first(&after).unwrap()).collect();
    (began, after[0].at, recovered)
}

#[test]
fn a_primary_killed_under_load_is_replaced_by_its_replica() {
    let (_, first_write, recovered) = replaced(&mut Cluster::start(1), Redis::kill);
    for at in recovered {
        let took = at.saturating_duration_since(first_write);
        eprintln!("recovered {took:?} after the first write");
        assert!(took < RECOVERY, "{took:?}");
    }
}

/// Its connections stay open, and only the silence on them shows the loss.
#[test]
fn a_primary_frozen_under_load_is_replaced_by_its_replica() {
    let mut cluster = Cluster::start(1);
    let (began, _, recovered) = replaced(&mut cluster, |primary| primary.signal("STOP"));
    for at in recovered {
        let took = at - began;
        eprintln!("recovered {took:?} after the freeze");
        assert!(took < BLOCK + SILENCE, "{took:?}");
    }
}

#[test]
fn a_clusters_replicas_are_read_from() {
    let mut cluster = Cluster::start(1);
    let gateway =
        Setup::with_url(&cluster.url()).set("source", "read_from = \"replica\"").start_ready();
    let name = cluster.name_at(1);
    let (path, key) = (format!("/events/{name}"), format!("events:{name}"));
    let listeners = listeners(&gateway, &path, 2);
    eventually("they are live", || listeners.iter().all(Listener::is_live));
    let published = |text: &str| gateway.publish(&key, text).parse().unwrap();
    let id = published("to the primary");
    eventually("it comes", || listeners.iter().all(|listener| listener.has(id)));
    assert_eq!(cluster.nodes[1].calls("xread"), 0, "the primary is left in peace");
    assert!(cluster.nodes[4].calls("xread") > 0);
    cluster.nodes[4].kill();
    let id = published("and read from it");
    eventually("it comes from the primary", || listeners.iter().all(|l| l.has(id)));
    all_heard_all(&listeners, &cluster.nodes[1], &key);
}

/// A client of a gateway that reads from the replica of the second primary; its key.
fn on_a_replica(cluster: &Cluster) -> (Gateway, Client, String) {
    let gateway = Setup::with_url(&cluster.url())
        .set("source", "read_from = \"replica\"")
        .set("source", "block = \"1s\"")
        .start_ready();
    let name = cluster.name_at(1);
    let key = format!("events:{name}");
    let mut client = Client::open(&gateway.address, &format!("/events/{name}"));
    client.live();
    let id = cluster.nodes[1].add(&key, "from the replica");
    assert_eq!(client.event().last_event_id, id);
    assert_eq!(cluster.nodes[1].calls("xread"), 0, "the primary is left in peace");
    (gateway, client, key)
}

#[test]
fn a_clusters_replica_that_lost_its_primary_is_left_for_the_primary() {
    let cluster = Cluster::start(1);
    let (gateway, mut client, key) = on_a_replica(&cluster);
    pause_replication(&cluster.nodes[1]);
    let id = cluster.nodes[1].add(&key, "not on the replica");
    assert_eq!(client.event().last_event_id, id);
    gateway.has_logged("is a replica without its primary");
}

#[test]
fn a_clusters_replica_that_does_not_catch_up_is_left_for_the_primary_that_answers() {
    let cluster = Cluster::start(1);
    let (_gateway, mut client, key) = on_a_replica(&cluster);
    let (primary, replica) = (&cluster.nodes[1], &cluster.nodes[4]);
    replica.signal("STOP");
    let id = primary.add(&key, "from the primary");
    assert_eq!(client.event().last_event_id, id);
    pause_replication(primary);
    let id = primary.add(&key, "not on the replica");
    assert_eq!(client.event().last_event_id, id);
    replica.signal("CONT");
    let before = replica.calls("xread");
    eventually("the reader is back on the replica", || {
        primary.run(&["CLIENT", "KILL", "TYPE", "normal"]);
        replica.calls("xread") > before
    });
    let id = primary.add(&key, "neither");
    assert_eq!(client.event().last_event_id, id);
}

#[test]
fn few_rights_suffice_in_a_cluster_and_a_lack_is_the_operators() {
    const RIGHTS: &str = "on nopass resetkeys %R~events:* resetchannels -@all +xread +xrange \
        +xrevrange +xinfo|stream +ping +role +asking +readonly +cluster|slots";
    let cluster = Cluster::start(0);
    let set_user = |rights: &str| {
        for node in &cluster.nodes {
            let command: Vec<_> =
                ["ACL", "SETUSER", "gw"].into_iter().chain(rights.split_whitespace()).collect();
            assert_eq!(node.run(&command), Answer::Text("OK".into()));
        }
    };
    set_user(RIGHTS);
    let gateway = Setup::with_url(&cluster.url().replace("://", "://gw:any@")).start_ready();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let name = cluster.name_at(index);
        let ids: Vec<_> =
            (0..3).map(|n| node.add(&format!("events:{name}"), &n.to_string())).collect();
        let mut client = Client::resume(&gateway.address, &format!("/events/{name}"), &ids[0]);
        assert_eq!(client.entry().last_event_id, ids[1]);
        assert_eq!(client.entry().last_event_id, ids[2]);
        assert_eq!(client.live().0, 2);
    }
    set_user("-cluster|slots");
    let gateway = Setup::with_url(&cluster.url().replace("://", "://gw:any@")).start();
    eventually("it is logged", || gateway.log().contains("source refuses the login"));
    gateway.has_logged("cluster|slots");
}
