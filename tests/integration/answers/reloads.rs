//! A change of each key while clients are there: a stream keeps the rules that it began with, and the next one has the
//! new ones.

use super::ends::hears_to_the_end;
use super::{Scene, routes};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::Redis;

const END: &str = "end = { field = \"payload\", equals = \"[END]\" }\nstart = \"earliest\"";

fn started(redis: &Redis, keys: &str) -> Scene {
    Scene { gateway: Setup::redis(redis).routes(&routes(keys)).start_ready() }
}

fn reload(gateway: &Gateway, redis: &Redis, keys: &str) {
    gateway.write(&Setup::redis(redis).routes(&routes(keys)));
    assert_eq!(gateway.reload()["level"], "INFO");
}

#[test]
fn an_end_that_is_added_is_known_of_streams_that_are_read_already() {
    let redis = Redis::start();
    let scene = started(&redis, "start = \"earliest\"");
    let ids = scene.publish(&["one", "[END]"]);
    let mut open = scene.open("");
    assert_eq!(open.entry().data, "one");
    assert_eq!(open.entry().data, "[END]");
    open.live();
    reload(&scene.gateway, &redis, END);
    assert_eq!(scene.status(&format!("?last_event_id={}", ids[1])), 204);
    hears_to_the_end(scene.open(""), &["one", "[END]"], &ids[1]);
    // It began without an end.
    scene.publish(&["more", "[END]"]);
    assert_eq!(open.entry().data, "more");
    assert_eq!(open.entry().data, "[END]");
    reload(&scene.gateway, &redis, &END.replace("[END]", "more"));
    let mut client = scene.open("");
    for payload in ["one", "[END]", "more", "[END]"] {
        assert_eq!(client.entry().data, payload);
    }
    client.live();
    scene.publish(&["and more"]);
    assert_eq!(open.entry().data, "and more");
    assert_eq!(client.entry().data, "and more");
}

/// As long as somebody is there who began with it, it counts.
#[test]
fn an_end_that_is_removed_is_forgotten_with_its_last_client() {
    let redis = Redis::start();
    let scene = started(&redis, END);
    let mut open = scene.open("");
    open.live();
    let mut plain = Client::open(&scene.gateway.address, "/plain/a");
    plain.live();
    let is_ended = || scene.gateway.streams()[0]["ended"] == true;
    let ids = scene.publish(&["[END]"]);
    hears_to_the_end(open, &["[END]"], &ids[0]);
    assert!(is_ended());
    scene.publish(&["more"]);
    let mut open = scene.resume(&ids[0]);
    assert_eq!(open.entry().data, "more");
    reload(&scene.gateway, &redis, "start = \"earliest\"");
    let ids = scene.publish(&["[END]"]);
    open.live();
    hears_to_the_end(open, &["[END]"], &ids[0]);
    eventually("nobody asks for the end any more", || !is_ended());
    reload(&scene.gateway, &redis, END);
    assert_eq!(scene.status(&format!("?last_event_id={}", ids[0])), 204);
    assert!(is_ended());
    reload(&scene.gateway, &redis, "");
    assert!(!is_ended());
}

#[test]
fn each_key_takes_effect_with_the_next_stream() {
    let redis = Redis::start();
    let scene = started(&redis, "");
    let ids = scene.publish(&["one", "[END]"]);
    let mut before = scene.open("");
    before.live();
    reload(&scene.gateway, &redis, &format!("{END}\nended = \"replay\""));
    hears_to_the_end(scene.resume(&ids[1]), &["one", "[END]"], &ids[1]);
    reload(
        &scene.gateway,
        &redis,
        &format!("{END}\ncontrols = \"comment\"\nend_data = \"[DONE]\"\nevent = \"\""),
    );
    let mut client = scene.open("");
    assert_eq!(client.event().data, "one");
    assert_eq!(client.event().data, "[END]");
    assert_eq!(client.event().data, "[DONE]");
    reload(&scene.gateway, &redis, "headers = { x-answer = \"1\" }\nstart = \"last:1\"");
    let mut client = scene.open("");
    assert!(client.head.contains("\r\nx-answer: 1\r\n"), "{}", client.head);
    assert_eq!(client.event().data, "[END]");
    client.live();
    reload(&scene.gateway, &redis, "absent = \"204\"\nabsent_after = \"1s\"");
    assert_eq!(scene.gateway.get("/events/of-nobody").status, 204);
    reload(&scene.gateway, &redis, "on_gap = \"end\"\nstalled = \"60s\"");
    let mut client = scene.resume("of another server");
    assert_eq!(client.control().0["reason"], "unknown");
    assert_eq!(client.rest(), Vec::new());
    scene.publish(&["more"]);
    assert_eq!(before.entry().data, "more");
}
