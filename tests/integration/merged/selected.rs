//! Several streams of which a client gets some entries: by its token, and by what it asks for.

use serde_json::{Value, json};

use super::refusals::{bearer, guarded};
use super::{Http, Viewer};
use crate::support::gateway::{Setup, exchange};
use crate::support::redis::{Answer, Redis};

const ROUTE: &str = r#"
[[route]]
path   = "/any"
merge_query = { name = "stream", key = "events:{stream}", most = 3 }
access = "jwt"
match  = { stream = "streams" }
where  = { tenant = "tenants" }
filter = ["severity"]
"#;
const PATH: &str = "/any?stream=a&stream=b&severity=high,critical";

#[test]
fn a_client_gets_its_rows_of_the_streams_that_it_chose() {
    for http in [Http::One, Http::Two] {
        eprintln!("{http:?}");
        let redis = Redis::start();
        let add = |stream: &str, tenant: &str, severity: &str, payload: &str| {
            let key = format!("events:{stream}");
            let fields = ["tenant", tenant, "severity", severity, "payload", payload];
            match redis.run(&[&["XADD", &*key, "*"][..], &fields].concat()) {
                Answer::Text(id) => id,
                other => panic!("XADD answered {other:?}"),
            }
        };
        let setup = guarded(Setup::redis(&redis)).routes(ROUTE);
        let gateway = setup.set("server", "keepalive = \"1s\"").start_ready();
        let token = bearer(&json!({ "streams": ["a", "b"], "tenants": ["acme"] }));
        let token = ("Authorization", &*token);
        let mut viewer = Viewer::open(http, &gateway, PATH, &[token]);
        assert_eq!(viewer.live().1, "a=0-0,b=0-0");

        let a = add("a", "acme", "high", "of a");
        viewer.hears("message", "of a", &format!("a={a},b=0-0"));
        let withheld = add("a", "other", "high", "another's");
        is_told_at(&mut viewer, "a", &format!("a={withheld},b=0-0"));
        add("b", "acme", "low", "not asked for");
        let b = add("b", "acme", "critical", "of b");
        viewer.hears("message", "of b", &format!("a={withheld},b={b}"));
        let later = add("b", "acme", "low", "not asked for");
        let id = format!("a={withheld},b={later}");
        is_told_at(&mut viewer, "b", &id);
        drop(viewer);

        add("a", "other", "critical", "another's");
        let a = add("a", "acme", "critical", "missed of a");
        add("b", "acme", "low", "not asked for");
        let b = add("b", "acme", "high", "missed of b");
        // Else a reader that is still there may not have it yet, and it is live news.
        for (key, id) in [("events:a", a), ("events:b", b)] {
            gateway.has_read(key, &id);
        }
        let mut viewer = Viewer::open(http, &gateway, PATH, &[token, ("Last-Event-ID", &id)]);
        let mut missed = [viewer.told(), viewer.told()].map(|(_, data, _)| data);
        missed.sort();
        assert_eq!(missed, ["missed of a", "missed of b"]);
        assert_eq!(viewer.live().0, 2);
        add("b", "other", "high", "another's");
        add("b", "acme", "high", "new");
        assert_eq!(viewer.told().1, "new");
    }
}

#[test]
fn a_choice_and_a_filter_are_each_refused_for_themselves() {
    let redis = Redis::start();
    let gateway = guarded(Setup::redis(&redis)).routes(ROUTE).start_ready();
    let ask = |claims: &Value, query: &str| {
        let token = bearer(claims);
        gateway.get(&format!("/any?{query}&token={}", &token["Bearer ".len()..]))
    };
    let claims = json!({ "streams": ["a"], "tenants": "acme" });
    for (query, status, why) in [
        ("severity=high", 400, "stream: no stream is chosen"),
        ("stream=a&tenant=acme", 400, "the query has a name that this route does not filter by"),
        ("stream=a&severity=", 400, "severity: expected values"),
        ("stream=a&stream=c&severity=high", 403, ""),
    ] {
        let refused = ask(&claims, query);
        assert_eq!(refused.status, status, "{query}");
        assert!(refused.body.starts_with(why), "{query}: {}", refused.body);
    }
    assert_eq!(ask(&json!({ "streams": ["a"] }), "stream=a").status, 403, "no tenant");
}

/// It is told that it has all of a stream that it gets up to this id; before that, perhaps the same of the other one.
fn is_told_at(viewer: &mut Viewer, stream: &str, id: &str) {
    loop {
        let (at, told) = viewer.control();
        assert_eq!(at["type"], "at");
        if (at["stream"] == stream, told.as_str()) == (true, id) {
            return;
        }
        assert_ne!(at["stream"], *stream, "{told} instead of {id}");
    }
}

#[test]
fn an_end_that_is_not_for_a_client_is_where_it_comes_back() {
    let route = r#"
        [[route]]
        path   = "/all"
        merge  = [{ name = "a", key = "events:a" }, { name = "b", key = "events:b" }]
        filter = ["tenant"]
        access = "public"
        end    = { field = "payload", equals = "done" }
    "#;
    for http in [Http::One, Http::Two] {
        eprintln!("{http:?}");
        let redis = Redis::start();
        let add = |stream: &str, tenant: &str, payload: &str| {
            let key = format!("events:{stream}");
            match redis.run(&["XADD", &key, "*", "tenant", tenant, "payload", payload]) {
                Answer::Text(id) => id,
                other => panic!("XADD answered {other:?}"),
            }
        };
        let gateway = Setup::redis(&redis).routes(route).start_ready();
        let path = "/all?tenant=acme";
        let mut viewer = Viewer::open(http, &gateway, path, &[]);
        viewer.live();
        let a = add("a", "other", "done");
        let end = r#"{"type":"end","stream":"a","reason":"marker"}"#;
        viewer.hears("ssegate", end, &format!("a={a},b=0-0"));
        let b = add("b", "other", "done");
        let id = format!("a={a},b={b}");
        viewer.hears("ssegate", r#"{"type":"end","reason":"marker"}"#, &id);
        assert_eq!(viewer.rest(), []);
        let again = format!("GET {path} HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {id}\r\n\r\n");
        assert_eq!(exchange(&gateway.address, &again).status, 204, "it stays away");
    }
}
