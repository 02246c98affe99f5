//! Access to routes: the first user's tokens, where tokens are, what they have to say of the path.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Response, Setup, exchange};
use crate::support::program::run;
use crate::support::redis::Redis;
use crate::support::token::{SECRET, hs256, seconds_from_now};
use crate::support::{Folder, eventually};

/// Tokens of an attacker.
mod attacks;
/// Cookies, in a browser and out of it.
mod cookies;
/// The end of a token.
mod expiry;
/// Keys that are fetched.
mod keys;
/// Streams that go on, or not, under another configuration.
mod reload;

/// One route whose variable a claim has to say, one for any good token, one without a token.
const ROUTES: &str = r#"
[[route]]
path   = "/events/{name}"
key    = "events:{name}"
access = "jwt"
match  = { name = "streams" }

[[route]]
path   = "/any/{name}"
key    = "events:{name}"
access = "jwt"
match  = "any"

[[route]]
path   = "/public/{name}"
key    = "events:{name}"
access = "public"
"#;

/// A gateway that takes HS256 tokens with [`SECRET`], under these lines of `[auth.jwt]`.
fn setup(lines: &[&str]) -> Setup {
    let credentials = Folder::new();
    std::fs::write(credentials.0.join("jwt"), format!("{SECRET}\n")).unwrap();
    let setup = Setup::memory()
        .routes(ROUTES)
        // A client that is admitted and should not be gets nothing, and the test's read ends.
        .set("server", "keepalive = \"1h\"")
        .set("auth.jwt", "keys = [{ alg = \"HS256\", secret_file = \"jwt\" }]")
        .credentials(credentials);
    lines.iter().fold(setup, |setup, line| setup.set("auth.jwt", line))
}

fn start(lines: &[&str]) -> Gateway {
    setup(lines).start_ready()
}

/// The head of what a request gets; it ends by itself even where the request is admitted.
fn head(gateway: &Gateway, path: &str, headers: &str) -> Response {
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    exchange(&gateway.address, &request)
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A token that is good for a minute, and says this besides.
fn token(claims: &Value) -> String {
    let mut all = json!({"sub": "alice", "exp": seconds_from_now(60)});
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    hs256(&all)
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("ssegate_auth_failures_total{{reason=\"{reason}\"}}"))
}

/// A header of a response.
fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let mut lines = response.head.lines().filter_map(|line| line.split_once(": "));
    lines.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
}

#[test]
fn the_first_users_tokens_work_as_they_are() {
    const MINT: &str = "
import datetime, sys, jwt
now = datetime.datetime.now(datetime.timezone.utc)
lasts = datetime.timedelta(seconds=int(sys.argv[2]))
print(jwt.encode({'sub': 'analyst', 'iat': now, 'exp': now + lasts}, sys.argv[1], algorithm='HS256'))";
    let mint = |secret: &str, seconds: &str| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/target/pyjwt");
        let mut python = Command::new("python3");
        let output = python.args(["-c", MINT, secret, seconds]).env("PYTHONPATH", path).output();
        let output = output.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "./test brings PyJWT: {stderr}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let redis = Redis::start();
    let credentials = Folder::new();
    std::fs::write(credentials.0.join("jwt"), "dev-secret").unwrap();
    let gateway = Setup::redis(&redis)
        .credentials(credentials)
        .set("auth.jwt", "keys = [{ alg = \"HS256\", secret_file = \"jwt\" }]")
        .set("auth.jwt", "from = [\"header\", \"query:token\"]")
        .routes("[[route]]\npath = \"/v1/logs/stream\"\nkey = \"siem:logs\"\nevent = \"log\"\naccess = \"jwt\"\n")
        .start_ready();
    let good = mint("dev-secret", "3600");
    let mut client = Client::open(&gateway.address, &format!("/v1/logs/stream?token={good}"));
    assert!(client.head.to_ascii_lowercase().contains("referrer-policy: no-referrer"));
    client.live();
    redis.add("siem:logs", "{\"n\":1}");
    assert_eq!(client.event().data, "{\"n\":1}");
    for (token, reason) in
        [(mint("another", "3600"), "signature"), (mint("dev-secret", "-60"), "expired")]
    {
        let response = gateway.get(&format!("/v1/logs/stream?token={token}"));
        assert_eq!((response.status, refused(&gateway, reason)), (401, 1.0), "{response:?}");
        assert_eq!(header(&response, "referrer-policy"), Some("no-referrer"));
    }
    gateway.has_logged("a secret of 10 bytes can be guessed");
}

#[test]
fn a_token_is_taken_from_where_the_configuration_says_and_nowhere_else() {
    let good = token(&json!({}));
    let cookie = format!("Cookie: a=b; __Secure-t={good}; c=d\r\n");
    let quoted = format!("Cookie: a=b\r\nCookie: __Secure-t=\"{good}\"\r\n");
    let query = format!("/any/a?last=1&token={good}");
    let by_header = start(&["from = [\"header\"]"]);
    let by_others = start(&["from = [\"cookie:__Secure-t\", \"query:token\"]"]);
    let lower = bearer(&good).replace("Authorization: Bearer", "authorization: bEARER");
    for (path, headers, of_header, of_others) in [
        ("/any/a", &bearer(&good), 200, 401),
        ("/any/a", &lower, 200, 401),
        ("/any/a", &cookie, 401, 200),
        ("/any/a", &quoted, 401, 200),
        (&query, &String::new(), 401, 200),
        ("/any/a", &String::new(), 401, 401),
        ("/public/a", &bearer("garbage"), 200, 200),
    ] {
        let status = [&by_header, &by_others].map(|gateway| head(gateway, path, headers).status);
        assert_eq!(status, [of_header, of_others], "{path} {headers}");
    }
    let response = head(&by_header, "/any/a", "");
    assert_eq!(header(&response, "www-authenticate"), Some("Bearer"));
    assert_eq!(header(&response, "referrer-policy"), None);
    // Basic is for a proxy in front of us; a token is in another place.
    let basic = format!("Authorization: Basic YTpi\r\n{cookie}");
    assert_eq!(head(&by_others, "/any/a", &basic).status, 200);
}

#[test]
fn the_first_place_that_has_a_token_counts_and_two_that_differ_are_none() {
    let gateway = start(&["from = [\"header\", \"cookie:t\", \"query:t\"]"]);
    let good = token(&json!({}));
    let in_query = format!("/any/a?t={good}");
    assert_eq!(head(&gateway, &in_query, &bearer("a.b.c")).status, 401);
    // Nothing is no token, wherever it is.
    let nothing = "Authorization: Bearer\r\nAuthorization: Bearer \r\nCookie: t=; t=\"\"\r\n";
    assert_eq!(head(&gateway, &in_query, nothing).status, 200);
    let in_cookie = format!("{nothing}Cookie: t={good}\r\n");
    assert_eq!(head(&gateway, "/any/a?t=", &in_cookie).status, 200);
    assert_eq!(head(&gateway, &format!("/any/a?t=&t={good}"), "").status, 200);
    assert_eq!(head(&gateway, "/any/a?t=", nothing).status, 401);
    assert_eq!(refused(&gateway, "missing"), 1.0);
    assert_eq!(head(&gateway, "/any/a?t=bad", &bearer(&good)).status, 200);
    // Two that are the same are one.
    for (path, headers) in [
        ("/any/a".to_owned(), bearer(&good).repeat(2)),
        ("/any/a".to_owned(), format!("Cookie: t={good}; t=\"{good}\"\r\n")),
        (format!("/any/a?t={good}&t={good}"), String::new()),
    ] {
        assert_eq!(head(&gateway, &path, &headers).status, 200, "{path} {headers}");
    }
    let twice = [
        ("/any/a".to_owned(), bearer(&good) + &bearer("x")),
        ("/any/a".to_owned(), format!("Cookie: t={good}; t=x\r\n")),
        ("/any/a".to_owned(), format!("Cookie: t={good}\r\nCookie: t=x\r\n")),
        (format!("/any/a?t={good}&t=x"), String::new()),
    ];
    for (index, (path, headers)) in twice.iter().enumerate() {
        let response = head(&gateway, path, headers);
        assert_eq!((response.status, refused(&gateway, "ambiguous")), (401, index as f64 + 1.0));
    }
}

#[test]
fn the_path_has_to_be_in_a_claim_for_replay_as_for_live() {
    let gateway = start(&[]);
    let says = |streams: Value| bearer(&token(&json!({"streams": streams})));
    for streams in [json!("a"), json!(["a"]), json!(["b", "a"])] {
        assert_eq!(head(&gateway, "/events/a", &says(streams.clone())).status, 200, "{streams}");
    }
    let not = [
        json!("b"),
        json!("A"),
        json!("a "),
        json!("aa"),
        json!("a,b"),
        json!("a b"),
        json!("*"),
        json!(""),
        json!(["b"]),
        json!([]),
        json!(["a,b"]),
        json!([["a"]]),
        json!(["a", 1]),
        json!(["a", null]),
        json!(null),
        json!(1),
        json!(true),
        json!({"a": true}),
        json!({"0": "a"}),
    ];
    let count = not.len() as f64;
    for streams in not {
        assert_eq!(head(&gateway, "/events/a", &says(streams.clone())).status, 403, "{streams}");
    }
    assert_eq!(refused(&gateway, "match"), count);
    assert_eq!(head(&gateway, "/events/a", &bearer(&token(&json!({})))).status, 403);
    assert_eq!(head(&gateway, "/events/1", &says(json!([1]))).status, 403);
    // No name of a stream key was asked for, so the client learns none.
    assert_eq!(gateway.streams(), json!([]));
    gateway.publish("events:a", "for a");
    gateway.publish("events:b", "for b");
    let a = says(json!(["a"]));
    for ask in ["?last_event_id=earliest", "?last=5", "?since=1h", "?last_event_id=1-1"] {
        let mut client = Client::with(
            &gateway.address,
            &format!("/events/a{ask}"),
            &[a.trim_end().split_once(": ").unwrap()],
        );
        assert_eq!(client.entry().data, "for a", "{ask}");
        let request = |headers: &str| {
            let path = format!("/events/b{ask}");
            let line = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
            exchange(&gateway.address, &format!("{line}{headers}\r\n"))
        };
        for headers in [a.clone(), format!("{a}Last-Event-ID: 0-1\r\n")] {
            let response = request(&headers);
            assert_eq!(response.status, 403, "{ask}");
            assert!(!response.body.contains("for b"));
        }
        assert_eq!(request(&bearer("x.y.z")).status, 401, "{ask}");
    }
}

#[test]
fn limits_count_by_the_principal_of_a_token() {
    let gateway = setup(&[]).set("limits", "clients_per_principal = 1").start_ready();
    let of = |claims: Value| {
        let request = format!("GET /any/a HTTP/1.1\r\nHost: x\r\n{}\r\n", bearer(&token(&claims)));
        Client::raw(&gateway.address, &request)
    };
    let (mut alice, mut another) = (of(json!({})), of(json!({"iss": "https://b"})));
    alice.control();
    another.control();
    let (refused, _) = of(json!({})).control();
    assert_eq!(refused["reason"], "clients_per_principal");
}

#[test]
fn a_token_is_written_down_nowhere() {
    let gateway = setup(&["from = [\"header\", \"cookie:t\", \"query:t\"]"])
        .set("log", "level = \"trace\"")
        .start_ready();
    let tokens = [token(&json!({"n": 1})), token(&json!({"n": 2})), token(&json!({"n": 3}))];
    let bad = "eyJhbGciOiJub25lIn0.e30.";
    let path = |token: &str| format!("/any/a?t={token}");
    let mut clients = [
        Client::open(&gateway.address, &path(&tokens[0])),
        Client::with(&gateway.address, "/any/a", &[("Cookie", &format!("t={}", tokens[1]))]),
        Client::with(
            &gateway.address,
            "/any/a",
            &[("Authorization", &format!("Bearer {}", tokens[2]))],
        ),
    ];
    for client in &mut clients {
        assert!(client.head.contains("referrer-policy: no-referrer\r\n"), "{}", client.head);
        client.control();
    }
    for path in [path(bad), format!("/nothing?t={bad}"), format!("/any/a?t={bad}&last=x")] {
        let response = gateway.get(&path);
        assert!(matches!(response.status, 401 | 404), "{response:?}");
        assert_eq!(header(&response, "referrer-policy"), Some("no-referrer"));
        assert!(!format!("{response:?}").contains(bad));
    }
    gateway.get("/any/a?last=x");
    let pages = ["/metrics", "/streams", "/readyz"].map(|page| gateway.admin_get(page).body);
    let written = gateway.log() + &pages.concat();
    for token in tokens.iter().map(String::as_str).chain([bad]) {
        assert!(!written.contains(token), "{written}");
    }
    assert!(written.contains("ssegate_unsafe_config{choice=\"query_token\"} 1"));
    let (code, _, stderr) = run(&["tail", &format!("https://h/x?t={bad}")], &[]);
    assert!(code == 64 && stderr.contains("https://h/x") && !stderr.contains(bad), "{stderr}");
}

#[test]
fn a_page_of_another_origin_asks_beforehand_without_a_token_and_sees_why_not() {
    let origin = "Origin: https://app.example\r\n";
    let gateway = setup(&[]).set("cors", "origins = [\"https://app.example\"]").start_ready();
    let asked = format!(
        "OPTIONS /any/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{origin}Access-Control-Request-Method: GET\r\n\
         Access-Control-Request-Headers: authorization\r\n\r\n"
    );
    assert_eq!(exchange(&gateway.address, &asked).status, 204);
    let response = head(&gateway, "/any/a", origin);
    assert_eq!(response.status, 401);
    assert_eq!(header(&response, "access-control-allow-origin"), Some("https://app.example"));
}
