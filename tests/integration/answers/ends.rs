//! The end of a stream: what its clients hear, and what they get when they come back.

use serde_json::json;

use super::{Scene, everywhere, on_redis, raw_head, routes};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::multiplexed::{End, Session};
use crate::support::redis::Redis;

const ROUTE: &str = r#"end = { field = "payload", equals = ["[END]", "[ERROR]"] }"#;
const FROM_THE_START: &str = r#"
    end = { field = "payload", equals = "[END]" }
    start = "earliest"
"#;

/// The client hears these entries, then the end with the marker's id, and the body ends as it should.
#[track_caller]
pub fn hears_to_the_end(mut client: Client, payloads: &[&str], marker: &str) {
    for payload in payloads {
        assert_eq!(client.entry().data, *payload);
    }
    ends(&mut client, marker);
}

#[track_caller]
pub fn ends(client: &mut Client, marker: &str) {
    let end = json!({"type": "end", "reason": "marker"});
    assert_eq!(client.control(), (end, marker.to_owned()));
    assert_eq!(client.rest(), Vec::new());
    assert!(client.complete, "the last chunk is missing");
}

#[test]
fn the_marker_is_delivered_and_the_end_is_told() {
    everywhere(ROUTE, |scene| {
        let mut live: Vec<_> = (0..3).map(|_| scene.open("")).collect();
        live.iter_mut().for_each(|client| drop(client.live()));
        let ids = scene.publish(&["one", "two", "[ERROR]"]);
        for client in live {
            hears_to_the_end(client, &["one", "two", "[ERROR]"], &ids[2]);
        }
        let ended = "ssegate_streams_ended_total{route=\"/events/{name}\",reason=\"marker\"}";
        eventually("they are counted", || scene.gateway.metric(ended) == 3.0);
        let disconnects = "ssegate_client_disconnects_total{reason=\"ended\"}";
        assert_eq!(scene.gateway.metric(disconnects), 3.0);
    });
}

#[test]
fn who_comes_back_at_or_past_the_end_gets_204_and_before_it_the_rest() {
    everywhere(ROUTE, |scene| {
        let ids = scene.publish(&["one", "two", "[END]"]);
        let past = "18446744073709551615-0";
        for id in [&*ids[2], past] {
            let head = raw_head(scene, &format!("Last-Event-ID: {id}\r\n"));
            assert!(head.starts_with("HTTP/1.1 204 "), "{id}: {head}");
            assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
            assert!(!head.contains("content-length"), "{head}");
            assert_eq!(scene.status(&format!("?last_event_id={id}")), 204, "{id}");
        }
        hears_to_the_end(scene.resume(&ids[0]), &["two", "[END]"], &ids[2]);
        hears_to_the_end(scene.open("?last=1"), &["[END]"], &ids[2]);
        hears_to_the_end(scene.open("?last_event_id=earliest"), &["one", "two", "[END]"], &ids[2]);
        assert_eq!(scene.status(""), 204, "what is new is nothing");
        assert_eq!(scene.gateway.metric("ssegate_http_responses_total{code=\"204\"}"), 5.0);
    });
}

#[test]
fn the_end_is_known_after_a_restart_and_over_every_protocol() {
    on_redis(FROM_THE_START, |redis, gateway, restart| {
        let scene = Scene { gateway };
        let ids = scene.publish(&["one", "[END]"]);
        drop(scene);
        let scene = Scene { gateway: restart() };
        assert_eq!(scene.status(&format!("?last_event_id={}", ids[1])), 204);
        hears_to_the_end(scene.open(""), &["one", "[END]"], &ids[1]);
        let path = format!("/events/a?last_event_id={}", ids[1]);
        let old = Client::raw(&scene.gateway.address, &format!("GET {path} HTTP/1.0\r\n\r\n"));
        assert!(old.head.starts_with("HTTP/1.0 204 "), "{}", old.head);
        let mut old = Client::raw(&scene.gateway.address, "GET /events/a HTTP/1.0\r\n\r\n");
        assert_eq!(old.entry().data, "one");
        assert_eq!(old.entry().data, "[END]");
        ends(&mut old, &ids[1]);
        let mut session = Session::open(&scene.gateway.address);
        let over = session.get(&path, &[]);
        assert_eq!(session.status(over), 204);
        assert_eq!(session.end(over), End::Whole);
        let replay = session.stream("/events/a");
        assert_eq!(session.event(replay).data, "one");
        assert_eq!(session.event(replay).data, "[END]");
        let end = json!({"type": "end", "reason": "marker"});
        assert_eq!(session.control(replay), (end, ids[1].clone()));
        assert_eq!(session.end(replay), End::Whole);
        let _ = redis;
    });
}

#[test]
fn an_entry_behind_the_marker_reopens_the_stream() {
    everywhere(ROUTE, |scene| {
        let ids = scene.publish(&["one", "[END]"]);
        let mut onlooker = scene.open("?last_event_id=earliest");
        assert_eq!(onlooker.entry().data, "one");
        let more = scene.publish(&["more"]);
        // Who had the end comes back and goes on, though the reader may still see the end.
        let mut client = scene.resume(&ids[1]);
        assert_eq!(client.entry().data, "more");
        let end = scene.publish(&["[END]"]);
        hears_to_the_end(client, &["[END]"], &end[0]);
        // Who replays hears of the last end alone.
        let all = ["one", "[END]", "more", "[END]"];
        hears_to_the_end(scene.open("?last_event_id=earliest"), &all, &end[0]);
        hears_to_the_end(scene.resume(&more[0]), &["[END]"], &end[0]);
        assert_eq!(scene.status(&format!("?last_event_id={}", end[0])), 204);
    });
}

#[test]
fn a_reopened_stream_is_counted() {
    everywhere(ROUTE, |scene| {
        let mut client = scene.open("");
        client.live();
        // The reader of another route's client goes on over the marker.
        let mut plain = Client::open(&scene.gateway.address, "/plain/a");
        plain.live();
        let ids = scene.publish(&["[END]"]);
        hears_to_the_end(client, &["[END]"], &ids[0]);
        assert_eq!(scene.gateway.metric("ssegate_streams_reopened_total"), 0.0);
        scene.publish(&["more"]);
        while plain.entry().data != "more" {}
        assert_eq!(scene.gateway.metric("ssegate_streams_reopened_total"), 1.0);
        scene.publish(&["and more"]);
        while plain.entry().data != "and more" {}
        assert_eq!(scene.gateway.metric("ssegate_streams_reopened_total"), 1.0);
    });
}

#[test]
fn a_key_that_is_gone_after_its_end_is_204_for_who_has_heard_of_it() {
    on_redis(ROUTE, |redis, gateway, restart| {
        let mut scene = Scene { gateway };
        let ids = scene.publish(&["one", "[END]"]);
        redis.run(&["DEL", "events:a"]);
        for _ in 0..2 {
            for id in &ids {
                assert_eq!(scene.status(&format!("?last_event_id={id}")), 204, "{id}");
            }
            drop(scene);
            scene = Scene { gateway: restart() };
        }
        // Who has heard nothing waits for the first entry, as ids of conversations are used again.
        let mut client = scene.open("");
        assert_eq!(client.live(), (0, "0-0".into()));
        assert_eq!(scene.gateway.get("/events/a?last_event_id=5-5").status, 204);
        let mut waits = scene.resume("0-0");
        waits.live();
        let ids = scene.publish(&["another life", "[END]"]);
        hears_to_the_end(client, &["another life", "[END]"], &ids[1]);
        hears_to_the_end(waits, &["another life", "[END]"], &ids[1]);
    });
}

#[test]
fn who_is_at_the_marker_when_its_key_goes_hears_the_end() {
    on_redis(ROUTE, |redis, gateway, _| {
        let scene = Scene { gateway };
        let mut clients: Vec<_> = (0..5).map(|_| scene.open("")).collect();
        clients.iter_mut().for_each(|client| drop(client.live()));
        let script = "redis.call('XADD', KEYS[1], '1-1', 'payload', '[END]') \
            redis.call('DEL', KEYS[1]) redis.call('XADD', KEYS[1], '1-2', 'payload', 'next life')";
        // One write: the reader sees no more of the old life than it has read.
        redis.run(&["XADD", "events:a", "1-0", "payload", "[END]"]);
        for client in clients {
            hears_to_the_end(client, &["[END]"], "1-0");
        }
        redis.run(&["EVAL", script, "1", "events:a"]);
        let mut next = scene.open("?last_event_id=earliest");
        assert_eq!(next.entry().data, "next life");
    });
}

#[test]
fn who_came_while_the_source_was_away_is_told_that_its_key_is_gone() {
    let mut redis = Redis::start();
    let gateway = Setup::redis(&redis).routes(&routes(ROUTE)).start_ready();
    let scene = Scene { gateway };
    let ids = scene.publish(&["one", "[END]"]);
    redis.kill();
    // The one lacks the end, the other has it.
    let clients: Vec<_> = ids.into_iter().map(|id| (scene.resume(&id), id)).collect();
    redis.launch();
    for (mut client, id) in clients {
        let gap =
            json!({"type": "gap", "after": id, "next": null, "lost": null, "reason": "reset"});
        // It keeps its id, for which it gets 204.
        assert_eq!(client.control(), (gap, id.clone()));
        assert_eq!(client.rest(), Vec::new());
        assert!(!client.complete);
        assert_eq!(scene.status(&format!("?last_event_id={id}")), 204);
    }
}

#[test]
fn the_end_is_sent_again_where_the_route_says_so() {
    let route = r#"
        end = { field = "payload", equals = "[END]" }
        start = "earliest"
        ended = "replay"
    "#;
    on_redis(route, |redis, gateway, _| {
        let scene = Scene { gateway };
        let ids = scene.publish(&["one", "[END]"]);
        for client in [scene.open(""), scene.resume(&ids[1]), scene.resume("-1")] {
            hears_to_the_end(client, &["one", "[END]"], &ids[1]);
        }
        redis.run(&["DEL", "events:a"]);
        let mut session = Session::open(&scene.gateway.address);
        let mut gone = scene.resume(&ids[1]);
        let end = json!({"type": "end", "reason": "marker"});
        assert_eq!(gone.control().0, end);
        assert_eq!(gone.rest(), Vec::new());
        assert!(gone.complete);
        let gone = session.get("/events/a", &[("last-event-id", &ids[1])]);
        assert_eq!(session.status(gone), 200);
        assert_eq!(session.control(gone).0, end);
        assert_eq!(session.end(gone), End::Whole);
    });
}

/// Nothing is new to a client that begins with what is new.
#[test]
fn where_the_end_is_sent_again_a_live_client_hears_of_it_at_once() {
    everywhere(&format!("{ROUTE}\nended = \"replay\""), |scene| {
        let mut plain = Client::open(&scene.gateway.address, "/plain/a");
        plain.live();
        let mut first = scene.open("");
        first.live();
        let ids = scene.publish(&["[END]"]);
        hears_to_the_end(first, &["[END]"], &ids[0]);
        for mut client in [scene.open(""), scene.resume(&ids[0])] {
            client.live();
            ends(&mut client, &ids[0]);
        }
    });
}

#[test]
fn an_ended_stream_costs_nothing() {
    on_redis(ROUTE, |redis, gateway, _| {
        let scene = Scene { gateway };
        let mut clients: Vec<_> = (0..3).map(|_| scene.open("")).collect();
        clients.iter_mut().for_each(|client| drop(client.live()));
        eventually("it reads", || redis.blocked() == 1);
        let ids = scene.publish(&["[END]"]);
        for client in clients {
            hears_to_the_end(client, &["[END]"], &ids[0]);
        }
        let readers = || scene.gateway.metric("ssegate_readers");
        eventually("its reader is gone at once, though others linger", || readers() == 0.0);
        assert_eq!(scene.gateway.metric("ssegate_buffered_bytes"), 0.0);
        assert_eq!(scene.status(&format!("?last_event_id={}", ids[0])), 204);
        eventually("and the reader that answered the question", || readers() == 0.0);
    });
}

/// The reader lingers for who may come back, until there is nothing to come back to.
#[test]
fn a_stream_that_ends_after_its_last_client_has_left_costs_nothing_either() {
    on_redis(ROUTE, |redis, gateway, _| {
        let scene = Scene { gateway };
        let mut client = scene.open("");
        client.live();
        scene.publish(&["one"]);
        assert_eq!(client.entry().data, "one");
        client.leave();
        let metric = |name| scene.gateway.metric(name);
        eventually("the client has left", || metric("ssegate_clients") == 0.0);
        assert_eq!(metric("ssegate_readers"), 1.0);
        redis.add("events:a", "[END]");
        eventually("its reader has gone", || metric("ssegate_readers") == 0.0);
    });
}

#[test]
fn the_operator_sees_that_a_stream_has_ended() {
    everywhere(ROUTE, |scene| {
        let mut plain = Client::open(&scene.gateway.address, "/plain/a");
        plain.live();
        let mut client = scene.open("");
        client.live();
        let ended = || scene.gateway.streams()[0]["ended"].clone();
        assert_eq!(ended(), json!(false));
        let ids = scene.publish(&["[END]"]);
        hears_to_the_end(client, &["[END]"], &ids[0]);
        assert_eq!(ended(), json!(true));
    });
}
