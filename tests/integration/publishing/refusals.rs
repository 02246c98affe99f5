use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use super::answering;
use super::routes::{NDJSON, entries, route};
use crate::support::gateway::{Gateway, Response, Setup};
use crate::support::post::{curl, ids_in, post};
use crate::support::program::run;
use crate::support::redis::Redis;
use crate::support::token::{SECRET, hs256, seconds_from_now};
use crate::support::{DEADLINE, Folder};

#[track_caller]
fn refused(gateway: &Gateway, reason: &str, answer: &Response, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.contains(words), "{answer:?}");
    assert_eq!(answer.body.matches('\n').count(), 1, "one line: {answer:?}");
    let name = format!("ssegate_publish_refused_total{{reason={reason:?}}}");
    assert!(gateway.metric(&name) >= 1.0, "{name}");
}

#[test]
fn a_body_that_is_no_entry_is_refused_with_its_place_and_adds_nothing() {
    let redis = Redis::start();
    let routes = route("fields = \"json\", max_bytes = \"20B\", rate = \"0/s\"");
    let gateway = Setup::redis(&redis).routes(&routes).start_ready();
    let ask = |headers: &[&str], body: &str| post(&gateway, "/events/a", headers, body);
    refused(
        &gateway,
        "body",
        &ask(&[], "{\"a\":\n x}"),
        400,
        "at line 2, column 2: expected value",
    );
    refused(&gateway, "body", &ask(&[], ""), 400, "at line 1, column 1");
    refused(&gateway, "body", &ask(&[], "[1]"), 400, "expected a JSON object");
    refused(&gateway, "body", &ask(&[], "{}"), 400, "has no member");
    refused(&gateway, "body", &ask(&[], "{\"a\":1,\"a\":2}"), 400, "is there twice");
    let lines = ask(&[NDJSON], "{\"a\":1}\n\n{\"a\":2}\n{\"a\":x}\n");
    refused(&gateway, "body", &lines, 400, "at line 4, column 6");
    refused(&gateway, "body", &ask(&[NDJSON], "\n \n"), 400, "no line has an entry");
    let large = ask(&[], "{\"a\":\"0123456789012345\"}");
    refused(&gateway, "too_large", &large, 413, "larger than 20 bytes (publish.max_bytes)");
    let large = ask(&[NDJSON], "{\"a\":1}\n{\"a\":\"0123456789012345\"}");
    refused(&gateway, "too_large", &large, 413, "line 2 is larger than 20 bytes");
    let many = ask(&[NDJSON], &"{\"a\":1}\n".repeat(1001));
    refused(&gateway, "too_large", &many, 413, "more than 1000 entries");
    let long = ask(&[NDJSON], &" ".repeat(21_001));
    refused(&gateway, "too_large", &long, 413, "larger than 21000 bytes");
    let form = ask(&["Content-Type: text/plain"], "{\"a\":1}");
    refused(&gateway, "content_type", &form, 415, "application/json");
    let coded = ask(&["Content-Encoding: gzip"], "x");
    refused(&gateway, "content_encoding", &coded, 415, "without content-encoding");
    assert!(coded.head.contains("accept-encoding: identity"), "{coded:?}");
    assert!(entries(&redis, "events:a").is_empty(), "nothing was added");
}

/// A body whose length is not said beforehand is bounded as well.
#[test]
fn a_body_without_a_length_is_bounded() {
    let gateway = Setup::memory().routes(&route("max_bytes = \"1KiB\"")).start_ready();
    let url = format!("http://{}/events/a", gateway.address);
    let chunked = ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"];
    for size in [1024, 1025, 900_000] {
        let body = "x".repeat(size);
        let folder = Folder::new();
        let file = folder.0.join("body");
        std::fs::write(&file, body).unwrap();
        let from = format!("@{}", file.display());
        let answer = curl(&[&chunked[..], &["--data-binary", &from, &url]].concat());
        let expected = if size == 1024 { "HTTP/1.1 200" } else { "HTTP/1.1 413" };
        assert!(answer.starts_with(expected), "{size}: {answer}");
    }
}

#[test]
fn a_body_that_ends_early_or_never_adds_nothing() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).routes(&route("")).start_ready();
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .write_all(b"POST /events/a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    crate::support::eventually("it is counted", || {
        gateway.metric("ssegate_publish_refused_total{reason=\"body_ended\"}") == 1.0
    });
    assert!(entries(&redis, "events:a").is_empty());
}

#[test]
fn each_refusal_of_redis_has_its_status() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).routes(&route("rate = \"0/s\"")).start_ready();
    for (headers, body) in [(&[][..], "x"), (&[NDJSON], "x\ny")] {
        let ask = |name: &str| post(&gateway, &format!("/events/{name}"), headers, body);
        redis.run(&["SET", "events:s", "x"]);
        refused(&gateway, "WRONGTYPE", &ask("s"), 409, "nothing was added: WRONGTYPE");
        redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
        let full = ask("a");
        refused(&gateway, "source", &full, 503, "nothing was added: OOM");
        assert!(full.head.contains("retry-after: "), "{full:?}");
        redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
        redis.run(&["ACL", "SETUSER", "default", "resetkeys", "%R~*", "~events:a"]);
        refused(&gateway, "NOPERM", &ask("denied"), 403, "nothing was added: NOPERM");
        redis.run(&["ACL", "SETUSER", "default", "allkeys"]);
        ids_in(&ask("a"));
    }
    // What Redis says may name its servers and users.
    assert!(!post(&gateway, "/events/s", &[], "x").body.contains("Operation"));
    assert!(gateway.post("events:s", "x").body.contains("Operation against a key"));
    assert_eq!(
        redis.run(&["TYPE", "events:denied"]),
        crate::support::redis::Answer::Text("none".into())
    );
}

#[test]
fn a_server_that_is_away_is_a_503_and_one_that_falls_silent_a_504() {
    let mut redis = Redis::start();
    let gateway = Setup::redis(&redis).routes(&route("rate = \"0/s\"")).start_ready();
    for (headers, body) in [(&[][..], "x"), (&[NDJSON], "x\ny")] {
        let ask = || post(&gateway, "/events/a", headers, body);
        ids_in(&ask());
        redis.signal("STOP");
        let silent = ask();
        refused(&gateway, "unknown", &silent, 504, "whether it was added is not known: TIMEOUT");
        redis.signal("CONT");
        crate::support::eventually("it is back", || ask().status == 200);
    }
    redis.kill();
    let ask = || post(&gateway, "/events/a", &[], "x");
    crate::support::eventually("it is known to be away", || ask().status == 503);
    refused(&gateway, "source", &ask(), 503, "nothing was added");
}

#[test]
fn a_server_that_does_not_write_is_a_503() {
    let redis = Redis::on_tcp(&[]);
    let primary = Redis::on_tcp(&[]);
    let gateway =
        Setup::with_url(&format!("redis://{}", redis.address())).routes(&route("")).start_ready();
    ids_in(&post(&gateway, "/events/a", &[], "x"));
    redis.follow(&primary);
    let answer = post(&gateway, "/events/a", &[NDJSON], "x\ny");
    refused(&gateway, "source", &answer, 503, "READONLY");
    ids_in(&post(&gateway, "/events/a", &[NDJSON], "x\ny"));
    assert_eq!(entries(&primary, "events:a").len(), 2);
    // One that answers with nonsense has perhaps added it.
    let odd = Setup::with_url(&answering(b"+OK\r\n")).routes(&route("")).start();
    let answer = post(&odd, "/events/a", &[], "x");
    refused(&odd, "unknown", &answer, 504, "PROTOCOL");
}

/// One route that a token may read, and another claim may publish to.
const GUARDED: &str = "[[route]]\npath = \"/events/{name}\"\nkey = \"events:{name}\"\naccess = \"jwt\"\nmatch = { name = \"reads\" }\npublish = { access = \"jwt\", match = { name = \"writes\" } }\n";

fn guarded() -> Gateway {
    let credentials = Folder::new();
    std::fs::write(credentials.0.join("jwt"), SECRET).unwrap();
    Setup::memory()
        .routes(GUARDED)
        .set("auth.jwt", "keys = [{ alg = \"HS256\", secret_file = \"jwt\" }]")
        .credentials(credentials)
        .start_ready()
}

#[test]
fn a_token_for_reading_is_not_therefore_one_for_writing() {
    let gateway = guarded();
    let token = |claims: serde_json::Value| {
        let mut claims = claims;
        claims["exp"] = json!(seconds_from_now(60));
        format!("Authorization: Bearer {}", hs256(&claims))
    };
    let (reads, writes) = (token(json!({"reads": "a"})), token(json!({"writes": "a"})));
    let read = |header: &str| {
        let head =
            format!("HEAD /events/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n\r\n");
        crate::support::gateway::exchange(&gateway.address, &head).status
    };
    let write = |header: &str| post(&gateway, "/events/a", &[header], "x");
    assert_eq!((read(&reads), read(&writes)), (200, 403));
    ids_in(&write(&writes));
    refused(&gateway, "token", &write(&reads), 403, "not for this path");
    let missing = write("X-None: 1");
    refused(&gateway, "token", &missing, 401, "a token is needed");
    assert!(missing.head.contains("www-authenticate: Bearer"), "{missing:?}");
    let expired = format!("Authorization: Bearer {}", hs256(&json!({"writes": "a", "exp": 1})));
    refused(&gateway, "token", &write(&expired), 401, "not accepted");
    assert_eq!(gateway.metric("ssegate_auth_failures_total{reason=\"expired\"}"), 1.0);
    let other = post(&gateway, "/events/b", &[&writes], "x");
    refused(&gateway, "token", &other, 403, "not for this path");
}

/// Nobody who may not publish makes the gateway read a body.
#[test]
fn a_body_is_not_waited_for_where_the_head_is_refused() {
    let gateway = guarded();
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .write_all(b"POST /events/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        .unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 401");
}

#[test]
fn a_publish_without_access_is_no_configuration() {
    let folder = Folder::new();
    let file = folder.0.join("gateway.toml");
    let text = Setup::memory().routes(&route("").replace("access = \"public\", ", "")).toml();
    std::fs::write(&file, text).unwrap();
    let check = || run(&["check", "--config", file.to_str().unwrap()], &[]);
    let (status, out, err) = check();
    assert_ne!(status, 0);
    let missing = "route.publish.access: missing; there is no default";
    assert!((out.clone() + &err).contains(missing), "{out}{err}");
    std::fs::write(&file, Setup::memory().routes(&route("")).toml()).unwrap();
    let (status, out, err) = check();
    assert_eq!(status, 0, "{out}{err}");
    let risk = "everybody who reaches the gateway can add entries";
    assert!((out.clone() + &err).contains(risk), "{out}{err}");
}
