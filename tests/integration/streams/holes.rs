//! Entries that Redis 8.2 trimmed from the middle of a stream: what all consumer groups have acknowledged goes, what
//! one has not stays. Nothing but the counts tells of them.

use super::gaps::{KEY, add, is_told};
use super::prev;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Redis};

/// The entries 1-0 to 10-0, of which a group has acknowledged 3-0 to 9-0.
fn acknowledged(redis: &Redis) {
    redis.run(&["XGROUP", "CREATE", KEY, "group", "0", "MKSTREAM"]);
    (1..=10).for_each(|ms| add(redis, &format!("{ms}-0")));
    redis.run(&["XREADGROUP", "GROUP", "group", "me", "STREAMS", KEY, ">"]);
    let ids: Vec<_> = (3..=9).map(|ms| format!("{ms}-0")).collect();
    let words = ["XACK", KEY, "group"].into_iter().chain(ids.iter().map(String::as_str));
    assert_eq!(redis.run(&words.collect::<Vec<_>>()), Answer::Number(7));
}

fn trim(redis: &Redis) {
    assert_eq!(redis.run(&["XTRIM", KEY, "MAXLEN", "=", "3", "ACKED"]), Answer::Number(7));
}

/// A stream with the entries 1-0, 2-0 and 10-0, that has not been read.
fn cold() -> (Redis, Gateway) {
    let redis = Redis::of_8_2();
    acknowledged(&redis);
    trim(&redis);
    let gateway = Setup::redis(&redis).start_ready();
    (redis, gateway)
}

#[test]
fn a_resume_before_a_hole_is_a_gap_without_a_number() {
    let (redis, gateway) = cold();
    let mut client = Client::resume(&gateway.address, "/events/a", "2-0");
    is_told(&mut client, (Some("2-0"), Some("10-0"), None, "trimmed"), &prev("10-0"));
    assert_eq!(client.event().last_event_id, "10-0");
    assert_eq!(client.live(), (1, "10-0".into()));
    add(&redis, "11-0");
    assert_eq!(client.event().last_event_id, "11-0");
}

#[test]
fn a_resume_within_a_hole_is_a_gap_and_no_reset() {
    let (_redis, gateway) = cold();
    // The second and third find the page that was read for the first.
    for id in ["5-0", "5-0", "2-0", "9-0"] {
        let mut client = Client::resume(&gateway.address, "/events/a", id);
        is_told(&mut client, (Some(id), Some("10-0"), None, "trimmed"), &prev("10-0"));
        assert_eq!(client.event().last_event_id, "10-0");
        assert_eq!(client.live(), (1, "10-0".into()));
    }
    // A client that went away with the gap is not told of it again.
    let mut again = Client::resume(&gateway.address, "/events/a", &prev("10-0"));
    assert_eq!(again.event().last_event_id, "10-0");
    // Nothing can be missing behind the last entry; what is kept is what is kept.
    let mut level = Client::resume(&gateway.address, "/events/a", "10-0");
    assert_eq!(level.live(), (0, "10-0".into()));
    let mut earliest = Client::open(&gateway.address, "/events/a?last_event_id=earliest");
    for id in ["1-0", "2-0", "10-0"] {
        assert_eq!(earliest.event().last_event_id, id);
    }
    assert_eq!(earliest.live(), (3, "10-0".into()));
}

/// Where the end was trimmed as well, there is nothing to go on with.
#[test]
fn a_hole_up_to_the_end_is_a_gap_without_a_next() {
    let redis = Redis::of_8_2();
    redis.run(&["XGROUP", "CREATE", KEY, "group", "0", "MKSTREAM"]);
    (1..=5).for_each(|ms| add(&redis, &format!("{ms}-0")));
    redis.run(&["XREADGROUP", "GROUP", "group", "me", "STREAMS", KEY, ">"]);
    redis.run(&["XACK", KEY, "group", "4-0", "5-0"]);
    assert_eq!(redis.run(&["XTRIM", KEY, "MAXLEN", "=", "0", "ACKED"]), Answer::Number(2));
    let gateway = Setup::redis(&redis).start_ready();
    let mut client = Client::resume(&gateway.address, "/events/a", "3-0");
    is_told(&mut client, (Some("3-0"), None, None, "trimmed"), "3-0");
    assert_eq!(client.live(), (0, "5-0".into()));
}

/// A live client counts, and a reader whose connection was lost finds that its last entry is gone.
#[test]
fn a_reader_whose_last_entry_was_trimmed_goes_on() {
    let redis = Redis::of_8_2();
    let gateway = Setup::redis(&redis).set("source", "block = \"200ms\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    acknowledged(&redis);
    (1..=10).for_each(|ms| assert_eq!(client.event().last_event_id, format!("{ms}-0")));
    redis.run(&["XREADGROUP", "GROUP", "group", "me", "STREAMS", KEY, ">"]);
    redis.run(&["XACK", KEY, "group", "10-0"]);
    add(&redis, "11-0");
    assert_eq!(client.event().last_event_id, "11-0");
    // It has 11-0 as its cursor; that goes, and its neighbours stay.
    redis.run(&["XREADGROUP", "GROUP", "group", "me", "STREAMS", KEY, ">"]);
    redis.run(&["XACK", KEY, "group", "11-0"]);
    redis.run(&["CLIENT", "KILL", "TYPE", "normal"]);
    redis.run(&["XTRIM", KEY, "MAXLEN", "=", "2", "ACKED"]);
    redis.run(&["CLIENT", "KILL", "TYPE", "normal"]);
    add(&redis, "12-0");
    loop {
        // It may be told that Redis was away meanwhile.
        let event = client.event();
        if event.last_event_id == "12-0" {
            break;
        }
        assert!(!event.data.contains("gap"), "{event:?}");
    }
    eventually("the reader has gone on", || gateway.metric("ssegate_readers") == 1.0);
}

/// Other servers have groups as well, and make no holes: a resume there is exact.
#[test]
fn a_server_that_makes_no_holes_is_not_suspected() {
    let redis = Redis::start();
    acknowledged(&redis);
    redis.run(&["XTRIM", KEY, "MAXLEN", "=", "5"]);
    let makes_holes = redis.run(&["XTRIM", KEY, "MAXLEN", "=", "5", "ACKED"]) == Answer::Number(0);
    let gateway = Setup::redis(&redis).start_ready();
    let mut client = Client::resume(&gateway.address, "/events/a", "7-0");
    if makes_holes {
        // It may be that the tests run against such a server.
        is_told(&mut client, (Some("7-0"), Some("8-0"), None, "trimmed"), &prev("8-0"));
    }
    for id in ["8-0", "9-0", "10-0"] {
        assert_eq!(client.event().last_event_id, id);
    }
    assert_eq!(client.live(), (3, "10-0".into()));
}
