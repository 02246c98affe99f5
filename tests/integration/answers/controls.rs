//! Routes whose clients expect nothing but their own events.

use ssegate::sse::parse::Item;

use super::{Scene, everywhere, on_redis};
use crate::support::client::Client;

const NONE: &str = r#"
    end = { field = "payload", equals = "[END]" }
    controls = "none"
    on_gap = "end"
    start = "earliest"
"#;

/// Everything that comes after the head, byte for byte.
fn raw_body(scene: &Scene, query: &str) -> String {
    let request = format!("GET /events/a{query} HTTP/1.0\r\n\r\n");
    let response = crate::support::gateway::exchange(&scene.gateway.address, &request);
    let body = response.body;
    // What comes first is the reconnection time, which differs.
    let (retry, rest) = body.split_once('\n').unwrap();
    assert!(retry.starts_with("retry: "), "{body}");
    rest.to_owned()
}

#[test]
fn without_control_events_a_stream_is_its_entries() {
    everywhere(NONE, |scene| {
        let ids = scene.publish(&["one", "[END]"]);
        let expected = format!(
            ": ssegate\nid: {}\nevent: message\ndata: one\n\nid: {}\nevent: message\ndata: [END]\n\n",
            ids[0], ids[1]
        );
        assert_eq!(raw_body(scene, ""), expected);
        let mut client = scene.open("");
        client.rest();
        assert!(client.complete);
    });
}

#[test]
fn control_events_may_be_comments() {
    let route = NONE.replace("none", "comment");
    everywhere(&route, |scene| {
        let ids = scene.publish(&["one", "[END]"]);
        let expected = format!(
            ": ssegate\nid: {}\nevent: message\ndata: one\n\nid: {}\nevent: message\ndata: [END]\n\n: end {{\"type\":\"end\",\"reason\":\"marker\"}}\n",
            ids[0], ids[1]
        );
        assert_eq!(raw_body(scene, ""), expected);
    });
    on_redis("controls = \"comment\"", |redis, gateway, _| {
        let scene = Scene { gateway };
        let mut client = scene.open("");
        client.comment("live {\"type\":\"live\",\"replayed\":0}");
        let first = redis.add("events:a", "first");
        assert_eq!(client.event().data, "first");
        redis.run(&["DEL", "events:a"]);
        client.comment(&format!("gap {{\"type\":\"gap\",\"after\":\"{first}\",\"next\":null,\"lost\":null,\"reason\":\"reset\"}}"));
        let next = redis.add("events:a", "next");
        let event = client.event();
        assert_eq!((event.data.as_str(), event.last_event_id), ("next", next));
    });
}

#[test]
fn a_last_event_may_stand_for_the_end() {
    let route = format!("{NONE}\nevent = \"\"\nend_data = \"[DONE]\"");
    everywhere(&route, |scene| {
        let ids = scene.publish(&["one", "[END]"]);
        let expected = format!(
            ": ssegate\nid: {}\ndata: one\n\nid: {}\ndata: [END]\n\ndata: [DONE]\n\n",
            ids[0], ids[1]
        );
        assert_eq!(raw_body(scene, ""), expected);
    });
    let named = "end = { field = \"payload\", equals = \"[END]\" }\nevent = \"token\"\nend_data = \"all\\ndone\"";
    everywhere(named, |scene| {
        let mut client = scene.open("");
        client.live();
        let ids = scene.publish(&["[END]"]);
        assert_eq!(client.event().data, "[END]");
        let last = client.event();
        assert_eq!((last.event_type.as_str(), last.data.as_str()), ("token", "all\ndone"));
        assert_eq!(last.last_event_id, ids[0]);
        assert_eq!(client.rest(), Vec::new());
        assert!(client.complete);
    });
}

/// Signs of life are no control events.
#[test]
fn a_silent_stream_without_control_events_still_lives() {
    let redis = crate::support::redis::Redis::start();
    let setup = crate::support::gateway::Setup::redis(&redis).routes(&super::routes(NONE));
    let gateway = setup.set("server", "keepalive = \"1s\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.comment("keepalive");
    redis.add("events:a", "one");
    loop {
        match client.next_within(crate::support::gateway::SOON).expect("it lives") {
            Item::Event(event) => return assert_eq!(event.data, "one"),
            Item::Comment(text) => assert_eq!(text, "keepalive"),
        }
    }
}
