//! The end of a gateway: what its clients are sent, when, and what a slow client costs it.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use ssegate::sse::parse::{Event, Item};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, SOON, Setup};
use crate::support::redis::{Connection, Redis};
use crate::support::{eventually, pause_of_the_scenario};

/// A thousand clients behind nginx.
mod behind_nginx;

/// Clients enough that their ends spread over a drain, whatever the random delays are.
const CLIENTS: usize = 40;

/// The end of a client's stream: the last event, and when it came.
struct Closing {
    last: Event,
    retry: Duration,
    complete: bool,
    after: Duration,
}

fn live_clients(gateway: &Gateway, count: usize) -> Vec<Client> {
    let clients = (0..count).map(|_| {
        let mut client = Client::open(&gateway.address, "/events/a");
        client.live();
        client
    });
    clients.collect()
}

fn is_draining(gateway: &Gateway) {
    eventually("/readyz is 503", || gateway.admin_get("/readyz").status == 503);
}

fn last_event(items: Vec<Item>) -> Event {
    match items.into_iter().next_back() {
        Some(Item::Event(event)) => event,
        other => panic!("the stream ends with {other:?}"),
    }
}

fn control(event: &Event) -> serde_json::Value {
    assert_eq!(event.event_type, "ssegate", "{event:?}");
    serde_json::from_str(&event.data).unwrap()
}

/// A text of `length` bytes that begins with its number.
fn numbered(number: usize, length: usize) -> String {
    format!("{number}:{}", "x".repeat(length))
}

fn number(event: &Event) -> usize {
    assert_eq!(event.event_type, "message", "{event:?}");
    event.data.split(':').next().unwrap().parse().unwrap()
}

fn fill(redis: &Redis, count: usize, length: usize) {
    let mut connection = Connection::open(redis).unwrap();
    for number in 1..=count {
        let payload = numbered(number, length);
        connection.run(&["XADD", "events:a", "*", "payload", &payload]).unwrap();
    }
}

/// Each client is read by a thread of its own, so that each end has its own time.
fn closings(clients: Vec<Client>, begin: Instant) -> Vec<Closing> {
    let closing = |mut client: Client| {
        thread::spawn(move || {
            let last = last_event(client.rest());
            let after = begin.elapsed();
            let retry = client.reconnection_time().unwrap();
            Closing { last, retry, complete: client.complete, after }
        })
    };
    let threads: Vec<_> = clients.into_iter().map(closing).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn stops_well(signal: &str) {
    let setup = Setup::memory().set("server", "drain = \"2s\"").set("server", "retry = \"2s\"");
    let mut gateway = setup.start_ready();
    let mut clients = live_clients(&gateway, CLIENTS);
    let id = gateway.publish("events:a", "one");
    for client in &mut clients {
        assert_eq!(client.entry().last_event_id, id);
    }
    assert_eq!(gateway.admin_get("/readyz").status, 200);

    let begin = Instant::now();
    gateway.signal(signal);
    let reader = thread::spawn(move || closings(clients, begin));
    is_draining(&gateway);
    let closings = reader.join().unwrap();
    for closing in &closings {
        assert_eq!(control(&closing.last)["type"], "drain");
        assert_eq!(closing.last.last_event_id, id);
        assert!(closing.complete, "the chunks were not ended");
        let retry = closing.retry.as_millis();
        assert!((200..=2700).contains(&retry), "retry: {retry}");
        // No client comes back to a gateway that would close it again.
        let returns = closing.after + closing.retry;
        assert!(returns >= Duration::from_secs(2), "{:?} + {retry} ms", closing.after);
    }
    let retries: HashSet<_> = closings.iter().map(|closing| closing.retry).collect();
    assert!(retries.len() > CLIENTS / 2, "one retry for many: {retries:?}");
    let first = closings.iter().map(|closing| closing.after).min().unwrap();
    let last = closings.iter().map(|closing| closing.after).max().unwrap();
    assert!(
        last.saturating_sub(first) > Duration::from_millis(500),
        "not spread: {first:?} to {last:?}"
    );
    let code = gateway.wait().code();
    assert_eq!(code, Some(0));
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2) + SOON, "drained in {took:?}");
}

#[test]
fn sigterm_disconnects_each_client_with_its_id_and_a_retry_of_its_own() {
    stops_well("TERM");
}

#[test]
fn sigint_does_the_same() {
    stops_well("INT");
}

#[test]
fn without_clients_a_stop_takes_no_time() {
    let mut gateway = Setup::memory().set("server", "drain = \"1m\"").start_ready();
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_lone_gateway_serves_newcomers_and_closes_all_in_the_last_retry_of_its_drain() {
    const DRAIN: Duration = Duration::from_secs(6);
    let setup = Setup::memory().set("server", "drain = \"6s\"").set("server", "retry = \"2s\"");
    let mut gateway = setup.start_ready();
    let mut clients = live_clients(&gateway, CLIENTS);
    let begin = Instant::now();
    gateway.signal("TERM");
    is_draining(&gateway);
    clients.extend(live_clients(&gateway, CLIENTS));
    let mut resumed = Client::resume(&gateway.address, "/events/a", "5-0");
    let id = gateway.publish("events:a", "during the drain");
    assert_eq!(resumed.entry().last_event_id, id);
    clients.push(resumed);

    let closings = closings(clients, begin);
    for closing in &closings {
        assert_eq!(control(&closing.last)["type"], "drain");
        assert_eq!(closing.last.last_event_id, id);
        assert!(closing.complete);
        let (after, retry) = (closing.after, closing.retry);
        // A moment passes between the signal and the drain, but not before it.
        assert!(after >= DRAIN - Duration::from_secs(2), "closed after {after:?}");
        assert!(after + retry >= DRAIN, "closed after {after:?}, comes back after {retry:?} more");
    }
    let first = closings.iter().map(|closing| closing.after).min().unwrap();
    let last = closings.iter().map(|closing| closing.after).max().unwrap();
    assert!(last - first > Duration::from_millis(500), "not spread: {first:?} to {last:?}");
    let returns: HashSet<_> = closings.iter().map(|closing| closing.retry).collect();
    assert!(returns.len() > CLIENTS, "one retry for many: {returns:?}");
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_client_that_takes_nothing_does_not_hold_up_a_lone_gateway() {
    let setup = Setup::memory().set("server", "drain = \"1s\"");
    let mut gateway = setup.set("limits", "write_stall = \"5m\"").start_ready();
    let mut stalled = Client::with_small_window(&gateway.address, "/events/a");
    stalled.live();
    for entry in 0..20 {
        let id = gateway.publish("events:a", &numbered(entry, 100_000));
        gateway.has_read("events:a", &id);
    }
    let begin = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(1 + 5 + 1) + SOON, "drained in {took:?}");
    assert!(!stalled.rest().is_empty() && !stalled.complete, "it has to see that it was cut");
}

#[test]
fn a_second_signal_ends_at_once() {
    for (first, second) in [("TERM", "TERM"), ("TERM", "INT"), ("INT", "INT")] {
        let mut gateway = Setup::memory().set("server", "drain = \"5m\"").start_ready();
        let clients = live_clients(&gateway, CLIENTS);
        gateway.signal(first);
        is_draining(&gateway);
        gateway.signal(second);
        assert_eq!(gateway.wait().code(), Some(1));
        drop(clients);
    }
}

#[test]
fn a_drain_in_mid_replay_ends_between_two_events_and_the_resume_continues_there() {
    const ENTRIES: usize = 2_000;
    let redis = Redis::start();
    fill(&redis, ENTRIES, 4_000);
    let mut gateway = Setup::redis(&redis).set("server", "drain = \"2s\"").start_ready();
    let path = "/events/a?last_event_id=earliest";
    let mut client = Client::with_small_window(&gateway.address, path);
    for expected in 1..=50 {
        assert_eq!(number(&client.event()), expected);
    }
    gateway.signal("TERM");
    let mut expected = 51;
    let last = loop {
        let event = client.event();
        if event.event_type == "ssegate" {
            break event;
        }
        assert_eq!(number(&event), expected);
        expected += 1;
        pause_of_the_scenario(Duration::from_millis(4), "a client that is slow");
    };
    assert_eq!(control(&last)["type"], "drain");
    assert!(expected < ENTRIES, "the replay was over before the drain");
    assert_eq!(client.rest(), []);
    assert!(client.complete);
    assert_eq!(gateway.wait().code(), Some(0));

    let next = Setup::redis(&redis).start_ready();
    let mut client = Client::resume(&next.address, "/events/a", &last.last_event_id);
    assert_eq!(number(&client.event()), expected);
}

#[test]
fn a_client_that_takes_little_at_a_time_gets_no_new_event_once_it_must_close() {
    let redis = Redis::start();
    fill(&redis, 1_000, 2_000);
    let mut gateway = Setup::redis(&redis)
        .set("server", "drain = \"1s\"")
        .set("limits", "write_stall = \"8s\"")
        .set("limits", "send_buffer = \"8KiB\"")
        .start_ready();
    let path = "/events/a?last_event_id=earliest";
    let mut client = Client::with_small_window(&gateway.address, path);
    for expected in 1..=5 {
        assert_eq!(number(&client.event()), expected);
    }
    gateway.signal("TERM");
    let mut expected = 6;
    let last = loop {
        let event = client.event();
        if event.event_type == "ssegate" {
            break event;
        }
        assert_eq!(number(&event), expected);
        expected += 1;
        pause_of_the_scenario(Duration::from_millis(150), "a client that takes little");
    };
    assert_eq!(control(&last)["type"], "drain");
    assert_eq!(client.rest(), []);
    assert!(client.complete);
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_client_that_reads_nothing_is_cut_and_does_not_hold_the_exit() {
    let mut gateway = Setup::memory()
        .set("server", "drain = \"1s\"")
        .set("limits", "write_stall = \"3s\"")
        .start_ready();
    let mut stalled = Client::with_small_window(&gateway.address, "/events/a");
    let mut reading = Client::open(&gateway.address, "/events/a");
    stalled.live();
    reading.live();
    for entry in 0..20 {
        gateway.publish("events:a", &numbered(entry, 100_000));
        assert_eq!(number(&reading.entry()), entry);
    }
    let begin = Instant::now();
    gateway.signal("TERM");
    assert_eq!(control(&last_event(reading.rest()))["type"], "drain");
    assert!(reading.complete);
    assert_eq!(gateway.wait().code(), Some(0));
    let took = begin.elapsed();
    // drain + write_stall + 1 s, and what a loaded machine adds.
    assert!(took < Duration::from_secs(1 + 3 + 1) + SOON, "drained in {took:?}");
    assert!(!stalled.rest().is_empty());
    assert!(!stalled.complete, "a client that is cut must not take it for an end");
}

#[test]
fn a_client_that_stalled_in_mid_event_gets_the_rest_of_it_before_the_closing_frame() {
    let setup = Setup::memory().set("server", "drain = \"100ms\"");
    let mut gateway = setup.start_ready();
    let mut stalled = Client::with_small_window(&gateway.address, "/events/a");
    let mut reading = Client::open(&gateway.address, "/events/a");
    stalled.live();
    reading.live();
    for entry in 0..20 {
        gateway.publish("events:a", &numbered(entry, 100_000));
        assert_eq!(number(&reading.entry()), entry);
    }
    gateway.signal("TERM");
    reading.rest();
    // By now it must close, and anything sent to it waits behind half an event.
    pause_of_the_scenario(Duration::from_millis(300), "its drain is over");
    let mut items = stalled.rest();
    let last = items.pop().map(|item| last_event(vec![item])).unwrap();
    assert_eq!(control(&last)["type"], "drain");
    assert!(stalled.complete);
    assert!(!items.is_empty() && items.len() < 20, "{} entries", items.len());
    let entries: Vec<_> = items.into_iter().map(|item| last_event(vec![item])).collect();
    for (expected, event) in entries.iter().enumerate() {
        assert_eq!(event.data, numbered(expected, 100_000));
    }
    assert_eq!(entries.last().unwrap().last_event_id, last.last_event_id);
    assert_eq!(gateway.wait().code(), Some(0));
}
