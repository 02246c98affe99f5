//! `POST /publish/{key}`: what may be published, and the refusals.

use crate::streams::everywhere;
use crate::support::client::Client;
use crate::support::gateway::{Response, Setup, exchange};
use crate::support::redis::{Answer, Connection, Redis};

fn post(admin: &str, key: &str, headers: &str, body: &str) -> Response {
    let length = body.len();
    exchange(
        admin,
        &format!(
            "POST /publish/{key} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        ),
    )
}

#[test]
fn a_publish_answers_with_the_id_of_the_event() {
    everywhere(
        |setup| setup,
        |scene| {
            let mut client = scene.open("");
            client.live();
            let id = scene.gateway.publish("events:a", "ä & \"quotes\"\nand a line");
            let event = client.event();
            assert_eq!(event.last_event_id, id);
            assert_eq!(event.data, "ä & \"quotes\"\nand a line");
            let id = scene.gateway.publish("events:a", "");
            assert_eq!(client.event().last_event_id, id);
        },
    );
}

#[test]
fn the_key_is_percent_decoded() {
    everywhere(
        |setup| {
            let odd = "[[route]]\npath = \"/x\"\nkey = \"a/b: ä%\"\naccess = \"public\"\n";
            setup.routes(&(super::route("") + odd))
        },
        |scene| {
            let mut client = Client::open(&scene.gateway.address, "/x");
            client.live();
            let id = scene.gateway.publish("a%2Fb%3A%20%C3%A4%25", "one");
            assert_eq!(client.event().last_event_id, id);
            assert_eq!(scene.gateway.post("", "no key").status, 400);
            assert_eq!(scene.gateway.post("%FF", "no UTF-8").status, 400);
        },
    );
}

#[test]
fn a_body_over_max_entry_is_refused() {
    everywhere(
        |setup| setup.set("source", "max_entry = \"1KiB\""),
        |scene| {
            let mut client = scene.open("");
            client.live();
            assert_eq!(scene.gateway.post("events:a", &"x".repeat(1025)).status, 413);
            let id = scene.gateway.publish("events:a", &"x".repeat(1024));
            let event = client.event();
            assert_eq!((event.data.len(), event.last_event_id), (1024, id));
        },
    );
}

#[test]
fn nothing_is_published_where_publishing_is_off() {
    everywhere(
        |setup| setup.set("admin", "publish = false"),
        |scene| {
            assert_eq!(scene.gateway.post("events:a", "x").status, 404);
            let mut client = scene.open("?last_event_id=earliest");
            assert_eq!(client.live(), (0, "0-0".into()));
        },
    );
}

#[test]
fn a_page_of_another_origin_may_not_publish() {
    everywhere(
        |setup| setup,
        |scene| {
            let admin = &scene.gateway.admin;
            for foreign in [
                "origin: http://evil.example\r\n",
                "origin: null\r\n",
                "origin: https://127.0.0.1\r\n",
                "sec-fetch-site: cross-site\r\n",
                "sec-fetch-site: same-site\r\n",
            ] {
                assert_eq!(post(admin, "events:a", foreign, "x").status, 403, "{foreign}");
            }
            let mut client = scene.open("?last_event_id=earliest");
            assert_eq!(client.live(), (0, "0-0".into()));
            let own = format!("origin: http://{admin}\r\nsec-fetch-site: same-origin\r\n");
            for own in [own.as_str(), "sec-fetch-site: none\r\n", ""] {
                let response = post(admin, "events:a", own, "x");
                assert_eq!(response.status, 200, "{own}{response:?}");
                client.entry();
            }
        },
    );
}

/// DNS rebinding: to the browser such a page is of our origin.
#[test]
fn a_page_that_rebinds_its_name_to_us_may_not_publish() {
    let gateway = Setup::memory().start_ready();
    let request = "POST /publish/events:a HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\
        origin: http://evil.example\r\nsec-fetch-site: same-origin\r\ncontent-length: 1\r\n\r\nx";
    assert_eq!(exchange(&gateway.admin, request).status, 403);
    let by_address = request.replace("evil.example", &gateway.admin);
    assert_eq!(exchange(&gateway.admin, &by_address).status, 200);
}

#[test]
fn only_post_publishes() {
    everywhere(
        |setup| setup,
        |scene| {
            let response = scene.gateway.admin_get("/publish/events:a");
            assert_eq!(response.status, 405);
            assert!(response.head.to_ascii_lowercase().contains("\r\nallow: post"), "{response:?}");
        },
    );
}

#[test]
fn a_key_of_another_type_is_a_conflict() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    redis.run(&["SET", "events:a", "a string"]);
    let response = gateway.post("events:a", "x");
    assert_eq!(response.status, 409);
    assert!(response.body.contains("WRONGTYPE"), "{response:?}");
    gateway.publish("events:b", "another key is none the worse for it");
}

#[test]
fn redis_gets_the_body_byte_for_byte_and_the_stream_stays_bounded() {
    use std::io::{Read, Write};
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).set("ring", "entries = 100").start_ready();
    let body: Vec<u8> = (0..=255).chain(*b"\r\n\r\n\0").collect();
    let mut stream = std::net::TcpStream::connect(&gateway.admin).unwrap();
    let head = "POST /publish/events:a HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length:";
    stream.write_all(format!("{head} {}\r\n\r\n", body.len()).as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let same = b"local e = redis.call('XRANGE', KEYS[1], '-', '+')[1][2]
        return (#e == 2 and e[1] == 'payload' and e[2] == ARGV[1]) and 1 or 0";
    let mut connection = Connection::open(&redis).unwrap();
    connection.send(&[b"EVAL", same, b"1", b"events:a", &body]).unwrap();
    assert_eq!(connection.answer(), Some(Answer::Number(1)));
    for n in 0..300 {
        gateway.publish("events:a", &n.to_string());
    }
    let Answer::Number(length) = redis.run(&["XLEN", "events:a"]) else { panic!("no length") };
    // "~" leaves up to a node of 100 entries more.
    assert!((100..=200).contains(&length), "{length}");
}
