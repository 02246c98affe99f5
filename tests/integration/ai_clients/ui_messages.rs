//! The AI SDK reads a message of its own protocol. It ignores names and ids of events, and any data but its own
//! breaks it; the message is whole where the body ends as HTTP wants it, half of it or not.

use serde_json::{Value, json};

use super::{ANSWER, add, answered, finish, url};
use crate::support::client::Client;
use crate::support::foreign::Foreign;
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;

/// Its route besides.
const LINES: [&str; 3] = [
    "absent = \"204\"",
    "absent_after = \"50ms\"",
    "headers = { \"x-vercel-ai-ui-message-stream\" = \"v1\" }",
];

fn start(redis: &Redis, line: &[&str]) -> Gateway {
    super::start(redis, &[&LINES[..], line].concat())
}

/// The chunks of a message, and where its first half ends.
fn chunks() -> (Vec<String>, Vec<String>) {
    let text = |text: &str| json!({ "type": "text-delta", "id": "t", "delta": text });
    let first = [
        json!({ "type": "start", "messageId": "m" }),
        json!({ "type": "start-step" }),
        json!({ "type": "text-start", "id": "t" }),
        text("Because "),
        text("it "),
    ];
    let second = [
        text("is so."),
        json!({ "type": "text-end", "id": "t" }),
        json!({ "type": "finish-step" }),
        json!({ "type": "finish" }),
    ];
    (first.iter().map(Value::to_string).collect(), second.iter().map(Value::to_string).collect())
}

/// A chat that sends a message, or resumes the answer to one.
fn chat(gateway: &Gateway, how: &str) -> Foreign {
    Foreign::node("ai_sdk.mjs", &[&url(gateway), how])
}

/// It has shown the first half.
#[track_caller]
fn shows_the_first_half(chat: &Foreign) {
    chat.hears(&json!({ "text": "Because it " }));
}

/// In which state it is at last, and which answers it has.
#[track_caller]
fn end(chat: Foreign) -> Value {
    chat.end().pop().expect("it says how it ended")
}

fn ready(answers: &[&str]) -> Value {
    json!({ "status": "ready", "error": null, "answers": answers })
}

#[test]
fn an_answer_is_read_whole() {
    let redis = Redis::start();
    let gateway = start(&redis, &[]);
    let (first, second) = chunks();
    add(&redis, &first);
    let chat = chat(&gateway, "send");
    shows_the_first_half(&chat);
    add(&redis, &second);
    finish(&redis);
    assert_eq!(end(chat), ready(&["Because it is so."]));
    let head = Client::open(&gateway.address, "/answers/a").head;
    assert!(head.contains("\r\nx-vercel-ai-ui-message-stream: v1\r\n"), "{head}");
}

/// Resuming is a replay: the page asks without an id, and what came before the half that is missing is no surprise.
#[test]
fn a_page_that_is_loaded_again_resumes_the_answer() {
    let redis = Redis::start();
    let gateway = start(&redis, &[]);
    let (first, second) = chunks();
    add(&redis, &first);
    let before = chat(&gateway, "send");
    shows_the_first_half(&before);
    drop(before);
    let again = chat(&gateway, "resume");
    shows_the_first_half(&again);
    add(&redis, &second);
    finish(&redis);
    assert_eq!(end(again), ready(&["Because it is so."]));
}

#[test]
fn there_is_nothing_to_resume_before_an_answer_and_after_its_expiry() {
    let redis = Redis::start();
    let gateway = start(&redis, &[]);
    assert_eq!(end(chat(&gateway, "resume")), ready(&[]));
    let (first, second) = chunks();
    add(&redis, &[first, second].concat());
    finish(&redis);
    assert_eq!(end(chat(&gateway, "resume")), ready(&["Because it is so."]));
    redis.run(&["DEL", ANSWER]);
    assert_eq!(end(chat(&gateway, "resume")), ready(&[]));
    assert_eq!((answered(&gateway, 204), answered(&gateway, 200)), (2.0, 1.0));
}

/// With a clean end it takes the half for a whole: that is what `cut` is for.
#[test]
fn a_drain_in_the_middle_is_an_error_and_no_answer() {
    for (cut, status) in [("incomplete", "error"), ("clean", "ready")] {
        let redis = Redis::start();
        let mut gateway = start(&redis, &[&format!("cut = {cut:?}")]);
        add(&redis, &chunks().0);
        let chat = chat(&gateway, "send");
        shows_the_first_half(&chat);
        gateway.signal("TERM");
        let end = end(chat);
        assert_eq!(
            (&end["status"], &end["answers"]),
            (&json!(status), &json!(["Because it "])),
            "{cut}: {end}"
        );
        assert!(gateway.wait().success());
    }
}

#[test]
fn comments_pass_and_control_events_break_it() {
    for (controls, status) in [("comment", "ready"), ("event", "error")] {
        let redis = Redis::start();
        let gateway = start(&redis, &[&format!("controls = {controls:?}")]);
        let (first, second) = chunks();
        add(&redis, &[first, second].concat());
        finish(&redis);
        let end = end(chat(&gateway, "send"));
        assert_eq!(end["status"], status, "{controls}: {end}");
        let error = end["error"].as_str().unwrap_or_default();
        assert_eq!(error.contains("Type validation failed"), status == "error", "{end}");
    }
}
