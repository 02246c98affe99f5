//! The access log, and that one id goes through all lines of a connection.

use serde_json::Value;

use super::{SECRET, lines};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::multiplexed::Session;

fn setup() -> Setup {
    Setup::memory().set("log", "access = true").set("proxy", "trusted = [\"127.0.0.0/8\"]")
}

/// The access log so far.
fn access(gateway: &Gateway) -> Vec<Value> {
    lines(gateway).into_iter().filter(|line| line["message"] == "access").collect()
}

#[track_caller]
fn access_lines(gateway: &Gateway, count: usize) -> Vec<Value> {
    eventually("the access log has all", || access(gateway).len() >= count);
    access(gateway)
}

#[test]
fn a_stream_has_its_line_when_it_ends() {
    let gateway = setup().start_ready();
    let headers = [("X-Forwarded-For", "192.0.2.7"), ("Last-Event-ID", "none of ours")];
    let path = format!("/events/a?token={SECRET}");
    let mut client = Client::with(&gateway.address, &path, &headers);
    assert_eq!(client.control().0["type"], "gap");
    client.live();
    for number in 0..3 {
        gateway.publish("events:a", &number.to_string());
        client.entry();
    }
    assert_eq!(access(&gateway), Vec::<Value>::new(), "not before");
    client.leave();
    let line = access_lines(&gateway, 1).remove(0);
    for (name, value) in [
        ("level", "INFO"),
        ("address", "192.0.2.7"),
        ("path", "/events/a"),
        ("route", "/events/{name}"),
        ("protocol", "HTTP/1.1"),
        ("reason", "client"),
    ] {
        assert_eq!(line[name], value, "{name} in {line}");
    }
    assert_eq!((&line["events"], &line["gaps"]), (&3.into(), &1.into()), "{line}");
    let bytes = gateway.metric("ssegate_bytes_sent_total{route=\"/events/{name}\"}");
    assert_eq!(line["bytes"].as_f64(), Some(bytes), "{line}");
    assert!(line["connection"].is_u64() && line["duration_ms"].is_u64(), "{line}");
    assert!(!gateway.log().contains(SECRET), "{}", gateway.log());
}

#[test]
fn a_request_that_opens_no_stream_has_a_line_as_well() {
    let gateway = setup().set("limits", "clients = 1").start_ready();
    assert_eq!(gateway.get(&format!("/nothing?token={SECRET}")).status, 404);
    let line = access_lines(&gateway, 1).remove(0);
    assert_eq!((&line["method"], &line["path"]), (&"GET".into(), &"/nothing".into()), "{line}");
    assert_eq!((&line["status"], &line["address"]), (&404.into(), &"127.0.0.1".into()), "{line}");
    let mut first = Client::open(&gateway.address, "/events/a");
    first.live();
    let mut second = Client::open(&gateway.address, "/events/a");
    assert_eq!(second.control().0["reason"], "clients");
    let line = access_lines(&gateway, 2).remove(1);
    assert_eq!((&line["reason"], &line["events"]), (&"clients".into(), &0.into()), "{line}");
    assert!(!gateway.log().contains(SECRET), "{}", gateway.log());
}

#[test]
fn one_id_goes_through_all_lines_of_a_connection() {
    let gateway = setup().set("log", "level = \"debug\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let mut session = Session::open(&gateway.address);
    let ids = [session.get("/events/b", &[]), session.get("/events/c", &[])];
    for id in ids {
        session.live(id);
    }
    client.leave();
    ids.iter().for_each(|id| session.reset(*id));
    access_lines(&gateway, 3);
    let of = |message: &str, key: &str, value: &str| {
        let lines = lines(&gateway);
        let line = lines.iter().find(|line| line["message"] == message && line[key] == value);
        let line = line.unwrap_or_else(|| panic!("{message} of {value} in {lines:?}"));
        (line["connection"].clone(), line["stream"].clone())
    };
    let opened = ["a", "b", "c"].map(|name| of("stream opened", "key", &format!("events:{name}")));
    let closed = ["a", "b", "c"].map(|name| of("access", "path", &format!("/events/{name}")));
    assert_eq!(opened, closed);
    let [a, b, c] = opened;
    assert!(a.0.is_u64() && a.1.is_null(), "{a:?}");
    assert!(b.0 == c.0 && b.0 != a.0 && b.1 == 1 && c.1 == 2, "{b:?} and {c:?} of one connection");
    let ended = lines(&gateway).into_iter().filter(|line| line["message"] == "stream ended");
    let ended: Vec<_> =
        ended.map(|line| (line["connection"].clone(), line["stream"].clone())).collect();
    assert!([a, b, c].iter().all(|id| ended.contains(id)), "{ended:?}");
}
