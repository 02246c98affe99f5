//! The operator's listener: probes, metrics, the state of the streams, its token.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Response, Setup, exchange};
use crate::support::redis::Redis;
use crate::support::{Folder, eventually, within};

/// An admin request with a method and a token.
fn ask(gateway: &Gateway, method: &str, path: &str, token: &str) -> Response {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: {token}\r\ncontent-length: 0\r\n\r\n"
    );
    exchange(&gateway.admin, &request)
}

/// Samples by name with labels, after each line was held against the text format.
fn scrape(gateway: &Gateway) -> HashMap<String, f64> {
    let response = gateway.admin_get("/metrics");
    assert_eq!(response.status, 200);
    assert!(response.head.contains("content-type: text/plain; version=0.0.4"), "{}", response.head);
    assert!(response.body.ends_with('\n'), "the last line is a line");
    let mut helped = Vec::new();
    let mut kinds = HashMap::new();
    let mut samples = HashMap::new();
    for line in response.body.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect(line);
            assert!(!text.is_empty() && !helped.contains(&name.to_owned()), "{line}");
            helped.push(name.to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect(line);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kinds.insert(name.to_owned(), kind.to_owned()), None, "typed twice: {line}");
        } else {
            let (name, value) = line.rsplit_once(' ').expect(line);
            let value: f64 = value.parse().expect(line);
            let bare = name.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
                let family = bare.strip_suffix(suffix)?;
                (kinds.get(family)? == "histogram").then(|| family.to_owned())
            });
            let family = family.unwrap_or_else(|| bare.to_owned());
            let kind = kinds.get(&family).unwrap_or_else(|| panic!("no TYPE before {line}"));
            assert!(helped.contains(&family), "no HELP before {line}");
            assert!(family.starts_with("ssegate_") || family.starts_with("process_"), "{line}");
            assert_eq!(kind == "counter", bare.ends_with("_total"), "{kind} {line}");
            check_labels(&name[bare.len()..]);
            assert_eq!(samples.insert(name.to_owned(), value), None, "twice: {line}");
        }
    }
    samples
}

fn check_labels(labels: &str) {
    let Some(list) = labels.strip_prefix('{') else { return assert_eq!(labels, "") };
    for label in list.strip_suffix('}').expect(labels).split("\",") {
        let (name, value) = label.split_once("=\"").expect(labels);
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{labels}");
        let value = value.strip_suffix('"').unwrap_or(value);
        assert!(!value.contains(['"', '\n']), "{labels}");
    }
}

#[test]
fn every_sample_is_described_typed_and_named_by_the_conventions() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    gateway.publish("events:a", "one");
    client.entry();
    assert_eq!(gateway.get("/nowhere").status, 404);
    let samples = scrape(&gateway);
    // Label sets that are known beforehand are there before anything happened.
    for name in [
        "ssegate_client_disconnects_total{reason=\"slow\"}",
        "ssegate_gaps_total{scope=\"reader\",reason=\"trimmed\"}",
        "ssegate_entries_lost_total{scope=\"resume\"}",
        "ssegate_reader_errors_total{code=\"WRONGTYPE\"}",
        "ssegate_resume_total{result=\"redis\"}",
        "ssegate_redis_reconnects_total",
    ] {
        assert_eq!(samples.get(name), Some(&0.0), "{name}");
    }
    assert_eq!(samples["ssegate_http_responses_total{code=\"404\"}"], 1.0);
    let build = format!(
        "ssegate_build_info{{version=\"{}\",commit=\"{}\"}}",
        env!("CARGO_PKG_VERSION"),
        ssegate::telemetry::version::COMMIT
    );
    assert_eq!(samples[&build], 1.0);
    let leaks = samples.keys().find(|name| name.contains("events:a"));
    assert_eq!(leaks, None, "a raw stream key is no label");
}

#[test]
fn latency_is_counted_per_delivery_in_cumulative_buckets() {
    const CLIENTS: usize = 3;
    let gateway = Setup::memory().start_ready();
    let mut clients: Vec<_> =
        (0..CLIENTS).map(|_| Client::open(&gateway.address, "/events/a")).collect();
    clients.iter_mut().for_each(|client| drop(client.live()));
    let count = || gateway.metric("ssegate_delivery_latency_seconds_count");
    assert_eq!(count(), 0.0);
    for number in 1..=5 {
        gateway.publish("events:a", "x");
        clients.iter_mut().for_each(|client| drop(client.entry()));
        let deliveries = (number * CLIENTS) as f64;
        // A client's first events may reach it before a shard takes it in: those are not live.
        eventually("each delivery is counted", || count() == deliveries);
    }
    let mut replayed = Client::open(&gateway.address, "/events/a?last_event_id=earliest");
    (0..5).for_each(|_| drop(replayed.entry()));
    replayed.live();
    let samples = scrape(&gateway);
    assert_eq!(samples["ssegate_delivery_latency_seconds_count"], 15.0, "a replay is not live");
    let mut buckets: Vec<(f64, f64)> = samples
        .iter()
        .filter_map(|(name, value)| {
            let bound = name.strip_prefix("ssegate_delivery_latency_seconds_bucket{le=\"")?;
            let bound = bound.strip_suffix("\"}")?;
            Some((if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() }, *value))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(buckets.len() > 8 && buckets.is_sorted_by(|a, b| a.1 <= b.1), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, 15.0)));
    assert!(samples["ssegate_delivery_latency_seconds_sum"] >= 0.0);
}

#[test]
fn values_follow_what_happens() {
    let redis = Redis::start();
    let routes = "[[route]]\npath = \"/events/{name}\"\nkey = \"events:{name}\"\naccess = \"public\"\n\
        [[route]]\npath = \"/other\"\nkey = \"events:a\"\naccess = \"public\"\n";
    let gateway = Setup::redis(&redis).routes(routes).set("limits", "clients = 100").start_ready();
    let metric = |name: &str| gateway.metric(name);
    let accepted = metric("ssegate_connections_accepted_total{proto=\"http1\"}");
    let mut clients: Vec<_> = (0..3).map(|_| Client::open(&gateway.address, "/events/a")).collect();
    clients.push(Client::open(&gateway.address, "/other"));
    clients.push(Client::open(&gateway.address, "/events/b"));
    clients.iter_mut().for_each(|client| drop(client.live()));
    assert_eq!(metric("ssegate_connections_accepted_total{proto=\"http1\"}"), accepted + 5.0);
    assert_eq!((metric("ssegate_clients"), metric("ssegate_clients_limit")), (5.0, 100.0));
    assert_eq!((metric("ssegate_readers"), metric("ssegate_readers_limit")), (2.0, 10_000.0));
    assert_eq!(metric("ssegate_redis_connected"), 1.0);
    assert_eq!(metric("ssegate_http_responses_total{code=\"200\"}"), 5.0);

    let first = redis.add("events:a", "one");
    let last = redis.add("events:a", "two");
    for client in &mut clients[..4] {
        assert_eq!(client.entry().last_event_id, first);
        assert_eq!(client.entry().last_event_id, last);
    }
    let sent = |route: &str| {
        let of = |what: &str| metric(&format!("ssegate_{what}_sent_total{{route=\"{route}\"}}"));
        (of("events"), of("bytes"))
    };
    eventually("6 and 2 events", || (sent("/events/{name}").0, sent("/other").0) == (6.0, 2.0));
    let (bytes, other) = (sent("/events/{name}").1, sent("/other").1);
    assert!(other > 2.0 * 30.0 && bytes >= 3.0 * other, "{bytes} and {other} bytes");
    assert_eq!(metric("ssegate_reader_entries_total"), 2.0);
    let polled = metric("ssegate_reader_last_poll_timestamp_seconds");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((now.as_secs_f64() - polled).abs() < 60.0, "a time, not an age: {polled}");

    clients.drain(..2).for_each(Client::leave);
    let left = || metric("ssegate_client_disconnects_total{reason=\"client\"}");
    eventually("two have left", || (left(), metric("ssegate_clients")) == (2.0, 3.0));
    resumes_are_counted(&gateway, &redis, &first);
}

fn resumes_are_counted(gateway: &Gateway, redis: &Redis, id: &str) {
    let resumed =
        |result: &str| gateway.metric(&format!("ssegate_resume_total{{result=\"{result}\"}}"));
    let gaps = |reason: &str| {
        gateway.metric(&format!("ssegate_gaps_total{{scope=\"resume\",reason=\"{reason}\"}}"))
    };
    let resume = |id: &str| Client::resume(&gateway.address, "/events/a", id);
    resume(id).entry();
    eventually("from the ring", || resumed("ring") == 1.0);
    resume("no id of ours").control();
    eventually("invalid", || (resumed("invalid"), gaps("unknown")) == (1.0, 1.0));
    resume("5-5").control();
    eventually("an id that never was", || (resumed("gap"), gaps("reset")) == (1.0, 1.0));
    let ids: Vec<_> = (0..3).map(|number| redis.add("events:c", &number.to_string())).collect();
    Client::resume(&gateway.address, "/events/c", &ids[0]).entry();
    eventually("from Redis", || resumed("redis") == 1.0);
    redis.run(&["XTRIM", "events:c", "MAXLEN", "1"]);
    Client::resume(&gateway.address, "/events/d", "7-7").control();
    Client::resume(&gateway.address, "/events/c", &ids[0]).control();
    eventually("trimmed", || (resumed("gap"), gaps("trimmed")) == (3.0, 1.0));
    assert_eq!(gateway.metric("ssegate_gaps_total{scope=\"reader\",reason=\"trimmed\"}"), 0.0);
}

#[test]
fn entries_that_the_reader_lost_are_counted() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    redis.run(&["XADD", "events:a", "1-0", "payload", "x"]);
    client.entry();
    let script = "for id = 2, 5 do redis.call('XADD', KEYS[1], id .. '-0', 'payload', 'x') end \
        return redis.call('XTRIM', KEYS[1], 'MAXLEN', 1)";
    redis.run(&["EVAL", script, "1", "events:a"]);
    let (gap, _) = client.control();
    assert_eq!((&gap["reason"], &gap["lost"]), (&"trimmed".into(), &3.into()), "{gap}");
    assert_eq!(client.entry().last_event_id, "5-0");
    assert_eq!(gateway.metric("ssegate_gaps_total{scope=\"reader\",reason=\"trimmed\"}"), 1.0);
    assert_eq!(gateway.metric("ssegate_entries_lost_total{scope=\"reader\"}"), 3.0);
}

#[test]
fn streams_are_described_as_they_are() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    assert_eq!(gateway.streams(), serde_json::json!([]));
    let mut pair: Vec<_> = (0..2).map(|_| Client::open(&gateway.address, "/events/b")).collect();
    let mut single = Client::open(&gateway.address, "/events/a");
    pair.iter_mut().chain([&mut single]).for_each(|client| drop(client.live()));
    let mut last = String::new();
    for number in 0..3 {
        last = redis.add("events:b", &format!("entry {number}"));
        pair.iter_mut().for_each(|client| drop(client.entry()));
    }
    let mut streams = gateway.streams();
    let bytes = streams[1]["ring_bytes"].take();
    assert!(bytes.as_u64().unwrap() >= 3 * 40, "{bytes} bytes for 3 entries");
    let expected = |key: &str, clients: u64, last_id: &str, entries: u64| {
        serde_json::json!({
            "key": key, "clients": clients, "last_id": last_id, "ring_entries": entries,
            "ring_bytes": if entries == 0 { Some(0) } else { None }, "reader": "up", "error": null,
        })
    };
    let all = [expected("events:a", 1, "0-0", 0), expected("events:b", 2, &last, 3)];
    assert_eq!(streams.as_array().unwrap().len(), all.len(), "{streams}");
    for (stream, expected) in streams.as_array().unwrap().iter().zip(all) {
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&stream[name], value, "{name} in {stream}");
        }
    }
}

#[test]
fn readiness_ends_with_the_drain_and_liveness_does_not() {
    let mut gateway = Setup::memory().set("server", "drain = \"4s\"").start_ready();
    let mut clients: Vec<_> = (0..8).map(|_| Client::open(&gateway.address, "/events/a")).collect();
    clients.iter_mut().for_each(|client| drop(client.live()));
    assert_eq!(gateway.admin_get("/livez").status, 200);
    assert_eq!(gateway.admin_get("/readyz").status, 200);
    gateway.signal("TERM");
    within(Duration::from_secs(2), "not ready any more", || {
        gateway.admin_get("/readyz").status == 503
    });
    assert!(gateway.metric("ssegate_clients") >= 1.0, "at once, not after the last client");
    assert_eq!(gateway.admin_get("/readyz?strict").status, 503);
    assert_eq!(gateway.admin_get("/livez").status, 200);
    assert!(gateway.admin_get("/readyz").body.contains("drain"), "the body tells");
    // One is closed now, the others later.
    let drained = || gateway.metric("ssegate_client_disconnects_total{reason=\"drain\"}");
    eventually("closes are counted", || drained() >= 1.0);
    clients.iter_mut().for_each(|client| drop(client.rest()));
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_token_guards_all_but_probes_and_metrics() {
    let folder = Folder::new();
    let file = folder.0.join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let token_file = format!("token_file = {:?}", file.to_str().unwrap());
    let gateway = Setup::memory().set("admin", &token_file).start_ready();
    for open in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(gateway.admin_get(open).status, 200, "{open}");
    }
    let guarded =
        [("GET", "/streams"), ("GET", "/state"), ("GET", "/"), ("POST", "/publish/events:a")];
    for (method, path) in guarded {
        for token in ["", "Bearer", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret"] {
            let response = ask(&gateway, method, path, token);
            assert_eq!(response.status, 401, "{method} {path} with {token:?}");
            assert!(response.head.to_ascii_lowercase().contains("www-authenticate: bearer"));
        }
        assert_eq!(ask(&gateway, method, path, "Bearer s3cret").status, 200, "{method} {path}");
    }
    assert!(!gateway.log().contains("s3cret"), "a token is in the log");
}

#[test]
fn the_public_listener_serves_no_path_of_the_operator() {
    let gateway = Setup::memory().start_ready();
    for path in ["/livez", "/readyz", "/metrics", "/streams", "/state", "/", "/publish/events:a"] {
        assert_eq!(gateway.get(path).status, 404, "{path}");
        let post = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        assert_eq!(exchange(&gateway.address, &post).status, 404, "POST {path}");
    }
    assert_eq!(gateway.admin_get("/events/a").status, 404, "nor the admin's any stream");
}

#[test]
fn only_known_paths_answer_and_only_to_their_methods() {
    let gateway = Setup::memory().set("admin", "publish = false").start_ready();
    assert_eq!(gateway.post("events:a", "x").status, 404, "publishing is off");
    assert_eq!(gateway.admin_get("/nothing").status, 404);
    for path in ["/livez", "/metrics", "/streams", "/state"] {
        assert_eq!(ask(&gateway, "HEAD", path, "").status, 200, "{path}");
        let refused = ask(&gateway, "DELETE", path, "");
        assert_eq!(refused.status, 405, "{path}");
        assert!(refused.head.to_ascii_lowercase().contains("allow: get, head"), "{refused:?}");
    }
}
