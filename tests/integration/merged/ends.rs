//! The end of streams, and streams that are not there.

use super::{ROUTES, Scene, both, everywhere};

fn ending(lines: &str) -> String {
    let end = "access = \"public\"\nend = { field = \"payload\", equals = \"done\" }";
    ROUTES.replacen("access = \"public\"", &format!("{end}\n{lines}"), 1)
}

fn status(scene: &Scene, path: &str, id: &str) -> u16 {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nLast-Event-ID: {id}\r\n\r\n"
    );
    crate::support::gateway::exchange(&scene.gateway.address, &request).status
}

#[test]
fn a_stream_that_ends_is_told_and_the_last_ends_all() {
    everywhere(&ending(""), |scene| {
        let mut viewer = scene.open("/all/u");
        viewer.live();
        let chat = scene.add("chat:u", "done");
        viewer.hears("message", "done", &both(&chat, "0-0"));
        let end = r#"{"type":"end","stream":"chat","reason":"marker"}"#;
        viewer.hears("ssegate", end, &both(&chat, "0-0"));
        let alerts = scene.add("alerts", "on it goes");
        viewer.hears("message", "on it goes", &both(&chat, &alerts));
        let last = scene.add("alerts", "done");
        viewer.hears("message", "done", &both(&chat, &last));
        viewer.hears("ssegate", r#"{"type":"end","reason":"marker"}"#, &both(&chat, &last));
        assert_eq!(viewer.rest(), []);
        // Who comes back at or past all of the ends stays away; past one of them it goes on.
        assert_eq!(status(scene, "/all/u", &both(&chat, &last)), 204);
        let mut viewer = scene.resume("/all/u", &both(&chat, &alerts));
        let mut told = [viewer.told().1, viewer.told().1];
        told.sort();
        assert_eq!(told, ["done", r#"{"type":"end","stream":"chat","reason":"marker"}"#]);
        viewer.hears("ssegate", r#"{"type":"end","reason":"marker"}"#, &both(&chat, &last));
        assert_eq!(viewer.rest(), []);
    });
}

#[test]
fn a_client_that_begins_where_a_stream_is_over_follows_the_others() {
    everywhere(&ending(""), |scene| {
        let chat = scene.add("chat:u", "done");
        let mut viewer = scene.open("/all/u");
        let mut told = [viewer.told(), viewer.told()];
        told.sort();
        let end = r#"{"type":"end","stream":"chat","reason":"marker"}"#;
        assert_eq!([&*told[0].1, &*told[1].1], [end, r#"{"type":"live","replayed":0}"#]);
        assert_eq!([&told[0].2, &told[1].2], [&both(&chat, "0-0"); 2]);
        scene.add("alerts", "done");
        assert_eq!(viewer.told().1, "done");
        assert_eq!(viewer.told().1, r#"{"type":"end","reason":"marker"}"#);
        assert_eq!(scene.gateway.get("/all/u").status, 204, "nothing is left");
    });
}

#[test]
fn ended_streams_are_replayed_where_all_have_ended() {
    everywhere(&ending("ended = \"replay\"\nstart = \"earliest\""), |scene| {
        let chat = scene.add("chat:u", "c0");
        scene.add("chat:u", "done");
        let alerts = scene.add("alerts", "done");
        let last = scene.add("chat:u", "done");
        let mut viewer = scene.resume("/all/u", &both(&last, &alerts));
        let mut told: Vec<_> = (0..5).map(|_| viewer.told().1).collect();
        told.sort();
        let end = told.pop().unwrap();
        assert!(end.contains("\"end\""), "{end}");
        assert_eq!(told, ["c0", "done", "done", "done"]);
        assert!(chat < last);
    });
}

#[test]
fn only_where_no_key_is_there_the_client_stays_away() {
    let lines = "absent = \"204\"\nabsent_after = \"300ms\"";
    let routes =
        ROUTES.replacen("access = \"public\"", &format!("access = \"public\"\n{lines}"), 1);
    everywhere(&routes, |scene| {
        assert_eq!(scene.gateway.get("/all/u").status, 204);
        let chat = scene.add("chat:u", "c0");
        scene.gateway.has_read("chat:u", &chat);
        let mut viewer = scene.open("/all/u");
        assert_eq!(viewer.live().1, both(&chat, "0-0"));
        let alerts = scene.add("alerts", "it came");
        viewer.hears("message", "it came", &both(&chat, &alerts));
    });
}

#[test]
fn the_head_alone_tells_whether_there_is_anything() {
    everywhere(&ending(""), |scene| {
        let head = |path: &str| {
            let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            crate::support::gateway::exchange(&scene.gateway.address, &request).status
        };
        scene.add("chat:u", "done");
        assert_eq!(head("/all/u"), 200);
        scene.add("alerts", "done");
        assert_eq!(head("/all/u"), 204);
        assert_eq!(head("/any"), 400);
    });
}

#[test]
fn a_gap_ends_its_stream_where_the_route_says_so() {
    let routes = ROUTES.replacen("access = \"public\"", "access = \"public\"\non_gap = \"end\"", 1);
    everywhere(&routes, |scene| {
        let alerts = scene.add("alerts", "a0");
        let mut viewer = scene.resume("/all/u", &both("5-0", &alerts));
        let (gap, _) = viewer.control();
        assert_eq!((&gap["type"], &gap["stream"]), (&"gap".into(), &"chat".into()));
        let (end, _) = viewer.control();
        assert_eq!(end, serde_json::json!({"type": "end", "stream": "chat", "reason": "gap"}));
        viewer.live();
        scene.add("alerts", "on it goes");
        assert_eq!(viewer.told().1, "on it goes");
    });
}
