//! The heads of requests, and how many may come, in all and from one address.

use super::*;
use crate::support::gateway::exchange;

#[test]
fn a_thousand_made_up_keys_of_one_host_leave_readers_to_the_others() {
    let gateway = setup().start_ready();
    let mut streams = Vec::new();
    for name in 0..1_000 {
        let (client, answer) =
            outcome(connect(&gateway.address), &get(&format!("/events/{name}"), ""));
        let expected = if name < 250 { "live" } else { "readers_per_ip" };
        assert_eq!(answer, expected, "name {name}");
        if answer == "live" {
            streams.push(client);
        }
    }
    assert_eq!(rejected(&gateway, "readers_per_ip"), 750.0);
    assert_eq!(gateway.metric("ssegate_readers"), 250.0);
    // It may still read what is read already, and another host what it likes.
    assert_eq!(outcome(connect(&gateway.address), &get("/events/7", "")).1, "live");
    let other = connect_from("127.0.0.2", &gateway.address);
    assert_eq!(outcome(other, &get("/events/other", "")).1, "live");
    // Stream keys that are no longer read count for no address.
    drop(streams);
    eventually("its readers end", || gateway.metric("ssegate_readers") < 2.5);
    assert_eq!(outcome(connect(&gateway.address), &get("/events/again", "")).1, "live");
}

#[test]
fn a_reader_that_lingers_counts_towards_the_address_that_opened_it() {
    let gateway = setup().set("limits", "readers_per_ip = 1").start_ready();
    let (first, answer) = outcome(connect(&gateway.address), &get("/events/a", ""));
    assert_eq!(answer, "live");
    let id = gateway.publish("events:a", "so that it lingers");
    gateway.has_read("events:a", &id);
    first.leave();
    eventually("it has left", || gateway.metric("ssegate_clients") < 0.5);
    assert_eq!(gateway.metric("ssegate_readers"), 1.0);
    let answer = outcome(connect(&gateway.address), &get("/events/b", "")).1;
    assert_eq!(answer, "readers_per_ip");
}

#[test]
fn an_address_that_comes_too_often_is_refused_and_others_are_not() {
    let gateway = setup().set("limits", "new_clients_per_second_per_ip = 2").start_ready();
    let mut refused = 0;
    for _ in 0..20 {
        let (_, answer) = outcome(connect(&gateway.address), &get("/events/a", ""));
        if answer != "live" {
            assert_eq!(answer, "new_clients_per_second_per_ip");
            refused += 1;
        }
    }
    assert!(refused > 0, "twenty in ten seconds");
    were_rejected(&gateway, "new_clients_per_second_per_ip", refused);
    let other = connect_from("127.0.0.2", &gateway.address);
    assert_eq!(outcome(other, &get("/events/a", "")).1, "live");
}

#[test]
fn a_head_that_is_too_large_has_its_status_and_its_reason() {
    let gateway = setup().start_ready();
    let long = |length: usize| "x".repeat(length);
    let many = |count: usize| "a: b\r\n".repeat(count);
    let cases = [
        ("header count", get("/events/a", &many(120)), 431, "head"),
        ("header size", get("/events/a", &format!("a: {}\r\n", long(20 << 10))), 431, "head"),
        ("request line", get(&format!("/{}", long(9 << 10)), ""), 414, "request_line"),
        ("query", get(&format!("/events/a?token={}", long(7 << 10)), ""), 414, "query"),
        ("no request", "\0\u{1}\r\n\r\n".into(), 400, "malformed"),
    ];
    for (what, request, status, reason) in cases {
        let before = rejected(&gateway, reason);
        let response = exchange(&gateway.address, &request);
        assert_eq!(response.status, status, "{what}: {response:?}");
        eventually("it is counted", || rejected(&gateway, reason) > before + 0.5);
    }
    // What a client may well send.
    let usual = get(&format!("/events/a?token={}", long(4 << 10)), &many(80));
    assert_eq!(outcome(connect(&gateway.address), &usual).1, "live");
}
