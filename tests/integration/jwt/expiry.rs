//! The end of a token is the end of its stream.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ssegate::sse::parse::Item;

use super::*;
use crate::support::multiplexed::{End, Session};
use crate::support::within;

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn open(gateway: &Gateway, path: &str, exp: i64) -> Client {
    let token = hs256(&json!({"exp": exp}));
    Client::with(&gateway.address, path, &[("Authorization", &format!("Bearer {token}"))])
}

fn left(gateway: &Gateway, why: &str) -> f64 {
    gateway.metric(&format!("ssegate_client_disconnects_total{{reason=\"{why}\"}}"))
}

#[test]
fn a_stream_is_warned_and_ends_with_its_token() {
    let gateway = start(&["warn = \"2s\""]);
    let exp = seconds_from_now(7);
    let mut client = open(&gateway, "/any/a", exp);
    client.live();
    let id = gateway.publish("events:a", "before");
    assert_eq!(client.entry().data, "before");
    let (control, at) = client.control();
    assert_eq!((&control["type"], &control["seconds"], at), (&json!("expiring"), &json!(2), id));
    assert!(now() < exp as f64, "it comes before the end");
    let id = gateway.publish("events:a", "still");
    assert_eq!(client.entry().data, "still");
    let rest = client.rest();
    assert!(now() >= exp as f64, "it ended before its token");
    let [.., Item::Event(last)] = &rest[..] else { panic!("{rest:?}") };
    assert_eq!((last.data.as_str(), &last.last_event_id), ("{\"type\":\"expired\"}", &id));
    assert!(client.complete);
    assert_eq!((left(&gateway, "expired"), left(&gateway, "rotated")), (1.0, 0.0));
    // A client that resumes with the old token, once its leeway is over, is refused.
    eventually("the leeway is over", || {
        let token = hs256(&json!({"exp": exp - 10}));
        head(&gateway, "/any/a", &bearer(&token)).status == 401
    });
}

#[test]
fn a_client_with_an_expired_token_comes_back_after_five_to_ten_seconds() {
    let gateway = start(&["leeway = \"60s\"", "warn = \"0s\""]);
    // Over soon, and so is the leeway; not before a busy machine has sent the request.
    let token = hs256(&json!({"exp": seconds_from_now(-55)}));
    let request = format!("GET /any/a HTTP/1.0\r\nHost: x\r\n{}\r\n", bearer(&token));
    let response = exchange(&gateway.address, &request);
    assert_eq!(response.status, 200, "{response:?}");
    assert!(!response.body.contains("expiring"), "{}", response.body);
    let (_, end) = response.body.rsplit_once("retry: ").unwrap();
    let (wait, end) = end.split_once('\n').unwrap();
    assert!((5000..=10000).contains(&wait.parse::<u64>().unwrap()), "{}", response.body);
    assert!(end.ends_with("event: ssegate\ndata: {\"type\":\"expired\"}\n\n"), "{}", response.body);
    let beyond = hs256(&json!({"exp": seconds_from_now(-62)}));
    assert_eq!(head(&gateway, "/any/a", &bearer(&beyond)).status, 401);
}

#[test]
fn a_token_that_ends_within_the_warning_is_announced_at_once() {
    let gateway = start(&["warn = \"60s\""]);
    let mut client = open(&gateway, "/any/a", seconds_from_now(20));
    let mut seen = [client.control().0, client.control().0];
    seen.sort_by_key(|control| control["type"].to_string());
    assert_eq!([&seen[0]["type"], &seen[1]["type"]], ["expiring", "live"]);
    assert!((18..=20).contains(&seen[0]["seconds"].as_u64().unwrap()), "{}", seen[0]);
}

#[test]
fn a_client_that_is_behind_gets_no_event_after_its_token() {
    // Less than the ring holds, more than the kernel takes.
    const ENTRIES: usize = 100;
    let gateway = start(&["warn = \"1s\""]);
    let exp = seconds_from_now(4);
    let token = hs256(&json!({"exp": exp}));
    let mut client = Client::with_small_window_and(&gateway.address, "/any/a", &bearer(&token));
    client.live();
    let payload = "x".repeat(50_000);
    for _ in 0..ENTRIES {
        gateway.publish("events:a", &payload);
    }
    within(Duration::from_secs(10), "the token is over", || now() > exp as f64 + 0.2);
    let rest = client.rest();
    let entries = rest.iter().filter(|item| matches!(item, Item::Event(e) if e.data == payload));
    assert!(entries.clone().count() < ENTRIES, "it was not behind");
    let [.., Item::Event(last)] = &rest[..] else { panic!("{:?}", rest.len()) };
    let data = &last.data[..last.data.len().min(40)];
    assert_eq!((data, client.complete), ("{\"type\":\"expired\"}", true));
}

#[test]
fn a_stream_is_still_rotated_before_its_token_ends() {
    let gateway = setup(&[]).set("server", "max_connection_age = \"1s\"").start_ready();
    let mut client = open(&gateway, "/any/a", seconds_from_now(600));
    client.live();
    assert_eq!(client.rest(), []);
    assert_eq!((left(&gateway, "expired"), left(&gateway, "rotated")), (0.0, 1.0));
}

/// Two streams of one connection, each with a token of its own.
#[test]
fn over_http2_each_stream_has_the_end_of_its_own_token() {
    let gateway = start(&["warn = \"2s\""]);
    let mut session = Session::open(&gateway.address);
    let bearer = |seconds| {
        let claims = json!({"exp": seconds_from_now(seconds)});
        format!("Bearer {}", hs256(&claims))
    };
    let short = session.get("/any/a", &[("authorization", &bearer(6))]);
    let long = session.get("/any/a", &[("authorization", &bearer(60))]);
    session.live(short);
    session.live(long);
    assert_eq!(session.control(short).0["type"], "expiring");
    assert_eq!(session.control(short).0["type"], "expired");
    assert_eq!(session.end(short), End::Whole);
    gateway.publish("events:a", "to the other");
    assert_eq!(session.event(long).data, "to the other");
    let none = session.get("/any/a", &[]);
    assert_ne!(session.status(none), 200);
}
