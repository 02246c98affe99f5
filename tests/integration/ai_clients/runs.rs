//! LangGraph's SDK joins a run: each event has a name, its data are JSON, `-1` asks for all of it. It reads to the end
//! of the body, and an answer without a body is an error to it.

use serde_json::{Value, json};

use super::{answered, start};
use crate::support::foreign::Foreign;
use crate::support::gateway::Gateway;
use crate::support::redis::{Answer, Redis};

const RUN: [&str; 4] = [
    "path = \"/threads/{thread}/runs/{run}/stream\"",
    "key = \"run:{thread}:{run}\"",
    "event = { field = \"event\" }",
    "end = { field = \"event\", equals = [\"end\", \"error\"] }",
];

/// Adds an event to the run; its id.
fn add(redis: &Redis, event: &str, payload: &Value) -> String {
    let payload = payload.to_string();
    match redis.run(&["XADD", "run:t:r", "*", "event", event, "payload", &payload]) {
        Answer::Text(id) => id,
        other => panic!("XADD answered {other:?}"),
    }
}

fn join(gateway: &Gateway, after: &str) -> Foreign {
    Foreign::node("langgraph.mjs", &[&format!("http://{}", gateway.address), "t", "r", after])
}

fn part(id: &str, event: &str, data: &Value) -> Value {
    json!({ "id": id, "event": event, "data": data })
}

#[test]
fn a_run_is_joined_from_its_start_and_read_to_its_end() {
    let redis = Redis::start();
    // A client that names no beginning begins live: this one has its `-1`.
    let lines = ["start = \"live\"", "ended = \"replay\""];
    let gateway = start(&redis, &[&RUN[..], &lines].concat());
    let one = json!({ "n": 1 });
    let first = part(&add(&redis, "values", &one), "values", &one);
    let client = join(&gateway, "-1");
    client.hears(&first);
    let two = json!({ "n": 2 });
    let second = part(&add(&redis, "updates", &two), "updates", &two);
    let last = part(&add(&redis, "end", &Value::Null), "end", &Value::Null);
    let whole = [first, second, last, json!({ "ended": true })];
    assert_eq!(client.end(), whole);
    assert_eq!(join(&gateway, "-1").end(), whole, "once it is over");
}

/// It throws where `EventSource` is content.
#[test]
fn who_returns_to_a_run_that_is_over_wants_a_body() {
    let payload = json!({ "n": 1 });
    for (ended, code) in [("replay", 200), ("204", 204)] {
        let redis = Redis::start();
        let ended = format!("ended = {ended:?}");
        let gateway = start(&redis, &[&RUN[..], &[&ended]].concat());
        let first = part(&add(&redis, "values", &payload), "values", &payload);
        let id = add(&redis, "end", &Value::Null);
        let last = part(&id, "end", &Value::Null);
        let heard = join(&gateway, &id).end();
        assert_eq!(answered(&gateway, code), 1.0, "{ended}");
        match code {
            200 => assert_eq!(heard, [first, last, json!({ "ended": true })]),
            _ => assert!(heard[0]["error"].is_string(), "{heard:?}"),
        }
    }
}
