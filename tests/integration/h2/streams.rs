//! What the contract says of streams, over HTTP/2: starts, gaps, signals, ends.

use std::time::{Duration, Instant};

use super::live;
use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::multiplexed::{
    CANCEL, DATA, END_STREAM, End, INITIAL_WINDOW_SIZE, Session, WINDOW_UPDATE, Wire,
};
use crate::support::redis::Redis;

#[test]
fn a_stream_is_resumed_by_header_and_by_query() {
    let gateway = Setup::memory().start_ready();
    let ids: Vec<_> = (0..5).map(|n| gateway.publish("events:a", &n.to_string())).collect();
    let mut session = Session::open(&gateway.address);
    let by_header = session.get("/events/a", &[("Last-Event-ID", &ids[1])]);
    let by_query = session.get(&format!("/events/a?last_event_id={}", ids[2]), &[]);
    for (stream, from) in [(by_header, 2), (by_query, 3)] {
        for (nth, id) in ids.iter().enumerate().skip(from) {
            let event = session.event(stream);
            assert_eq!((&event.last_event_id, event.data), (id, nth.to_string()));
        }
        assert_eq!(session.live(stream), 5 - from as u64);
    }
    gateway.publish("events:a", "live");
    assert_eq!(session.event(by_header).data, "live");
    assert_eq!(session.event(by_query).data, "live");
}

#[test]
fn the_past_is_read_from_redis_and_what_is_gone_is_a_gap() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    (1..=3000).for_each(|n| {
        redis.run(&["XADD", "events:a", &format!("{n}-0"), "payload", &n.to_string()]);
    });
    redis.run(&["XTRIM", "events:a", "MINID", "501"]);
    let mut session = Session::open(&gateway.address);
    let id = session.get("/events/a", &[("Last-Event-ID", "10-0")]);
    let (gap, at) = session.control(id);
    assert_eq!((gap["reason"].as_str(), gap["next"].as_str()), (Some("trimmed"), Some("501-0")));
    assert_eq!(at, "500-18446744073709551615");
    for n in 501..=3000 {
        assert_eq!(session.event(id).data, n.to_string());
    }
    assert_eq!(session.live(id), 2500);
}

#[test]
fn keepalives_are_sent_and_the_loss_of_redis_is_reported() {
    let mut redis = Redis::start();
    let gateway = Setup::redis(&redis).set("server", "keepalive = \"1s\"").start_ready();
    let (mut session, id) = live(&gateway);
    session.comment(id, "keepalive");
    session.comment(id, "keepalive");
    redis.kill();
    session.comment(id, "reconnecting");
    session.comment(id, "reconnecting");
    redis.launch();
    session.comment(id, "reconnected");
    redis.add("events:a", "again");
    // The stream that was there is gone with that Redis, or is empty: new entries come in any case.
    while session.event(id).data != "again" {}
}

#[test]
fn a_stream_of_its_age_ends_and_its_connection_stays() {
    let gateway = Setup::memory().set("server", "max_connection_age = \"1s\"").start_ready();
    let (mut session, id) = live(&gateway);
    assert_eq!(session.end(id), End::Whole);
    let id = session.stream("/events/a");
    session.live(id);
    assert_eq!(session.last_answered, None);
    assert_eq!(gateway.metric("ssegate_client_disconnects_total{reason=\"rotated\"}"), 1.0);
}

#[test]
fn a_client_that_resets_a_stream_has_left_it() {
    let gateway = Setup::memory().start_ready();
    let (mut session, first) = live(&gateway);
    let second = session.stream("/events/b");
    session.live(second);
    assert_eq!(gateway.metric("ssegate_clients"), 2.0);
    session.reset(first);
    eventually("it has left", || gateway.metric("ssegate_clients") == 1.0);
    gateway.publish("events:b", "to the other");
    assert_eq!(session.event(second).data, "to the other");
    drop(session);
    eventually("both have left", || gateway.metric("ssegate_clients") == 0.0);
    assert_eq!(gateway.metric("ssegate_client_disconnects_total{reason=\"client\"}"), 2.0);
}

#[test]
fn each_stream_is_a_client_to_the_limits() {
    let limited = || Setup::memory().set("limits", "clients_per_ip = 2");
    let gateway = limited().start_ready();
    let (mut session, _) = live(&gateway);
    session.stream("/events/b");
    let refused = session.stream("/events/c");
    let (control, _) = session.control(refused);
    assert_eq!(
        (&control["type"], &control["reason"]),
        (&"unavailable".into(), &"clients_per_ip".into())
    );
    assert!(session.reconnection_time(refused).unwrap() >= Duration::from_secs(10));
    assert_eq!(session.end(refused), End::Whole);
    let gateway = limited().set("server", "refuse = \"status\"").start_ready();
    let (mut session, _) = live(&gateway);
    session.stream("/events/b");
    let refused = session.get("/events/c", &[]);
    assert_ne!(session.status(refused), 200);
    assert_eq!(session.end(refused), End::Whole);
    assert_eq!(gateway.metric("ssegate_http_responses_total{code=\"503\"}"), 1.0);
}

#[test]
fn a_drain_ends_each_stream_late_ones_too_and_closes_the_connection() {
    let mut gateway = Setup::memory().set("server", "drain = \"2s\"").start_ready();
    let mut session = Session::open(&gateway.address);
    let streams: Vec<_> = (0..20).map(|_| session.stream("/events/a")).collect();
    streams.iter().for_each(|id| _ = session.live(*id));
    let id = gateway.publish("events:a", "last");
    let mut aside = Session::open(&gateway.address);
    gateway.signal("TERM");
    eventually("it drains", || gateway.admin_get("/readyz").status == 503);
    let late = aside.stream("/events/a");
    aside.live(late);
    assert_eq!(aside.control(late).0["type"], "drain");
    assert_eq!(aside.end(late), End::Whole);
    let begin = Instant::now();
    for stream in streams {
        assert_eq!(session.event(stream).data, "last");
        let (control, at) = session.control(stream);
        assert_eq!((&control["type"], &at), (&"drain".into(), &id));
        assert_eq!(session.end(stream), End::Whole);
    }
    session.closed();
    assert_eq!(session.last_answered, Some(39));
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn a_stream_without_a_window_is_cut_and_those_beside_it_are_not() {
    let gateway = Setup::memory().set("limits", "write_stall = \"1s\"");
    let gateway = gateway.set("server", "keepalive = \"1s\"").start_ready();
    let wire = Wire::open(&gateway.address, &[(INITIAL_WINDOW_SIZE, 0)]);
    let mut session = Session::over(wire);
    let (stalled, open) = (session.stream("/events/a"), session.stream("/events/a"));
    session.wire.send(WINDOW_UPDATE, 0, open, &(1_u32 << 20).to_be_bytes());
    session.live(open);
    assert_eq!(session.end(stalled), End::Reset(CANCEL));
    let slow = || gateway.metric("ssegate_client_disconnects_total{reason=\"slow\"}");
    eventually("it is counted as slow", || slow() == 1.0);
    gateway.publish("events:a", "still here");
    assert_eq!(session.event(open).data, "still here");
    assert_eq!(gateway.metric("ssegate_clients"), 1.0);
}

/// A window that opens by little and little lets a large entry through, byte by byte the same.
#[test]
fn a_small_window_cuts_no_entry() {
    let gateway = Setup::memory().set("limits", "write_stall = \"2s\"").start_ready();
    let payload: String = (0..20_000).map(|n| format!("{n:05},")).collect();
    gateway.publish("events:a", &payload);
    let mut wire = Wire::open(&gateway.address, &[(INITIAL_WINDOW_SIZE, 1000)]);
    wire.get(1, "/events/a?last_event_id=earliest", &[]);
    let mut body = Vec::new();
    while !body.ends_with(b"\"replayed\":1}\n\n") {
        let frame = wire.next().expect("the connection stays");
        if frame.kind == DATA {
            let more = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
            body.extend(frame.payload);
            wire.send(WINDOW_UPDATE, 0, 1, &more);
            wire.send(WINDOW_UPDATE, 0, 0, &more);
        }
    }
    assert!(String::from_utf8(body).unwrap().contains(&format!("data: {payload}\n\n")));
}

#[test]
fn an_empty_body_in_a_frame_of_its_own_is_none() {
    let gateway = Setup::memory().start_ready();
    // Each is the DATA that follows the head; after none the stream begins as well.
    let bodies = [
        (vec![("", END_STREAM)], 200),
        (vec![("", 0), ("", END_STREAM)], 200),
        (vec![], 200),
        (vec![("x", END_STREAM)], 400),
        (vec![("", 0), ("x", 0)], 400),
    ];
    for (frames, status) in bodies {
        let mut session = Session::open(&gateway.address);
        let id = session.open_request("/events/a");
        for (payload, flags) in &frames {
            session.wire.send(DATA, *flags, id, payload.as_bytes());
        }
        assert_eq!(session.status(id), status, "{frames:?}");
        if status == 200 {
            assert_eq!(session.live(id), 0);
        }
    }
}
