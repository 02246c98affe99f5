use serde_json::json;

use super::{NEWEST, OF_KEY, json_of, open, start, state_of, write};
use crate::support::client::Client;
use crate::support::redis::Redis;

#[test]
fn a_crowd_shares_one_read() {
    let redis = Redis::start();
    let gateway = start(&redis, &format!("{OF_KEY}\nsnapshot_age = \"1m\""));
    let id = write(&redis, "a", "1");
    let mut clients: Vec<Client> = (0..50).map(|_| open(&gateway)).collect();
    for client in &mut clients {
        assert_eq!(json_of(client), (json!({"a": "1"}), id.clone()));
        client.live();
    }
    // What came since follows it.
    let last = write(&redis, "a", "2");
    gateway.has_read("events:a", &last);
    let mut late = open(&gateway);
    assert_eq!(json_of(&mut late).0, json!({"a": "1"}));
    assert_eq!(late.entry().data, "2");
    assert_eq!(late.live().0, 1);
    assert_eq!(redis.calls("hgetall"), 1);
    assert_eq!(gateway.metric("ssegate_snapshots_read_total"), 1.0);
}

#[test]
fn a_state_that_is_too_large_is_refused_and_told_to_the_operator() {
    let redis = Redis::start();
    let rows = "for n = 1, 500 do redis.call('HSET', KEYS[1], n, string.rep('x', 10)) end";
    redis.run(&["EVAL", rows, "1", "state:a"]);
    let gateway = start(&redis, &format!("{OF_KEY}\nsnapshot_max = \"4KiB\""));
    redis.run(&["SET", "state:b", &"x".repeat(5000)]);
    for path in ["/events/a", "/events/b"] {
        let mut client = Client::open(&gateway.address, path);
        assert_eq!(client.control().0, json!({"type": "unavailable", "reason": "snapshot"}));
        client.rest();
    }
    gateway.has_logged("is larger than its route's snapshot_max");
    assert_eq!(redis.calls("get"), 0, "its length was asked first");
    // Others are not disturbed.
    redis.run(&["SET", "state:c", "small"]);
    let mut client = Client::open(&gateway.address, "/events/c");
    assert_eq!(state_of(&mut client).data, "small");
    let gateway = start(&redis, &format!("{NEWEST}\nsnapshot_max = \"4KiB\""));
    let rows =
        "for n = 1, 500 do redis.call('XADD', KEYS[1], '*', 'id', n, 'payload', 'xxxxxxxx') end";
    redis.run(&["EVAL", rows, "1", "events:a"]);
    assert_eq!(open(&gateway).control().0["reason"], "snapshot");
}

#[test]
fn a_key_of_another_kind_or_without_the_right_is_refused() {
    let redis = Redis::start();
    redis.add("state:a", "a stream");
    redis.run(&["SET", "state:b", "x"]);
    redis.run(&["ACL", "SETUSER", "default", "-get"]);
    let gateway = start(&redis, OF_KEY);
    assert_eq!(open(&gateway).control().0["reason"], "WRONGTYPE");
    let mut client = Client::open(&gateway.address, "/events/b");
    assert_eq!(client.control().0["reason"], "NOPERM");
    // Without MEMORY USAGE the read is bounded all the same.
    redis.run(&["ACL", "SETUSER", "default", "+@all", "-memory"]);
    redis.run(&["HSET", "state:c", "x", "1"]);
    let mut client = Client::open(&gateway.address, "/events/c");
    assert_eq!(json_of(&mut client).0, json!({"x": "1"}));
}

#[test]
fn what_is_no_state_is_a_fault_of_the_configuration() {
    let told = |keys: &str| {
        let file = crate::support::Folder::new();
        let path = file.0.join("gateway.toml");
        let source = "[source]\nurl = \"redis://127.0.0.1:1\"\n";
        std::fs::write(&path, format!("{source}{}", super::routes(keys))).unwrap();
        let (code, _, told) =
            crate::support::program::run(&["check", "--config", path.to_str().unwrap()], &[]);
        assert_eq!(code, 78, "{keys}: {told}");
        told
    };
    for (keys, words) in [
        ("snapshot = \"state:{nam}\"", "is not a variable of the path"),
        ("snapshot = true", "does not say where the state is"),
        ("snapshot = { by = \"id\" }", "takes newest_by and nothing else"),
        ("snapshot_age = \"2s\"", "is for snapshot"),
        (&format!("{OF_KEY}\nstart = \"earliest\""), "leave start out"),
        (&format!("{OF_KEY}\non_gap = \"end\""), "a gap is followed by a snapshot here"),
        (&format!("{OF_KEY}\nevent = \"snapshot\""), "the events that hold the state"),
    ] {
        let told = told(keys);
        assert!(told.contains(words), "{keys}: {told}");
    }
}
