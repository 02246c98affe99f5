//! The heads of requests, and how many may come, in all and from one address.

use super::*;
use crate::support::gateway::exchange;
use crate::support::multiplexed::Session;

#[test]
fn a_thousand_made_up_keys_of_one_host_leave_readers_to_the_others() {
    let gateway = setup().set("limits", "readers = 1000").start_ready();
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
        ("header count", get("/events/a", &many(1_100)), 431, "head"),
        ("header size", get("/events/a", &format!("a: {}\r\n", long(33 << 10))), 431, "head"),
        ("request line", get(&format!("/{}", long(17 << 10)), ""), 414, "request_line"),
        ("query", get(&format!("/events/a?token={}", long(15 << 10)), ""), 414, "query"),
        ("no request", "\0\u{1}\r\n\r\n".into(), 400, "malformed"),
    ];
    for (what, request, status, reason) in cases {
        let before = rejected(&gateway, reason);
        let response = exchange(&gateway.address, &request);
        assert_eq!(response.status, status, "{what}: {response:?}");
        assert!(response.body.ends_with('\n'), "{what} has no reason: {response:?}");
        eventually("it is counted", || rejected(&gateway, reason) > before + 0.5);
    }
    // What a client may well send.
    let usual = get(&format!("/events/a?token={}", long(4 << 10)), &many(500));
    assert_eq!(outcome(connect(&gateway.address), &usual).1, "live");
}

#[test]
fn cookies_may_be_many_over_either_version() {
    let gateway = setup().start_ready();
    let crumbs: Vec<_> = (0..150).map(|n| format!("cookie-{n:03}={}", "x".repeat(69))).collect();
    let line = format!("Cookie: {}\r\n", crumbs.join("; "));
    assert_eq!(outcome(connect(&gateway.address), &get("/events/a", &line)).1, "live");
    let mut session = Session::open(&gateway.address);
    let fields: Vec<_> = crumbs.iter().map(|crumb| ("cookie", crumb.as_str())).collect();
    let id = session.get("/events/a", &fields);
    assert_eq!(session.live(id), 0);
}

#[test]
fn the_limit_of_a_head_can_be_set_and_holds_for_both_versions() {
    let gateway = setup().set("limits", "header_bytes = \"8KiB\"").start_ready();
    let url = format!("http://{}/nothing", gateway.address);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for (length, status) in [(7 << 10, "404"), (9 << 10, "431")] {
            let field = format!("x: {}", "y".repeat(length));
            let mut curl = std::process::Command::new("curl");
            let said =
                curl.args(["-s", "-m", "60", "-w", "%{http_code}", version, "-H", &field, &url]);
            let said = String::from_utf8(said.output().unwrap().stdout).unwrap();
            assert!(said.ends_with(status), "{version} {length}: {said}");
            assert_eq!(said.contains("limits.header_bytes"), status == "431", "{version}: {said}");
        }
    }
    // A head that has no end is answered as well.
    let mut stream = connect(&gateway.address);
    stream
        .write_all(
            format!("GET /nothing HTTP/1.1\r\nHost: x\r\nx: {}", "y".repeat(9 << 10)).as_bytes(),
        )
        .unwrap();
    let refused = rest(stream);
    assert!(
        refused.starts_with("HTTP/1.1 431 ") && refused.contains("limits.header_bytes"),
        "{refused}"
    );
}
