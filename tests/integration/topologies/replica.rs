//! Replicas: what is read lags, what is written goes to the primary, and lag is no reset.

use std::time::{Duration, Instant};

use ssegate::sse::parse::Item;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, SOON, Setup};
use crate::support::history::{Listener, Writer, ids};
use crate::support::redis::{Answer, PORT, Redis};
use crate::support::{eventually, pause_of_the_scenario};

const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// A socket that leads to one server, then to another.
struct Door(crate::support::Folder);

impl Door {
    fn new() -> Self {
        Self(crate::support::Folder::new())
    }

    fn point(&self, redis: &Redis) {
        let _ = std::fs::remove_file(self.0.0.join("redis.sock"));
        std::os::unix::fs::symlink(redis.socket(), self.0.0.join("redis.sock")).unwrap();
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.0.0.join("redis.sock").display())
    }
}

pub(super) fn pair() -> (Redis, Redis) {
    let (primary, replica) = (Redis::on_tcp(&DURABLE), Redis::on_tcp(&[]));
    replica.follow(&primary);
    (primary, replica)
}

fn setup(redis: &Redis) -> Setup {
    Setup::with_url(&format!("redis://{}", redis.address()))
}

pub(super) fn on_replica(redis: &Redis) -> Setup {
    setup(redis).set("source", "read_from = \"replica\"")
}

/// The primary admits no replica, and the replica keeps answering.
pub(super) fn pause_replication(primary: &Redis) {
    let denied = primary.run(&["ACL", "SETUSER", "default", "-psync", "-sync"]);
    assert_eq!(denied, Answer::Text("OK".into()));
    primary.run(&["CLIENT", "KILL", "TYPE", "replica"]);
}

pub(super) fn resume_replication(primary: &Redis) {
    // Not SYNC as well: a replica that falls back to that counts its own bytes.
    let allowed = primary.run(&["ACL", "SETUSER", "default", "+psync"]);
    assert_eq!(allowed, Answer::Text("OK".into()));
}

/// An entry that the replica does not have, whose replication is paused.
fn ahead(primary: &Redis, replica: &Redis) -> String {
    let known = primary.add("events:a", "known");
    eventually("the replica has it", || ids(replica, "events:a").len() == 1);
    pause_replication(primary);
    let id = primary.add("events:a", "ahead");
    assert_eq!(ids(replica, "events:a").last().unwrap().to_string(), known);
    id
}

#[test]
fn what_is_published_goes_to_the_primary_and_comes_back_from_the_replica() {
    let (primary, replica) = pair();
    let gateway = on_replica(&replica).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let published = gateway.publish("events:a", "published");
    assert_eq!(client.entry().last_event_id, published);
    assert_eq!(ids(&primary, "events:a").len(), 1);
    assert_eq!(primary.calls("xread"), 0);
    // The configuration does not say that it is a replica; the gateway finds out.
    let unaware = setup(&replica).start_ready();
    let published = unaware.publish("events:a", "published again");
    assert_eq!(client.entry().last_event_id, published);
}

/// No event comes, and the stream does not end.
#[track_caller]
fn hears_nothing(client: &mut Client, wait: Duration) {
    let end = Instant::now() + wait;
    while let Some(item) = client.next_within(end.saturating_duration_since(Instant::now())) {
        assert!(matches!(item, Item::Comment(_)), "{item:?}");
    }
    assert!(!client.has_ended());
}

/// A client that knows more than the replica waits for it.
#[track_caller]
fn waits(gateway: &Gateway, primary: &Redis, replica: &Redis) {
    let id = ahead(primary, replica);
    let mut client = Client::resume(&gateway.address, "/events/a", &id);
    let mut other = Client::resume(&gateway.address, "/events/missing", &id);
    let (gap, _) = other.control();
    assert_eq!(gap["reason"], "reset", "the primary has no such key either: {gap}");
    hears_nothing(&mut client, Duration::from_secs(3));
    resume_replication(primary);
    assert_eq!(client.live(), (0, id));
    let next = primary.add("events:a", "next");
    assert_eq!(client.event().last_event_id, next);
}

#[test]
fn an_id_ahead_of_a_replica_is_no_reset() {
    let (primary, replica) = pair();
    let gateway = on_replica(&replica).start_ready();
    waits(&gateway, &primary, &replica);
}

#[test]
fn a_server_that_turns_out_to_be_a_replica_is_taken_for_one() {
    let (primary, replica) = pair();
    let gateway = setup(&replica).start_ready();
    waits(&gateway, &primary, &replica);
}

#[test]
fn a_primary_that_cannot_be_asked_is_no_answer() {
    let (mut primary, replica) = pair();
    let gateway = on_replica(&replica).set("server", "keepalive = \"1s\"").start_ready();
    let id = ahead(&primary, &replica);
    primary.kill();
    let mut client = Client::resume(&gateway.address, "/events/a", &id);
    client.comment("keepalive");
    client.comment("keepalive");
    client.comment("keepalive");
    primary.launch();
    assert_eq!(client.live(), (0, id));
    let next = primary.add("events:a", "next");
    assert_eq!(client.event().last_event_id, next);
}

#[test]
fn a_stream_recreated_on_the_primary_is_reset_once() {
    let (primary, replica) = pair();
    let gateway = on_replica(&replica).start_ready();
    let old: Vec<_> = (0..20).map(|n| primary.add("events:a", &n.to_string())).collect();
    eventually("the replica has them", || ids(&replica, "events:a").len() == 20);
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    primary.run(&["DEL", "events:a"]);
    let new: Vec<_> = (0..3).map(|n| primary.add("events:a", &n.to_string())).collect();
    let (gap, _) = client.control();
    assert_eq!((&gap["reason"], &gap["after"]), (&"reset".into(), &old[19].as_str().into()));
    for id in &new {
        assert_eq!(&client.event().last_event_id, id);
    }
    // A client of before comes from another gateway.
    let mut late = Client::resume(&gateway.address, "/events/a", &old[3]);
    assert_eq!(late.control().0["reason"], "reset");
    for id in &new {
        assert_eq!(&late.event().last_event_id, id);
    }
    assert_eq!(client.next_within(SOON / 25), None);
}

#[test]
fn a_reader_that_comes_to_a_replica_with_less_waits_for_it() {
    let (primary, ahead) = pair();
    let (behind, door) = (Redis::on_tcp(&[]), Door::new());
    behind.follow(&primary);
    door.point(&ahead);
    let gateway = Setup::with_url(&door.url())
        .set("source", "read_from = \"replica\"")
        .set("source", "block = \"500ms\"")
        .start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    primary.add("events:a", "0");
    eventually("both have it", || {
        [&ahead, &behind].iter().all(|redis| ids(redis, "events:a").len() == 1)
    });
    let pause = |redis: &Redis| redis.run(&["REPLICAOF", "NO", "ONE"]);
    pause(&behind);
    let ids: Vec<_> = (1..5).map(|n| primary.add("events:a", &n.to_string())).collect();
    client.entry();
    for id in &ids {
        assert_eq!(&client.event().last_event_id, id);
    }
    // Behind, and cut off from its primary while the gateway is not.
    behind.run(&["REPLICAOF", &primary.ip, &PORT.to_string()]);
    pause_replication(&primary);
    door.point(&behind);
    ahead.run(&["CLIENT", "KILL", "TYPE", "normal"]);
    hears_nothing(&mut client, Duration::from_secs(2));
    resume_replication(&primary);
    let next = primary.add("events:a", "next");
    assert_eq!(client.event().last_event_id, next, "nothing twice, and no gap");
}

/// It keeps answering, and no error shows that it gets nothing new.
#[test]
fn a_replica_that_lost_its_primary_is_reported_and_read_on_when_it_is_back() {
    let (primary, replica) = pair();
    let gateway = on_replica(&replica).set("source", "block = \"1s\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let known = primary.add("events:a", "known");
    assert_eq!(client.entry().last_event_id, known);
    pause_replication(&primary);
    let missed = primary.add("events:a", "missed");
    client.comment("reconnecting");
    gateway.has_logged("is a replica without its primary");
    // A new connection to it does not pass for good news.
    let end = Instant::now() + Duration::from_secs(4);
    while let Some(item) = client.next_within(end.saturating_duration_since(Instant::now())) {
        assert!(matches!(&item, Item::Comment(text) if text != "reconnected"), "{item:?}");
    }
    resume_replication(&primary);
    client.comment("reconnected");
    assert_eq!(client.event().last_event_id, missed);
}

#[test]
fn a_replica_whose_role_may_not_be_asked_is_read_as_configured() {
    let (primary, replica) = pair();
    replica.run(&["ACL", "SETUSER", "default", "-role"]);
    let gateway = on_replica(&replica).set("source", "block = \"100ms\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    eventually("it waited in vain a few times", || replica.calls("xread") > 5);
    let id = primary.add("events:a", "x");
    assert_eq!(client.event().last_event_id, id);
    let Answer::List(denials) = replica.run(&["ACL", "LOG"]) else { panic!("no log") };
    assert_eq!(denials.len(), 1, "it was asked for once: {denials:?}");
    assert!(format!("{denials:?}").contains("Text(\"count\"), Number(1)"), "{denials:?}");
}

/// Clients go to and fro between a gateway on the primary and one on a replica, which is paused.
#[track_caller]
fn clients_hop(pause: impl FnOnce(&Redis, &Redis), resume: impl FnOnce(&Redis, &Redis)) {
    let (primary, replica) = pair();
    let gateways = [setup(&primary).start_ready(), on_replica(&replica).start_ready()];
    let addresses = [0, 1].map(|index: usize| gateways[index].address.clone());
    let address = primary.address();
    let writer =
        Writer::start("events:a", Duration::from_millis(5), 0, move || Some(address.clone()));
    let listeners: Vec<_> = (0..12)
        .map(|index| {
            let (addresses, mut turn) = (addresses.clone(), index);
            let stay = Duration::from_millis(200 + 150 * index as u64);
            Listener::start("/events/a", Some(stay), move || {
                turn += 1;
                addresses[turn % 2].clone()
            })
        })
        .collect();
    eventually("all are in the midst of it", || listeners.iter().all(|l| l.count() > 100));
    pause(&primary, &replica);
    pause_of_the_scenario(Duration::from_secs(4), "the replica is paused");
    resume(&primary, &replica);
    let before = writer.written().len();
    eventually("writes go on", || writer.written().len() > before + 300);
    writer.end();
    let kept = ids(&primary, "events:a");
    let last = *kept.last().unwrap();
    eventually("all are level", || listeners.iter().all(|listener| listener.has(last)));
    for listener in &listeners {
        let heard = listener.heard();
        assert_eq!(heard.gaps, [""; 0], "nothing was lost, and nothing was recreated");
        heard.is_right(&kept);
        assert!(heard.connections > 2, "{}", heard.connections);
    }
}

#[test]
fn clients_that_hop_to_a_frozen_replica_hear_of_no_reset() {
    clients_hop(|_, replica| replica.signal("STOP"), |_, replica| replica.signal("CONT"));
}

#[test]
fn clients_that_hop_to_a_replica_that_lags_hear_of_no_reset() {
    clients_hop(|primary, _| pause_replication(primary), |primary, _| resume_replication(primary));
}

#[test]
fn a_user_who_may_not_ask_for_the_role_trusts_the_configuration() {
    let redis = Redis::on_tcp(&[]);
    redis.run(&["ACL", "SETUSER", "default", "-role"]);
    let gateway = setup(&redis).start_ready();
    redis.add("events:a", "old");
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    redis.run(&["DEL", "events:a"]);
    let new = redis.add("events:a", "new");
    assert_eq!(client.control().0["reason"], "reset");
    assert_eq!(client.event().last_event_id, new);
}

/// A client has heard `read`, and then its gateway is led to a server with another history.
struct Moved {
    client: Client,
    _gateway: Gateway,
    _servers: (Redis, Redis, Door),
}

impl Moved {
    fn new(read: &[&str], history: &[&str]) -> Self {
        let (old, new, door) = (Redis::start(), Redis::start(), Door::new());
        let add = |redis: &Redis, id: &str| redis.run(&["XADD", "events:a", id, "payload", id]);
        door.point(&old);
        let gateway = Setup::with_url(&door.url()).start_ready();
        let mut client = Client::open(&gateway.address, "/events/a");
        client.live();
        for id in read {
            add(&old, id);
            assert_eq!(client.entry().last_event_id, *id);
        }
        history.iter().for_each(|id| drop(add(&new, id)));
        door.point(&new);
        old.run(&["CLIENT", "KILL", "TYPE", "normal"]);
        Self { client, _gateway: gateway, _servers: (old, new, door) }
    }
}

#[test]
fn entries_of_another_server_before_the_cursor_are_not_skipped() {
    // Both had 1 and 2. Then the old one was cut off, and both were written to.
    let history = ["1-0", "2-0", "3-0", "4-0", "6-0"];
    let mut moved = Moved::new(&["1-0", "2-0", "5-0"], &history);
    let (gap, _) = moved.client.control();
    assert_eq!((&gap["reason"], &gap["after"]), (&"reset".into(), &"5-0".into()), "{gap}");
    for id in history {
        assert_eq!(moved.client.event().last_event_id, id);
    }
}

#[test]
fn the_same_history_on_another_server_is_continued() {
    let mut moved = Moved::new(&["1-0", "2-0"], &["1-0", "2-0", "3-0"]);
    assert_eq!(moved.client.event().last_event_id, "3-0");
}
