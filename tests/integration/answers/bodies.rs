//! Only the end ends a body cleanly: to many clients a body that ends is a whole answer.

use serde_json::json;

use super::ends::hears_to_the_end;
use super::{Scene, on_redis, routes};
use crate::support::Folder;
use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::multiplexed::{End, Session};
use crate::support::redis::Redis;
use crate::support::token::{SECRET, hs256, seconds_from_now};

const ROUTE: &str = r#"end = { field = "payload", equals = "[END]" }"#;
const CLEAN: &str = "end = { field = \"payload\", equals = \"[END]\" }\ncut = \"clean\"";

/// Streams over HTTP/1.1 and HTTP/2, open in the middle of an answer.
fn open_both(scene: &Scene) -> (Client, Session, u32) {
    open_both_with(scene, &[])
}

fn open_both_with(scene: &Scene, headers: &[(&str, &str)]) -> (Client, Session, u32) {
    let mut client = Client::with(&scene.gateway.address, "/events/a", headers);
    client.live();
    let mut session = Session::open(&scene.gateway.address);
    let stream = session.get("/events/a", headers);
    session.live(stream);
    scene.publish(&["half"]);
    assert_eq!(client.entry().data, "half");
    assert_eq!(session.event(stream).data, "half");
    (client, session, stream)
}

/// Both have been told this, and their bodies are whole or not.
fn are_closed(streams: (Client, Session, u32), told: Option<&str>, is_whole: bool) {
    let (mut client, mut session, stream) = streams;
    if let Some(told) = told {
        assert_eq!(client.control().0["type"], told);
        assert_eq!(session.control(stream).0["type"], told);
    }
    client.rest();
    assert_eq!(client.complete, is_whole, "HTTP/1.1");
    assert_eq!(session.end(stream) == End::Whole, is_whole, "HTTP/2");
}

#[test]
fn a_drain_leaves_the_body_incomplete() {
    for (route, is_whole) in [(ROUTE, false), (CLEAN, true)] {
        on_redis(route, |_, gateway, _| {
            let scene = Scene { gateway };
            let streams = open_both(&scene);
            scene.gateway.signal("TERM");
            are_closed(streams, Some("drain"), is_whole);
        });
    }
}

#[test]
fn an_age_limit_leaves_the_body_incomplete() {
    for (route, is_whole) in [(ROUTE, false), (CLEAN, true)] {
        let redis = Redis::start();
        let setup = Setup::redis(&redis).routes(&routes(route));
        let gateway = setup.set("server", "max_connection_age = \"2s\"").start_ready();
        let scene = Scene { gateway };
        are_closed(open_both(&scene), None, is_whole);
    }
}

#[test]
fn the_end_of_a_token_leaves_the_body_incomplete() {
    for (route, is_whole) in [(ROUTE, false), (CLEAN, true)] {
        let credentials = Folder::new();
        std::fs::write(credentials.0.join("jwt"), SECRET).unwrap();
        let jwt = "access = \"jwt\"\nmatch = \"any\"";
        let setup = Setup::memory()
            .routes(&routes(route).replacen("access = \"public\"", jwt, 1))
            .set("auth.jwt", "keys = [{ alg = \"HS256\", secret_file = \"jwt\" }]")
            .set("auth.jwt", "warn = \"0s\"")
            .credentials(credentials);
        let scene = Scene { gateway: setup.start_ready() };
        let token = format!("Bearer {}", hs256(&json!({"exp": seconds_from_now(6)})));
        let streams = open_both_with(&scene, &[("authorization", &token)]);
        are_closed(streams, Some("expired"), is_whole);
    }
}

#[test]
fn a_key_that_cannot_be_read_any_more_leaves_the_body_incomplete() {
    on_redis(ROUTE, |redis, gateway, _| {
        let scene = Scene { gateway };
        let streams = open_both(&scene);
        redis.run(&["SET", "events:a", "no stream"]);
        are_closed(streams, Some("unavailable"), false);
    });
}

#[test]
fn a_refusal_is_no_finished_answer() {
    let redis = Redis::start();
    let setup = Setup::redis(&redis).routes(&routes(ROUTE));
    let gateway = setup.set("limits", "clients = 1").start_ready();
    let scene = Scene { gateway };
    let mut first = scene.open("");
    first.live();
    let mut refused = scene.open("");
    assert_eq!(refused.control().0["type"], "unavailable");
    refused.rest();
    assert!(!refused.complete);
    let mut session = Session::open(&scene.gateway.address);
    let refused = session.stream("/events/a");
    assert_eq!(session.control(refused).0["type"], "unavailable");
    assert_ne!(session.end(refused), End::Whole);
}

#[test]
fn who_cannot_read_control_events_is_refused_by_a_status() {
    for controls in ["controls = \"comment\"", "controls = \"none\"\non_gap = \"end\""] {
        let redis = Redis::start();
        let setup = Setup::redis(&redis).routes(&routes(controls));
        let gateway = setup.set("limits", "clients = 1").start_ready();
        let scene = Scene { gateway };
        let mut first = Client::open(&scene.gateway.address, "/plain/a");
        first.live();
        assert_eq!(scene.status(""), 503, "{controls}");
    }
}

/// What was cut goes on where it was, and ends.
#[test]
fn a_client_that_was_cut_gets_the_rest_and_the_end_from_the_next_gateway() {
    on_redis(ROUTE, |_, gateway, restart| {
        let scene = Scene { gateway };
        let (mut client, ..) = open_both(&scene);
        scene.gateway.signal("TERM");
        client.rest();
        let scene = Scene { gateway: restart() };
        let ids = scene.publish(&["rest", "[END]"]);
        let mut resumed = scene.resume(&client.last_event_id());
        assert_eq!(resumed.entry().data, "rest");
        hears_to_the_end(resumed, &["[END]"], &ids[1]);
    });
}
