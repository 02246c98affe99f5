//! What reads any stream of events: `EventSource`, in Chromium and of npm, and httpx-sse. An `EventSource` comes back
//! from the end of a body, whatever came before it; only the answer to that return closes it for good.

use std::time::Duration;

use serde_json::{Value, json};

use super::{add, answered, finish, start, url};
use crate::support::browser::Browser;
use crate::support::foreign::Foreign;
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::{eventually, pause_of_the_scenario};

/// They hear of the end in a control event.
const LINES: [&str; 1] = ["controls = \"event\""];
/// Long enough for one that would come back, which waits for `retry`.
const TIME_TO_COME_BACK: Duration = Duration::from_millis(800);

/// An answer that is finished; the ids of its entries.
fn finished(redis: &Redis) -> [String; 3] {
    let [one, two] = add(redis, &["one".into(), "two".into()]).try_into().unwrap();
    [one, two, finish(redis)]
}

fn entry(data: &str, id: &str) -> Value {
    json!({ "data": data, "lastEventId": id })
}

fn end(id: &str) -> Value {
    json!({ "control": { "type": "end", "reason": "marker" }, "lastEventId": id })
}

/// One stream and one answer that there is no more, and then no request.
#[track_caller]
fn asked_twice(gateway: &Gateway) {
    let answers = [answered(gateway, 200), answered(gateway, 204)];
    assert_eq!(answers, [1.0, 1.0], "answers of 200 and of 204");
}

/// News of the gateway besides the end.
fn is_of_no_interest(line: &Value) -> bool {
    line["control"].is_object() && line["control"]["type"] != "end"
}

#[test]
fn npms_event_source_hears_the_end_and_stays_closed() {
    let redis = Redis::start();
    let gateway = start(&redis, &LINES);
    let ids = finished(&redis);
    let heard = Foreign::node("eventsource.mjs", &[&url(&gateway)]).end();
    let heard: Vec<_> = heard.iter().filter(|line| !is_of_no_interest(line)).collect();
    let open = json!({ "open": true });
    let (left, closed) =
        (json!({ "closed": false, "code": null }), json!({ "closed": true, "code": 204 }));
    let (one, two) = (entry("one", &ids[0]), entry("two", &ids[1]));
    assert_eq!(heard, [&open, &one, &two, &end(&ids[2]), &left, &closed]);
    asked_twice(&gateway);
}

#[test]
fn chromiums_event_source_hears_the_end_and_stays_closed() {
    let redis = Redis::start();
    let gateway = start(&redis, &LINES);
    let ids = finished(&redis);
    let browser = Browser::start();
    // No route, but of the origin.
    browser.open(&format!("http://{}/nothing", gateway.address));
    browser.script(
        "window.heard = [];
        window.source = new EventSource('/answers/a');
        source.onmessage = ({ data, lastEventId }) => heard.push({ data, lastEventId });
        source.addEventListener('ssegate', ({ data, lastEventId }) =>
            heard.push({ control: JSON.parse(data), lastEventId }));
        source.onerror = () => heard.push({ closed: source.readyState === EventSource.CLOSED });",
    );
    let heard = || browser.script("return heard").as_array().unwrap().clone();
    eventually("it is closed", || heard().contains(&json!({ "closed": true })));
    pause_of_the_scenario(TIME_TO_COME_BACK, "a page that would come back has time to");
    let mut heard = heard();
    heard.retain(|line| !is_of_no_interest(line));
    let (left, closed) = (json!({ "closed": false }), json!({ "closed": true }));
    let (one, two) = (entry("one", &ids[0]), entry("two", &ids[1]));
    assert_eq!(heard, [one, two, end(&ids[2]), left, closed]);
    asked_twice(&gateway);
}

/// It does not come back by itself, and an answer without a body of events is an error to it, as its manual says: who
/// uses it looks at the status first.
#[test]
fn httpx_sse_reads_up_to_the_end_and_is_answered_204_past_it() {
    let redis = Redis::start();
    let gateway = start(&redis, &LINES);
    let ids = finished(&redis);
    let mut heard = Foreign::python("httpx_sse_client.py", &[&url(&gateway)]).end();
    assert_eq!(heard.remove(0), json!({ "status": 200 }));
    assert_eq!(heard.pop(), Some(json!({ "ended": true })));
    let control = |line: &Value| line["event"] == "ssegate";
    let (controls, entries): (Vec<_>, Vec<_>) = heard.into_iter().partition(control);
    let message = |data: &str, id: &str| json!({ "event": "message", "data": data, "id": id });
    assert_eq!(entries, [message("one", &ids[0]), message("two", &ids[1])]);
    let last = controls.last().expect("the end is told");
    let data: Value = serde_json::from_str(last["data"].as_str().unwrap()).unwrap();
    assert_eq!(data, json!({ "type": "end", "reason": "marker" }));
    assert_eq!(last["id"], *ids[2]);
    let mut again = Foreign::python("httpx_sse_client.py", &[&url(&gateway), &ids[2]]).end();
    let error = again.pop().unwrap();
    assert!(error["error"].as_str().is_some_and(|error| error.starts_with("SSEError")), "{error}");
    assert_eq!(again, [json!({ "status": 204 })]);
}

#[test]
fn a_drain_in_the_middle_is_an_error_to_httpx_sse() {
    let redis = Redis::start();
    let gateway = start(&redis, &LINES);
    let ids = add(&redis, &["one".into()]);
    let client = Foreign::python("httpx_sse_client.py", &[&url(&gateway)]);
    client.hears(&json!({ "event": "message", "data": "one", "id": ids[0] }));
    gateway.signal("TERM");
    let end = client.end().pop().unwrap();
    let error = end["error"].as_str().unwrap_or_else(|| panic!("it ended with {end}"));
    assert!(error.starts_with("RemoteProtocolError"), "{error}");
}
