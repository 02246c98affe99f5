use serde_json::json;

use super::{OF_KEY, json_of, open, resume, start, write};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::multiplexed::Session;
use crate::support::redis::Redis;

#[test]
fn the_state_comes_first_and_then_each_change_once() {
    let redis = Redis::start();
    let gateway = start(&redis, OF_KEY);
    write(&redis, "a", "1");
    let id = write(&redis, "b", "2");
    let mut client = open(&gateway);
    assert_eq!(json_of(&mut client), (json!({"a": "1", "b": "2"}), id));
    client.live();
    write(&redis, "a", "3");
    let last = write(&redis, "c", "4");
    assert_eq!(client.entry().data, "3");
    assert_eq!(client.entry().data, "4");
    // Who has an id goes on from there, without a state.
    drop(client);
    let newest = write(&redis, "b", "5");
    gateway.has_read("events:a", &newest);
    let mut client = resume(&gateway, &last);
    assert_eq!(client.entry().data, "5");
    client.live();
    // And who asks for entries by name gets entries.
    let mut client = Client::open(&gateway.address, "/events/a?last=2");
    assert_eq!((&*client.entry().data, &*client.entry().data), ("4", "5"));
}

#[test]
fn a_gap_is_told_without_an_id_and_healed() {
    let redis = Redis::start();
    let gateway = start(&redis, OF_KEY);
    let ids: Vec<_> = (0..5).map(|n| write(&redis, "n", &n.to_string())).collect();
    let mut client = resume(&gateway, &ids[0]);
    assert_eq!(client.entry().data, "1");
    drop(client);
    redis.run(&["XTRIM", "events:a", "MAXLEN", "2"]);
    // A gateway that has what was trimmed would have told no gap.
    let gateway = start(&redis, OF_KEY);
    for (id, reason) in [(&*ids[0], "trimmed"), ("9999999999999-0", "reset"), ("x", "unknown")] {
        let mut client = resume(&gateway, id);
        let (gap, heard) = client.control();
        assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!(reason)));
        assert_eq!(heard, "", "a client that is cut here comes back as it came");
        assert_eq!(json_of(&mut client), (json!({"n": "4"}), ids[4].clone()), "{reason}");
        assert_eq!(client.live(), (0, ids[4].clone()));
    }
    let healed = || gateway.metric("ssegate_gaps_healed_total");
    eventually("each is counted", || healed() == 3.0);
}

#[test]
fn replay_of_too_much_is_a_state() {
    let redis = Redis::start();
    let gateway = start(&redis, &format!("{OF_KEY}\nreplay = 2"));
    let ids: Vec<_> = (0..5).map(|n| write(&redis, "n", &n.to_string())).collect();
    let mut client = resume(&gateway, &ids[0]);
    assert_eq!(client.control().0["reason"], "limit");
    assert_eq!(json_of(&mut client).0, json!({"n": "4"}));
    client.live();
    let mut client = resume(&gateway, &ids[2]);
    assert_eq!(client.entry().data, "3");
    assert_eq!(client.entry().data, "4");
}

#[test]
fn a_live_client_whose_stream_is_recreated_gets_the_state_of_the_new_one() {
    let redis = Redis::start();
    let gateway = start(&redis, OF_KEY);
    write(&redis, "old", "1");
    let mut client = open(&gateway);
    json_of(&mut client);
    client.live();
    let mut session = Session::open(&gateway.address);
    let stream = session.stream("/events/a");
    session.event(stream);
    session.live(stream);
    redis.run(&["DEL", "events:a", "state:a"]);
    assert_eq!(client.control().0["reason"], "reset");
    assert_eq!(json_of(&mut client), (json!(null), "0-0".to_owned()));
    assert_eq!(session.control(stream).0["reason"], "reset");
    assert_eq!(session.event(stream).data, "null");
    write(&redis, "new", "2");
    assert_eq!(client.entry().data, "2");
    assert_eq!(session.event(stream).data, "2");
}

#[test]
fn an_entry_that_is_too_large_to_send_leads_to_a_state() {
    let redis = Redis::start();
    let gateway = start(&redis, OF_KEY);
    write(&redis, "a", "1");
    let mut client = open(&gateway);
    json_of(&mut client);
    client.live();
    let script = "redis.call('HSET', KEYS[1], 'a', 'large') \
        redis.call('XADD', KEYS[2], '*', 'payload', string.rep('x', 2000000)) \
        redis.call('HSET', KEYS[1], 'a', 'after') \
        return redis.call('XADD', KEYS[2], '*', 'payload', 'after')";
    redis.run(&["EVAL", script, "2", "state:a", "events:a"]);
    assert_eq!(client.control().0["reason"], "oversize");
    assert_eq!(json_of(&mut client).0, json!({"a": "after"}));
    write(&redis, "a", "more");
    assert_eq!(client.entry().data, "more");
}
