//! What it costs to look at a stream whose first and last entry are large, servers that answer a look late, and servers
//! that close a connection for which they hold too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::SHORT_BLOCK;
use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::redis::{Answer, Redis};
use crate::support::stand_in::{StandIn, Treatment};

/// Bytes that Redis has sent so far.
fn sent_bytes(redis: &Redis) -> u64 {
    let Answer::Text(stats) = redis.run(&["INFO", "stats"]) else { panic!("no INFO") };
    let line = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_stream_with_a_large_entry_is_looked_at_less_often() {
    const ENTRIES: u64 = 50;
    let redis = Redis::start();
    redis.add("events:a", &"x".repeat(500_000));
    let gateway = Setup::redis(&redis).set("source", "block = \"60s\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    redis.add("events:a", "first");
    assert_eq!(client.entry().data, "first");
    let before = sent_bytes(&redis);
    for number in 0..ENTRIES {
        let payload = number.to_string();
        redis.add("events:a", &payload);
        assert_eq!(client.entry().data, payload);
    }
    let bytes = sent_bytes(&redis) - before;
    assert!(bytes < 2_000_000, "{bytes} bytes for {ENTRIES} small entries");
}

/// While nothing comes, the length shows whether anything happened.
#[test]
fn an_idle_stream_with_a_large_entry_costs_little_and_its_reset_is_told() {
    let redis = Redis::start();
    redis.add("events:a", &"x".repeat(500_000));
    let gateway = Setup::redis(&redis).set("source", "block = \"20ms\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let (reads, before) = (redis.calls("xread"), sent_bytes(&redis));
    crate::support::eventually("it has read often", || redis.calls("xread") > reads + 30);
    let bytes = sent_bytes(&redis) - before;
    assert!(bytes < 2_000_000, "{bytes} bytes for thirty empty reads");
    redis.run(&["DEL", "events:a"]);
    assert_eq!(client.control().0["reason"], "reset");
}

/// What is trimmed before a read does not show in a look that comes after more was added and trimmed.
#[test]
fn what_was_lost_before_a_read_is_told_there_although_its_look_comes_later() {
    let redis = Arc::new(Redis::start());
    redis.add("events:a", &"x".repeat(500_000));
    let (trims, writer) = (Arc::new(AtomicUsize::new(0)), redis.clone());
    let armed = trims.clone();
    let add_and_trim = move |payload: &str| {
        let added = redis.add("events:a", payload);
        redis.run(&["XTRIM", "events:a", "MAXLEN", "1"]);
        added
    };
    // Once before a read is served, and once between it and what is asked beside it.
    let stand_in = StandIn::before(&writer, move |words| {
        let at = ["XREAD", "XLEN"].iter().position(|name| words[0] == *name);
        if at.is_some_and(|at| {
            armed.compare_exchange(at + 1, at + 2, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        }) {
            add_and_trim("lost");
            add_and_trim(words[0].as_str());
        }
        Treatment::Pass
    });
    let gateway = Setup::with_url(&stand_in.url()).set("source", SHORT_BLOCK).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let first = writer.add("events:a", "first");
    assert_eq!(client.entry().data, "first");
    trims.store(1, Ordering::Relaxed);
    let (gap, _) = client.control();
    assert_eq!((gap["after"].as_str(), gap["lost"].as_u64()), (Some(&*first), Some(3)), "{gap}");
    assert_eq!(client.entry().data, "XLEN");
    assert_eq!(trims.load(Ordering::Relaxed), 3);
}

/// As servers do that are woken from a read and do not see what came with it.
#[test]
fn an_entry_does_not_wait_for_a_look_that_is_not_answered() {
    let redis = Redis::start();
    let skipped = Arc::new(AtomicUsize::new(0));
    let (counted, read) = (skipped.clone(), AtomicUsize::new(0));
    let stand_in = StandIn::before(&redis, move |words| match words.first().map(String::as_str) {
        Some("XREAD") => {
            let blocks = words.iter().any(|word| word == "BLOCK");
            read.store(usize::from(blocks), Ordering::Relaxed);
            Treatment::Pass
        }
        // The first one after a read is not seen, until another command comes.
        Some("XINFO") if read.swap(0, Ordering::Relaxed) == 1 => {
            counted.fetch_add(1, Ordering::Relaxed);
            Treatment::LaterIfAlong
        }
        _ => Treatment::Pass,
    });
    let gateway = Setup::with_url(&stand_in.url()).set("source", SHORT_BLOCK).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    for number in 0..20 {
        let payload = number.to_string();
        redis.add("events:a", &payload);
        assert_eq!(client.entry().data, payload);
    }
    assert!(skipped.load(Ordering::Relaxed) > 0);
    assert_eq!(gateway.metric("ssegate_redis_reconnects_total"), 0.0);
}

/// 400 entries of 10 KB came while the gateway stood still, and the server holds 1 MB for it.
#[test]
fn a_reply_over_the_servers_output_limit_is_asked_for_in_parts() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).set("source", "block = \"2s\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    for number in 0..100 {
        redis.add("events:a", &number.to_string());
        assert_eq!(client.entry().data, number.to_string());
    }
    redis.run(&["CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 0 0"]);
    gateway.signal("STOP");
    let payload = |number: usize| format!("{number}:{}", "x".repeat(10_000));
    (0..400).for_each(|number| drop(redis.add("events:a", &payload(number))));
    gateway.signal("CONT");
    for number in 0..400 {
        assert_eq!(client.entry().data, payload(number), "{number}");
    }
}

/// The first entry alone is more than the server holds for a client, so it never tells of the stream.
#[test]
fn a_reader_starts_where_no_look_succeeds() {
    let redis = Redis::start();
    redis.add("events:a", &"x".repeat(2_000_000));
    redis.add("events:a", "small");
    redis.run(&["CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 0 0"]);
    let gateway = Setup::redis(&redis).set("source", SHORT_BLOCK).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    gateway.has_logged("raise client-output-buffer-limit");
    for number in 0..5 {
        redis.add("events:a", &number.to_string());
        assert_eq!(client.entry().data, number.to_string());
    }
}
