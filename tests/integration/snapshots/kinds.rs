use serde_json::json;

use super::{OF_KEY, json_of, open, start, state_of};
use crate::support::multiplexed::Session;
use crate::support::redis::Redis;

#[test]
fn each_kind_of_key_is_its_own_json() {
    let redis = Redis::start();
    let gateway = start(&redis, OF_KEY);
    let last = redis.add("events:a", "before");
    let cases: [(&[&str], serde_json::Value); 6] = [
        (&["HSET", "state:a", "x", "1", "y \"", "ü\n2"], json!({"x": "1", "y \"": "ü\n2"})),
        (&["RPUSH", "state:a", "b", "a"], json!(["b", "a"])),
        (&["SADD", "state:a", "only"], json!(["only"])),
        (&["ZADD", "state:a", "1.5", "b", "-inf", "a"], json!([["a", "-inf"], ["b", 1.5]])),
        (&["SET", "state:a", "{\"rows\":[1,2]}"], json!({"rows": [1, 2]})),
        (&["DEL", "state:a"], json!(null)),
    ];
    for (command, expected) in cases {
        redis.run(&["DEL", "state:a"]);
        redis.run(command);
        // Nobody else shares what was read for another kind: a second later it is read again.
        let gateway = start(&redis, &format!("{OF_KEY}\nsnapshot_age = \"0s\""));
        let mut client = open(&gateway);
        assert_eq!(json_of(&mut client), (expected, last.clone()), "{command:?}");
        let (replayed, id) = client.live();
        assert_eq!((replayed, id), (0, last.clone()));
    }
    drop(gateway);
}

#[test]
fn a_text_that_is_no_json_comes_as_it_is() {
    let redis = Redis::start();
    redis.run(&["SET", "state:a", "two\nlines"]);
    let gateway = start(&redis, OF_KEY);
    let mut client = open(&gateway);
    let state = state_of(&mut client);
    assert_eq!((&*state.data, &*state.last_event_id), ("two\nlines", "0-0"));
    client.live();
    redis.add("events:a", "first");
    assert_eq!(client.entry().data, "first");
}

#[test]
fn it_comes_over_http_2_as_well() {
    let redis = Redis::start();
    redis.run(&["HSET", "state:a", "x", "1"]);
    let gateway = start(&redis, OF_KEY);
    let id = redis.add("events:a", "before");
    let mut session = Session::open(&gateway.address);
    let stream = session.stream("/events/a");
    let state = session.event(stream);
    assert_eq!((&*state.event_type, &*state.data), ("snapshot", "{\"x\":\"1\"}"));
    assert_eq!(state.last_event_id, id);
    assert_eq!(session.live(stream), 0);
    redis.add("events:a", "after");
    assert_eq!(session.event(stream).data, "after");
}

#[test]
fn a_large_state_comes_in_parts() {
    let redis = Redis::start();
    let script =
        "for n = 1, 3000 do redis.call('HSET', KEYS[1], 'field' .. n, string.rep('x', 100)) end";
    redis.run(&["EVAL", script, "1", "state:a"]);
    redis.run(&["SET", "state:b", &"ü".repeat(50_000)]);
    let keys = "snapshot = \"state:{name}\"";
    let gateway = crate::support::gateway::Setup::redis(&redis)
        .set("source", "max_entry = \"64KiB\"")
        .routes(&super::routes(keys))
        .start_ready();
    let id = redis.add("events:a", "before");
    let mut client = open(&gateway);
    let (mut fields, mut part) = (0, 1);
    loop {
        let event = state_of(&mut client);
        assert!(event.data.len() < (64 << 10) + 100, "{}", event.data.len());
        let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(data["part"], part);
        fields += data["value"].as_object().unwrap().len();
        if data["of"] == part {
            assert_eq!(event.last_event_id, id);
            break;
        }
        assert_eq!(event.last_event_id, "", "whoever has half of it begins anew");
        part += 1;
    }
    assert!(fields == 3000 && part > 4, "{fields} in {part}");
    client.live();
    let mut client = crate::support::client::Client::open(&gateway.address, "/events/b");
    let mut text = String::new();
    for _ in 0..2 {
        let data: serde_json::Value = serde_json::from_str(&state_of(&mut client).data).unwrap();
        assert_eq!(data["of"], 2);
        text.push_str(data["value"].as_str().unwrap());
    }
    assert_eq!(text, "ü".repeat(50_000));
    client.live();
}
