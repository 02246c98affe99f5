//! What is refused, and with which answer; keepalives; the age of a stream.

use std::time::{Duration, Instant};

use ssegate::sse::parse::Item;

use super::{clients, head_lines};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup, exchange};
use crate::support::{eventually, pause_of_the_scenario};

const RETRY: &str = "retry = \"1s\"";

/// The next stream is refused with this reason, in a way that an `EventSource` survives.
#[track_caller]
fn assert_refused(gateway: &Gateway, path: &str, reason: &str) {
    let mut client = Client::open(&gateway.address, path);
    let (control, id) = client.control();
    assert_eq!(control["type"], "unavailable", "{control}");
    assert_eq!(control["reason"], reason, "{control}");
    assert_eq!(id, "", "a refusal moves nobody's last event id");
    let retry = client.reconnection_time().expect("a refusal says when to come back");
    assert!((Duration::from_secs(5)..=Duration::from_secs(15)).contains(&retry), "{retry:?}");
    let rest = client.rest();
    assert!(client.complete && rest.is_empty(), "{rest:?}");
    let rejected = format!("ssegate_rejected_total{{reason=\"{reason}\"}}");
    assert!(gateway.metric(&rejected) > 0.5);
}

fn open(gateway: &Gateway, path: &str) -> Client {
    let mut client = Client::open(&gateway.address, path);
    client.live();
    client
}

#[test]
fn beyond_limits_clients_a_stream_is_refused_until_a_place_is_free() {
    let setup = Setup::memory().set("server", RETRY).set("limits", "clients = 2");
    let gateway = setup.start_ready();
    let first = open(&gateway, "/events/a");
    let _second = open(&gateway, "/events/b");
    assert_refused(&gateway, "/events/a", "clients");
    first.leave();
    eventually("a place is free", || clients(&gateway) < 1.5);
    open(&gateway, "/events/a");
}

#[test]
fn where_status_codes_are_wanted_a_refusal_is_503_with_retry_after() {
    let setup = Setup::memory()
        .set("server", RETRY)
        .set("server", "refuse = \"status\"")
        .set("limits", "clients = 1");
    let gateway = setup.start_ready();
    let _first = open(&gateway, "/events/a");
    for version in ["1.1", "1.0"] {
        let request = format!("GET /events/a HTTP/{version}\r\nHost: x\r\n\r\n");
        let response = exchange(&gateway.address, &request);
        assert_eq!(response.status, 503, "{response:?}");
        let lines = head_lines(&response.head);
        let after = lines.iter().find_map(|line| line.strip_prefix("retry-after: "));
        let after: u64 = after.expect("a Retry-After").parse().unwrap();
        assert!((5..=15).contains(&after), "{after}");
        assert!(lines.contains(&"connection: close".to_owned()), "{lines:?}");
        assert!(response.body.contains("clients"), "{response:?}");
    }
}

#[test]
fn each_stream_key_has_its_limit_of_clients() {
    let setup = Setup::memory().set("server", RETRY).set("limits", "clients_per_key = 1");
    let gateway = setup.start_ready();
    let first = open(&gateway, "/events/a");
    assert_refused(&gateway, "/events/a", "clients_per_key");
    let _other = open(&gateway, "/events/b");
    first.leave();
    eventually("the place is free", || clients(&gateway) < 1.5);
    open(&gateway, "/events/a");
}

#[test]
fn each_address_has_its_limit_of_clients() {
    let setup = Setup::memory().set("server", RETRY).set("limits", "clients_per_ip = 2");
    let gateway = setup.start_ready();
    let first = open(&gateway, "/events/a");
    let _second = open(&gateway, "/events/b");
    assert_refused(&gateway, "/events/c", "clients_per_ip");
    first.leave();
    eventually("the place is free", || clients(&gateway) < 1.5);
    open(&gateway, "/events/c");
}

#[test]
fn new_clients_are_limited_by_the_second() {
    let setup = Setup::memory().set("server", RETRY).set("limits", "new_clients_per_second = 3");
    let gateway = setup.start_ready();
    let started = Instant::now();
    let mut refused = 0_u64;
    for _ in 0..30 {
        let mut client = Client::open(&gateway.address, "/events/a");
        let (control, _) = client.control();
        if control["type"] == "unavailable" {
            assert_eq!(control["reason"], "new_clients_per_second", "{control}");
            refused += 1;
        }
    }
    // However slow the machine: a second admits three, and one more begins at most each second.
    let seconds = started.elapsed().as_secs() + 2;
    assert!(30 - refused <= 3 * seconds, "{refused} of 30 refused in {seconds} s");
    eventually("the next second lets a client in", || {
        Client::open(&gateway.address, "/events/a").control().0["type"] == "live"
    });
}

#[test]
fn stream_keys_with_a_reader_are_limited() {
    let setup = Setup::memory().set("server", RETRY).set("limits", "readers = 1");
    let gateway = setup.start_ready();
    let _first = open(&gateway, "/events/a");
    assert_refused(&gateway, "/events/b", "readers");
    open(&gateway, "/events/a");
}

#[test]
fn each_address_has_its_limit_of_readers() {
    let setup = Setup::memory()
        .set("server", RETRY)
        .set("source", "linger = \"0s\"")
        .set("limits", "readers_per_ip = 1");
    let gateway = setup.start_ready();
    let first = open(&gateway, "/events/a");
    assert_refused(&gateway, "/events/b", "readers_per_ip");
    let second = open(&gateway, "/events/a");
    first.leave();
    second.leave();
    eventually("the reader is gone", || gateway.metric("ssegate_readers") < 0.5);
    eventually("its share is given back", || {
        Client::open(&gateway.address, "/events/b").control().0["type"] == "live"
    });
}

#[test]
fn a_silent_stream_is_kept_alive() {
    let gateway = Setup::memory().set("server", "keepalive = \"1s\"").start_ready();
    let mut client = open(&gateway, "/events/a");
    for _ in 0..2 {
        client.comment("keepalive");
    }
    // They are counted once they are sent.
    eventually("both are counted", || gateway.metric("ssegate_heartbeats_total") > 1.5);
}

#[test]
fn with_signals_as_events_a_page_sees_the_keepalive() {
    let setup = Setup::memory().set("server", "keepalive = \"1s\"").routes(
        "[[route]]\npath = \"/events/{name}\"\nkey = \"events:{name}\"\naccess = \"public\"\nsignals = \"event\"\n",
    );
    let gateway = setup.start_ready();
    let mut client = open(&gateway, "/events/a");
    let id = gateway.publish("events:a", "one");
    client.entry();
    let (control, last_event_id) = client.control();
    assert_eq!(control, serde_json::json!({"type": "ping"}));
    assert_eq!(last_event_id, id, "a ping has no id of its own");
}

#[test]
fn an_old_stream_is_closed_as_http_wants_it_and_can_resume() {
    let gateway = Setup::memory().set("server", "max_connection_age = \"1s\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    let (_, id) = client.live();
    let rest = client.rest();
    assert!(client.complete, "the last chunk came: {rest:?}");
    assert!(rest.iter().all(|item| matches!(item, Item::Comment(_))), "{rest:?}");
    let rotated = "ssegate_client_disconnects_total{reason=\"rotated\"}";
    eventually("it is counted", || gateway.metric(rotated) > 0.5);
    gateway.publish("events:a", "meanwhile");
    let mut client = Client::resume(&gateway.address, "/events/a", &id);
    // It may be there before the reader has read the entry: then `live` comes first.
    assert_eq!(client.entry().data, "meanwhile");
}

/// A client that reads nothing until it is cut for it under this limit; then it comes back.
fn is_cut_as_slow_and_resumes(limit: &str) {
    let setup = Setup::memory().set("limits", limit).set("limits", "send_buffer = \"4KiB\"");
    let gateway = setup.start_ready();
    let mut client = Client::with_small_window(&gateway.address, "/events/a");
    client.live();
    // Some fit into what the kernel takes ahead of the reader, but not all of them.
    let payload = "x".repeat(2 << 10);
    let ids: Vec<_> = (0..100).map(|_| gateway.publish("events:a", &payload)).collect();
    let published = Instant::now();
    let old = Duration::from_millis(500).saturating_sub(published.elapsed());
    pause_of_the_scenario(old, "entries grow old");
    if limit.starts_with("write_stall") {
        let slow = "ssegate_client_disconnects_total{reason=\"slow\"}";
        eventually("it is cut", || gateway.metric(slow) > 0.5);
    }
    client.rest();
    assert!(!client.complete, "it was cut, not closed");
    assert_eq!(gateway.metric("ssegate_client_disconnects_total{reason=\"slow\"}"), 1.0);
    let last = client.last_event_id();
    assert!(ids.contains(&last), "it got no entry at all: {last}");
    let mut resumed = Client::resume(&gateway.address, "/events/a", &last);
    for id in ids.iter().skip_while(|id| **id != last).skip(1) {
        assert_eq!(resumed.event().last_event_id, *id);
    }
}

#[test]
fn a_client_that_lags_too_far_is_cut_as_slow_and_resumes() {
    is_cut_as_slow_and_resumes("max_lag = \"200ms\"");
}

#[test]
fn a_client_that_stalls_too_long_is_cut_as_slow_and_resumes() {
    is_cut_as_slow_and_resumes("write_stall = \"300ms\"");
}
