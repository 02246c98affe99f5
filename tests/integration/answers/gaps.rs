//! Streams that end at a gap, so that the page fetches the state anew.

use serde_json::json;

use super::{Scene, on_redis};
use crate::support::eventually;
use crate::support::multiplexed::{End, Session};

const TOLD: &str = "end = { field = \"payload\", equals = \"[END]\" }\non_gap = \"end\"";
const UNTOLD: &str = "on_gap = \"end\"\ncontrols = \"none\"\nstart = \"earliest\"";

#[test]
fn a_gap_is_told_and_the_stream_ends_there() {
    on_redis(TOLD, |redis, gateway, _| {
        let scene = Scene { gateway };
        let mut client = scene.open("");
        client.live();
        let mut session = Session::open(&scene.gateway.address);
        let stream = session.stream("/events/a");
        session.live(stream);
        let first = redis.add("events:a", "first");
        assert_eq!(client.event().data, "first");
        assert_eq!(session.event(stream).data, "first");
        redis.run(&["DEL", "events:a"]);
        let gap =
            json!({"type": "gap", "after": first, "next": null, "lost": null, "reason": "reset"});
        assert_eq!(client.control().0, gap);
        assert_eq!(client.rest(), Vec::new());
        assert!(!client.complete, "half an answer is no whole one");
        assert_eq!(session.control(stream).0, gap);
        assert_ne!(session.end(stream), End::Whole);
        let ended = "ssegate_streams_ended_total{route=\"/events/{name}\",reason=\"gap\"}";
        eventually("both are counted", || scene.gateway.metric(ended) == 2.0);
    });
}

#[test]
fn nothing_after_the_gap_is_sent() {
    on_redis(TOLD, |redis, gateway, restart| {
        let mut scene = Scene { gateway };
        let ids = scene.publish(&["1", "2", "3", "4"]);
        redis.run(&["XTRIM", "events:a", "MAXLEN", "2"]);
        let mut client = scene.resume(&ids[0]);
        let (gap, id) = client.control();
        assert_eq!(
            (gap["reason"].as_str(), gap["next"].as_str()),
            (Some("trimmed"), Some(&*ids[2]))
        );
        assert_eq!(client.rest(), Vec::new());
        // It comes back after the gap, once it has the state.
        let mut client = scene.resume(&id);
        assert_eq!(client.entry().data, "3");
        assert_eq!(client.entry().data, "4");
        client.live();
        // An entry that is too large, among others: what is before it comes, and what is after it not.
        drop(client);
        scene = Scene { gateway: restart() };
        let script = "redis.call('XADD', KEYS[1], '*', 'payload', 'before') \
            redis.call('XADD', KEYS[1], '*', 'payload', string.rep('x', 2000000)) \
            redis.call('XADD', KEYS[1], '*', 'payload', 'after')";
        redis.run(&["EVAL", script, "1", "events:a"]);
        for query in [format!("?last_event_id={}", ids[3]), "?last=3".into()] {
            let mut client = scene.open(&query);
            assert_eq!(client.entry().data, "before", "{query}");
            let (gap, _) = client.control();
            assert_eq!(gap["reason"], "oversize", "{query}");
            assert_eq!(client.rest(), Vec::new(), "{query}");
        }
        let mut live = scene.open("");
        live.live();
        redis.run(&["EVAL", script, "1", "events:a"]);
        assert_eq!(live.entry().data, "before");
        assert_eq!(live.control().0["reason"], "oversize");
        assert_eq!(live.rest(), Vec::new());
    });
}

#[test]
fn a_stream_without_control_events_ends_at_a_gap_without_a_word() {
    on_redis(UNTOLD, |redis, gateway, _| {
        let scene = Scene { gateway };
        let mut client = scene.open("");
        redis.add("events:a", "first");
        assert_eq!(client.event().data, "first");
        redis.run(&["DEL", "events:a"]);
        assert_eq!(client.rest(), Vec::new());
        assert_eq!(
            scene.gateway.metric("ssegate_gaps_total{scope=\"reader\",reason=\"reset\"}"),
            1.0
        );
        let mut unknown = scene.resume("of another server");
        assert_eq!(unknown.rest().len(), 1, "nothing but the opening comment");
    });
}

#[test]
fn a_gap_leaves_other_clients_of_the_stream_alone() {
    on_redis(UNTOLD, |redis, gateway, _| {
        let scene = Scene { gateway };
        let mut plain = crate::support::client::Client::open(&scene.gateway.address, "/plain/a");
        plain.live();
        let mut client = scene.open("");
        redis.add("events:a", "first");
        assert_eq!(client.event().data, "first");
        redis.run(&["DEL", "events:a"]);
        redis.add("events:a", "second");
        client.rest();
        assert_eq!(plain.event().data, "first");
        assert_eq!(plain.control().0["reason"], "reset");
        assert_eq!(plain.event().data, "second");
    });
}
