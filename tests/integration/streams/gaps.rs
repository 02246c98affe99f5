//! What Redis has lost and does not say, found while a client is live.

use serde_json::json;

use super::prev;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Connection, Redis};

pub(super) const KEY: &str = "events:a";

/// A stream of 10-0, 20-0 and 30-0, and a live client that has seen them.
struct Scene {
    redis: Redis,
    gateway: Gateway,
    client: Client,
}

/// As in the event: what is null is `None`.
pub(super) type Gap<'a> = (Option<&'a str>, Option<&'a str>, Option<u64>, &'a str);

impl Scene {
    fn new() -> Self {
        Self::with(|setup| setup)
    }

    fn with(change: impl Fn(Setup) -> Setup) -> Self {
        let redis = Redis::start();
        let setup = Setup::redis(&redis).set("source", "block = \"200ms\"");
        let gateway = change(setup).start_ready();
        let mut client = Client::open(&gateway.address, "/events/a");
        client.live();
        let mut scene = Self { redis, gateway, client };
        for id in ["10-0", "20-0", "30-0"] {
            scene.add(id);
            scene.hears(id);
        }
        scene
    }

    fn add(&self, id: &str) {
        add(&self.redis, id);
    }

    /// Runs these commands, of the stream's key each, as one transaction.
    fn at_once(&self, commands: &[&str]) {
        let mut connection = Connection::open(&self.redis).unwrap();
        connection.run(&["MULTI"]).unwrap();
        for command in commands {
            let words: Vec<&str> = command.split(' ').collect();
            connection.run(&[&[words[0], KEY], &words[1..]].concat()).unwrap();
        }
        let Some(Answer::List(answers)) = connection.run(&["EXEC"]) else { panic!("no EXEC") };
        for answer in answers {
            assert!(!matches!(answer, Answer::Error(_)), "{answer:?}");
        }
    }

    #[track_caller]
    fn hears(&mut self, id: &str) {
        assert_eq!(self.client.event().last_event_id, id);
    }

    #[track_caller]
    fn is_told(&mut self, gap: Gap<'_>, id: &str) {
        is_told(&mut self.client, gap, id);
    }

    /// A client that left right after the gap, and this one, hear these and what is added then.
    #[track_caller]
    fn goes_on(&mut self, gap_id: &str, ids: &[&str], then: &str) {
        for id in ids {
            self.hears(id);
        }
        let mut left = Client::resume(&self.gateway.address, "/events/a", gap_id);
        for id in ids {
            assert_eq!(left.event().last_event_id, *id);
        }
        assert_eq!(left.live().0, ids.len() as u64);
        self.add(then);
        for client in [&mut self.client, &mut left] {
            assert_eq!(client.event().last_event_id, then);
        }
    }
}

pub(super) fn add(redis: &Redis, id: &str) {
    let answer = redis.run(&["XADD", KEY, id, "payload", id]);
    assert_eq!(answer, Answer::Text(id.into()));
}

#[track_caller]
pub(super) fn is_told(client: &mut Client, (after, next, lost, reason): Gap<'_>, id: &str) {
    let gap = json!({"type": "gap", "after": after, "next": next, "lost": lost, "reason": reason});
    assert_eq!(client.control(), (gap, id.to_owned()));
}

#[test]
fn entries_trimmed_before_they_were_read_are_counted() {
    let mut scene = Scene::new();
    scene.at_once(&["XADD 40-0 a b", "XADD 50-0 a b", "XADD 60-0 a b", "XTRIM MAXLEN 1"]);
    scene.is_told((Some("30-0"), Some("60-0"), Some(2), "trimmed"), &prev("60-0"));
    scene.goes_on(&prev("60-0"), &["60-0"], "70-0");
}

#[test]
fn an_entry_trimmed_at_once_is_a_gap_without_a_next() {
    let mut scene = Scene::new();
    scene.at_once(&["XADD MAXLEN 0 40-0 a b"]);
    scene.is_told((Some("30-0"), None, Some(1), "trimmed"), "40-0");
    scene.goes_on("40-0", &[], "50-0");
}

#[test]
fn trimming_what_was_read_is_no_gap() {
    let mut scene = Scene::new();
    scene.at_once(&["XTRIM MAXLEN 0"]);
    scene.add("40-0");
    scene.hears("40-0");
    scene.at_once(&["XDEL 40-0", "XADD 50-0 a b"]);
    scene.hears("50-0");
}

#[test]
fn a_burst_over_maxlen_loses_nothing_silently() {
    let mut scene = Scene::new();
    let mut connection = Connection::open(&scene.redis).unwrap();
    for n in 1..=5000 {
        let id = format!("{}-0", 100 + n);
        connection
            .send(&[b"XADD", KEY.as_bytes(), b"MAXLEN", b"1000", id.as_bytes(), b"payload", b"x"])
            .unwrap();
    }
    for _ in 0..5000 {
        connection.answer().unwrap();
    }
    let (mut heard, mut lost, mut last) = (0, 0, 100);
    while heard + lost < 5000 {
        let event = scene.client.event();
        if event.event_type == "ssegate" {
            let gap: serde_json::Value = serde_json::from_str(&event.data).unwrap();
            // Where Redis trimmed on between a read and the look at the stream, the gap comes late.
            lost += gap["lost"].as_u64().unwrap_or_else(|| panic!("it is counted: {gap}"));
        } else {
            heard += 1;
            let id: u64 = event.last_event_id.trim_end_matches("-0").parse().unwrap();
            assert!(id > last, "{id} after {last}");
            last = id;
        }
    }
    assert_eq!(last, 5100);
    assert_eq!(heard + lost, 5000);
    scene.add("6000-0");
    scene.hears("6000-0");
}

#[test]
fn an_entry_deleted_before_the_next_is_counted() {
    let mut scene = Scene::new();
    scene.at_once(&["XADD 40-0 a b", "XADD 50-0 a b", "XDEL 40-0"]);
    scene.is_told((Some("30-0"), Some("50-0"), Some(1), "deleted"), &prev("50-0"));
    scene.goes_on(&prev("50-0"), &["50-0"], "60-0");
}

#[test]
fn an_entry_deleted_at_the_end_is_counted() {
    let mut scene = Scene::new();
    scene.at_once(&["XADD 40-0 a b", "XADD 50-0 a b", "XDEL 50-0"]);
    scene.hears("40-0");
    scene.is_told((Some("40-0"), None, Some(1), "deleted"), "50-0");
    scene.goes_on("50-0", &[], "60-0");
}

#[test]
fn an_entry_deleted_amid_others_is_counted() {
    let mut scene = Scene::new();
    scene.at_once(&["XADD 40-0 a b", "XADD 50-0 a b", "XADD 60-0 a b", "XDEL 50-0"]);
    // Redis cannot say which one it was: the gap comes before all of them.
    scene.is_told((Some("30-0"), Some("40-0"), Some(1), "deleted"), &prev("40-0"));
    scene.goes_on(&prev("40-0"), &["40-0", "60-0"], "70-0");
}

#[test]
fn a_gap_with_the_id_of_the_entry_before_it_reaches_a_client_that_left_between() {
    let mut scene = Scene::with(|setup| setup.set("source", "read_count = 1"));
    scene.at_once(&["XADD 35-0 a b", "XADD 40-0 a b", "XADD 40-1 a b", "XDEL 35-0"]);
    scene.hears("40-0");
    let gap = (Some("40-0"), Some("40-1"), Some(1), "deleted");
    scene.is_told(gap, "40-0");
    scene.hears("40-1");
    let mut left = Client::resume(&scene.gateway.address, "/events/a", "40-0");
    is_told(&mut left, gap, "40-0");
    assert_eq!(left.event().last_event_id, "40-1");
}

#[test]
fn the_only_new_entry_deleted_is_counted() {
    let mut scene = Scene::new();
    scene.at_once(&["XADD 40-0 a b", "XDEL 40-0"]);
    scene.is_told((Some("30-0"), None, Some(1), "deleted"), "40-0");
    scene.goes_on("40-0", &[], "50-0");
}

#[test]
fn deleting_what_was_read_is_no_gap() {
    let mut scene = Scene::new();
    scene.at_once(&["XDEL 20-0", "XDEL 30-0", "XADD 40-0 a b"]);
    scene.hears("40-0");
    scene.at_once(&["XDEL 10-0", "XDEL 40-0"]);
    scene.at_once(&["XADD 50-0 a b"]);
    scene.hears("50-0");
}

#[test]
fn a_stream_recreated_with_greater_ids_is_a_reset() {
    let mut scene = Scene::new();
    scene.at_once(&["DEL", "XADD 40-0 a b"]);
    scene.is_told((Some("30-0"), Some("40-0"), None, "reset"), &prev("40-0"));
    scene.goes_on(&prev("40-0"), &["40-0"], "50-0");
}

#[test]
fn a_stream_recreated_below_and_above_is_read_from_its_beginning() {
    let mut scene = Scene::new();
    scene.at_once(&["DEL", "XADD 25-0 a b", "XADD 35-0 a b", "XADD 45-0 a b"]);
    scene.is_told((Some("30-0"), Some("25-0"), None, "reset"), &prev("25-0"));
    scene.goes_on(&prev("25-0"), &["25-0", "35-0", "45-0"], "50-0");
}

#[test]
fn a_stream_recreated_with_lower_ids_is_a_reset() {
    let mut scene = Scene::new();
    scene.at_once(&["DEL", "XADD 5-0 a b"]);
    scene.is_told((Some("30-0"), Some("5-0"), None, "reset"), &prev("5-0"));
    scene.goes_on(&prev("5-0"), &["5-0"], "6-0");
}

/// Nothing wakes the reader until its block ends; a client that connects meanwhile gets nothing twice.
#[test]
fn a_client_that_connects_before_the_reader_notices_a_reset_gets_it_once() {
    let mut scene = Scene::with(|setup| setup.set("source", "block = \"2s\""));
    scene.at_once(&["DEL", "XADD 5-0 a b", "XADD 6-0 a b"]);
    let mut earliest = Client::open(&scene.gateway.address, "/events/a?last_event_id=earliest");
    let mut resumed = Client::resume(&scene.gateway.address, "/events/a", "40-0");
    is_told(&mut resumed, (Some("40-0"), Some("5-0"), None, "reset"), &prev("5-0"));
    for client in [&mut earliest, &mut resumed] {
        // It may be level with the reader, which has reported the reset and not read on yet.
        let (mut live_marks, mut ids) = (0, Vec::new());
        while live_marks < 1 || ids.len() < 2 {
            let event = client.event();
            match &*event.event_type {
                "ssegate" if event.data.contains("\"live\"") => live_marks += 1,
                "message" => ids.push(event.last_event_id),
                _ => panic!("{event:?}"),
            }
        }
        assert_eq!((live_marks, ids), (1, vec!["5-0".to_owned(), "6-0".to_owned()]));
    }
    scene.is_told((Some("30-0"), Some("5-0"), None, "reset"), &prev("5-0"));
    scene.hears("5-0");
    scene.hears("6-0");
    scene.add("7-0");
    for client in [&mut scene.client, &mut earliest, &mut resumed] {
        assert_eq!(client.event().last_event_id, "7-0");
    }
}

#[test]
fn ids_set_back_are_a_reset() {
    let mut scene = Scene::new();
    scene.at_once(&["XTRIM MAXLEN 0", "XSETID 5-0"]);
    scene.is_told((Some("30-0"), None, None, "reset"), "5-0");
    scene.goes_on("5-0", &[], "6-0");
}

#[test]
fn everything_flushed_is_a_reset() {
    let mut scene = Scene::new();
    scene.redis.run(&["FLUSHALL"]);
    scene.is_told((Some("30-0"), None, None, "reset"), "0-0");
    scene.goes_on("0-0", &[], "40-0");
}
