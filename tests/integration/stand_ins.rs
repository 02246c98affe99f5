//! What stands in for Redis: other makes, managed services, proxies. What they answer otherwise is taken as it was
//! meant, or told; no stream stands still for it.

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::Redis;
use crate::support::stand_in::{StandIn, Treatment};

/// How much a server tells of a stream, and how much it holds for a client.
mod looks;
/// What Redis refuses, and why.
mod refusals;
/// A name whose server is replaced.
mod renamed;

/// A short wait, so that reads come back empty-handed.
const SHORT_BLOCK: &str = "block = \"200ms\"";

fn is(words: &[String], command: &str) -> bool {
    words.first().is_some_and(|word| word == command)
}

/// A gateway whose Redis answers this command with these bytes.
fn answering(redis: &Redis, command: &'static str, answer: &'static [u8]) -> Gateway {
    let stand_in = StandIn::before(redis, move |words| match is(words, command) {
        true => Treatment::Answer(answer.to_vec()),
        false => Treatment::Pass,
    });
    Setup::with_url(&stand_in.url()).set("source", SHORT_BLOCK).start_ready()
}

/// Replaces `from`, which has to be in the answer if it is about an entry.
fn replaced(bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let position = bytes.windows(from.len()).position(|part| part == from.as_bytes());
    let Some(at) = position else { return bytes };
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

/// Dragonfly answers with no offset, and others with more or less than Redis does.
#[test]
fn an_odd_role_is_an_unknown_one() {
    let odd: [&[u8]; 5] = [
        b"*2\r\n$6\r\nmaster\r\n*0\r\n",
        b"*1\r\n$6\r\nmaster\r\n",
        b"$6\r\nmaster\r\n",
        b"*1\r\n$8\r\nsentinel\r\n",
        b"*-1\r\n",
    ];
    for answer in odd {
        let redis = Redis::start();
        let gateway = answering(&redis, "ROLE", answer);
        let mut client = Client::open(&gateway.address, "/events/a");
        client.live();
        redis.add("events:a", "old");
        assert_eq!(client.entry().data, "old");
        redis.run(&["DEL", "events:a"]);
        assert_eq!(client.control().0["reason"], "reset", "{}", String::from_utf8_lossy(answer));
        redis.add("events:a", "new");
        assert_eq!(client.entry().data, "new");
    }
}

#[test]
fn an_entry_that_cannot_be_read_is_a_gap_and_its_stream_goes_on() {
    let redis = Redis::start();
    let stand_in = StandIn::before(&redis, |words| match is(words, "XREAD") {
        true => Treatment::Rewrite(Box::new(|answer| replaced(answer, "$3\r\nbad\r\n", "$-1\r\n"))),
        false => Treatment::Pass,
    });
    let gateway = Setup::with_url(&stand_in.url()).set("source", SHORT_BLOCK).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let first = redis.add("events:a", "good");
    assert_eq!(client.entry().data, "good");
    redis.add("events:a", "bad");
    let (gap, id) = client.control();
    assert_eq!((&gap["reason"], &gap["lost"]), (&"unreadable".into(), &1.into()));
    let third = redis.add("events:a", "good again");
    assert_eq!(client.entry().data, "good again");
    let told = r#"ssegate_gaps_total{scope="reader",reason="unreadable"}"#;
    assert_eq!(gateway.metric(told), 1.0);
    gateway.has_logged("an entry cannot be read");
    // A client that comes back at the entry before is told so too, and one at the gap has it behind itself.
    let cold = Setup::with_url(&stand_in.url()).start_ready();
    let mut resumed = Client::resume(&cold.address, "/events/a", &first);
    assert_eq!(resumed.control().0["reason"], "unreadable");
    assert_eq!(resumed.event().last_event_id, third);
    let mut after = Client::resume(&cold.address, "/events/a", &id);
    assert_eq!(after.event().last_event_id, third);
}

/// Numbers as text, nil for what older servers lack, empty lists in place of nil.
#[test]
fn what_redis_tells_of_a_stream_may_come_in_other_forms() {
    let redis = Redis::start();
    let stand_in = StandIn::before(&redis, |words| match words.first().map(String::as_str) {
        Some("XINFO") => Treatment::Rewrite(Box::new(|answer| {
            let answer = replaced(answer, "$6\r\nlength\r\n:", "$6\r\nlength\r\n+");
            replaced(answer, "max-deleted-entry-id\r\n$3\r\n0-0", "max-deleted-entry-id\r\n$-1")
        })),
        Some("XREAD") => Treatment::Rewrite(Box::new(|answer| match &*answer {
            b"*-1\r\n" => b"*0\r\n".to_vec(),
            _ => answer,
        })),
        _ => Treatment::Pass,
    });
    let gateway = Setup::with_url(&stand_in.url()).set("source", SHORT_BLOCK).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    for payload in ["one", "two"] {
        redis.add("events:a", payload);
        assert_eq!(client.entry().data, payload);
    }
    redis.run(&["XTRIM", "events:a", "MAXLEN", "0"]);
    redis.add("events:a", "three");
    assert_eq!(client.entry().data, "three");
}
