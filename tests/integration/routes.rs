//! Which path reads which stream key; the set-up of the first user.

use std::time::Duration;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup, exchange};
use crate::support::redis::Redis;

/// The paths, events and field of the first user's dashboard.
const SIEM: &str = r#"
[[route]]
path   = "/v1/logs/stream"
key    = "siem:logs"
event  = "log"
access = "public"

[[route]]
path   = "/v1/alerts/stream"
key    = "siem:alerts"
event  = "alert"
access = "public"
"#;

/// The status of `HEAD`, which ends by itself where a stream would not.
fn status(gateway: &Gateway, path: &str) -> u16 {
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    exchange(&gateway.address, &request).status
}

fn open(gateway: &Gateway, path: &str) -> Client {
    let mut client = Client::open(&gateway.address, path);
    client.live();
    client
}

#[test]
fn a_literal_beats_a_variable_wherever_it_stands() {
    let literal = "[[route]]\npath = \"/events/special\"\nkey = \"special\"\naccess = \"public\"\n";
    let variable =
        "[[route]]\npath = \"/events/{name}\"\nkey = \"events:{name}\"\naccess = \"public\"\n";
    for routes in [[literal, variable].concat(), [variable, literal].concat()] {
        let gateway = Setup::memory().routes(&routes).start_ready();
        let mut special = open(&gateway, "/events/special");
        let mut other = open(&gateway, "/events/specials");
        gateway.publish("events:special", "nobody's");
        gateway.publish("special", "the literal's");
        gateway.publish("events:specials", "the variable's");
        assert_eq!(special.entry().data, "the literal's");
        assert_eq!(other.entry().data, "the variable's");
    }
}

#[test]
fn variables_become_the_key() {
    let routes = "[[route]]\npath = \"/t/{tenant}/s/{name}\"\nkey = \"{{{tenant}}}:{name}\"\naccess = \"public\"\n";
    let gateway = Setup::memory().routes(routes).start_ready();
    let mut client = open(&gateway, "/t/a.B_c-9/s/%61b");
    gateway.publish("%7Ba.B_c-9%7D:ab", "one");
    assert_eq!(client.entry().data, "one");
}

#[test]
fn a_variable_takes_one_segment_of_its_letters_and_nothing_else() {
    let gateway = Setup::memory().start_ready();
    let long = format!("/events/{}", "x".repeat(128));
    for path in ["/events/a.B_c-9", "/events/...", "/events/%61", "/%65vents/a", &long] {
        assert_eq!(status(&gateway, path), 200, "{path}");
    }
    let longer = format!("{long}x");
    let others = [
        "/",
        "/events",
        "/events/",
        "/events/a/",
        "/events/a/b",
        "//events/a",
        "/events//a",
        "/Events/a",
        "/events/a%2Fb",
        "/events/a%2fb",
        "/events/%2561",
        "/events/.",
        "/events/..",
        "/events/%2e",
        "/events/%2E%2e",
        "/events/../events/a",
        "/./events/a",
        "/events/a%00",
        "/events/a%0d%0a",
        "/events/a%20b",
        "/events/a:b",
        "/events/a*",
        "/events/%c3%a9",
        "/events/%ff",
        "/events/%zz",
        "/events/{name}",
        "/metrics",
        "/readyz",
        "/streams",
        "/publish/events:a",
        &longer,
    ];
    for path in others {
        let status = status(&gateway, path);
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    assert_eq!(gateway.streams(), serde_json::json!([]), "no such path opened a stream");
}

#[test]
fn the_first_users_dashboard_gets_what_it_got() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).routes(SIEM).start_ready();
    let mut logs = open(&gateway, "/v1/logs/stream");
    let mut alerts = open(&gateway, "/v1/alerts/stream?token=abc");
    let payload = r#"{"message": "a \"quoted\" \\ line",  "n":1.0, "é":"ü"}"#;
    let log = redis.add("siem:logs", payload);
    let alert = redis.add("siem:alerts", "{\"severity\":\"high\"}");
    let event = logs.event();
    assert_eq!((event.event_type.as_str(), event.data.as_str()), ("log", payload));
    assert_eq!(event.last_event_id, log);
    let event = alerts.event();
    assert_eq!(event.event_type, "alert");
    assert_eq!((event.data.as_str(), event.last_event_id), ("{\"severity\":\"high\"}", alert));
    redis.run(&["XADD", "siem:logs", "*", "other", "field"]);
    let event = logs.event();
    assert_eq!((event.event_type.as_str(), event.data.as_str()), ("log", "{}"));
}

#[test]
fn its_dashboard_gets_keepalives_and_hears_of_the_loss_of_redis() {
    let mut redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let setup = Setup::redis(&redis).routes(SIEM).set("server", "keepalive = \"1s\"");
    let gateway = setup.start_ready();
    let mut logs = open(&gateway, "/v1/logs/stream");
    redis.add("siem:logs", "before");
    assert_eq!(logs.event().data, "before");
    logs.comment("keepalive");
    redis.kill();
    // At once, and again with each keepalive.
    for _ in 0..3 {
        logs.comment("reconnecting");
    }
    redis.launch();
    logs.comment("reconnected");
    redis.add("siem:logs", "after");
    assert_eq!(logs.event().data, "after", "nothing was lost, so nothing else is sent");
}

#[test]
fn an_unknown_query_parameter_is_ignored() {
    let gateway = Setup::memory().routes(SIEM).start_ready();
    for query in ["?token=abc", "?token=abc&_=123", "?", "?=&&", "?token=%ff%00%zz"] {
        let mut client = open(&gateway, &format!("/v1/logs/stream{query}"));
        gateway.publish("siem:logs", query);
        assert_eq!(client.entry().data, query);
        assert!(client.next_within(Duration::from_millis(50)).is_none());
    }
}
