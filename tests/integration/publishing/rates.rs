use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::names::no_hello;
use super::routes::{NDJSON, entries, route};
use crate::support::gateway::{Gateway, Response, Setup};
use crate::support::post::{ids_in, post};
use crate::support::redis::Redis;
use crate::support::stand_in::{StandIn, Treatment};
use crate::support::token::{SECRET, hs256, seconds_from_now};
use crate::support::{DEADLINE, Folder, eventually, pause_of_the_scenario};

fn retry_after(response: &Response) -> u64 {
    let value =
        response.head.split("retry-after: ").nth(1).unwrap_or_else(|| panic!("{response:?}"));
    value.split("\r\n").next().unwrap().parse().unwrap()
}

#[test]
fn an_address_has_a_rate_where_there_is_no_principal() {
    let gateway = Setup::memory()
        .routes(&route("rate = \"3/h\""))
        .set("proxy", "trusted = [\"127.0.0.1\"]")
        .start_ready();
    let ask =
        |address: &str| post(&gateway, "/events/a", &[&format!("X-Forwarded-For: {address}")], "x");
    (0..3).for_each(|_| _ = ids_in(&ask("192.0.2.1")));
    let refused = ask("192.0.2.1");
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!((1100..=1200).contains(&retry_after(&refused)), "{refused:?}");
    ids_in(&ask("192.0.2.2"));
    // A network of IPv6 is one customer's.
    (0..3).for_each(|n| _ = ids_in(&ask(&format!("2001:db8::{n}"))));
    assert_eq!(ask("2001:db8::9").status, 429);
    assert_eq!(gateway.metric("ssegate_publish_refused_total{reason=\"rate\"}"), 2.0);
}

#[test]
fn a_principal_has_a_rate_wherever_it_comes_from() {
    let credentials = Folder::new();
    std::fs::write(credentials.0.join("jwt"), SECRET).unwrap();
    let routes = route("rate = \"2/h\"").replace(
        "publish = { access = \"public\", ",
        "publish = { access = \"jwt\", match = \"any\", ",
    );
    let gateway = Setup::memory()
        .routes(&routes)
        .set("auth.jwt", "keys = [{ alg = \"HS256\", secret_file = \"jwt\" }]")
        .set("proxy", "trusted = [\"127.0.0.1\"]")
        .credentials(credentials)
        .start_ready();
    let ask = |subject: &str, address: &str| {
        let token = hs256(&json!({ "sub": subject, "exp": seconds_from_now(60) }));
        let bearer = format!("Authorization: Bearer {token}");
        post(&gateway, "/events/a", &[&bearer, &format!("X-Forwarded-For: {address}")], "x").status
    };
    assert_eq!(
        [ask("a", "192.0.2.1"), ask("a", "192.0.2.2"), ask("a", "192.0.2.3")],
        [200, 200, 429]
    );
    assert_eq!(ask("b", "192.0.2.1"), 200);
}

/// A batch is let in whole, and its sender waits the longer.
#[test]
fn a_rate_counts_entries() {
    let gateway = Setup::memory().routes(&route("rate = \"10/m\"")).start_ready();
    ids_in(&post(&gateway, "/events/a", &[NDJSON], &"x\n".repeat(100)));
    let refused = post(&gateway, "/events/a", &[], "x");
    assert_eq!(refused.status, 429);
    assert!((535..=546).contains(&retry_after(&refused)), "{refused:?}");
}

/// A body that is refused for its head takes from no rate, and a reload keeps what was counted.
#[test]
fn a_rate_is_kept_over_a_reload() {
    let gateway = Setup::memory().routes(&route("rate = \"1/h\"")).start_ready();
    ids_in(&post(&gateway, "/events/a", &[], "x"));
    gateway.signal("HUP");
    gateway.has_logged("configuration reloaded");
    assert_eq!(post(&gateway, "/events/a", &[], "x").status, 429);
}

/// Asks with a body that does not come.
fn halted(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .write_all(b"POST /events/a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        .unwrap();
    stream
}

#[test]
fn an_address_has_a_part_of_the_room_for_bodies() {
    let gateway = Setup::memory()
        .routes(&route("rate = \"0/s\""))
        .set("limits", "pending = 4000")
        .start_ready();
    let mut all: Vec<_> = (0..256).map(|_| halted(&gateway)).collect();
    let ask = || post(&gateway, "/events/a", &[], "x");
    eventually("there is no room", || {
        // In place of those that have taken too long.
        all.extend((0..16).map(|_| halted(&gateway)));
        ask().status == 503
    });
    let refused = ask();
    assert!(refused.body.contains("too many bodies are being read"), "{refused:?}");
    assert_eq!(retry_after(&refused), 1);
    drop(all);
    eventually("there is room again", || ask().status == 200);
}

/// The body's time is not the connection's, which may be old when the next body comes.
#[test]
fn a_connection_that_publishes_on_is_not_closed_for_its_age() {
    let gateway = Setup::memory()
        .routes(&route("rate = \"0/s\""))
        .set("limits", "header_timeout = \"1s\"")
        .set("limits", "write_stall = \"1s\"")
        .start_ready();
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        stream
            .write_all(b"POST /events/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
            .unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        let mut rest = String::new();
        while !rest.ends_with('}') {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            rest.push(byte[0].into());
        }
        pause_of_the_scenario(Duration::from_millis(400), "between two entries");
    }
}

/// A drain waits for the answer to what was sent to Redis; who comes after it is refused.
#[test]
fn a_drain_waits_for_what_is_under_way() {
    let redis = Redis::start();
    let slow = StandIn::before(&redis, |words| {
        if words[0] == "HELLO" {
            return no_hello();
        }
        if words[0] == "XADD" {
            pause_of_the_scenario(Duration::from_millis(1_500), "Redis is slow");
        }
        Treatment::Pass
    });
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let mut gateway = Setup::with_url(&slow.url())
            .routes(&route(""))
            .set("server", "drain = \"20s\"")
            .start_ready();
        let url = format!("http://{}/events/a", gateway.address);
        let before = entries_or_none(&redis);
        let answer = std::thread::scope(|scope| {
            let asked = scope.spawn(|| crate::support::post::curl(&[version, "-d", "x", &url]));
            pause_of_the_scenario(Duration::from_millis(500), "it is under way");
            gateway.signal("TERM");
            asked.join().unwrap()
        });
        assert!(answer.contains(" 200") && answer.contains("\"id\""), "{version}: {answer}");
        assert!(gateway.wait().success());
        assert_eq!(entries_or_none(&redis), before + 1);
    }
}

fn entries_or_none(redis: &Redis) -> usize {
    entries(redis, "events:a").len()
}
