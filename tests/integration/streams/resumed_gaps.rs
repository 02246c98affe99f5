//! What Redis has lost and does not say, found when a client resumes.

use super::gaps::{KEY, add, is_told};
use super::prev;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Redis};

/// A stream of 10-0 to 50-0 that has not been read.
fn cold(change: impl Fn(Setup) -> Setup, commands: &[&[&str]]) -> (Redis, Gateway) {
    let redis = Redis::start();
    for id in ["10-0", "20-0", "30-0", "40-0", "50-0"] {
        add(&redis, id);
    }
    for command in commands {
        let answer = redis.run(command);
        assert!(!matches!(answer, Answer::Error(_)), "{answer:?}");
    }
    let gateway = change(Setup::redis(&redis)).start_ready();
    (redis, gateway)
}

#[track_caller]
fn replays(client: &mut Client, ids: &[&str], tail: &str) {
    for id in ids {
        assert_eq!(client.event().last_event_id, *id);
    }
    assert_eq!(client.live(), (ids.len() as u64, tail.into()));
}

#[test]
fn a_resume_below_what_is_kept_is_a_gap() {
    let (_redis, gateway) = cold(|setup| setup, &[&["XTRIM", KEY, "MAXLEN", "2"]]);
    for id in ["10-0", "15-0", "30-0"] {
        let mut client = Client::resume(&gateway.address, "/events/a", id);
        is_told(&mut client, (Some(id), Some("40-0"), None, "trimmed"), &prev("40-0"));
        replays(&mut client, &["40-0", "50-0"], "50-0");
    }
    let mut again = Client::resume(&gateway.address, "/events/a", &prev("40-0"));
    replays(&mut again, &["40-0", "50-0"], "50-0");
    let mut earliest = Client::open(&gateway.address, "/events/a?last_event_id=earliest");
    replays(&mut earliest, &["40-0", "50-0"], "50-0");
}

#[test]
fn a_resume_in_an_emptied_stream_is_exact_at_its_end_only() {
    let (redis, gateway) = cold(|setup| setup, &[&["XTRIM", KEY, "MAXLEN", "0"]]);
    let mut exact = Client::resume(&gateway.address, "/events/a", "50-0");
    replays(&mut exact, &[], "50-0");
    let mut below = Client::resume(&gateway.address, "/events/a", "40-0");
    is_told(&mut below, (Some("40-0"), None, None, "trimmed"), "50-0");
    replays(&mut below, &[], "50-0");
    add(&redis, "60-0");
    for mut client in [exact, below] {
        assert_eq!(client.event().last_event_id, "60-0");
    }
}

#[test]
fn a_resume_at_a_deleted_entry_is_exact() {
    let (_redis, gateway) = cold(|setup| setup, &[&["XDEL", KEY, "30-0"]]);
    let mut client = Client::resume(&gateway.address, "/events/a", "30-0");
    replays(&mut client, &["40-0", "50-0"], "50-0");
}

#[test]
fn a_resume_before_a_deleted_end_is_a_gap_and_level_at_once() {
    let (redis, gateway) = cold(|setup| setup, &[&["XDEL", KEY, "50-0"]]);
    let mut client = Client::resume(&gateway.address, "/events/a", "40-0");
    is_told(&mut client, (Some("40-0"), None, None, "deleted"), "50-0");
    replays(&mut client, &[], "50-0");
    add(&redis, "60-0");
    assert_eq!(client.event().last_event_id, "60-0");
}

#[test]
fn a_resume_of_a_key_that_is_gone_is_a_reset_and_waits() {
    let (redis, gateway) = cold(|setup| setup, &[&["DEL", KEY]]);
    let mut client = Client::resume(&gateway.address, "/events/a", "30-0");
    is_told(&mut client, (Some("30-0"), None, None, "reset"), "0-0");
    replays(&mut client, &[], "0-0");
    add(&redis, "1-0");
    assert_eq!(client.event().last_event_id, "1-0");
}

#[test]
fn a_time_before_what_is_kept_is_a_gap() {
    let (redis, gateway) = cold(|setup| setup, &[&["DEL", KEY]]);
    let ids: Vec<_> = (0..3).map(|_| redis.add(KEY, "x")).collect();
    redis.run(&["XTRIM", KEY, "MAXLEN", "1"]);
    let mut client = Client::open(&gateway.address, "/events/a?since=15m");
    is_told(&mut client, (None, Some(&ids[2]), None, "trimmed"), &prev(&ids[2]));
    replays(&mut client, &[&ids[2]], &ids[2]);
}

#[test]
fn the_short_form_of_an_id_is_its_first_of_the_millisecond() {
    let (_redis, gateway) = cold(|setup| setup, &[]);
    let mut client = Client::open(&gateway.address, "/events/a?last_event_id=30");
    replays(&mut client, &["40-0", "50-0"], "50-0");
}

#[test]
fn a_deletion_after_the_id_of_a_resume_is_a_gap() {
    let (_redis, gateway) = cold(|setup| setup, &[&["XDEL", KEY, "20-0"]]);
    let mut client = Client::resume(&gateway.address, "/events/a", "10-0");
    // Which and how many, Redis cannot tell.
    is_told(&mut client, (Some("10-0"), Some("30-0"), None, "deleted"), &prev("30-0"));
    replays(&mut client, &["30-0", "40-0", "50-0"], "50-0");
    // A client that has the entries after it, or asks for what is kept, has lost nothing.
    let mut client = Client::resume(&gateway.address, "/events/a", "30-0");
    replays(&mut client, &["40-0", "50-0"], "50-0");
    let mut client = Client::open(&gateway.address, "/events/a?last_event_id=earliest");
    replays(&mut client, &["10-0", "30-0", "40-0", "50-0"], "50-0");
}

#[test]
fn a_deletion_at_the_end_is_a_gap_for_a_client_that_resumes() {
    let (_redis, gateway) = cold(|setup| setup, &[&["XDEL", KEY, "50-0"]]);
    let mut client = Client::resume(&gateway.address, "/events/a", "30-0");
    is_told(&mut client, (Some("30-0"), Some("40-0"), None, "deleted"), &prev("40-0"));
    replays(&mut client, &["40-0"], "50-0");
}

#[test]
fn a_resume_past_the_ring_is_read_from_redis() {
    let (redis, gateway) = cold(|setup| setup.set("ring", "entries = 10"), &[]);
    let mut live = Client::open(&gateway.address, "/events/a");
    live.live();
    let ids: Vec<_> = (100..1100).map(|ms| format!("{ms}-0")).collect();
    for id in &ids {
        add(&redis, id);
        assert_eq!(live.event().last_event_id, *id);
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    for (from, result) in [(0, "redis"), (500, "redis"), (998, "ring"), (999, "ring")] {
        let mut client = Client::resume(&gateway.address, "/events/a", ids[from]);
        replays(&mut client, &ids[from + 1..], "1099-0");
        assert!(gateway.metric(&format!("ssegate_resume_total{{result=\"{result}\"}}")) > 0.0);
    }
    let resumed = |result| gateway.metric(&format!("ssegate_resume_total{{result=\"{result}\"}}"));
    assert!((1.9..2.1).contains(&resumed("redis")));
    assert!((1.9..2.1).contains(&resumed("ring")));
}
