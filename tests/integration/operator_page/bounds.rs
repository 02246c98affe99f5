//! What the page's streams may cost, and that they end.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::Setup;

use super::{ask, listen, next, request, row, until};

/// As `src/admin/events.rs` has it.
const MOST_STREAMS: usize = 16;

#[test]
fn streams_are_limited_and_one_that_leaves_makes_room() {
    let gateway = Setup::memory().start_ready();
    let mut streams: Vec<_> =
        (0..MOST_STREAMS - 1).map(|_| listen(&gateway, "/overview")).collect();
    streams.push(listen(&gateway, "/tail/events:a"));
    for path in ["/overview", "/tail/events:a"] {
        let refused = ask(&gateway, path, &gateway.admin, "");
        assert_eq!((refused.status, &*refused.body), (503, "too many pages follow this already\n"));
    }
    assert_eq!(gateway.admin_get("/readyz").status, 200, "probes are served all the same");
    streams.pop();
    eventually("its place is given back", || {
        let request = request("/overview", &gateway.admin, "");
        Client::raw(&gateway.admin, &request).head.starts_with("HTTP/1.1 200 ")
    });
    eventually("its stream is forgotten", || gateway.streams() == serde_json::json!([]));
}

#[test]
fn a_client_that_takes_nothing_is_cut_and_holds_up_nobody() {
    let gateway = Setup::memory().set("limits", "write_stall = \"1s\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let request = request("/tail/events:a", &gateway.admin, "");
    let _stalled = Client::raw_with_small_window(&gateway.admin, &request);
    eventually("it looks on", || gateway.streams()[0]["onlookers"] == 1);
    let payload = "\u{1}".repeat(4 << 10);
    let mut sent = 0;
    // Until it is cut: the kernel takes some before the client's silence is felt.
    eventually("it is cut", || {
        gateway.publish("events:a", &payload);
        client.entry();
        sent += 1;
        gateway.streams()[0]["onlookers"] == 0
    });
    assert_eq!(gateway.streams()[0]["clients"], 1, "after {sent} entries the reader is still here");
    assert!(gateway.peak_bytes() < 128 << 20, "{} bytes at the peak", gateway.peak_bytes());
}

#[test]
fn more_than_a_page_can_show_is_left_out_and_counted() {
    const ENTRIES: u64 = 2000;
    let gateway = Setup::memory().start_ready();
    let mut tail = listen(&gateway, "/tail/events:a");
    until(&mut tail, "control", |data| data["type"] == "live");
    let mut last = String::new();
    for number in 1..=ENTRIES {
        last = gateway.publish("events:a", &number.to_string());
    }
    let (mut shown, mut left_out) = (0, 0);
    loop {
        match next(&mut tail) {
            (name, entry) if name == "entry" => {
                shown += 1;
                assert_eq!(
                    entry["data"],
                    (shown + left_out).to_string(),
                    "in order, and well counted"
                );
                if entry["id"] == last.as_str() {
                    break;
                }
            }
            (_, control) => {
                assert_eq!(control["type"], "left_out", "{control}");
                left_out += control["entries"].as_u64().unwrap();
            }
        }
    }
    assert_eq!(shown + left_out, ENTRIES);
}

#[test]
fn a_large_payload_is_cut() {
    let gateway = Setup::memory().start_ready();
    let mut tail = listen(&gateway, "/tail/events:a");
    until(&mut tail, "control", |data| data["type"] == "live");
    gateway.publish("events:a", &"x".repeat(1 << 20));
    let entry = until(&mut tail, "entry", |_| true);
    assert_eq!(entry["cut"], true);
    let (shown, all) = (entry["data"].as_str().unwrap().len(), entry["bytes"].as_u64().unwrap());
    assert!((2 << 10..=4 << 10).contains(&shown) && all > 1 << 20, "{shown} of {all} bytes");
}

#[test]
fn the_largest_streams_are_listed_and_the_others_counted() {
    const KEYS: usize = 203;
    let gateway = Setup::memory().start_ready();
    let mut clients: Vec<_> =
        (0..KEYS).map(|n| Client::open(&gateway.address, &format!("/events/{n}"))).collect();
    clients.push(Client::open(&gateway.address, "/events/202"));
    clients.iter_mut().for_each(|client| drop(client.live()));
    let (_, data) = next(&mut listen(&gateway, "/overview"));
    let rows = data["streams"].as_array().unwrap();
    let left_out = data["streams_left_out"].as_u64().unwrap();
    assert_eq!(rows.len() + usize::try_from(left_out).unwrap(), KEYS);
    assert!(left_out >= 3 && rows.len() > 100, "{} listed, {left_out} not", rows.len());
    assert_eq!(rows[0]["key"], "events:202", "most clients first");
    assert_eq!(row(&data, "events:202")["clients"], 2);
    assert!(data.to_string().len() < 160 << 10);
}

#[test]
fn streams_end_with_the_drain() {
    let mut gateway = Setup::memory().start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let mut overview = listen(&gateway, "/overview");
    let mut tail = listen(&gateway, "/tail/events:a");
    until(&mut tail, "control", |data| data["type"] == "live");
    gateway.signal("TERM");
    assert_eq!(until(&mut tail, "control", |_| true)["type"], "drain");
    until(&mut overview, "overview", |data| data["draining"] == true);
    for stream in [&mut overview, &mut tail] {
        assert_eq!(stream.rest(), []);
        assert!(stream.complete, "ended, not cut");
    }
    client.rest();
    assert_eq!(gateway.wait().code(), Some(0));
}
