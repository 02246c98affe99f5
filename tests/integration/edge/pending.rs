//! Connections that are no streams: they are bounded, the oldest is evicted, and none is kept for ever.

use std::time::{Duration, Instant};

use super::*;
use crate::support::swarm;
use crate::support::within;

/// In a debug build it is 3.3 KB; hyper's buffers would be 17.
const MOST_EACH: usize = 8 << 10;

const HALF: &[u8] = b"GET /events/a HTTP/1.1\r\nHost: x\r\nX-Half: ";

fn pending(gateway: &Gateway) -> f64 {
    gateway.metric("ssegate_connections_pending")
}

/// The connection that is about to get a slot, and workers' io_urings.
const SLACK: usize = 4;

/// So many connections that have sent `begin` and wait.
fn flood(gateway: &Gateway, count: usize, begin: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = connect(&gateway.address);
        // The gateway may have closed it for the next ones.
        let _ = stream.write_all(begin);
        stream
    };
    (0..count).map(open).collect()
}

/// Bytes of memory that are the gateway's own.
fn private_bytes(gateway: &Gateway) -> usize {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", gateway.pid())).unwrap();
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).unwrap();
    kib.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() << 10
}

#[test]
fn ten_thousand_half_sent_requests_hinder_no_new_client_and_cost_little() {
    let _raised = swarm::crowd();
    let gateway = setup().set("limits", "header_timeout = \"5m\"").start_ready();
    assert_eq!(outcome(connect(&gateway.address), &get("/events/a", "")).1, "live");
    let before = private_bytes(&gateway);
    let half = flood(&gateway, 10_000, HALF);
    within(DEADLINE * 3, "all are there", || pending(&gateway) > 9_999.5);
    let each = (private_bytes(&gateway) - before) / half.len();
    eprintln!("a half-sent request costs {each} bytes");
    assert!(each < MOST_EACH, "{each} bytes each");
    assert_eq!(outcome(connect(&gateway.address), &get("/events/a", "")).1, "live");
    assert_eq!(rejected(&gateway, "pending"), 0.0, "none had to give way");
    drop(half);
    eventually("all are gone", || pending(&gateway) < 0.5);
}

#[test]
fn with_few_descriptors_the_oldest_are_evicted_and_a_new_client_has_its_stream_at_once() {
    let _raised = swarm::crowd();
    for begin in [HALF, b"", b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let setup = setup().set("limits", "header_timeout = \"5m\"").descriptors(1_000);
        let gateway = setup.start_ready();
        let mut early = Client::open(&gateway.address, "/events/a");
        early.live();
        let _half = flood(&gateway, 10_000, begin);
        eventually("the oldest gave way", || rejected(&gateway, "pending") > 9_000.0);
        // 128 of our own, a quarter for readers; a stream that is open.
        assert!(pending(&gateway) <= f64::from(1_000 - 128 - 250 - 1));
        assert_eq!(outcome(connect(&gateway.address), &get("/events/a", "")).1, "live");
        let id = gateway.publish("events:a", "still here");
        assert_eq!(early.entry().last_event_id, id, "streams are never evicted");
        assert!(!gateway.log().contains("cannot accept connections"), "{}", gateway.log());
    }
}

#[test]
fn half_sent_proxy_headers_are_evicted_too() {
    let setup = setup().set("limits", "pending = 20").set("proxy", "protocol = [\"127.0.0.1:0\"]");
    let gateway = setup.start_ready();
    let _half = flood(&gateway, 500, b"PROXY TCP4 192.0.2.7 10.0");
    eventually("the oldest gave way", || rejected(&gateway, "pending") > 479.5);
    let request = format!("PROXY UNKNOWN\r\n{}", get("/events/a", ""));
    assert_eq!(outcome(connect(&gateway.address), &request).1, "live");
}

#[test]
fn a_connection_with_a_request_is_evicted_after_those_without() {
    let gateway = setup().set("limits", "pending = 3").start_ready();
    let mut first = connect(&gateway.address);
    let second = connect(&gateway.address);
    let _third = connect(&gateway.address);
    eventually("all are there", || pending(&gateway) > 2.5);
    let not_found = |stream: &mut TcpStream| {
        stream.write_all(get("/nothing", "").as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 404");
        let mut rest = [0; 1024];
        assert!(stream.read(&mut rest).unwrap() > 0);
    };
    not_found(&mut first);
    let _fourth = connect(&gateway.address);
    assert_eq!(rest(second), "", "it had waited longest");
    not_found(&mut first);
    were_rejected(&gateway, "pending", 1);
}

#[test]
fn refused_clients_that_stay_hinder_nobody() {
    let setup = setup().set("limits", "pending = 10").set("limits", "clients = 1");
    let gateway = setup.start_ready();
    let mut one = Client::open(&gateway.address, "/events/a");
    one.live();
    let before = swarm::descriptors(gateway.pid());
    // Each gets its answer, and does not close.
    let refused: Vec<_> = (0..100)
        .map(|_| {
            let (client, answer) = outcome(connect(&gateway.address), &get("/events/a", ""));
            assert_eq!(answer, "clients");
            let more = swarm::descriptors(gateway.pid()).saturating_sub(before);
            assert!(more <= 10 + SLACK, "{more} descriptors");
            client
        })
        .collect();
    drop(refused);
    one.leave();
    eventually("its place is free", || gateway.metric("ssegate_clients") < 0.5);
    assert_eq!(outcome(connect(&gateway.address), &get("/events/a", "")).1, "live");
}

#[test]
fn while_there_are_many_no_connection_is_kept_for_a_second_request() {
    let _raised = swarm::crowd();
    let gateway = setup().start_ready();
    let ask = || {
        let mut stream = connect(&gateway.address);
        stream.write_all(get("/nothing", "").as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 404 "), "{answer}");
        answer.contains("connection: close\r\n")
    };
    assert!(!ask());
    let silent = flood(&gateway, 1_100, b"");
    eventually("all are there", || pending(&gateway) > 1_000.5);
    assert!(ask());
    drop(silent);
    eventually("all are gone", || pending(&gateway) < 0.5);
    assert!(!ask());
}

/// Ends what `busy` does with a connection until the gateway closes it.
fn is_closed_in_the_end(mut busy: impl FnMut(&mut TcpStream) -> std::io::Result<()>) {
    let setup = setup()
        .set("limits", "header_timeout = \"500ms\"")
        .set("limits", "write_stall = \"500ms\"");
    let gateway = setup.start_ready();
    let mut stream = connect(&gateway.address);
    eventually("it is there", || pending(&gateway) > 0.5);
    let started = Instant::now();
    while busy(&mut stream).is_ok() {
        assert!(started.elapsed() < DEADLINE, "it is still open");
    }
    eventually("it is closed", || pending(&gateway) < 0.5);
    were_rejected(&gateway, "pending_timeout", 1);
}

#[test]
fn a_client_that_never_reads_its_responses_is_closed() {
    let many = get("/nothing", "").repeat(1_000);
    is_closed_in_the_end(|stream| {
        stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        match stream.write_all(many.as_bytes()) {
            // Neither side reads any more.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            outcome => outcome,
        }
    });
}

#[test]
fn a_client_that_never_asks_for_a_stream_is_closed() {
    is_closed_in_the_end(|stream| {
        stream.write_all(get("/nothing", "").as_bytes())?;
        let mut answer = [0; 4096];
        match stream.read(&mut answer)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    });
}

#[test]
fn an_idler_between_two_requests_is_closed_as_a_slow_head_is() {
    let gateway = setup().set("limits", "header_timeout = \"300ms\"").start_ready();
    let mut stream = connect(&gateway.address);
    stream.write_all(get("/nothing", "").as_bytes()).unwrap();
    let answer = rest(stream);
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("connection: close"), "it might have asked on");
    were_rejected(&gateway, "header_timeout", 1);
}
