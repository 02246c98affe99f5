//! What docs/answers.md shows is done here as it is written there.

use std::process::Command;

use serde_json::{Value, json};

use crate::documents::{block, section};
use crate::support::browser::Browser;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Redis};
use crate::support::{Folder, eventually};

const PAGE: &str = "docs/answers.md";

/// A module in place of redis-py, which has what the producer uses of it.
const REDIS_PY: &str = r#"
import os, subprocess

class Redis:
    def _run(self, *words):
        subprocess.run(["redis-cli", "-s", os.environ["SOCKET"], *map(str, words)], check=True)

    def xadd(self, key, fields):
        self._run("XADD", key, "*", *[part for pair in fields.items() for part in pair])

    def expire(self, key, seconds):
        self._run("EXPIRE", key, seconds)
"#;

/// Runs the producer that is shown for the answer `a`, with this iterator of tokens.
fn produce(redis: &Redis, tokens: &str) -> bool {
    let folder = Folder::new();
    std::fs::write(folder.0.join("redis.py"), REDIS_PY).unwrap();
    let code = format!("{}\nanswer('a', {tokens})\n", block(PAGE, "The producer", "python"));
    let mut python = Command::new("python3");
    python.args(["-c", &code]).env("PYTHONPATH", &folder.0).env("SOCKET", redis.socket());
    python.output().expect("python3 must be installed").status.success()
}

/// The gateway with the route that is shown, where nobody waits as long as in production.
fn started(redis: &Redis, change: impl Fn(Setup) -> Setup) -> Gateway {
    let route = block(PAGE, "The route", "toml");
    assert!(route.contains("\"90s\""), "{route}");
    change(Setup::redis(redis).routes(&route.replace("\"90s\"", "\"1s\""))).start_ready()
}

/// Follows the answer on a page of the gateway's origin; its calls are in `window.calls`.
fn follow(browser: &Browser, gateway: &Gateway) {
    browser.open(&format!("http://{}/nothing", gateway.address));
    let follow = block(PAGE, "The page", "js");
    browser.script(&format!(
        "{follow}
        window.calls = [];
        const call = name => value => window.calls.push(name + ': ' + value);
        window.stop = follow('a', {{
            token: call('token'), failed: call('failed'), over: call('over'),
            reload: gap => window.calls.push('reload: ' + gap.reason),
        }});"
    ));
}

#[track_caller]
fn is_told(browser: &Browser, expected: &[&str]) {
    let calls = || browser.script("return window.calls");
    eventually(&format!("the page hears of {expected:?}"), || calls() == json!(expected));
}

#[test]
fn the_page_follows_the_producer_to_the_end() {
    let redis = Redis::start();
    let gateway = started(&redis, |setup| setup);
    let browser = Browser::start();
    // Nobody answers.
    follow(&browser, &gateway);
    is_told(&browser, &["over: none"]);
    assert!(produce(&redis, "['Hel', 'lo']"));
    let whole = ["token: Hel", "token: lo", "over: marker"];
    for _ in 0..2 {
        follow(&browser, &gateway);
        is_told(&browser, &whole);
    }
}

#[test]
fn the_page_resumes_where_it_was_cut() {
    let redis = Redis::start();
    let gateway = started(&redis, |setup| {
        setup.set("server", "max_connection_age = \"1s\"").set("server", "retry = \"100ms\"")
    });
    let browser = Browser::start();
    let add = |id: &str, field: &str, value: &str| {
        redis.run(&["XADD", "answer:a", id, field, value]);
    };
    add("1-0", "payload", r#"{"text": "Hel"}"#);
    follow(&browser, &gateway);
    is_told(&browser, &["token: Hel"]);
    let rotated = "ssegate_client_disconnects_total{reason=\"rotated\"}";
    eventually("it was cut and is back", || {
        gateway.metric(rotated) >= 1.0 && gateway.metric("ssegate_clients") == 1.0
    });
    add("2-0", "payload", r#"{"text": "lo"}"#);
    add("3-0", "type", "done");
    is_told(&browser, &["token: Hel", "token: lo", "over: marker"]);
}

#[test]
fn the_page_hears_of_a_failure() {
    let redis = Redis::start();
    let gateway = started(&redis, |setup| setup);
    let browser = Browser::start();
    assert!(!produce(&redis, "(1 / n for n in (1, 0))"));
    follow(&browser, &gateway);
    is_told(&browser, &["token: 1", "failed: division by zero", "over: marker"]);
    let expires = redis.run(&["TTL", "answer:a"]);
    let Answer::Number(seconds) = expires else { panic!("{expires:?}") };
    assert!((1..=600).contains(&seconds), "{seconds}");
}

/// The keys of each row of the table, as lines of a route.
fn rows() -> Vec<(String, String)> {
    let section = section(PAGE, "A route for each client");
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| {
        let cells: Vec<_> = row.split(" | ").collect();
        let keys: Vec<_> = cells[1].split('`').skip(1).step_by(2).collect();
        (cells[0].trim_start_matches("| ").to_owned(), keys.join("\n"))
    })
    .collect()
}

#[test]
fn the_route_of_each_client_has_no_faults() {
    let rows = rows();
    assert_eq!(rows.len(), 7, "{rows:?}");
    for (client, keys) in rows {
        let text = format!(
            "[source]\nurl = \"memory:\"\n[[route]]\npath = \"/a\"\nkey = \"a\"\naccess = \"public\"\nreplay = \"all\"\nend = {{ field = \"type\", equals = \"done\" }}\n{keys}\n"
        );
        let loaded = ssegate::config::parse(&text, "gateway.toml", &[], false);
        let loaded = loaded.unwrap_or_else(|faults| panic!("{client}: {faults}\n{text}"));
        let told: Vec<Value> =
            loaded.warnings.iter().map(|warning| json!(warning.to_string())).collect();
        // That a field may name an event "error" is known: these clients are no EventSource.
        assert!(told.iter().all(|told| told.to_string().contains("EventSource has its own")));
    }
}
