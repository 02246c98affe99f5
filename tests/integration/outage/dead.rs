//! Connections that die, in every way that a network has: noticed within `block` + 3 s, whatever they are
//! used for, and nothing is lost or comes twice.

use std::time::{Duration, Instant};

use super::{Heard, expect, live};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Connection, Redis};
use crate::support::wire::{Close, Way, Wire};
use crate::support::{eventually, within};

const BLOCK: &str = "block = \"500ms\"";
/// `block` + 3 s, and what a loaded machine adds.
pub(super) const NOTICED: Duration = Duration::from_millis(3_500 + 1_500);
/// From the end of a fault until all clients are level again, likewise.
const RECOVERED: Duration = Duration::from_millis(3_000 + 1_500);
/// A command that does not block is given up after this, likewise.
const ANSWERED: Duration = Duration::from_millis(3_000 + 1_500);

/// How long a plain reader is watched that should have had its answer long ago.
const PATIENCE: Duration = Duration::from_secs(2);

/// A gateway that keeps no more than four entries in memory, behind a network.
fn behind(wire: &Wire) -> Gateway {
    Setup::with_url(&wire.url())
        .set("source", BLOCK)
        .set("ring", "entries = 4")
        .set("server", "keepalive = \"1m\"")
        .start_ready()
}

fn add(redis: &Redis, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| redis.add("events:a", &number.to_string())).collect()
}

/// A fault of every connection, until it is repaired: reported in time, and everything comes after it.
fn is_noticed(break_: impl FnOnce(&Wire)) {
    is_noticed_and(break_, |_| ());
}

/// The same; it is repaired after `meanwhile`.
fn is_noticed_and(break_: impl FnOnce(&Wire), meanwhile: impl FnOnce(&Gateway)) {
    let redis = Redis::start();
    let wire = Wire::to(&redis);
    let gateway = behind(&wire);
    let mut client = live(&gateway, "/events/a");
    expect(&mut client, &add(&redis, 0..3));
    break_(&wire);
    let begin = Instant::now();
    let mut ids = add(&redis, 3..8);
    let mut heard = Heard::default();
    heard.listen(&mut client, |heard| heard.count("reconnecting") == 1);
    assert!(begin.elapsed() < NOTICED, "noticed after {:?}", begin.elapsed());
    ids.extend(add(&redis, 8..20));
    meanwhile(&gateway);
    wire.mend();
    let mended = Instant::now();
    heard.listen(&mut client, |heard| heard.entries.len() >= ids.len());
    assert!(mended.elapsed() < RECOVERED, "level after {:?}", mended.elapsed());
    is_all_once(&mut client, &heard, &ids);
}

/// It heard all of them, and of the fault once.
fn is_all_once(client: &mut Client, heard: &Heard, ids: &[String]) {
    assert_eq!(heard.entries, ids);
    assert_eq!((heard.count("reconnecting"), heard.count("reconnected")), (1, 1));
    assert!(heard.controls.is_empty(), "{:?}", heard.controls);
    assert_eq!(client.next_within(Duration::from_millis(300)), None);
}

#[test]
fn a_reset_is_noticed() {
    is_noticed(|wire| wire.close(Close::Rst));
}

#[test]
fn an_end_is_noticed() {
    is_noticed(|wire| wire.close(Close::Fin));
}

#[test]
fn silence_both_ways_is_noticed() {
    is_noticed(|wire| wire.hold(&[Way::ToRedis, Way::FromRedis]));
}

#[test]
fn questions_that_do_not_arrive_are_noticed() {
    is_noticed(|wire| wire.hold(&[Way::ToRedis]));
}

#[test]
fn answers_that_do_not_arrive_are_noticed() {
    is_noticed(|wire| wire.hold(&[Way::FromRedis]));
}

#[test]
fn half_an_answer_is_noticed() {
    // Of an XREAD's answer, in the midst of an id, of a payload's length, of the XINFO behind it.
    for bytes in [30, 60, 150] {
        is_noticed(|wire| wire.hold_answers_after(bytes));
    }
}

/// How many reads, or connects of the reader, got no answer.
fn timed_out(gateway: &Gateway, times: f64) {
    let name = "ssegate_reader_errors_total{code=\"TIMEOUT\"}";
    eventually("nobody answers", || gateway.metric(name) >= times);
}

/// The machine is switched off: nothing comes back, not even to new connections.
#[test]
fn packets_that_vanish_are_noticed() {
    is_noticed_and(Wire::vanish, |gateway| timed_out(gateway, 2.0));
}

#[test]
fn a_reset_by_a_peer_that_then_vanishes_is_noticed() {
    let vanish = |wire: &Wire| {
        wire.vanish();
        wire.close(Close::Rst);
    };
    is_noticed_and(vanish, |gateway| timed_out(gateway, 1.0));
}

/// The network forgets the connections and serves new ones. A plain reader waits on: no time that it
/// asked Redis to wait for ends a read whose answer is lost.
#[test]
fn connections_that_were_lost_are_replaced() {
    let redis = Redis::start();
    let wire = Wire::to(&redis);
    let gateway = behind(&wire);
    let mut client = live(&gateway, "/events/a");
    let before = add(&redis, 0..3);
    expect(&mut client, &before);
    let mut plain = Connection::to(wire.url().strip_prefix("redis://").unwrap(), PATIENCE).unwrap();
    let read = ["XREAD", "BLOCK", "500", "STREAMS", "events:a", &before[2]];
    assert_eq!(plain.run(&read), Some(Answer::Null), "it reads as well as we do");
    plain.send(&read.map(str::as_bytes)).unwrap();
    eventually("both wait", || redis.blocked() == 2);
    wire.lose();
    let begin = Instant::now();
    let ids = add(&redis, 3..20);
    let mut heard = Heard::default();
    heard.listen(&mut client, |heard| heard.entries.len() >= ids.len());
    assert!(begin.elapsed() < NOTICED, "level after {:?}", begin.elapsed());
    is_all_once(&mut client, &heard, &ids);
    let asked = Instant::now();
    assert_eq!(plain.answer(), None);
    assert!(asked.elapsed() >= PATIENCE, "it learned that its connection is dead");
}

/// Publishes and probes fail in time, and succeed when all is well again.
fn is_noticed_by_all_others(break_: impl FnOnce(&Wire)) {
    let redis = Redis::start();
    let wire = Wire::to(&redis);
    let gateway = behind(&wire);
    gateway.publish("events:a", "before");
    break_(&wire);
    let begin = Instant::now();
    let refused = gateway.post("events:a", "meanwhile");
    assert_eq!(refused.status, 504, "the outcome is not known: {refused:?}");
    assert!(begin.elapsed() < ANSWERED, "refused after {:?}", begin.elapsed());
    // It is asked every 5 s.
    within(Duration::from_secs(5) + ANSWERED, "strict fails", || {
        gateway.admin_get("/readyz?strict").status == 503
    });
    assert_eq!(gateway.admin_get("/readyz").status, 200);
    wire.mend();
    let mended = Instant::now();
    eventually("strict is content", || gateway.admin_get("/readyz?strict").status == 200);
    gateway.publish("events:a", "after");
    assert!(mended.elapsed() < RECOVERED, "well after {:?}", mended.elapsed());
    assert!(entries_of(&redis, "meanwhile") <= 1, "it was sent again");
}

fn entries_of(redis: &Redis, payload: &str) -> usize {
    let all = redis.run(&["XRANGE", "events:a", "-", "+"]);
    format!("{all:?}").matches(&format!("{payload:?}")).count()
}

/// A plain publisher repeats an unanswered publish, and the stream has it twice. Ours answers that it does
/// not know the outcome.
#[test]
fn an_unanswered_publish_is_not_repeated() {
    let redis = Redis::start();
    let wire = Wire::to(&redis);
    let gateway = behind(&wire);
    gateway.publish("events:a", "before");
    wire.hold(&[Way::FromRedis]);
    let refused = gateway.post("events:a", "ours");
    assert_eq!(refused.status, 504, "{refused:?}");
    assert!(refused.body.contains("is not known"), "{refused:?}");
    let publish = || {
        let address = wire.url();
        let address = address.strip_prefix("redis://").unwrap();
        let mut plain = Connection::to(address, PATIENCE).unwrap();
        plain.run(&["XADD", "events:a", "*", "payload", "theirs"])
    };
    assert_eq!(publish(), None);
    wire.mend();
    assert!(matches!(publish(), Some(Answer::Text(_))));
    gateway.publish("events:a", "after");
    assert_eq!((entries_of(&redis, "theirs"), entries_of(&redis, "ours")), (2, 1));
}

#[test]
fn a_reset_is_noticed_by_publishes_and_probes() {
    is_noticed_by_all_others(|wire| wire.close(Close::Rst));
}

#[test]
fn silence_is_noticed_by_publishes_and_probes() {
    is_noticed_by_all_others(|wire| wire.hold(&[Way::ToRedis, Way::FromRedis]));
}

#[test]
fn half_an_answer_is_noticed_by_publishes_and_probes() {
    is_noticed_by_all_others(|wire| wire.hold_answers_after(2));
}

/// Clients that resume where memory does not reach, while nothing is answered.
fn is_noticed_by_a_resume(break_: impl FnOnce(&Wire)) {
    let redis = Redis::start();
    let wire = Wire::to(&redis);
    let gateway = behind(&wire);
    let mut early = live(&gateway, "/events/a");
    let ids = add(&redis, 0..40);
    expect(&mut early, &ids);
    break_(&wire);
    let begin = Instant::now();
    let mut resumed = Client::resume(&gateway.address, "/events/a", &ids[0]);
    let mut earliest = Client::open(&gateway.address, "/events/a?last_event_id=earliest");
    for client in [&mut resumed, &mut earliest] {
        client.comment("reconnecting");
        assert!(begin.elapsed() < NOTICED, "noticed after {:?}", begin.elapsed());
    }
    wire.mend();
    let mended = Instant::now();
    expect(&mut resumed, &ids[1..]);
    expect(&mut earliest, &ids);
    assert!(mended.elapsed() < RECOVERED, "level after {:?}", mended.elapsed());
    assert_eq!((resumed.live().0, earliest.live().0), (39, 40));
    let next = add(&redis, 40..41);
    for client in [&mut early, &mut resumed, &mut earliest] {
        let mut heard = Heard::default();
        heard.listen(client, |heard| heard.entries == next);
    }
}

#[test]
fn a_reset_is_noticed_by_a_resume() {
    is_noticed_by_a_resume(|wire| wire.close(Close::Rst));
}

#[test]
fn silence_is_noticed_by_a_resume() {
    is_noticed_by_a_resume(|wire| wire.hold(&[Way::ToRedis, Way::FromRedis]));
}

#[test]
fn half_an_answer_is_noticed_by_a_resume() {
    is_noticed_by_a_resume(|wire| wire.hold_answers_after(600));
}

/// The links that are kept for later have died meanwhile: it takes one silence to find out.
#[test]
fn links_that_were_lost_while_nobody_used_them_are_replaced() {
    let redis = Redis::start();
    let wire = Wire::to(&redis);
    let gateway = behind(&wire);
    let mut early = live(&gateway, "/events/a");
    let ids = add(&redis, 0..40);
    expect(&mut early, &ids);
    // As many at once as there may be links.
    let at_once = wire.connections();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| gateway.publish("events:b", &"x".repeat(100_000)));
        }
    });
    assert!(
        wire.connections() > at_once + 1,
        "only {} links besides",
        wire.connections() - at_once
    );
    wire.lose();
    let begin = Instant::now();
    let mut resumed = Client::resume(&gateway.address, "/events/a", &ids[0]);
    expect(&mut resumed, &ids[1..]);
    assert!(begin.elapsed() < NOTICED, "level after {:?}", begin.elapsed());
    // What was sent over a connection that had died is not known; the next one is sent over another.
    assert_eq!(gateway.post("events:b", "lost").status, 504);
    gateway.publish("events:b", "after");
    assert_eq!(entries_of(&redis, "lost"), 0);
}
