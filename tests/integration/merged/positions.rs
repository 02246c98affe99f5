//! Order, ids, and where each stream goes on.

use super::{ROUTES, Scene, Viewer, both, everywhere, on_redis};
use crate::support::gateway::Setup;

#[test]
fn all_streams_of_a_route_are_on_one() {
    everywhere(ROUTES, |scene| {
        let mut viewer = scene.open("/all/u");
        assert_eq!(viewer.live(), (0, both("0-0", "0-0")));
        let first = scene.add("chat:u", "hello");
        viewer.hears("message", "hello", &both(&first, "0-0"));
        let second = scene.add("alerts", "fire");
        viewer.hears("message", "fire", &both(&first, &second));
        scene.add("chat:other", "not for this one");
        let third = scene.add("chat:u", "again");
        viewer.hears("message", "again", &both(&third, &second));
    });
}

#[test]
fn a_client_chooses_streams_and_their_names_are_in_the_types() {
    everywhere(ROUTES, |scene| {
        let mut viewer = scene.open("/any?stream=b&stream=a");
        assert_eq!(viewer.live().1, "b=0-0,a=0-0");
        let a = scene.add("events:a", "1");
        viewer.hears("a.message", "1", &format!("b=0-0,a={a}"));
        scene.add("events:c", "not chosen");
        let b = scene.add("events:b", "2");
        viewer.hears("b.message", "2", &format!("b={b},a={a}"));
        // The same stream for others has a type of its own.
        let mut plain = scene.resume("/plain/a", "0-0");
        plain.hears("message", "1", &a);
    });
}

#[test]
fn types_come_from_a_field_behind_the_name() {
    let routes = ROUTES.replace(
        "event  = { stream = true }",
        "event = { stream = true, field = \"payload\", otherwise = \"other\" }",
    );
    everywhere(&routes, |scene| {
        let mut viewer = scene.open("/any?stream=a");
        viewer.live();
        scene.add("events:a", "opened");
        assert_eq!(viewer.told().0, "a.opened");
        scene.add("events:a", "two\nlines");
        assert_eq!(viewer.told().0, "a.other");
    });
}

#[test]
fn each_stream_keeps_its_order_and_ids_are_of_what_the_client_has() {
    everywhere(ROUTES, |scene| {
        let mut viewer = scene.open("/all/u");
        viewer.live();
        let (mut chat, mut alerts) = (Vec::new(), Vec::new());
        for number in 0..200 {
            if number % 3 == 0 {
                alerts.push(scene.add("alerts", &format!("a{number}")));
            } else {
                chat.push(scene.add("chat:u", &format!("c{number}")));
            }
        }
        let (mut has_chat, mut has_alerts) = (0, 0);
        while has_chat < chat.len() || has_alerts < alerts.len() {
            let (_, data, id) = viewer.told();
            if data.starts_with('c') {
                has_chat += 1
            } else {
                has_alerts += 1
            }
            let last = |ids: &[String], has: usize| {
                has.checked_sub(1).map_or("0-0".into(), |at| ids[at].clone())
            };
            assert_eq!(id, both(&last(&chat, has_chat), &last(&alerts, has_alerts)));
        }
    });
}

#[test]
fn a_client_goes_on_in_each_stream_where_it_was() {
    everywhere(ROUTES, |scene| {
        let chat: Vec<_> = (0..4).map(|n| scene.add("chat:u", &format!("c{n}"))).collect();
        let alerts: Vec<_> = (0..4).map(|n| scene.add("alerts", &format!("a{n}"))).collect();
        for by_query in [false, true] {
            let id = both(&chat[1], &alerts[2]);
            let mut viewer = if by_query {
                scene.open(&format!("/all/u?last_event_id={}", id.replace('=', "%3D")))
            } else {
                scene.resume("/all/u", &id)
            };
            let mut told: Vec<_> = (0..3).map(|_| viewer.told().1).collect();
            told.sort();
            assert_eq!(told, ["a3", "c2", "c3"]);
            assert_eq!(viewer.live(), (3, both(&chat[3], &alerts[3])));
        }
    });
}

#[test]
fn a_stream_that_the_id_lacks_begins_at_the_start_of_the_route() {
    let routes =
        ROUTES.replacen("access = \"public\"", "access = \"public\"\nstart = \"last:2\"", 1);
    everywhere(&routes, |scene| {
        let chat: Vec<_> = (0..4).map(|n| scene.add("chat:u", &format!("c{n}"))).collect();
        let alerts: Vec<_> = (0..4).map(|n| scene.add("alerts", &format!("a{n}"))).collect();
        let mut viewer = scene.resume("/all/u", &format!("chat={}", chat[2]));
        let mut told: Vec<_> = (0..3).map(|_| viewer.told().1).collect();
        told.sort();
        assert_eq!(told, ["a2", "a3", "c3"]);
        assert_eq!(viewer.live(), (3, both(&chat[3], &alerts[3])));
    });
}

#[test]
fn words_and_numbers_count_for_each_stream_by_itself() {
    everywhere(ROUTES, |scene| {
        (0..3).for_each(|n| _ = scene.add("chat:u", &format!("c{n}")));
        (0..2).for_each(|n| _ = scene.add("alerts", &format!("a{n}")));
        for (query, expected) in [
            ("?last_event_id=earliest", &["a0", "a1", "c0", "c1", "c2"][..]),
            ("?last=1", &["a1", "c2"]),
            ("?since=1h", &["a0", "a1", "c0", "c1", "c2"]),
            ("?last_event_id=$", &[]),
            ("", &[]),
        ] {
            let mut viewer = scene.open(&format!("/all/u{query}"));
            let mut told: Vec<_> = expected.iter().map(|_| viewer.told().1).collect();
            told.sort();
            assert_eq!(told, expected, "{query}");
            assert_eq!(viewer.live().0, expected.len() as u64, "{query}");
        }
    });
}

#[test]
fn an_id_that_is_none_of_ours_is_unknown_to_every_stream() {
    everywhere(ROUTES, |scene| {
        let chat = scene.add("chat:u", "before");
        let mut viewer = scene.resume("/all/u", "1700000000000-0");
        let mut gaps: Vec<_> = (0..2).map(|_| viewer.control().0).collect();
        gaps.sort_by_key(|gap| gap["stream"].to_string());
        for (gap, stream) in gaps.iter().zip(["alerts", "chat"]) {
            let told = (&gap["type"], &gap["reason"], &gap["stream"]);
            assert_eq!(told, (&"gap".into(), &"unknown".into(), &stream.into()));
        }
        assert_eq!(viewer.live(), (0, both(&chat, "0-0")));
    });
}

#[test]
fn a_name_that_is_no_stream_of_the_route_is_a_gap_for_it_alone() {
    everywhere(ROUTES, |scene| {
        let chat: Vec<_> = (0..3).map(|n| scene.add("chat:u", &format!("c{n}"))).collect();
        let mut viewer = scene.resume("/all/u", &format!("n\"ews=7-1,chat={},alerts=0-0", chat[1]));
        let (gap, id) = viewer.control();
        assert_eq!(id, both(&chat[1], "0-0"));
        let told = (&gap["type"], &gap["reason"], &gap["stream"], &gap["after"]);
        assert_eq!(told, (&"gap".into(), &"unknown".into(), &"n\"ews".into(), &"7-1".into()));
        viewer.hears("message", "c2", &both(&chat[2], "0-0"));
        viewer.live();
        let gaps = "ssegate_gaps_total{scope=\"resume\",reason=\"unknown\"}";
        assert_eq!(scene.gateway.metric(gaps), 1.0);
    });
}

#[test]
fn a_restart_and_another_gateway_go_on_from_the_same_id() {
    on_redis(ROUTES, |scene| {
        let Scene { redis, gateway, http, .. } = scene;
        let mut viewer = Viewer::open(http, &gateway, "/all/u", &[]);
        viewer.live();
        let chat = gateway.publish("chat:u", "c0");
        let alerts = gateway.publish("alerts", "a0");
        viewer.event();
        let (.., id) = viewer.told();
        assert_eq!(id, both(&chat, &alerts));
        let other = Setup::redis(&redis).routes(ROUTES).start_ready();
        drop(gateway);
        redis.add("alerts", "a1");
        redis.add("chat:u", "c1");
        redis.add("alerts", "a2");
        let mut viewer = Viewer::open(http, &other, "/all/u", &[("Last-Event-ID", &id)]);
        let mut told: Vec<_> = (0..3).map(|_| viewer.told().1).collect();
        assert!(told.iter().position(|a| a == "a1") < told.iter().position(|a| a == "a2"));
        told.sort();
        assert_eq!(told, ["a1", "a2", "c1"]);
        assert_eq!(viewer.live().0, 3);
    });
}

/// They do more when they come back than the runtime lets a task do at once.
#[test]
fn many_streams_go_on_at_once() {
    everywhere(&ROUTES.replace("most = 3", "most = 64"), |scene| {
        let names: Vec<_> = (0..64).map(|number| format!("s{number}")).collect();
        for count in 15..=64 {
            let path = format!("/any?stream={}", names[..count].join("&stream="));
            let id = format!("{}=0-0", names[..count].join("=0-0,"));
            for _ in 0..2 {
                assert_eq!(scene.resume(&path, &id).live().1, id);
            }
        }
    });
}
