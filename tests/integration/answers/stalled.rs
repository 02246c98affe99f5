//! Streams to which no entry comes any more.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Scene, on_redis, routes};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::multiplexed::{End, Session};
use crate::support::redis::Redis;
use crate::support::waiting::pause_of_the_scenario;

const STALLED: &str = "stalled = \"2s\"";
const BLOCK: &str = "block = \"1s\"";

fn scenes(keys: &str, test: impl Fn(&Scene)) {
    let sources: [fn(&Redis) -> Setup; 2] = [|_| Setup::memory(), Setup::redis];
    for setup in sources {
        let redis = Redis::start();
        let setup = setup(&redis).routes(&routes(keys)).set("source", BLOCK);
        test(&Scene { gateway: setup.start_ready() });
    }
}

#[track_caller]
fn is_stalled(client: &mut Client, id: &str) {
    let end = json!({"type": "end", "reason": "stalled"});
    assert_eq!(client.control(), (end, id.to_owned()));
    assert_eq!(client.rest(), Vec::new());
}

#[test]
fn a_stream_without_a_new_entry_is_ended_and_who_returns_gets_it() {
    scenes(STALLED, |scene| {
        let ids = scene.publish(&["one"]);
        let mut client = scene.resume("earliest");
        assert_eq!(client.entry().data, "one");
        client.live();
        let mut session = Session::open(&scene.gateway.address);
        let stream = session.stream("/events/a");
        session.live(stream);
        is_stalled(&mut client, &ids[0]);
        assert!(client.complete);
        assert_eq!(session.control(stream).0["reason"], "stalled");
        assert_eq!(session.end(stream), End::Whole);
        let ended = "ssegate_streams_ended_total{route=\"/events/{name}\",reason=\"stalled\"}";
        eventually("both are counted", || scene.gateway.metric(ended) == 2.0);
        let mut again = scene.resume(&ids[0]);
        again.live();
        let ids = scene.publish(&["two"]);
        assert_eq!(again.entry().data, "two");
        is_stalled(&mut again, &ids[0]);
    });
}

#[test]
fn entries_and_clients_of_other_routes_keep_it_going() {
    scenes(STALLED, |scene| {
        let mut plain = Client::open(&scene.gateway.address, "/plain/a");
        plain.live();
        let mut client = scene.open("");
        client.live();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            scene.publish(&["more"]);
            assert_eq!(client.entry().data, "more");
            pause_of_the_scenario(Duration::from_millis(500), "less than the route's stalled");
        }
        client.control();
        // The other route has none.
        scene.publish(&["after all"]);
        while plain.entry().data != "after all" {}
    });
}

/// To who gets no control events a clean end would be a finished answer.
#[test]
fn on_a_route_with_an_end_it_is_no_finished_answer_where_nothing_is_told() {
    let silent = "controls = \"none\"\non_gap = \"end\"";
    let end = "end = { field = \"payload\", equals = \"[END]\" }";
    for (keys, is_whole) in
        [(format!("{silent}\n{end}"), false), (silent.into(), true), (end.into(), true)]
    {
        let keys = format!("{STALLED}\n{keys}");
        let redis = Redis::start();
        let setup = Setup::redis(&redis).routes(&routes(&keys)).set("source", BLOCK);
        let scene = Scene { gateway: setup.start_ready() };
        let mut client = scene.open("");
        let mut session = Session::open(&scene.gateway.address);
        let stream = session.stream("/events/a");
        client.rest();
        assert_eq!(client.complete, is_whole, "{keys}");
        assert_eq!(session.end(stream) == End::Whole, is_whole, "{keys}");
    }
}

/// Nobody knows whether entries come while Redis is away.
#[test]
fn while_redis_is_away_nothing_is_stalled() {
    let redis = Redis::start();
    let setup = Setup::redis(&redis).routes(&routes(STALLED)).set("source", BLOCK);
    let scene = Scene { gateway: setup.start_ready() };
    let mut client = scene.open("");
    client.live();
    redis.signal("STOP");
    client.comment("reconnecting");
    pause_of_the_scenario(Duration::from_secs(4), "twice the route's stalled");
    redis.signal("CONT");
    client.comment("reconnected");
    redis.add("events:a", "one");
    assert_eq!(client.entry().data, "one");
}

#[test]
fn an_end_is_no_stall() {
    let keys = format!("{STALLED}\nend = {{ field = \"payload\", equals = \"[END]\" }}");
    on_redis(&keys.replace("2s", "10s"), |_, gateway, _| {
        let scene = Scene { gateway };
        let mut client = scene.open("");
        client.live();
        let ids = scene.publish(&["[END]"]);
        super::ends::hears_to_the_end(client, &["[END]"], &ids[0]);
    });
}
