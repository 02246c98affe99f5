use std::time::Duration;

use serde_json::json;

use super::*;
use crate::support::eventually;
use crate::support::gateway::exchange;
use crate::support::multiplexed::Session;
use crate::support::post::curl;

const NAMES: &str =
    "the query has a name that this route does not filter by; it filters by severity, source";

/// The status of a `HEAD`.
fn head(gateway: &Gateway, path: &str) -> u16 {
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    exchange(&gateway.address, &request).status
}

/// `GET` over both protocols and `HEAD` get this status, and the first two this line.
#[track_caller]
fn assert_refused(gateway: &Gateway, path: &str, status: u16, line: &str) {
    let response = gateway.get(path);
    assert_eq!((response.status, response.body.trim_end()), (status, line), "{path}");
    assert_eq!(head(gateway, path), status, "HEAD {path}");
    let url = format!("http://{}{path}", gateway.address);
    let told = curl(&["--http2-prior-knowledge", "--globoff", &url]);
    assert!(told.starts_with(&format!("HTTP/2 {status}")), "{path}: {told}");
    assert_eq!(told.trim_end().lines().last(), Some(line), "{path}");
}

#[test]
fn a_query_that_a_route_cannot_filter_by_is_refused_with_what_would_be_right() {
    let tokens = Tokens::new();
    let gateway = tokens.setup(Setup::memory(), WHERE).start_ready();
    let listed = "severity: expected values with commas between them, as in severity=one,other, and none of them empty; leave severity out for all";
    let twice = "severity: named twice; write it once, as in severity=one,other";
    let most = "source: expected at most 16 values";
    let many = format!("source={}", ["v"; 17].join(","));
    let long = format!("source={}", "%61".repeat(1025));
    for (query, line) in [
        ("severty=high", NAMES),
        ("tenant=acme", NAMES),
        ("last=1&Severity=high", NAMES),
        ("severity=high&=", NAMES),
        ("severity=", listed),
        ("severity", listed),
        ("severity=high,,low", listed),
        ("severity=high,", listed),
        ("severity=high&severity=low", twice),
        ("severity=high&severity=high", twice),
        (&many, most),
        (&long, "source: expected at most 1024 bytes of values"),
    ] {
        assert_refused(&gateway, &format!("/open?{query}"), 400, line);
    }
    // A good token does not help, and without one nothing is told of the names.
    let wrong = asked("/alerts?source=a", &json!({"tenants": "acme"}));
    let of_one = "the query has a name that this route does not filter by; it filters by severity";
    assert_refused(&gateway, &wrong, 400, of_one);
    assert_refused(&gateway, "/alerts?source=a", 401, "a token is needed");
}

#[test]
fn what_is_meant_otherwise_is_taken_as_it_was_meant() {
    let tokens = Tokens::new();
    let gateway = tokens.setup(Setup::memory(), WHERE).start_ready();
    let many = format!("/open?source={}", ["v"; 16].join(","));
    for path in [
        "/open",
        "/open?",
        "/open?&",
        "/open?severity=high,critical&source=fw-01",
        "/open?severity=high,high",
        "/open?last=3&severity=high",
        "/open?severity=high&since=1h&lastEventId=",
        "/open?severity=high&Last-Event-ID=garbage&last_event_id=1-0",
        "/open?severity=%C3%BC%00%ff+&token=no-token",
        "/plain?severity=&severity=&tenant=x",
        &many,
    ] {
        assert_eq!(head(&gateway, path), 200, "{path}");
    }
    let mut client = open(&gateway, "/open?severity=high,critical&source=fw-01");
    let mut session = Session::open(&gateway.address);
    let hosted = session.stream("/open?severity=high&source=fw-01,fw-02");
    session.live(hosted);
    add(&gateway, &json!({"severity": "high", "source": "fw-01", "payload": "it"}));
    assert_eq!(client.entry().data, "it");
    assert_eq!(session.event(hosted).data, "it");
}

#[test]
fn a_claim_that_names_no_value_opens_nothing_and_the_answer_does_not_say_why() {
    let tokens = Tokens::new();
    let two = "where = { tenant = \"org.id\", user = \"sub\" }";
    let gateway = tokens.setup(Setup::memory(), two).start_ready();
    let refused = "the token is good, and not for this path";
    let mut count = 0.0;
    for claims in [
        json!({}),
        json!({"org": "acme"}),
        json!({"org": {}}),
        json!({"org": {"id": 7}}),
        json!({"org": {"id": true}}),
        json!({"org": {"id": null}}),
        json!({"org": {"id": []}}),
        json!({"org": {"id": ["acme", 7]}}),
        json!({"org": {"id": {"id": "acme"}}}),
        json!({"org.id": 7, "org": {"id": "acme"}}),
    ] {
        assert_refused(&gateway, &asked("/alerts", &claims), 403, refused);
        count += 3.0;
    }
    let counted = gateway.metric("ssegate_auth_failures_total{reason=\"match\"}");
    assert_eq!(counted, count);
    for claims in [
        json!({"org": {"id": "acme"}}),
        json!({"org": {"id": ["acme", "other", "acme"]}}),
        json!({"org.id": "acme"}),
        json!({"org.id": "acme", "org": {"id": 7}}),
        json!({"org": {"id": "Ünïcode\u{0}, and \"more\""}}),
    ] {
        assert_eq!(head(&gateway, &asked("/alerts", &claims)), 200, "{claims}");
    }
}

#[test]
fn who_adds_entries_needs_no_rows() {
    let tokens = Tokens::new();
    let keys = "where = { tenant = \"tenants\" }\nmatch = \"any\"";
    let setup = tokens.setup(Setup::memory(), keys);
    let routes = routes(keys).replace(
        "{ access = \"public\", fields = \"json\" }",
        "{ access = \"jwt\", fields = \"json\" }",
    );
    let gateway = setup.routes(&routes).start_ready();
    let json = ["Content-Type: application/json"];
    let added = |path: &str| post::post(&gateway, path, &json, "{\"tenant\":\"acme\"}").status;
    assert_eq!(added("/alerts"), 401);
    assert_eq!(added(&asked("/alerts", &json!({}))), 200);
    // Queries are for readers.
    assert_eq!(added(&asked("/alerts?severity=&x=", &json!({}))), 200);
}

#[test]
fn so_many_selections_of_a_stream_key_may_differ() {
    with_both_sources(|source| {
        let tokens = Tokens::new();
        let setup = |most: &str| {
            tokens
                .setup(source(), WHERE)
                .set("server", "retry = \"1s\"")
                .set("limits", &format!("selections_per_key = {most}"))
        };
        let gateway = setup("2").start_ready();
        let of = |tenant: &str| asked("/alerts", &json!({ "tenants": tenant }));
        let first = open(&gateway, &of("a"));
        let mut session = Session::open(&gateway.address);
        let second = session.stream(&of("b"));
        session.live(second);
        // Those who get the same, or everything, take no further place.
        let _same =
            [of("a"), of("b"), "/open".into(), "/plain".into()].map(|path| open(&gateway, &path));
        let refused = |path: &str| {
            let mut client = Client::open(&gateway.address, path);
            let (control, id) = client.control();
            assert_eq!(control, json!({"type": "unavailable", "reason": "selections"}), "{path}");
            let retry = client.reconnection_time().expect("a refusal says when to come back");
            assert!(retry >= Duration::from_secs(5), "{retry:?}");
            assert_eq!((id, client.rest(), client.complete), (String::new(), Vec::new(), true));
        };
        refused(&of("c"));
        refused(&format!("{}&severity=high", of("a")));
        let hosted = session.stream(&of("c"));
        let control = session.control(hosted).0;
        assert_eq!(control, json!({"type": "unavailable", "reason": "selections"}));
        assert_eq!(gateway.metric("ssegate_rejected_total{reason=\"selections\"}"), 3.0);
        // A reload that lowers it ends nobody, and one that raises it lets others in.
        gateway.write(&setup("1"));
        assert_eq!(gateway.reload()["ended"], 0);
        refused(&of("c"));
        gateway.write(&setup("3"));
        gateway.reload();
        let third = open(&gateway, &of("c"));
        refused(&of("d"));
        // The last client that has a selection gives its place back.
        third.leave();
        session.reset(second);
        eventually("a place is free", || {
            Client::open(&gateway.address, &of("d")).control().0["type"] == "live"
        });
        drop(first);
    });
}

#[test]
fn where_status_codes_are_wanted_too_many_selections_are_a_503() {
    let tokens = Tokens::new();
    let gateway = tokens
        .setup(Setup::memory(), WHERE)
        .set("server", "refuse = \"status\"")
        .set("limits", "selections_per_key = 1")
        .start_ready();
    let _first = open(&gateway, "/open?severity=high");
    assert_refused(
        &gateway,
        "/open?severity=high,",
        400,
        "severity: expected values with commas between them, as in severity=one,other, and none of them empty; leave severity out for all",
    );
    let refused = gateway.get("/open?severity=low");
    assert!(refused.status == 503 && refused.body.contains("selections"), "{refused:?}");
    let _same = open(&gateway, "/open?severity=high");
}
