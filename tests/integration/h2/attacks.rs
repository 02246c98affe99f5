//! Peers that break the rules of HTTP/2, or keep them and do harm. Each is bounded, in memory and in
//! time, and no other client notices.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, SOON, Setup};
use crate::support::multiplexed::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, End, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PING,
    PRIORITY, REFUSED_STREAM, RST_STREAM, SETTINGS, Session, WINDOW_UPDATE, Wire, frame, head,
    text,
};
use crate::support::{DEADLINE, eventually, within};

const MIB: usize = 1 << 20;
/// What an attack may cost the process at most, whatever it sends.
const COST_BYTES: usize = 24 * MIB;

/// A gateway under attack, and a client that must not notice.
struct Scene {
    gateway: Gateway,
    beside: Client,
    peak_before: usize,
    published: usize,
}

impl Scene {
    fn new() -> Self {
        Self::with(Setup::memory())
    }

    fn with(setup: Setup) -> Self {
        let gateway = setup.start_ready();
        let mut beside = Client::open(&gateway.address, "/events/beside");
        beside.live();
        let peak_before = gateway.peak_bytes();
        Self { gateway, beside, peak_before, published: 0 }
    }

    fn wire(&self) -> Wire {
        Wire::open(&self.gateway.address, &[])
    }

    /// The other client hears at once of what is new.
    #[track_caller]
    fn nobody_notices(&mut self) {
        let payload = format!("entry {}", self.published);
        self.published += 1;
        self.gateway.publish("events:beside", &payload);
        let begin = Instant::now();
        assert_eq!(self.beside.entry().data, payload);
        assert!(begin.elapsed() < SOON, "it came after {:?}", begin.elapsed());
    }

    /// Sends these bytes over and over until the connection is closed; how often they were sent.
    #[track_caller]
    fn flood(&mut self, wire: &mut Wire, bytes: &[u8], most: usize) -> usize {
        let frames = bytes.repeat(100);
        // What the gateway says is read, so that it is not our silence that ends it.
        let mut reading = wire.socket.try_clone().unwrap();
        let reader = std::thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink()));
        let mut sent = 0;
        while sent < most && wire.try_send(&frames) {
            sent += 100;
            if sent.is_multiple_of(2000) {
                self.nobody_notices();
            }
        }
        let _ = wire.socket.shutdown(std::net::Shutdown::Both);
        let _ = reader.join();
        sent
    }

    /// The connection was closed long before `most`, at little cost.
    #[track_caller]
    fn was_closed(mut self, sent: usize, most: usize) {
        assert!(sent < most, "all of {sent} were taken");
        self.was_cheap();
    }

    #[track_caller]
    fn was_cheap(&mut self) {
        self.nobody_notices();
        let cost = self.gateway.peak_bytes().saturating_sub(self.peak_before);
        assert!(cost < COST_BYTES, "it cost {} MiB", cost / MIB);
        eventually("only the other client is left", || {
            self.gateway.metric("ssegate_clients") == 1.0
        });
    }
}

/// Numbers of a client's streams: odd, and used once.
fn stream_ids() -> impl Iterator<Item = u32> {
    (0..).map(|nth| 1 + 2 * nth)
}

/// The frames that `of` makes for each of so many streams, by the hundred.
fn hundreds(most: usize, of: impl Fn(u32) -> Vec<u8>) -> impl Iterator<Item = Vec<u8>> {
    let mut ids = stream_ids();
    (0..most / 100).map(move |_| ids.by_ref().take(100).flat_map(&of).collect())
}

fn asked_for(id: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | 1, id, &head("/events/a", &[]))
}

#[test]
fn streams_that_are_reset_as_soon_as_they_are_asked_for() {
    const MOST: usize = 100_000;
    let mut scene = Scene::new();
    let mut wire = scene.wire();
    let frames = |id| [asked_for(id), frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes())].concat();
    let mut sent = 0;
    for frames in hundreds(MOST, frames) {
        if !wire.try_send(&frames) {
            break;
        }
        sent += 100;
        if sent % 2000 == 0 {
            scene.nobody_notices();
        }
    }
    scene.was_closed(sent, MOST);
}

#[test]
fn streams_that_the_server_is_made_to_reset() {
    const MOST: usize = 100_000;
    let mut scene = Scene::new();
    let mut wire = scene.wire();
    // A window over the most is an error of the stream (RFC 9113, 6.9.1).
    let too_much = ((1_u32 << 31) - 1).to_be_bytes();
    let frames = |id| [asked_for(id), frame(WINDOW_UPDATE, 0, id, &too_much)].concat();
    let mut sent = 0;
    for frames in hundreds(MOST, frames) {
        if !wire.try_send(&frames) {
            break;
        }
        sent += 100;
        if sent % 2000 == 0 {
            scene.nobody_notices();
        }
    }
    scene.was_closed(sent, MOST);
}

#[test]
fn a_head_that_never_ends() {
    const MOST: usize = 100_000;
    let mut scene = Scene::new();
    let mut wire = scene.wire();
    wire.send(HEADERS, 1, 1, &head("/events/a", &[]));
    let field = head("/", &[("x-filler", &"y".repeat(500))]);
    let sent = scene.flood(&mut wire, &frame(CONTINUATION, 0, 1, &field[20..]), MOST);
    scene.was_closed(sent, MOST);
}

#[test]
fn a_head_that_never_ends_in_empty_parts() {
    const MOST: usize = 1_000_000;
    let mut scene = Scene::new();
    let mut wire = scene.wire();
    wire.send(HEADERS, 1, 1, &head("/events/a", &[]));
    let sent = scene.flood(&mut wire, &frame(CONTINUATION, 0, 1, &[]), MOST);
    scene.was_closed(sent, MOST);
}

/// One field of 4 KB goes into the table, and then comes four thousand times for a byte each.
#[test]
fn a_small_head_that_decompresses_to_a_large_one() {
    let mut scene = Scene::new();
    let mut wire = scene.wire();
    let mut block = head("/events/a", &[]);
    // Literal, with an entry of its own in the table, which is then the first one: 62.
    block.push(0x40);
    block.extend(text("x"));
    block.extend(text(&"y".repeat(3900)));
    block.extend([0xbe; 4000]);
    wire.send(HEADERS, END_HEADERS | 1, 1, &block);
    let answer = loop {
        match wire.next() {
            Some(frame) if frame.id == 1 || frame.kind == GOAWAY => break Some(frame),
            Some(_) => {}
            None => break None,
        }
    };
    // Refused by status, by reset, or with the connection, but not served.
    assert!(!matches!(&answer, Some(frame) if frame.kind == HEADERS && frame.payload[0] == 0x88));
    drop(wire);
    scene.was_cheap();
}

#[test]
fn headers_of_more_than_a_head_may_have_are_refused() {
    let mut scene = Scene::new();
    let mut session = Session::open(&scene.gateway.address);
    let filler = "y".repeat(12_000);
    let id = session.get("/events/a", &[("x-one", &filler)]);
    assert_eq!(session.status(id), 200);
    let id = session.get("/events/a", &[("x-one", &filler), ("x-two", &filler[..2000])]);
    assert_eq!(session.status(id), 200);
    drop(session);
    scene.was_cheap();
}

#[test]
fn data_that_is_empty() {
    const MOST: usize = 1_000_000;
    let mut scene = Scene::new();
    let mut wire = scene.wire();
    wire.send(HEADERS, END_HEADERS, 1, &head("/events/a", &[]));
    let sent = scene.flood(&mut wire, &frame(DATA, 0, 1, &[]), MOST);
    scene.was_closed(sent, MOST);
}

#[test]
fn pings_without_an_end() {
    const MOST: usize = 1_000_000;
    let mut scene = Scene::new();
    let mut wire = scene.wire();
    wire.get(1, "/events/a", &[]);
    let sent = scene.flood(&mut wire, &frame(PING, 0, 0, &[0; 8]), MOST);
    scene.was_closed(sent, MOST);
}

#[test]
fn settings_without_an_end() {
    const MOST: usize = 1_000_000;
    let mut scene = Scene::new();
    let mut wire = scene.wire();
    wire.get(1, "/events/a", &[]);
    let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &65_535_u32.to_be_bytes()].concat();
    let sent = scene.flood(&mut wire, &frame(SETTINGS, 0, 0, &setting), MOST);
    scene.was_closed(sent, MOST);
}

#[test]
fn priorities_windows_and_frames_unheard_of_without_an_end() {
    const MOST: usize = 1_000_000;
    for (kind, id, payload) in [
        (PRIORITY, 7, &[0, 0, 0, 0, 1][..]),
        (WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
        (0xfa, 0, &[0; 16]),
    ] {
        let mut scene = Scene::new();
        let mut wire = scene.wire();
        wire.get(1, "/events/a", &[]);
        let sent = scene.flood(&mut wire, &frame(kind, 0, id, payload), MOST);
        scene.was_closed(sent, MOST);
    }
}

/// The answers are not read, so that they pile up somewhere.
#[test]
fn pings_whose_answers_are_not_read() {
    let setup = Setup::memory().set("limits", "header_timeout = \"1s\"");
    let mut scene = Scene::with(setup.set("limits", "write_stall = \"1s\""));
    let mut wire = scene.wire();
    wire.socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(100);
    let end = Instant::now() + DEADLINE;
    while wire.try_send(&pings) {
        assert!(Instant::now() < end, "they are taken for ever");
    }
    scene.nobody_notices();
    within(SOON, "the connection is closed", || match wire.socket.write(&pings) {
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    });
    scene.was_cheap();
}

#[test]
fn more_streams_than_a_connection_may_have() {
    let mut scene = Scene::new();
    let mut session = Session::open(&scene.gateway.address);
    // The client has to know the limit before it can be held to it.
    let first = session.stream("/events/a");
    session.live(first);
    let streams: Vec<_> = (1..128).map(|_| session.stream("/events/a")).collect();
    let refused = session.get("/events/a", &[]);
    assert_eq!(session.end(refused), End::Reset(REFUSED_STREAM));
    session.live(streams[100]);
    session.reset(first);
    eventually("one has left", || scene.gateway.metric("ssegate_clients") == 128.0);
    session.stream("/events/a");
    drop(session);
    scene.was_cheap();
}

/// Large entries wait for streams that take nothing: next to nothing of them is kept for each.
#[test]
fn stalled_windows_hold_next_to_nothing() {
    const CONNECTIONS: usize = 4;
    let setup = Setup::memory().set("limits", "write_stall = \"5s\"");
    let mut scene = Scene::with(setup);
    let large = "x".repeat(150 << 10);
    // Read as one page, of which each stream is sent the beginning.
    (0..5).for_each(|_| drop(scene.gateway.publish("events:a", &large)));
    let peak = scene.gateway.peak_bytes();
    let mut wires = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut wire = Wire::open(&scene.gateway.address, &[(INITIAL_WINDOW_SIZE, 1)]);
        for id in stream_ids().take(100) {
            wire.get(id, "/events/a?last_event_id=earliest", &[]);
        }
        wires.push(wire);
    }
    let all = (100 * CONNECTIONS + 1) as f64;
    eventually("all are open", || scene.gateway.metric("ssegate_clients") == all);
    for _ in 0..60 {
        scene.gateway.publish("events:a", &large);
    }
    scene.nobody_notices();
    let cost = scene.gateway.peak_bytes() - peak;
    // The ring has 8 MiB of them, and what is read is in memory a few times on its way; a tenth of a MiB
    // for each stream is what a send buffer of HTTP/1 may take.
    assert!(cost < 100 * CONNECTIONS * MIB / 10 + 24 * MIB, "it cost {} MiB", cost / MIB);
    let slow = || scene.gateway.metric("ssegate_client_disconnects_total{reason=\"slow\"}");
    eventually("all are cut", || slow() == all - 1.0);
    drop(wires);
}

/// A client that connects and asks for nothing, or stops in the middle of a request, is closed.
#[test]
fn a_connection_without_a_request() {
    let scene = Scene::with(Setup::memory().set("limits", "header_timeout = \"1s\""));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = frame(SETTINGS, 0, 0, &[]);
    let request = frame(HEADERS, 1, 1, &head("/events/a", &[]));
    for said in [
        preface[..10].to_vec(),
        preface.to_vec(),
        [&preface[..], &settings].concat(),
        [&preface[..], &settings, &request].concat(),
        [&preface[..], &settings, &request[..20]].concat(),
    ] {
        let mut socket = TcpStream::connect(&scene.gateway.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(&said).unwrap();
        let begin = Instant::now();
        let _ = std::io::copy(&mut socket, &mut std::io::sink());
        assert!(begin.elapsed() < SOON, "{} bytes: {:?}", said.len(), begin.elapsed());
    }
}

/// A peer that vanished answers no ping.
#[test]
fn a_client_that_answers_no_ping() {
    let setup = Setup::memory().set("server", "keepalive = \"1s\"");
    let mut scene = Scene::with(setup.set("limits", "write_stall = \"1s\""));
    let mut wire = Wire::open(&scene.gateway.address, &[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    wire.get(1, "/events/a", &[]);
    let begin = Instant::now();
    let said = wire.rest();
    assert!(said.iter().any(|frame| frame.kind == PING), "{said:?}");
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    scene.was_cheap();
}

#[test]
fn what_is_no_http2_at_all() {
    let mut scene = Scene::new();
    for garbage in [
        frame(DATA, 0, 0, b"x"),
        frame(SETTINGS, 0, 1, &[]),
        frame(HEADERS, END_HEADERS, 2, &head("/", &[])),
        frame(HEADERS, END_HEADERS | 1, 1, &[0xff; 50]),
        frame(PING, 0, 0, &[0; 3]),
        vec![0xff; 100],
    ] {
        let mut wire = scene.wire();
        wire.try_send(&garbage);
        let said = wire.rest();
        assert!(said.iter().any(|frame| frame.kind == GOAWAY), "{said:?}");
    }
    scene.was_cheap();
}
