use serde_json::json;

use super::{NEWEST, json_of, open, resume, routes, start};
use crate::support::gateway::Setup;
use crate::support::redis::Redis;

fn add(redis: &Redis, id: &str, fields: &[&str]) {
    let mut command = vec!["XADD", "events:a", "*", "id", id];
    command.extend(fields);
    redis.run(&command);
}

#[test]
fn the_newest_entry_of_each_is_the_state() {
    let redis = Redis::start();
    let gateway = start(&redis, &format!("{NEWEST}\nsnapshot_age = \"0s\""));
    let mut client = open(&gateway);
    assert_eq!(json_of(&mut client), (json!({}), "0-0".to_owned()));
    add(&redis, "a", &["payload", "1"]);
    add(&redis, "b", &["payload", "2"]);
    add(&redis, "a", &["payload", "3"]);
    add(&redis, "c", &["payload", "4"]);
    add(&redis, "b", &["payload", ""]);
    add(&redis, "c", &["payload", "5", "deleted", "1"]);
    redis.add("events:a", "of none");
    let mut client = open(&gateway);
    let (state, id) = json_of(&mut client);
    assert_eq!(state, json!({"a": "3"}));
    client.live();
    // A trim takes some away: the state is what the stream still says.
    add(&redis, "d", &["payload", "6"]);
    assert_eq!(client.entry().data, "6");
    redis.run(&["XTRIM", "events:a", "MAXLEN", "1"]);
    let mut client = open(&gateway);
    assert_eq!(json_of(&mut client).0, json!({"d": "6"}));
    let gateway = start(&redis, NEWEST);
    let mut client = resume(&gateway, "1-1");
    assert_eq!(client.control().0["reason"], "trimmed");
    assert_eq!(json_of(&mut client).0, json!({"d": "6"}));
    drop(id);
}

#[test]
fn the_embedded_source_has_it_too() {
    let gateway =
        Setup::memory().routes(&routes("snapshot = { newest_by = \"payload\" }\n")).start_ready();
    for payload in ["x", "y", "x"] {
        gateway.publish("events:a", payload);
    }
    let mut client = open(&gateway);
    assert_eq!(json_of(&mut client).0, json!({"y": "y", "x": "x"}));
    client.live();
}

#[test]
fn a_long_stream_is_folded_page_by_page() {
    let redis = Redis::start();
    let script =
        "for n = 1, 20000 do redis.call('XADD', KEYS[1], '*', 'id', n % 100, 'payload', n) end";
    redis.run(&["EVAL", script, "1", "events:a"]);
    let gateway = start(&redis, NEWEST);
    let mut client = open(&gateway);
    let (state, _) = json_of(&mut client);
    let expected: serde_json::Map<_, _> =
        (19_901..=20_000).map(|n: u32| ((n % 100).to_string(), json!(n.to_string()))).collect();
    assert_eq!(state, json!(expected));
    assert_eq!(client.live().0, 0);
}
