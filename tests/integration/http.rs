//! HTTP/1 on the public side: heads, methods, what a request may and may not hold, one connection
//! from its first request to its end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use ssegate::sse::parse::Item;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup, exchange};
use crate::support::{self, DEADLINE, eventually};

/// Refusals of streams, keepalives, the age of a stream.
mod limits;
/// Listeners: unix sockets, socket options, slow and large heads, no descriptors left.
mod listeners;
/// Libraries that are no `EventSource`.
mod other_clients;

/// A connection with a deadline.
fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Reads up to and with `end`.
#[track_caller]
fn read_until(stream: &mut impl Read, end: &str) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end.as_bytes()) {
        let read = support::read(stream, &mut byte);
        let so_far = String::from_utf8_lossy(&bytes);
        assert!(matches!(read, Ok(1)), "{read:?} instead of {end:?} after {so_far:?}");
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

/// The lines of a head, without its date, in lower case and order.
fn head_lines(head: &str) -> Vec<String> {
    let lines = head.trim_end().split("\r\n").map(str::to_ascii_lowercase);
    let mut lines: Vec<String> = lines.filter(|line| !line.starts_with("date: ")).collect();
    lines.sort();
    lines
}

fn clients(gateway: &Gateway) -> f64 {
    gateway.metric("ssegate_clients")
}

#[test]
fn a_stream_on_http_1_1_is_chunked_and_begins_with_retry_and_a_comment() {
    let gateway = Setup::memory().set("server", "retry = \"1s\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    let expected = [
        "cache-control: no-cache, no-transform",
        "connection: close",
        "content-type: text/event-stream; charset=utf-8",
        "http/1.1 200 ok",
        "transfer-encoding: chunked",
        "x-accel-buffering: no",
    ];
    assert_eq!(head_lines(&client.head), expected);
    assert!(client.head.to_ascii_lowercase().contains("\r\ndate: "), "{}", client.head);
    let first = client.next_within(DEADLINE);
    assert!(matches!(first, Some(Item::Comment(_))), "{first:?}");
    let retry = client.reconnection_time().expect("it came before the comment");
    assert!((Duration::from_secs(1)..=Duration::from_secs(3)).contains(&retry), "{retry:?}");
}

#[test]
fn reconnection_times_differ() {
    let gateway = Setup::memory().start_ready();
    let mut retries = std::collections::HashSet::new();
    for _ in 0..10 {
        let mut client = Client::open(&gateway.address, "/events/a");
        client.live();
        retries.insert(client.reconnection_time());
    }
    assert!(retries.len() > 1, "{retries:?}");
}

#[test]
fn a_stream_on_http_1_0_ends_with_its_connection() {
    let mut gateway = Setup::memory().set("server", "drain = \"0s\"").start_ready();
    let request = "GET /events/a HTTP/1.0\r\n\r\n";
    let mut client = Client::raw(&gateway.address, request);
    let expected = [
        "cache-control: no-cache, no-transform",
        "connection: close",
        "content-type: text/event-stream; charset=utf-8",
        "http/1.0 200 ok",
        "x-accel-buffering: no",
    ];
    assert_eq!(head_lines(&client.head), expected);
    client.live();
    let payload = "a line\nanother";
    let id = gateway.publish("events:a", payload);
    let event = client.entry();
    assert_eq!((event.data.as_str(), event.last_event_id), (payload, id));
    gateway.signal("TERM");
    let rest = client.rest();
    assert!(client.complete, "{rest:?}");
    assert!(gateway.wait().success());
}

#[test]
fn ordinary_requests_share_a_connection_with_the_stream_that_follows() {
    let gateway = Setup::memory().start_ready();
    let mut stream = connect(&gateway.address);
    for _ in 0..2 {
        stream.write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let answer = read_until(&mut stream, "no such route\n");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    stream.write_all(b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let answer = read_until(&mut stream, "\"type\":\"live\",\"replayed\":0}\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn pipelined_requests_are_answered_in_order_the_stream_last() {
    let gateway = Setup::memory().start_ready();
    let mut stream = connect(&gateway.address);
    let missing = "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n";
    let wanted = "GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(format!("{missing}{missing}{wanted}{missing}").as_bytes()).unwrap();
    for _ in 0..2 {
        let answer = read_until(&mut stream, "no such route\n");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    let answer = read_until(&mut stream, "\"type\":\"live\",\"replayed\":0}\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    gateway.publish("events:a", "after it all");
    let event = read_until(&mut stream, "data: after it all\n\n\r\n");
    assert!(!event.contains("HTTP/1.1"), "what follows a stream's GET is discarded: {event}");
}

#[test]
fn head_gets_the_head_of_a_stream_and_no_stream() {
    let gateway = Setup::memory().start_ready();
    let request = "HEAD /events/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let response = exchange(&gateway.address, request);
    let lines = head_lines(&response.head);
    assert_eq!((response.status, response.body.as_str()), (200, ""));
    let expected = [
        "cache-control: no-cache, no-transform",
        "content-type: text/event-stream; charset=utf-8",
        "x-accel-buffering: no",
    ];
    for line in expected {
        assert!(lines.iter().any(|l| l == line), "{line} in {lines:?}");
    }
    assert!(!lines.iter().any(|l| l.starts_with("content-length")), "GET has none: {lines:?}");
    assert!(clients(&gateway).abs() < 0.5);
}

#[test]
fn no_route_is_404_and_another_method_405() {
    let gateway = Setup::memory().start_ready();
    assert_eq!(gateway.get("/nothing").status, 404);
    assert_eq!(gateway.get("/").status, 404);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"] {
        let request =
            format!("{method} /events/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let response = exchange(&gateway.address, &request);
        assert_eq!(response.status, 405, "{method}: {response:?}");
        let lines = head_lines(&response.head);
        assert!(lines.contains(&"allow: get, head".to_owned()), "{method}: {lines:?}");
    }
}

#[test]
fn a_client_that_accepts_no_event_stream_is_told_406() {
    let gateway = Setup::memory().start_ready();
    let ask = |accept: &str| {
        // HTTP/1.0 and HEAD end by themselves where they are accepted.
        let request = format!("HEAD /events/a HTTP/1.0\r\n{accept}\r\n");
        exchange(&gateway.address, &request).status
    };
    let accepted = [
        "",
        "Accept:\r\n",
        "Accept: ,\r\n",
        "Accept: *\r\n",
        "Accept: text/html, image/gif, *; q=.2, */*; q=.2\r\n",
        "Accept: */*\r\n",
        "Accept: text/*\r\n",
        "Accept: text/event-stream\r\n",
        "Accept: Text/Event-Stream\r\n",
        "Accept: text/event-stream;q=0.1\r\n",
        "Accept: text/html, application/json;q=0.9, */*;q=0.1\r\n",
        "Accept: text/html\r\nAccept: text/event-stream\r\n",
    ];
    for accept in accepted {
        assert_eq!(ask(accept), 200, "{accept}");
    }
    let refused = [
        "Accept: text/html\r\n",
        "Accept: application/json, text/plain\r\n",
        "Accept: text/event-stream;q=0\r\n",
        "Accept: */*;q=0.0\r\n",
        "Accept: text/event-stream;q=0, */*\r\n",
        "Accept: text/event-stream; Q=0\r\n",
        "Accept: *;q=0\r\n",
    ];
    for accept in refused {
        assert_eq!(ask(accept), 406, "{accept}");
    }
}

#[test]
fn a_stream_asked_for_with_a_body_or_expect_is_400() {
    let gateway = Setup::memory().start_ready();
    let bodies = [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Expect: 100-continue\r\n\r\n",
        "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    ];
    for body in bodies {
        let request = format!("GET /events/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{body}");
        let response = exchange(&gateway.address, &request);
        assert_eq!(response.status, 400, "{body}: {response:?}");
    }
    // No body, stated explicitly.
    Client::with(&gateway.address, "/events/a", &[("Content-Length", "0")]).live();
}

#[test]
fn an_empty_body_however_it_is_framed_is_none() {
    let gateway = Setup::memory().start_ready();
    for (framing, end) in [
        ("Content-Length: 00", ""),
        ("Content-Length: 0\r\nExpect:", ""),
        ("Transfer-Encoding: chunked", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "000;a=b\r\nTrailer: x\r\n\r\n"),
    ] {
        let head = format!("GET /events/a HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n");
        for pieces in [vec![head.clone() + end], vec![head.clone(), end.to_owned()]] {
            let mut stream = connect(&gateway.address);
            for piece in &pieces {
                stream.write_all(piece.as_bytes()).unwrap();
            }
            let said = read_until(&mut stream, "\"replayed\":0}\n");
            assert!(said.starts_with("HTTP/1.1 200 "), "{framing}: {said}");
        }
    }
}

#[test]
fn a_body_that_does_not_end_is_not_waited_for() {
    let gateway = Setup::memory().start_ready();
    Client::with(&gateway.address, "/events/a", &[("Transfer-Encoding", "chunked")]).live();
    // Content is refused however late it comes after the head, within that time.
    let mut stream = connect(&gateway.address);
    let head = "GET /events/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"1\r\nx\r\n0\r\n\r\n").unwrap();
    let said = read_until(&mut stream, "without a body\n");
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
}

#[test]
fn what_a_client_sends_after_its_request_disturbs_nobody() {
    let gateway = Setup::memory().start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    client.send(b"GET /events/b HTTP/1.1\r\nHost: x\r\n\r\n");
    client.send(&vec![b'x'; 1 << 20]);
    let id = gateway.publish("events:a", "still here");
    let event = client.entry();
    assert_eq!((event.data.as_str(), event.last_event_id), ("still here", id));
    assert!((clients(&gateway) - 1.0).abs() < 0.5);
}

#[test]
fn a_clients_fin_frees_its_place() {
    let gateway = Setup::memory().start_ready();
    let mut stream = connect(&gateway.address);
    stream.write_all(b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    read_until(&mut stream, "\"type\":\"live\",\"replayed\":0}\n");
    assert!((clients(&gateway) - 1.0).abs() < 0.5);
    stream.shutdown(Shutdown::Write).unwrap();
    eventually("its place is free", || clients(&gateway).abs() < 0.5);
    let left = "ssegate_client_disconnects_total{reason=\"client\"}";
    eventually("its leaving is counted", || (gateway.metric(left) - 1.0).abs() < 0.5);
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    assert!(end.is_ok(), "the server closes as well: {end:?}");
}
