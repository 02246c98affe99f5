//! What libraries that are no `EventSource` make of a stream: each reads a little otherwise than the standard.

use std::io::Write;

use super::{connect, read_until};
use crate::support::gateway::Setup;
use crate::support::redis::Redis;

/// The data of each message, as fetch-event-source, httpx-sse and others see them: a blank line ends a message,
/// whatever was before it.
fn messages(body: &str) -> Vec<String> {
    let (whole, _) = body.rsplit_once("\n\n").unwrap_or_default();
    let data = |block: &str| block.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    whole.split("\n\n").map(data).collect()
}

/// What Python's `splitlines` splits at besides CR and LF, and what some clients therefore do.
const FOREIGN_LINE_ENDS: [char; 8] =
    ['\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];

#[test]
fn json_that_we_make_has_no_line_end_of_another_kind() {
    let redis = Redis::start();
    let routes =
        "[[route]]\npath = \"/a\"\nkey = \"events:a\"\naccess = \"public\"\ndata = \"*\"\n";
    let gateway = Setup::redis(&redis).routes(routes).start_ready();
    let mut tail = connect(&gateway.admin);
    tail.write_all(b"GET /tail/events:a HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut stream = connect(&gateway.address);
    stream.write_all(b"GET /a HTTP/1.0\r\n\r\n").unwrap();
    read_until(&mut stream, "\"live\",\"replayed\":0}\n");
    read_until(&mut tail, "\"live\"}\n");
    let payload: String = FOREIGN_LINE_ENDS.into_iter().chain("the end".chars()).collect();
    redis.add("events:a", &payload);
    for socket in [&mut stream, &mut tail] {
        let event = read_until(socket, "the end");
        assert!(!event.contains(FOREIGN_LINE_ENDS), "{event:?}");
    }
}

#[test]
fn a_sign_of_life_is_a_comment_and_no_empty_message() {
    let mut redis = Redis::start();
    let gateway = Setup::redis(&redis).set("server", "keepalive = \"1s\"").start_ready();
    let mut stream = connect(&gateway.address);
    // Without chunks: the body is what follows the head.
    stream.write_all(b"GET /events/a HTTP/1.0\r\n\r\n").unwrap();
    read_until(&mut stream, "\r\n\r\n");
    let mut body = read_until(&mut stream, ": keepalive\n");
    redis.kill();
    body += &read_until(&mut stream, ": reconnecting\n");
    redis.launch();
    body += &read_until(&mut stream, ": reconnected\n");
    redis.add("events:a", "the last");
    body += &read_until(&mut stream, "data: the last\n\n");
    let messages = messages(&body);
    assert!(messages.len() > 1 && messages.iter().all(|data| !data.is_empty()), "{body:?}");
}
