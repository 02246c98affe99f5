//! What the README and the pages in docs/ show is done here as it is written there.

use std::process::Command;

use serde_json::{Value, json};

use crate::documents::{block, section};
use crate::support::browser::Browser;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::Redis;
use crate::support::token::{SECRET, hs256, seconds_from_now};
use crate::support::{Folder, eventually};

/// Runs the documents' `follow` for `path`, with short pauses, on a page of the gateway's origin; its calls are in
/// `window.calls`. Its cookie is the first token, then the second.
fn follow(browser: &Browser, gateway: &Gateway, path: &str, tokens: [&str; 2]) {
    // No route, but of the origin.
    browser.open(&format!("http://{}/nothing", gateway.address));
    let cookie = tokens.map(|token| Value::from(format!("session={token}; path=/")));
    let follow = block("docs/clients.md", "In the browser", "js").replace("5000", "50");
    let script = format!(
        "{follow}
        window.calls = [];
        document.cookie = {};
        window.stop = follow({}, {{
            entry: data => window.calls.push(data),
            reload: gap => window.calls.push('reload: ' + gap.reason),
            renew: async () => {{
                window.calls.push('renew');
                document.cookie = {};
            }},
        }});",
        cookie[0],
        Value::from(path),
        cookie[1]
    );
    browser.script(&script);
}

#[track_caller]
fn is_told(browser: &Browser, expected: &[&str]) {
    let calls = || browser.script("return window.calls");
    eventually(&format!("the page hears of {expected:?}"), || calls() == json!(expected));
}

fn clients(gateway: &Gateway, count: f64) {
    eventually("it is connected", || gateway.metric("ssegate_clients") == count);
}

#[test]
fn a_page_gets_entries_and_gaps() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let browser = Browser::start();
    follow(&browser, &gateway, "/events/a", [""; 2]);
    clients(&gateway, 1.0);
    redis.run(&["XADD", "events:a", "1-0", "payload", "one"]);
    is_told(&browser, &["one"]);
    let script = "for id = 2, 5 do redis.call('XADD', KEYS[1], id .. '-0', 'payload', id) end \
        return redis.call('XTRIM', KEYS[1], 'MAXLEN', 1)";
    redis.run(&["EVAL", script, "1", "events:a"]);
    is_told(&browser, &["one", "reload: trimmed", "5"]);
    browser.script("window.stop()");
    clients(&gateway, 0.0);
}

#[test]
fn a_page_comes_back_from_an_answer_that_browsers_give_up_on() {
    let setup = Setup::memory().set("server", "refuse = \"status\"");
    let gateway = setup.set("limits", "clients = 1").start_ready();
    let mut first = Client::open(&gateway.address, "/events/a");
    first.live();
    let browser = Browser::start();
    follow(&browser, &gateway, "/events/a", [""; 2]);
    let refused = || gateway.metric("ssegate_rejected_total{reason=\"clients\"}");
    eventually("it is refused, again and again", || refused() >= 3.0);
    first.leave();
    clients(&gateway, 1.0);
    eventually("it is admitted", || {
        gateway.metric("ssegate_http_responses_total{code=\"200\"}") == 2.0
    });
    gateway.publish("events:a", "at last");
    is_told(&browser, &["at last"]);
}

#[test]
fn a_page_whose_token_expires_gets_another_and_resumes() {
    let credentials = Folder::new();
    std::fs::write(credentials.0.join("jwt"), SECRET).unwrap();
    let gateway = Setup::memory()
        .routes("[[route]]\npath = \"/a\"\nkey = \"events:a\"\naccess = \"jwt\"\n")
        .set("auth.jwt", "keys = [{ alg = \"HS256\", secret_file = \"jwt\" }]")
        .set("auth.jwt", "from = [\"cookie:session\"]")
        .credentials(credentials)
        .start_ready();
    let token = |seconds| hs256(&json!({ "exp": seconds_from_now(seconds) }));
    // Before there is a token: a cold browser takes its time, and the page some of the first one's.
    let browser = Browser::start();
    follow(&browser, &gateway, "/a", [&token(15), &token(600)]);
    clients(&gateway, 1.0);
    gateway.publish("events:a", "before");
    eventually("its token expires", || {
        gateway.metric("ssegate_client_disconnects_total{reason=\"expired\"}") == 1.0
    });
    is_told(&browser, &["before", "renew"]);
    gateway.publish("events:a", "after");
    is_told(&browser, &["before", "renew", "after"]);
}

#[test]
fn the_command_for_producers_reaches_the_clients_of_the_route_that_is_shown() {
    let redis = Redis::start();
    let toml = block("README.md", "Redis in one minute", "toml");
    let (_, routes) = toml.split_once("[[route]]").unwrap();
    let gateway = Setup::redis(&redis).routes(&format!("[[route]]{routes}")).start_ready();
    let mut client = Client::open(&gateway.address, "/v1/logs/stream");
    client.live();
    let command = block("docs/redis.md", "For producers", "sh");
    let cli = format!("redis-cli -s {}", redis.socket().display());
    let done = Command::new("sh").args(["-c", &command.replace("redis-cli", &cli)]).output();
    let done = done.unwrap();
    assert!(done.status.success(), "{done:?}");
    let entry = client.entry();
    assert_eq!((&*entry.event_type, &*entry.data), ("log", "{\"n\":1}"));
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), entry.last_event_id);
}

#[test]
fn the_fields_of_streams_are_the_documented_ones() {
    let gateway = Setup::memory().start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let text = section("docs/troubleshooting.md", "Readers");
    let (_, text) = text.split_once("why its reader waits").unwrap();
    let streams = gateway.streams();
    let stream = streams[0].as_object().unwrap();
    let values = ["entries", "answer", "retry", "slow_clients", "memory"];
    let names: Vec<_> =
        text.split('`').skip(1).step_by(2).filter(|n| !values.contains(n)).collect();
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        assert!(stream.contains_key(name), "{name} in {stream:?}");
    }
}
