use std::collections::HashMap;
use std::sync::Mutex;

use super::routes::{NDJSON, entries, route};
use crate::support::gateway::{Gateway, Setup};
use crate::support::post::{ids_in, post};
use crate::support::redis::Redis;
use crate::support::stand_in::{StandIn, Treatment};

fn named(gateway: &Gateway, name: &str, body: &str) -> crate::support::gateway::Response {
    post(gateway, "/events/a", &[&format!("Idempotency-Key: {name}")], body)
}

/// The stand-in understands RESP2 alone.
pub(super) fn no_hello() -> Treatment {
    Treatment::Answer(b"-ERR unknown command 'HELLO'\r\n".to_vec())
}

/// As Redis 8.6 does it: `XADD key IDMP producer name … *` of a name that the producer has used already
/// answers with the id of then. What it passes on has no name, so the Redis behind it knows it.
fn of_8_6(redis: &Redis) -> StandIn {
    let known: Mutex<HashMap<(String, String), Vec<u8>>> = Mutex::default();
    let known = std::sync::Arc::new(known);
    let socket = redis.socket();
    StandIn::before(redis, move |words| {
        if words[0] == "HELLO" {
            return no_hello();
        }
        if words[0] != "XADD" || words.get(2).map(String::as_str) != Some("IDMP") {
            return Treatment::Pass;
        }
        let name = (words[3].clone(), words[4].clone());
        let mut known = known.lock().unwrap();
        let answer = known.entry(name).or_insert_with(|| {
            let mut connection = crate::support::redis::Connection::at(&socket).unwrap();
            let rest = words[5..].iter().map(String::as_str);
            // The stand-in has the first words in capitals.
            let plain: Vec<_> = ["XADD", "events:a"].into_iter().chain(rest).collect();
            match connection.run(&plain) {
                Some(crate::support::redis::Answer::Text(id)) => {
                    format!("${}\r\n{id}\r\n", id.len()).into_bytes()
                }
                other => panic!("{other:?}"),
            }
        });
        Treatment::Answer(answer.clone())
    })
}

#[test]
fn an_entry_that_is_sent_again_under_its_name_is_added_once() {
    let redis = Redis::start();
    let stand_in = of_8_6(&redis);
    let gateway = Setup::with_url(&stand_in.url()).routes(&route("")).start_ready();
    let first = ids_in(&named(&gateway, "one", "x"));
    assert_eq!(ids_in(&named(&gateway, "one", "x")), first);
    assert_ne!(ids_in(&named(&gateway, "two", "x")), first);
    assert_ne!(ids_in(&post(&gateway, "/events/a", &[], "x")), first);
    assert_eq!(entries(&redis, "events:a").len(), 3);
}

/// It is asked once, not for each request; and nothing is added.
#[test]
fn a_server_that_tells_no_entries_apart_is_a_501() {
    for redis in [Redis::start(), Redis::of_8_2()] {
        let gateway = Setup::redis(&redis).routes(&route("")).start_ready();
        for _ in 0..3 {
            let refused = named(&gateway, "one", "x");
            assert_eq!(refused.status, 501, "{refused:?}");
            assert!(refused.body.contains("from Redis 8.6 on"), "{refused:?}");
        }
        assert_eq!(redis.calls("xadd"), 1, "it is asked once");
        assert!(entries(&redis, "events:a").is_empty());
        ids_in(&post(&gateway, "/events/a", &[], "x"));
        let refused = "ssegate_publish_refused_total{reason=\"not_once\"}";
        assert_eq!(gateway.metric(refused), 3.0);
    }
    let memory = Setup::memory().routes(&route("")).start_ready();
    assert_eq!(named(&memory, "one", "x").status, 501);
}

#[test]
fn a_name_is_one_text_of_at_most_255_bytes_for_one_entry() {
    let gateway = Setup::memory().routes(&route("")).start_ready();
    let long = "x".repeat(256);
    for name in ["", " ", &long] {
        let refused = named(&gateway, name, "x");
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.body.starts_with("the Idempotency-Key "), "{refused:?}");
    }
    let twice = ["Idempotency-Key: a", "Idempotency-Key: a"];
    assert_eq!(post(&gateway, "/events/a", &twice, "x").status, 400);
    let several = post(&gateway, "/events/a", &[NDJSON, "Idempotency-Key: a"], "x\ny");
    assert!(several.status == 400 && several.body.contains("is for one entry"), "{several:?}");
}
