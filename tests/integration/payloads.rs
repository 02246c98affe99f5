//! What is in an entry and what of it reaches the client: fields, line ends, odd bytes, sizes.

use serde_json::{Value, json};
use ssegate::sse::StreamId;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Connection, Redis};

/// One route over the stream `x`, with these lines.
fn with_route(lines: &str) -> (Redis, Gateway) {
    let redis = Redis::start();
    let route = format!("[[route]]\npath = \"/x\"\nkey = \"x\"\naccess = \"public\"\n{lines}\n");
    let gateway = Setup::redis(&redis).routes(&route).start_ready();
    (redis, gateway)
}

/// `XADD x * …` with these fields and values; its id.
fn add(redis: &Redis, fields: &[&[u8]]) -> String {
    let mut connection = Connection::open(redis).unwrap();
    connection.send(&[&[&b"XADD"[..], b"x", b"*"], fields].concat()).unwrap();
    match connection.answer() {
        Some(Answer::Text(id)) => id,
        other => panic!("XADD answered {other:?}"),
    }
}

fn live(gateway: &Gateway) -> Client {
    let mut client = Client::open(&gateway.address, "/x");
    client.live();
    client
}

/// The types and data of the next entries.
fn next(client: &mut Client, count: usize) -> Vec<(String, String)> {
    let event = |client: &mut Client| {
        let event = client.event();
        (event.event_type, event.data)
    };
    (0..count).map(|_| event(client)).collect()
}

#[test]
fn payloads_arrive_as_far_as_sse_can_carry_them() {
    let (redis, gateway) = with_route("");
    let mut client = live(&gateway);
    let long = "x".repeat(1 << 20);
    for (sent, received) in [
        (&b"one\ntwo"[..], "one\ntwo"),
        (b"one\rtwo", "one\ntwo"),
        (b"one\r\ntwo", "one\ntwo"),
        (b"\n\r\n\r\r", "\n\n\n\n"),
        (b"one\n\ntwo\n", "one\n\ntwo\n"),
        (b"a\0b", "a\0b"),
        (b"\xff\xc3(\xed\xa0\x80", "\u{fffd}\u{fffd}(\u{fffd}\u{fffd}\u{fffd}"),
        (b" leading", " leading"),
        (b"  two", "  two"),
        (b"trailing ", "trailing "),
        (b"", ""),
        (b" ", " "),
        (b"\n", "\n"),
        ("\u{feff}ä \u{2028} \u{85}".as_bytes(), "\u{feff}ä \u{2028} \u{85}"),
        (b"x\n\nevent: ssegate\ndata: {}\n\n", "x\n\nevent: ssegate\ndata: {}\n\n"),
        (b"x\rid: 9-9\r\nretry: 1\n:", "x\nid: 9-9\nretry: 1\n:"),
        (long.as_bytes(), &long),
    ] {
        let id = add(&redis, &[b"payload", sent]);
        let event = client.event();
        assert!(event.data == received, "{sent:?} came as {:?}", event.data);
        assert_eq!((event.event_type.as_str(), &event.last_event_id), ("message", &id));
    }
    let waits = client.reconnection_time().unwrap();
    assert!((2000..=6000).contains(&waits.as_millis()), "retry came from a payload: {waits:?}");
}

#[test]
fn the_type_may_come_from_a_field_but_nothing_else_may() {
    let (redis, gateway) = with_route("event = { field = \"type\", otherwise = \"other\" }");
    let mut client = live(&gateway);
    for (sent, received) in [
        (&b"login"[..], "login"),
        ("anmelden äöü".as_bytes(), "anmelden äöü"),
        (b" spaced: out ", " spaced: out "),
        (b"a\xffb", "a\u{fffd}b"),
        (b"x\ndata: injected", "other"),
        (b"x\rdata: injected", "other"),
        (b"x\r\n\r\nevent: y", "other"),
        (b"x\n", "other"),
        (b"x\0y", "other"),
        (b"ssegate", "other"),
        (b"", "other"),
    ] {
        let id = add(&redis, &[b"type", sent, b"payload", b"p"]);
        let event = client.event();
        assert_eq!((event.event_type.as_str(), event.data.as_str()), (received, "p"), "{sent:?}");
        assert_eq!(event.last_event_id, id);
    }
    add(&redis, &[b"payload", b"p"]);
    add(&redis, &[b"type", b"first", b"type", b"second", b"payload", b"p"]);
    let types: Vec<_> =
        next(&mut client, 2).into_iter().map(|(event_type, _)| event_type).collect();
    assert_eq!(types, ["other", "first"]);
}

#[test]
fn chosen_fields_become_one_object_in_entry_order() {
    let (redis, gateway) = with_route("data = [\"a\", \"b\"]\nmissing = \"none\"");
    let mut client = live(&gateway);
    add(&redis, &[b"b", b"2", b"c", b"3", b"a", b"1\n\"\\\0\xff"]);
    add(&redis, &[b"a", b"first", b"b", b"x", b"a", b"last"]);
    add(&redis, &[b"a", b""]);
    add(&redis, &[b"c", b"3"]);
    let data: Vec<_> = next(&mut client, 4).into_iter().map(|(_, data)| data).collect();
    assert_eq!(data[0], "{\"b\":\"2\",\"a\":\"1\\n\\\"\\\\\\u0000\u{fffd}\"}");
    assert_eq!(data[1], r#"{"a":"last","b":"x"}"#);
    assert_eq!(data[2], r#"{"a":""}"#);
    assert_eq!(data[3], "none");
}

#[test]
fn all_fields_become_one_object_in_entry_order() {
    let (redis, gateway) = with_route("data = \"*\"");
    let mut client = live(&gateway);
    add(&redis, &[b"z", b"1", b"a", b"2", b"m", b"3", b"a", b"4"]);
    add(&redis, &[b"k\"\n", b"v\r\n", b"", b"empty name", b"\xff", b"\xfe"]);
    let data: Vec<_> = next(&mut client, 2).into_iter().map(|(_, data)| data).collect();
    assert_eq!(data[0], r#"{"z":"1","a":"4","m":"3"}"#);
    let parsed: Value = serde_json::from_str(&data[1]).unwrap();
    assert_eq!(parsed, json!({"k\"\n": "v\r\n", "": "empty name", "\u{fffd}": "\u{fffd}"}));
}

#[test]
fn a_missing_field_is_replaced() {
    let (redis, gateway) = with_route("");
    let mut client = live(&gateway);
    let id = add(&redis, &[b"other", b"x"]);
    let event = client.event();
    assert_eq!((event.data.as_str(), event.last_event_id), ("{}", id));
    add(&redis, &[b"payload", b"first", b"payload", b"second"]);
    assert_eq!(client.event().data, "first");
}

#[test]
fn an_entry_without_its_field_may_be_skipped() {
    let (redis, gateway) = with_route("missing = false");
    let mut client = live(&gateway);
    let ids: Vec<_> = [b"payload", b"another", b"another", b"payload", b"another"]
        .iter()
        .map(|field| add(&redis, &[*field, b"x"]))
        .collect();
    for id in [&ids[0], &ids[3]] {
        assert_eq!(client.event().last_event_id, *id);
    }
    gateway.has_read("x", &ids[4]);
    // A client that comes back after the first is not held up by those that it does not get.
    for (from, left) in [(0, 1), (1, 1), (3, 0), (4, 0)] {
        let mut client = Client::resume(&gateway.address, "/x", &ids[from]);
        for _ in 0..left {
            assert_eq!(client.event().last_event_id, ids[3]);
        }
        assert_eq!(client.live(), (left, ids[4].clone()), "after {from}");
    }
}

/// A stream with `max_entry = "1KiB"`.
fn bounded() -> (Redis, Gateway) {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis)
        .set("source", "max_entry = \"1KiB\"")
        .routes("[[route]]\npath = \"/x\"\nkey = \"x\"\naccess = \"public\"\n")
        .start_ready();
    (redis, gateway)
}

#[test]
fn max_entry_is_inclusive_and_counts_what_is_sent() {
    let (redis, gateway) = bounded();
    let mut client = live(&gateway);
    for (payload, length) in [
        (vec![b'x'; 1024], Some(1024)),
        (vec![b'x'; 1025], None),
        // 1,024 bytes once a CRLF has become one LF.
        ([vec![b'x'; 1000], b"\r\n".repeat(12), vec![b'x'; 12]].concat(), Some(1024)),
        // 342 bytes, 1,026 as U+FFFD.
        (vec![b'\xff'; 342], None),
        (vec![b'\xff'; 341], Some(1023)),
    ] {
        let id = add(&redis, &[b"payload", &payload, b"more", &[b'm'; 2000]]);
        let Some(length) = length else {
            let (gap, at) = client.control();
            assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("oversize")));
            assert_eq!((&gap["lost"], &gap["next"]), (&json!(1), &json!(null)));
            assert_eq!(at, id);
            continue;
        };
        let event = client.event();
        assert_eq!((event.data.len(), event.last_event_id), (length, id));
    }
}

#[test]
fn an_oversize_entry_amid_others_is_a_gap_in_its_place() {
    let (redis, gateway) = bounded();
    let big = [b'x'; 1025];
    let payloads: [&[u8]; 6] = [b"a", &big, b"b", &big, &big, b"c"];
    let ids: Vec<_> = payloads.iter().map(|payload| add(&redis, &[b"payload", payload])).collect();
    let prev = |id: &str| id.parse::<StreamId>().unwrap().prev().to_string();
    let mut client = Client::open(&gateway.address, "/x?last_event_id=earliest");
    let mut marks = Vec::new();
    for (n, payload) in payloads.iter().enumerate() {
        if payload.len() <= 1024 {
            assert_eq!(client.event().last_event_id, ids[n]);
            continue;
        }
        let (gap, at) = client.control();
        assert_eq!((&gap["reason"], &gap["lost"]), (&json!("oversize"), &json!(1)), "{gap}");
        assert_eq!(gap["next"], json!(ids[n + 1]));
        assert_eq!(at, prev(&ids[n + 1]));
        marks.push((n, at));
    }
    client.live();
    for (n, at) in marks {
        let mut client = Client::resume(&gateway.address, "/x", &at);
        for (n, payload) in payloads.iter().enumerate().skip(n + 1) {
            let event = client.event();
            assert_eq!(event.event_type == "ssegate", payload.len() > 1024, "{event:?}");
            if payload.len() <= 1024 {
                assert_eq!(event.last_event_id, ids[n]);
            }
        }
        client.live();
    }
}

#[test]
fn http_1_0_gets_the_same_without_chunks() {
    let (redis, gateway) = with_route("");
    add(&redis, &[b"payload", b"replayed\nin two lines"]);
    let mut clients: Vec<_> = ["1.0", "1.1"]
        .iter()
        .map(|version| {
            let request =
                format!("GET /x?last_event_id=earliest HTTP/{version}\r\nHost: x\r\n\r\n");
            Client::raw(&gateway.address, &request)
        })
        .collect();
    let heads: Vec<_> = clients.iter().map(|client| client.head.to_ascii_lowercase()).collect();
    assert!(heads[0].starts_with("http/1.0 200 "), "{}", heads[0]);
    assert!(!heads[0].contains("transfer-encoding"), "{}", heads[0]);
    assert!(heads[1].contains("transfer-encoding: chunked"), "{}", heads[1]);
    for client in &mut clients {
        assert_eq!(client.event().data, "replayed\nin two lines");
        assert_eq!(client.live().0, 1);
    }
    for payload in [&b"one"[..], b"", b"\r\n", &[b'x'; 100_000], b"5\r\nab"] {
        add(&redis, &[b"payload", payload]);
        let events: Vec<_> = clients.iter_mut().map(Client::event).collect();
        assert_eq!(events[0], events[1]);
    }
}
