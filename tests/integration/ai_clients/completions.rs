//! OpenAI's client for Python reads the chunks of a completion up to `[DONE]`. A control event is a chunk without
//! choices to it, and a blank line after a comment is an empty one.

use serde_json::{Value, json};

use super::{add, finish, start};
use crate::support::eventually;
use crate::support::foreign::Foreign;
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;

fn chunk(text: &str) -> String {
    let choice = json!({ "index": 0, "delta": { "content": text }, "finish_reason": null });
    let (id, object) = ("chatcmpl-1", "chat.completion.chunk");
    json!({ "id": id, "object": object, "created": 1, "model": "m", "choices": [choice] })
        .to_string()
}

fn client(gateway: &Gateway) -> Foreign {
    Foreign::python("openai_client.py", &[&format!("http://{}", gateway.address), "/answers/a"])
}

fn content(text: &str) -> Value {
    json!({ "content": text })
}

#[test]
fn chunks_are_read_up_to_done_past_a_sign_of_life() {
    let redis = Redis::start();
    let setup = super::setup(&redis, &["end_data = \"[DONE]\""]);
    let gateway = setup.set("server", "keepalive = \"1s\"").start_ready();
    add(&redis, &[chunk("Because ")]);
    let client = client(&gateway);
    client.hears(&content("Because "));
    eventually("it is sent a sign of life", || gateway.metric("ssegate_heartbeats_total") > 0.0);
    add(&redis, &[chunk("it is so.")]);
    finish(&redis);
    let heard = client.end();
    let (decoded, seen): (Vec<_>, Vec<_>) =
        heard.into_iter().partition(|line| line.get("decoded").is_some());
    assert_eq!(seen, [content("Because "), content("it is so."), json!({ "ended": true })]);
    assert_eq!(decoded.len(), 3, "{decoded:?}");
    assert_eq!(decoded[2]["decoded"], "[DONE]");
}

#[test]
fn a_drain_in_the_middle_is_an_error_and_no_answer() {
    let redis = Redis::start();
    let gateway = start(&redis, &["end_data = \"[DONE]\""]);
    add(&redis, &[chunk("Because ")]);
    let client = client(&gateway);
    client.hears(&content("Because "));
    gateway.signal("TERM");
    let end = client.end().pop().unwrap();
    let error = end["error"].as_str().unwrap_or_else(|| panic!("it ended with {end}"));
    assert!(error.starts_with("APIConnectionError"), "{error}");
}

#[test]
fn control_events_break_it() {
    let redis = Redis::start();
    let gateway = start(&redis, &["end_data = \"[DONE]\"", "controls = \"event\""]);
    add(&redis, &[chunk("Because ")]);
    let end = client(&gateway).end().pop().unwrap();
    assert!(end["error"].is_string(), "{end}");
}
