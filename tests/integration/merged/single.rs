//! One stream that fares otherwise than the others.

use std::time::{Duration, Instant};

use ssegate::sse::parse::Item;

use super::{ROUTES, both, everywhere, on_redis};
use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::redis::{Answer, Redis};
use crate::support::{eventually, pause_of_the_scenario};

#[test]
fn a_trim_of_one_stream_is_a_gap_for_it_alone() {
    on_redis(ROUTES, |scene| {
        let chat: Vec<_> = (0..9).map(|n| scene.redis.add("chat:u", &format!("c{n}"))).collect();
        let alerts: Vec<_> = (0..2).map(|n| scene.redis.add("alerts", &format!("a{n}"))).collect();
        scene.redis.run(&["XTRIM", "chat:u", "MAXLEN", "2"]);
        let mut viewer = scene.resume("/all/u", &both(&chat[2], &alerts[0]));
        let mut told: Vec<_> = (0..4).map(|_| viewer.told()).collect();
        let gap = told.iter().position(|(event, ..)| event == "ssegate").unwrap();
        let gap: serde_json::Value = serde_json::from_str(&told.remove(gap).1).unwrap();
        let told_of = (&gap["type"], &gap["stream"], &gap["reason"]);
        assert_eq!(told_of, (&"gap".into(), &"chat".into(), &"trimmed".into()));
        let mut data: Vec<_> = told.into_iter().map(|(_, data, _)| data).collect();
        data.sort();
        assert_eq!(data, ["a1", "c7", "c8"]);
        viewer.live();
    });
}

#[test]
fn a_key_of_another_type_is_away_for_the_client_and_the_others_go_on() {
    on_redis(ROUTES, |scene| {
        scene.redis.run(&["SET", "alerts", "no stream"]);
        let mut viewer = scene.open("/all/u");
        let (source, _) = viewer.control();
        let told = (&source["type"], &source["stream"], &source["up"]);
        assert_eq!(told, (&"source".into(), &"alerts".into(), &false.into()));
        assert_eq!(viewer.live(), (0, "chat=0-0".into()));
        let chat = scene.add("chat:u", "on it goes");
        viewer.hears("message", "on it goes", &format!("chat={chat}"));
        // What comes is told, from the first.
        scene.redis.run(&["DEL", "alerts"]);
        let first = scene.redis.add("alerts", "first");
        let (source, _) = viewer.control();
        assert_eq!((&source["stream"], &source["up"]), (&"alerts".into(), &true.into()));
        viewer.hears("message", "first", &both(&chat, &first));
        let second = scene.redis.add("alerts", "second");
        viewer.hears("message", "second", &both(&chat, &second));
    });
}

#[test]
fn a_key_that_becomes_unreadable_loses_nothing_in_silence() {
    on_redis(ROUTES, |scene| {
        let mut viewer = scene.open("/all/u");
        viewer.live();
        let alerts = scene.redis.add("alerts", "a0");
        viewer.hears("message", "a0", &both("0-0", &alerts));
        scene.redis.run(&["SET", "alerts", "no stream"]);
        let (source, _) = viewer.control();
        assert_eq!((&source["stream"], &source["up"]), (&"alerts".into(), &false.into()));
        let chat = scene.redis.add("chat:u", "c0");
        viewer.hears("message", "c0", &both(&chat, &alerts));
        scene.redis.run(&["DEL", "alerts"]);
        let first = scene.redis.add("alerts", "a1");
        let (source, _) = viewer.control();
        assert_eq!((&source["stream"], &source["up"]), (&"alerts".into(), &true.into()));
        let (gap, _) = viewer.control();
        let told = (&gap["type"], &gap["stream"], &gap["reason"]);
        assert_eq!(told, (&"gap".into(), &"alerts".into(), &"reset".into()));
        viewer.hears("message", "a1", &both(&chat, &first));
    });
}

#[test]
fn a_past_that_may_not_be_read_holds_up_no_other_stream() {
    on_redis(ROUTES, |scene| {
        let chat: Vec<_> = (0..2).map(|n| scene.redis.add("chat:u", &format!("c{n}"))).collect();
        let alerts: Vec<_> = (0..2).map(|n| scene.redis.add("alerts", &format!("a{n}"))).collect();
        let limit = |rule: &str| {
            let set = ["ACL", "SETUSER", "default", "resetkeys", "~chat*", rule];
            assert_eq!(scene.redis.run(&set), Answer::Text("OK".into()));
        };
        limit("~other");
        let mut viewer = scene.resume("/all/u", &both(&chat[0], &alerts[0]));
        let mut told = [viewer.told().1, viewer.told().1];
        told.sort();
        assert_eq!(told[0], "c1");
        assert_eq!(told[1], r#"{"type":"source","stream":"alerts","up":false}"#);
        assert_eq!(viewer.live(), (1, both(&chat[1], &alerts[0])));
        limit("~alerts");
        assert_eq!(viewer.told().1, r#"{"type":"source","stream":"alerts","up":true}"#);
        viewer.hears("message", "a1", &both(&chat[1], &alerts[1]));
    });
}

#[test]
fn a_stream_that_is_made_again_is_a_gap_for_it_alone() {
    on_redis(ROUTES, |scene| {
        let chat = scene.redis.add("chat:u", "c0");
        let alerts = scene.redis.add("alerts", "a0");
        let mut viewer = scene.open("/all/u");
        assert_eq!(viewer.live().1, both(&chat, &alerts));
        scene.redis.run(&["DEL", "chat:u"]);
        scene.redis.run(&["XADD", "chat:u", "1-0", "payload", "another life"]);
        let (gap, _) = viewer.control();
        assert_eq!((&gap["stream"], &gap["reason"]), (&"chat".into(), &"reset".into()));
        viewer.hears("message", "another life", &both("1-0", &alerts));
        let alerts = scene.redis.add("alerts", "a1");
        viewer.hears("message", "a1", &both("1-0", &alerts));
    });
}

#[test]
fn an_event_that_is_too_large_is_a_gap_of_its_stream() {
    super::everywhere_with(
        ROUTES,
        |setup| setup.set("source", "max_entry = \"1KiB\""),
        |scene| {
            let mut viewer = scene.open("/all/u");
            viewer.live();
            let alerts = scene.add("alerts", "small");
            viewer.hears("message", "small", &both("0-0", &alerts));
            if !scene.is_memory {
                let large = scene.redis.add("chat:u", &"x".repeat(2000));
                let (gap, id) = viewer.control();
                assert_eq!((&gap["stream"], &gap["reason"]), (&"chat".into(), &"oversize".into()));
                assert_eq!(id, both(&large, &alerts));
            }
        },
    );
}

/// A client that takes nothing for a second keeps no page in memory: the rest is read again, of a Redis that has stopped.
#[test]
fn an_event_whose_rest_does_not_come_holds_up_the_others_for_five_seconds() {
    const BYTES: usize = 4 << 20;
    let redis = Redis::start();
    let chat = redis.add("chat:u", "before");
    let alerts = redis.add("alerts", "before");
    let large = redis.add("chat:u", &"x".repeat(BYTES));
    let limits = "send_buffer = \"16KiB\"";
    let setup = Setup::redis(&redis).routes(ROUTES).set("limits", limits);
    let gateway = setup.set("source", "max_entry = \"8MiB\"").start_ready();
    let position = format!("Last-Event-ID: {}\r\n", both(&chat, &alerts));
    let mut client = Client::with_small_window_and(&gateway.address, "/all/u", &position);
    let served = || gateway.metric(r#"ssegate_bytes_sent_total{route="/all/{user}"}"#);
    eventually("half of it is on its way", || served() > 30_000.0);
    pause_of_the_scenario(Duration::from_millis(2500), "the client takes nothing");
    redis.signal("STOP");
    let cut = || gateway.metric("ssegate_client_disconnects_total{reason=\"slow\"}");
    assert!(cut() < 0.5 && served() < BYTES as f64);
    let stopped = Instant::now();
    let rest = client.rest();
    assert!(!rest.iter().any(|item| matches!(item, Item::Event(_))), "{rest:?}");
    assert!(!client.complete && stopped.elapsed() >= Duration::from_secs(5));
    assert!(cut() > 0.5, "it is cut, and does not go on by itself");
    redis.signal("CONT");
    // Nothing is lost: it comes back as it was.
    let mut client = Client::resume(&gateway.address, "/all/u", &both(&chat, &alerts));
    let whole = client.entry();
    assert_eq!((whole.data.len(), whole.last_event_id), (BYTES, both(&large, &alerts)));
}

#[test]
fn comments_tell_of_which_stream_they_are() {
    let routes =
        ROUTES.replacen("access = \"public\"", "access = \"public\"\ncontrols = \"comment\"", 1);
    everywhere(&routes, |scene| {
        let mut viewer = scene.resume("/all/u", "other=5-0");
        let mut comments = Vec::new();
        while comments.last().is_none_or(|last: &String| !last.contains("live")) {
            if let Some(ssegate::sse::parse::Item::Comment(comment)) = viewer.item() {
                comments.push(comment);
            }
        }
        let gap = "gap {\"type\":\"gap\",\"stream\":\"other\",\"after\":\"5-0\",\"next\":null,\"lost\":null,\"reason\":\"unknown\"}";
        assert!(comments.iter().any(|comment| comment.trim() == gap), "{comments:?}");
        // Positions are known all the same.
        let chat = scene.add("chat:u", "c0");
        viewer.hears("message", "c0", &both(&chat, "0-0"));
    });
}
