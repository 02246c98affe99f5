//! The client against a server of canned bytes: one list of writes per connection it accepts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::refusal::EXPLANATION_LIMIT_BYTES;
use super::*;

const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n";
/// Words that nothing here is.
const NEVER: &str = "\0";
const FINISHED: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// When a connection was accepted, and the request's head on it.
type Asked = (Instant, String);

/// Answers each connection with its writes, a moment apart so that each is read by itself, and
/// closes it.
async fn serve<const N: usize>(answers: [Vec<String>; N]) -> (SocketAddr, JoinHandle<Vec<Asked>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let mut asked = Vec::new();
        for writes in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            asked.push((Instant::now(), request_head(&mut socket).await));
            for bytes in writes {
                socket.write_all(bytes.as_bytes()).await.unwrap();
                sleep(Duration::from_millis(5)).await;
            }
        }
        asked
    });
    (address, served)
}

async fn request_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// What came of a run: its end, the lines printed, the notes.
struct Outcome {
    end: Result<(), Failure>,
    out: String,
    notes: String,
}

impl Outcome {
    fn refusal(&self) -> String {
        match &self.end {
            Err(Failure::Refused(text)) => text.clone(),
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
}

/// What was written; a stop once these words are part of it.
struct Watched {
    text: Vec<u8>,
    words: &'static str,
    stop: Arc<Notify>,
}

impl Watched {
    fn new(words: &'static str, stop: &Arc<Notify>) -> Self {
        Self { text: Vec::new(), words, stop: stop.clone() }
    }

    fn text(self) -> String {
        String::from_utf8(self.text).unwrap()
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        if String::from_utf8_lossy(&self.text).contains(self.words) {
            self.stop.notify_one();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn tail(url: &str, last_event_id: Option<&str>) -> Outcome {
    tail_until(NEVER, url, last_event_id).await
}

/// Tails until these words are printed or noted.
async fn tail_until(words: &'static str, url: &str, last_event_id: Option<&str>) -> Outcome {
    let stop = Arc::<Notify>::default();
    let [mut out, mut notes] = [(); 2].map(|()| Watched::new(words, &stop));
    let options = Options {
        url: url.to_owned(),
        last_event_id: last_event_id.map(String::from),
        progress: false,
    };
    let run = run(options, &mut out, &mut notes, stop.notified());
    let end = timeout(Duration::from_secs(20), run).await.expect("a run ends");
    Outcome { end, out: out.text(), notes: notes.text() }
}

/// Tails a server of these answers until it is through with them.
async fn tail_answers<const N: usize>(answers: [Vec<String>; N]) -> (Outcome, Vec<Asked>) {
    let (address, served) = serve(answers).await;
    let outcome = tail(&format!("http://{address}/events/x?last=2"), None).await;
    (outcome, served.await.unwrap())
}

/// A stream of this body, all at once.
fn stream(body: &str) -> Vec<String> {
    vec![format!("{STREAM}{body}")]
}

/// A stream in chunks of `size`, each written by itself.
fn chunked(body: &str, size: usize) -> Vec<String> {
    let mut writes = vec![STREAM.replace("Connection: close", "Transfer-Encoding: chunked")];
    for part in body.as_bytes().chunks(size) {
        writes.push(format!("{:x}\r\n{}\r\n", part.len(), str::from_utf8(part).unwrap()));
    }
    writes.push("0\r\n\r\n".to_owned());
    writes
}

fn finished() -> Vec<String> {
    vec![FINISHED.to_owned()]
}

#[tokio::test]
async fn a_whole_body_after_an_event_without_an_id_of_its_own_is_the_end() {
    let whole = |last: &str| chunked(&format!("id: 1-0\ndata: one\n\n{last}"), 100);
    let (outcome, asked) = tail_answers([whole("data: [DONE]\n\n")]).await;
    assert!(outcome.end.is_ok() && asked.len() == 1);
    assert!(outcome.notes.contains("the stream has ended after 1-0"), "{}", outcome.notes);
    let drained = "data: no end\n\nevent: ssegate\ndata: {\"type\":\"drain\"}\n\n";
    for answer in [whole(drained), whole("")] {
        let (outcome, asked) = tail_answers([answer, finished()]).await;
        assert!(outcome.end.is_ok() && asked.len() == 2, "{}", outcome.notes);
    }
}

#[tokio::test]
async fn a_body_that_ends_amid_a_state_is_no_end_and_a_state_is_not_late() {
    let part = |id: &str, part: u8| {
        format!("{id}event: snapshot\ndata: {{\"part\":{part},\"of\":2,\"value\":{{}}}}\n\n")
    };
    let gap = "event: ssegate\ndata: {\"type\":\"gap\",\"reason\":\"trimmed\"}\n\n";
    let first = format!("retry: 100\nid: 1-0\ndata: one\n\n{gap}{}", part("", 1));
    let id = "id: 1700000000000-0\n";
    let rest = format!("{gap}{}{}id: 1700000000001-0\ndata: new\n\n", part("", 1), part(id, 2));
    let answers = [chunked(&first, 500), chunked(&rest, 500), finished()];
    let (outcome, asked) = tail_answers(answers).await;
    assert!(outcome.end.is_ok() && asked.len() == 3, "{}", outcome.notes);
    assert!(asked[1].1.contains("last-event-id: 1-0\r\n"), "what it had before the gap");
    let states: Vec<_> = outcome.out.lines().filter(|line| line.contains(" snapshot ")).collect();
    let value = |part| format!("snapshot {{\"part\":{part},\"of\":2,\"value\":{{}}}}");
    let expected = [("1-0", 1), ("1-0", 1), ("1700000000000-0", 2)];
    assert_eq!(states, expected.map(|(id, part)| format!("{id} - {}", value(part))));
    assert!(outcome.out.contains("d message new"), "an entry has its lag: {}", outcome.out);
    assert_eq!(outcome.notes.matches("*** GAP *** reason: trimmed").count(), 2);
}

#[tokio::test]
async fn prints_events_and_resumes_after_the_last_one() {
    let first = stream("retry: 100\n\nid: 5-0\nevent: log\ndata: a\ndata: b\n\nid: 6-0\ndata: cut");
    let second = stream("id: 6-0\ndata: c\n\n");
    let (outcome, asked) = tail_answers([first, second, finished()]).await;

    outcome.end.unwrap();
    assert_eq!(outcome.out, "5-0 - log a\\nb\n6-0 - message c\n");
    assert!(asked[0].1.starts_with("GET /events/x?last=2 HTTP/1.1\r\n"), "{}", asked[0].1);
    assert!(asked[0].1.contains("accept: text/event-stream\r\n"));
    assert!(!asked[0].1.contains("last-event-id"));
    assert!(asked[1].1.contains("last-event-id: 5-0\r\n"), "the cut event does not count");
    assert!(asked[2].1.contains("last-event-id: 6-0\r\n"));
    assert!(outcome.notes.contains("reconnecting in 100 ms after 5-0"), "{}", outcome.notes);
    assert!(outcome.notes.contains("finished the stream (204) after 6-0"), "{}", outcome.notes);
}

#[tokio::test]
async fn waits_as_long_as_the_server_says() {
    let (outcome, asked) =
        tail_answers([stream("retry: 700\n"), stream("retry: 0\n"), finished()]).await;
    outcome.end.unwrap();
    let pause = |n: usize| asked[n].0 - asked[n - 1].0;
    assert!(
        pause(1) >= Duration::from_millis(700) && pause(1) < RECONNECTION_TIME,
        "{:?}",
        pause(1)
    );
    assert!(pause(2) >= SHORTEST_RECONNECTION_TIME, "{:?}", pause(2));
}

#[tokio::test]
async fn starts_after_the_id_it_is_given() {
    let (address, served) = serve([finished()]).await;
    tail(&format!("http://{address}/x"), Some("7-1")).await.end.unwrap();
    assert!(served.await.unwrap()[0].1.contains("last-event-id: 7-1\r\n"));
}

#[tokio::test]
async fn chunk_boundaries_do_not_matter() {
    let body = "retry: 100\r\n\r\nid: 5-0\r\nevent: log\r\ndata: one\r\ndata: two\r\n\r\n: keepalive\r\n\r\ndata: x\r\rid: 6-0\rdata: y\r\r";
    for size in [1, 7] {
        let (outcome, _) = tail_answers([chunked(body, size), finished()]).await;
        assert_eq!(outcome.out, "5-0 - log one\\ntwo\n5-0 - message x\n6-0 - message y\n");
        assert!(outcome.notes.contains("the server closed the stream;"), "{}", outcome.notes);
    }
}

#[tokio::test]
async fn a_broken_connection_is_resumed() {
    let mut broken = chunked("retry: 100\nid: 5-0\ndata: a\n\n", 100);
    broken.pop();
    let no_http = vec!["what?\r\n\r\n".to_owned()];
    let (outcome, asked) = tail_answers([broken, no_http, finished()]).await;
    outcome.end.unwrap();
    assert!(outcome.notes.contains("the connection broke ("), "{}", outcome.notes);
    assert!(outcome.notes.contains("no HTTP answer from 127.0.0.1:"), "{}", outcome.notes);
    assert!(asked[2].1.contains("last-event-id: 5-0\r\n"));
}

#[tokio::test]
async fn control_events_are_told_and_not_printed() {
    let control = |json: &str| format!("id: 9-0\nevent: ssegate\ndata: {json}\n\n");
    let body = [
        "retry: 100\n: ssegate\n\n",
        &control(r#"{"type":"gap","after":"5-0","next":"9-1","lost":3,"reason":"trimmed"}"#),
        &control(r#"{"type":"gap","after":null,"next":null,"lost":null,"reason":"reset"}"#),
        &control(
            r#"{"type":"gap","after":null,"next":null,"lost":null,"at_most":12,"reason":"trimmed","stream":"a"}"#,
        ),
        &control(r#"{"type":"at"}"#),
        &control(r#"{"type":"live","replayed":2}"#),
        ": reconnecting\n\n: reconnecting\n\n: reconnected\n\n",
        &control(r#"{"type":"source","up":false}"#),
        &control(r#"{"type":"unavailable","reason":"overload"}"#),
        &control(r#"{"type":"drain"}"#),
        &control(r#"{"type":"ping"}"#),
        &control(r#"{"type":"expiring","seconds":60}"#),
        &control(r#"{"type":"expired"}"#),
        &control(r#"{"type":"of tomorrow"}"#),
        &control("no json \x1b"),
    ];
    let (outcome, _) = tail_answers([stream(&body.concat()), finished()]).await;
    assert_eq!(outcome.out, "");
    let notes: Vec<&str> = outcome.notes.lines().map(|line| &line["ssegate: ".len()..]).collect();
    assert_eq!(
        notes[1..notes.len() - 2],
        [
            "*** GAP *** reason: trimmed, lost: 3, after: 5-0, next: 9-1",
            "*** GAP *** reason: reset, lost: unknown, after: unknown, next: unknown",
            "*** GAP of \"a\" *** reason: trimmed, at most: 12, after: unknown, next: unknown",
            "live after 9-0, 2 replayed",
            "Redis is lost to the server; the stream stays open",
            "Redis is back at the server; the stream stays open",
            "Redis is lost to the server; the stream stays open",
            "the server cannot serve now: overload",
            "the server drains and will close after 9-0",
            "the token expires in 60 s",
            "the token has expired after 9-0",
            "control event: {\"type\":\"of tomorrow\"}",
            "control event: no json \\u{1b}",
        ]
    );
}

#[tokio::test]
async fn a_refusal_tells_the_answer_and_what_to_do() {
    let answer = |head: &str, body: &str| {
        vec![format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())]
    };
    let cases = [
        (
            "404 Not Found",
            "no such\r\npath\x1b[2J",
            "404 Not Found (no such\\r\\npath\\u{1b}[2J); no route",
        ),
        ("401 Unauthorized", "", "401 Unauthorized; the stream needs a token"),
        ("503 Service Unavailable", "", "try again later"),
        ("307 Temporary Redirect\r\nLocation: /there", "", "points to \"/there\""),
        ("418 I'm a teapot", "", "will not stream"),
        ("200 OK\r\nContent-Type: text/html", "<p>", "its content type is \"text/html\""),
        ("200 OK", "", "its content type is \"none\""),
    ];
    for (head, body, told) in cases {
        let (outcome, _) = tail_answers([answer(head, body)]).await;
        assert!(outcome.refusal().contains(told), "{}", outcome.refusal());
    }
}

#[tokio::test]
async fn a_long_refusal_is_cut() {
    let mut endless = vec!["HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\n".to_owned()];
    endless.push("x".repeat(EXPLANATION_LIMIT_BYTES * 3));
    let (outcome, _) = tail_answers([endless]).await;
    assert_eq!(
        outcome.refusal().matches('x').count(),
        EXPLANATION_LIMIT_BYTES + 1,
        "one is in \"proxy\""
    );
}

#[tokio::test]
async fn stops_when_told() {
    let mut open = stream("id: 5-0\ndata: a\n\n");
    open.resize(2000, String::new());
    let (address, _served) = serve([open]).await;
    let outcome = tail_until("5-0 ", &format!("http://{address}/x"), None).await;
    outcome.end.unwrap();
    let notes: Vec<&str> = outcome.notes.lines().skip(1).collect();
    assert_eq!(notes, ["ssegate: stopped after 5-0"]);
}

#[tokio::test]
async fn keeps_trying_while_nobody_listens() {
    // Bound, so that nobody else takes the port, and never made to listen.
    let held = TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = held.local_addr().unwrap();
    let outcome = tail_until("reconnecting", &format!("http://{address}/x"), None).await;
    outcome.end.unwrap();
    let expected = format!("cannot connect to {address}: ");
    assert!(outcome.notes.contains(&expected), "{}", outcome.notes);
    assert!(
        outcome.notes.contains("reconnecting in 3000 ms with no event id yet"),
        "{}",
        outcome.notes
    );
}

/// Whoever reads the events has left.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_closed_pipe_is_a_quiet_end() {
    let (address, _served) = serve([stream("data: a\n\n")]).await;
    let options =
        Options { url: format!("http://{address}/x"), last_event_id: None, progress: false };
    let end = run(options, &mut Closed, &mut Vec::new(), sleep(Duration::from_secs(10))).await;
    end.unwrap();
}

#[tokio::test]
async fn usage_errors_are_told_apart() {
    let cases = [
        ("https://x/events", None, "needs TLS"),
        ("unix:/run/x.sock", None, "scheme \"unix\""),
        ("localhost/x", None, "is no URL"),
        ("http://", None, "is no URL"),
        ("http://me:secret@x/", None, "user name or password"),
        ("http://x/", Some("1-0\r\nX: y"), "control characters"),
    ];
    for (url, id, told) in cases {
        let end = tail(url, id).await.end;
        let Err(Failure::Usage(text)) = end else { panic!("{url}: {end:?}") };
        assert!(text.contains(told), "{text}");
    }
}

#[test]
fn lag_is_told_where_the_id_is_a_clock_time() {
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let lag = |ms: u64| lag_ms(&format!("{ms}-0"), now).map(in_words);
    assert_eq!(lag(1_700_000_000_000 - 12).as_deref(), Some("+12ms"));
    assert_eq!(lag(1_700_000_000_003).as_deref(), Some("-3ms"));
    assert_eq!(lag(1_700_000_000_000 - 61_500).as_deref(), Some("+61s"));
    assert_eq!(lag(1_700_000_000_000 - 7_200_000).as_deref(), Some("+120min"));
    assert_eq!(lag(1_700_000_000_000 - 3 * 86_400_000).as_deref(), Some("+3d"));
    assert_eq!(lag(5), None);
    assert_eq!(lag_ms("-", now), None);
}
