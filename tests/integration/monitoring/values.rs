//! The values of metrics, held against what happens.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

fn process(gateway: &Gateway, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{}/{file}", gateway.pid())).unwrap()
}

#[test]
fn the_process_is_described_as_the_kernel_sees_it() {
    let gateway = Setup::memory().start_ready();
    let metric = |name: &str| gateway.metric(&format!("process_{name}"));
    let limits = process(&gateway, "limits");
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let limit: f64 = limit.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(metric("max_fds"), limit);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
    let before = metric("open_fds");
    // The operator's connection is there while it asks.
    eventually("as many are open", || metric("open_fds") == open() as f64 + 1.0);
    let clients: Vec<_> = (0..20).map(|_| Client::open(&gateway.address, "/events/a")).collect();
    eventually("each has one", || metric("open_fds") >= before + clients.len() as f64);
    let resident = metric("resident_memory_bytes");
    assert!((1e6..1e9).contains(&resident), "{resident}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let age = now - metric("start_time_seconds");
    assert!((0.0..60.0).contains(&age), "{age}");
    assert_eq!(metric("start_time_seconds"), metric("start_time_seconds"));
    let used = metric("cpu_seconds_total");
    assert!(used > 0.0 && used < 60.0, "{used}");
    eventually("it goes on", || metric("cpu_seconds_total") > used);
}

#[test]
fn durations_bytes_and_times_are_counted() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).set("source", "linger = \"0s\"").start_ready();
    let metric = |name: &str| gateway.metric(&format!("ssegate_{name}"));
    assert_eq!(metric("buffered_bytes"), 0.0);
    assert_eq!(metric("buffered_limit_bytes"), f64::from(256 << 20));
    assert!(metric("redis_command_duration_seconds_count") >= 1.0, "Redis was asked for a PING");
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let (mut added, handed_on) = (0.0, || metric("fanout_duration_seconds_count"));
    let mut add = || {
        redis.add("events:a", "12345");
        client.entry();
        added += 1.0;
        added
    };
    // Its first events may reach it before a shard takes it in.
    eventually("a shard has taken it in", || add() > 3.0 && handed_on() > 0.0);
    let before = handed_on();
    for _ in 0..3 {
        add();
    }
    eventually("all were handed on", || handed_on() >= before + 3.0);
    assert!(handed_on() <= added, "once each");
    assert!(handed_on() <= before + 4.0, "once each, and one that was on its way before");
    assert_eq!(metric("reader_bytes_total"), added * "payload12345".len() as f64);
    assert_eq!(metric("reader_lag_entries"), 0.0, "all of them were read");
    let (sum, least) = (metric("fanout_duration_seconds_sum"), metric("buffered_bytes"));
    assert!(sum > 0.0 && sum < 30.0, "{sum}");
    assert!(least > 3.0 * 12.0, "{least}");
    assert_eq!(metric("client_duration_seconds_count"), 0.0, "it lives");
    client.leave();
    eventually("it has lived", || metric("client_duration_seconds_count") == 1.0);
    assert_eq!(metric("client_duration_seconds_bucket{le=\"+Inf\"}"), 1.0);
    let lived = metric("client_duration_seconds_sum");
    assert!(lived > 0.0 && lived < 60.0, "{lived}");
    eventually("its ring is given back", || metric("buffered_bytes") == 0.0);
}

#[test]
fn an_unreadable_key_is_reported_as_that_and_not_as_a_stalled_reader() {
    let redis = Redis::start();
    redis.run(&["SET", "events:a", "no stream"]);
    let gateway = Setup::redis(&redis).start_ready();
    Client::open(&gateway.address, "/events/a").rest();
    assert!(gateway.metric("ssegate_reader_errors_total{code=\"WRONGTYPE\"}") >= 1.0);
    assert_eq!(gateway.metric("ssegate_rejected_total{reason=\"WRONGTYPE\"}"), 1.0);
    let polled = || gateway.metric("ssegate_reader_last_poll_timestamp_seconds");
    let first = polled();
    eventually("nobody waits for it", || polled() > first);
}

#[test]
fn an_answer_that_hyper_writes_by_itself_is_counted_as_well() {
    let plain = Setup::memory().start_ready();
    let responses =
        |code: u16| plain.metric(&format!("ssegate_http_responses_total{{code=\"{code}\"}}"));
    assert_eq!(exchange(&plain.address, "GET / HTTP/7\r\n\r\n").status, 400);
    eventually("it is counted", || responses(400) == 1.0);
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(40_000));
    exchange(&plain.address, &long);
    eventually("it is counted", || responses(431) == 1.0);
}
