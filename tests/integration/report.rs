//! What a running gateway shows the operator: why a reader waits, and the gateway as a whole.

use std::time::Duration;

use serde_json::Value;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::Redis;
use crate::support::{eventually, within};

const SECRET: &str = "s3cr3t-t0k3n";

/// What `/streams` says of one key.
fn stream(gateway: &Gateway, key: &str) -> Value {
    let streams = gateway.streams();
    let stream = streams.as_array().unwrap().iter().find(|stream| stream["key"] == key);
    stream.unwrap_or_else(|| panic!("{key} in {streams}")).clone()
}

fn state(gateway: &Gateway) -> Value {
    serde_json::from_str(&gateway.admin_get("/state").body).unwrap()
}

fn time(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// Lines of the log with this message.
fn lines(gateway: &Gateway, message: &str) -> Vec<Value> {
    let log = gateway.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    lines.filter(|line| line["message"] == message).collect()
}

#[test]
fn a_reader_says_what_it_waits_for() {
    let mut redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let id = redis.add("events:a", "one");
    client.entry();
    eventually("the reader has read it", || {
        stream(&gateway, "events:a")["source_last_id"] == id.as_str()
    });
    let up = stream(&gateway, "events:a");
    assert_eq!((&up["reader"], &up["waits_for"]), (&"up".into(), &"entries".into()), "{up}");
    assert_eq!((&up["last_id"], &up["lag_entries"]), (&id.into(), &0.into()), "{up}");
    assert_eq!(up["server"], redis.socket().to_str().unwrap(), "{up}");
    assert!(up["error_text"].is_null() && up["retry_in_ms"].is_null(), "{up}");
    let age = jiff::Timestamp::now().duration_since(time(&up["last_answer"]));
    assert!(age.as_secs() < 60 && time(&up["since"]) <= jiff::Timestamp::now(), "{up}");

    redis.kill();
    eventually("it says that Redis is away", || stream(&gateway, "events:a")["reader"] == "away");
    let away = stream(&gateway, "events:a");
    assert_eq!(away["waits_for"], "retry", "{away}");
    assert!(!away["error_text"].as_str().unwrap().is_empty(), "{away}");
    assert!(away["retry_in_ms"].as_u64().unwrap() <= 1000, "{away}");
    assert!(time(&away["since"]) > time(&up["since"]), "{away}");
    redis.launch();
    eventually("and that it is back", || stream(&gateway, "events:a")["waits_for"] == "entries");
    assert!(stream(&gateway, "events:a")["error_text"].is_null());
}

#[test]
fn a_key_of_another_type_is_reported_in_the_words_of_redis() {
    let redis = Redis::start();
    redis.run(&["SET", "events:a", "x"]);
    let gateway = Setup::redis(&redis).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    assert_eq!(client.control().0["reason"], "WRONGTYPE");
    let refused = stream(&gateway, "events:a");
    assert_eq!((&refused["reader"], &refused["error"]), (&"refused".into(), &"WRONGTYPE".into()));
    assert_eq!(refused["waits_for"], "retry", "{refused}");
    let words = refused["error_text"].as_str().unwrap();
    assert!(words.contains("wrong kind of value"), "{refused}");
    assert!(refused["retry_in_ms"].as_u64().unwrap() <= 2000, "{refused}");
}

#[test]
fn the_state_shows_shards_catch_up_subscribers_links_and_limits() {
    let redis = Redis::start();
    let setup = Setup::redis(&redis).set("limits", "clients = 100").set("limits", "readers = 7");
    let gateway = setup.set("limits", "send_buffer = \"4KiB\"").start_ready();
    let path = format!("/events/a?token={SECRET}");
    let mut live: Vec<_> = (0..3).map(|_| Client::open(&gateway.address, &path)).collect();
    live.iter_mut().for_each(|client| drop(client.live()));
    let mut stalled = Client::with_small_window(&gateway.address, "/events/a");
    stalled.live();
    eventually("all are in a shard", || {
        let shards = stream(&gateway, "events:a")["packs"].clone();
        shards.as_array().unwrap().iter().filter_map(|shard| shard["clients"].as_u64()).sum::<u64>()
            == 4
    });
    let payload = "x".repeat(100 << 10);
    eventually("one falls behind", || {
        gateway.publish("events:a", &payload);
        live.iter_mut().for_each(|client| drop(client.entry()));
        let followers = stream(&gateway, "events:a")["followers"].clone();
        followers["count"] == 1 && followers["behind_entries_most"].as_u64() > Some(1)
    });
    let state = state(&gateway);
    assert_eq!(state["clients"], serde_json::json!({ "now": 4, "limit": 100 }));
    assert_eq!(state["readers"], serde_json::json!({ "now": 1, "limit": 7 }));
    assert_eq!((&state["draining"], &state["source"]["up"]), (&false.into(), &true.into()));
    let links = &state["source"]["links"][0];
    assert_eq!(links["server"], redis.socket().to_str().unwrap(), "{links}");
    assert!(
        (1..=4).contains(&(links["in_use"].as_u64().unwrap() + links["idle"].as_u64().unwrap()))
    );
    assert!(state["rings"]["bytes"].as_u64().unwrap() > 100 << 10, "{state}");
    assert_eq!(
        (&state["streams"][0]["key"], &state["streams_left_out"]),
        (&"events:a".into(), &0.into())
    );
    assert!(!state.to_string().contains(SECRET), "{state}");
}

#[test]
fn a_signal_writes_the_state_into_the_log_and_no_more_of_it_than_is_bounded() {
    const STREAMS: usize = 105;
    let gateway = Setup::memory().set("limits", "readers_per_ip = 200").start_ready();
    let open = |n| Client::open(&gateway.address, &format!("/events/{n}?token={SECRET}"));
    let mut clients: Vec<_> = (0..STREAMS).map(open).collect();
    clients.push(open(77));
    clients.iter_mut().for_each(|client| drop(client.live()));
    eventually("both are in the shard", || {
        stream(&gateway, "events:77")["packs"][0]["clients"] == 2
    });
    gateway.signal("USR1");
    eventually("it tells of the streams", || lines(&gateway, "state of a stream").len() == 100);
    let gateways = lines(&gateway, "state of the gateway");
    assert_eq!(gateways.len(), 1);
    let state = &gateways[0];
    assert_eq!(
        (&state["clients"], &state["streams_left_out"]),
        (&106.into(), &5.into()),
        "{state}"
    );
    let first = lines(&gateway, "state of a stream").remove(0);
    assert_eq!((&first["key"], &first["clients"]), (&"events:77".into(), &2.into()), "{first}");
    assert_eq!((&first["reader"], &first["packs"]), (&"up".into(), &"[2]".into()), "{first}");
    assert!(!gateway.log().contains(SECRET));
    // Again, and it goes on.
    gateway.signal("USR1");
    eventually("once more", || lines(&gateway, "state of the gateway").len() == 2);
    gateway.publish("events:77", "x");
    within(Duration::from_secs(5), "clients are served", || clients[77].entry().data == "x");
}
