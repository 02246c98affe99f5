//! A client as a browser's `EventSource` is one: it reads an event stream as it comes, comes back
//! when it ends, names its last event id, and waits for the reconnection time, though not for long.
//! It keeps a record of everything, and calls wrong what no gateway may send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::Request;
use ssegate::sse::parse::{Event, Item, Parser};
use ssegate::sse::{CONTROL_EVENT, MEDIA_TYPE, StreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::chunks::Chunks;
use crate::history::{AMID_AN_EVENT, CUT, FINISHED, Gap, Heard, Listener, What};
use crate::payload;
use crate::selection::Selection;
use crate::support::ends_between_events;
use crate::support::waiting::pause_of_the_scenario_in_a_task;
use crate::writer::Writer;

/// `retry:` is honoured up to this, so that a run stays short.
const LONGEST_PAUSE: Duration = Duration::from_millis(300);
/// A server that has gone without a `retry:` is asked again after this.
const PAUSE: Duration = Duration::from_millis(100);
/// A response's head is shorter than this.
const HEAD_BYTES: usize = 8 << 10;
/// Comments that a gateway sends.
const COMMENTS: [&str; 4] = ["ssegate", "keepalive", "reconnecting", "reconnected"];

/// What one client has heard so far.
pub struct Record {
    /// What it asks for.
    pub selection: Selection,
    began: Instant,
    heard: Mutex<Vec<Heard>>,
    live: AtomicBool,
    last: AtomicU64,
    /// In nanoseconds since the beginning; zero: never.
    over: AtomicU64,
}

impl Record {
    pub fn new(began: Instant, selection: Selection) -> Self {
        let (heard, live) = (Mutex::default(), AtomicBool::new(false));
        let (last, over) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { selection, began, heard, live, last, over }
    }

    /// Whether it was told after this time, counted from the beginning, that the stream is over.
    pub fn is_over_since(&self, time: Duration) -> bool {
        Duration::from_nanos(self.over.load(Ordering::Relaxed)) > time
    }

    /// Whether it ever got the mark that it is level with the tail.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    /// The number of the last entry.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Whether that is the last that it gets of what this writer added.
    pub fn is_level(&self, writer: &Writer) -> bool {
        self.last() == writer.last_added(self.selection)
    }

    /// Everything. Who hears of several streams on one connection is a listener of each of them, with what came of it.
    pub fn listener(&self) -> Listener {
        Listener { selection: self.selection, heard: self.heard.lock().unwrap().clone() }
    }

    fn note(&self, what: What) {
        let at = self.began.elapsed();
        match &what {
            What::Over => {
                self.over.store(u64::try_from(at.as_nanos()).unwrap(), Ordering::Relaxed);
            }
            What::Entry(_, number) => self.last.store(*number, Ordering::Relaxed),
            What::Signal(signal) if signal == "live" => self.live.store(true, Ordering::Relaxed),
            _ => {}
        }
        self.heard.lock().unwrap().push(Heard { at, what });
    }
}

/// A client's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    /// HTTP/1.0, where nothing but its end frames the body.
    Old,
    /// By prior knowledge.
    Http2,
}

/// One client.
pub struct Client {
    pub address: SocketAddr,
    pub path: String,
    pub speaks: Speaks,
    pub record: Arc<Record>,
    pub rng: fastrand::Rng,
}

/// Why there is no stream any more.
enum Lost {
    /// The connection was lost.
    Closed(String),
    /// There is none to be had: it is over.
    Over,
}

impl From<std::io::Error> for Lost {
    fn from(error: std::io::Error) -> Self {
        Self::Closed(error.to_string())
    }
}

impl From<h2::Error> for Lost {
    fn from(error: h2::Error) -> Self {
        Self::Closed(error.to_string())
    }
}

/// Its end of the connection's work ends with it.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Listens until it is dropped. Where the stream is over it comes back all the same, as a page does that is
    /// loaded anew.
    pub async fn run(mut self) {
        let mut parser = Parser::new();
        loop {
            let Err(lost) = match self.speaks {
                Speaks::Http2 => self.http2(&mut parser).await,
                Speaks::Http1 | Speaks::Old => self.connection(&mut parser).await,
            };
            self.record.note(match lost {
                Lost::Closed(why) => What::Closed(why),
                Lost::Over => What::Over,
            });
            parser.reconnect();
            let wait = parser.reconnection_time().unwrap_or(PAUSE).min(LONGEST_PAUSE);
            let pause = wait.mul_f64(0.5 + self.rng.f64() / 2.0);
            pause_of_the_scenario_in_a_task(pause, "as the server told it").await;
        }
    }

    async fn connection(&self, parser: &mut Parser) -> Result<std::convert::Infallible, Lost> {
        let mut stream = TcpStream::connect(self.address).await?;
        let last_event_id = parser.last_event_id().to_owned();
        stream.write_all(self.request(&last_event_id).as_bytes()).await?;
        let mut input = Vec::new();
        let head_bytes = loop {
            if let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut input).await? == 0 || input.len() > HEAD_BYTES {
                return Err(Lost::Closed("no head".into()));
            }
        };
        let body = input.split_off(head_bytes);
        let mut chunks = self.framing(&String::from_utf8_lossy(&input))?;
        self.record.note(What::Opened(last_event_id));
        self.take(parser, &mut chunks, &body)?;
        let mut piece = vec![0; 64 << 10];
        let mut between_events = true;
        loop {
            let length = stream.read(&mut piece).await?;
            if length == 0 {
                let why = if between_events { "its end" } else { AMID_AN_EVENT };
                return Err(Lost::Closed(why.into()));
            }
            self.take(parser, &mut chunks, &piece[..length])?;
            // With its chunk's end, or without.
            let piece = &piece[..length];
            let body = if self.is_old() { Some(piece) } else { piece.strip_suffix(b"\r\n") };
            between_events = body.is_some_and(ends_between_events);
        }
    }

    async fn http2(&self, parser: &mut Parser) -> Result<std::convert::Infallible, Lost> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = h2::client::handshake(stream).await?;
        let _driver = Driver(tokio::spawn(connection).abort_handle());
        let last_event_id = parser.last_event_id().to_owned();
        let mut request = Request::get(format!("http://x{}", self.path));
        if !last_event_id.is_empty() {
            request = request.header("last-event-id", &last_event_id);
        }
        let (response, _) = sender.send_request(request.body(()).unwrap(), true)?;
        let response = response.await?;
        if response.status() == 204 && response.headers()["cache-control"] == "no-store" {
            return Err(Lost::Over);
        }
        if response.status() != 200 || response.headers()["content-type"] != MEDIA_TYPE {
            return Err(self.wrong(format!("not a stream: {response:?}")));
        }
        self.record.note(What::Opened(last_event_id));
        let mut body = response.into_body();
        let mut between_events = true;
        while let Some(piece) = body.data().await {
            let piece = match piece {
                // How HTTP/2 ends a stream that cannot be finished.
                Err(error) if error.is_reset() && !between_events => break,
                Err(error) if error.is_reset() => return Err(Lost::Closed(CUT.into())),
                piece => piece?,
            };
            body.flow_control().release_capacity(piece.len())?;
            self.take(parser, &mut None, &piece)?;
            between_events = ends_between_events(&piece);
        }
        Err(Lost::Closed(if between_events { FINISHED } else { AMID_AN_EVENT }.into()))
    }

    fn is_old(&self) -> bool {
        self.speaks == Speaks::Old
    }

    fn request(&self, last_event_id: &str) -> String {
        let version = if self.is_old() { "1.0" } else { "1.1" };
        let resume = match last_event_id {
            "" => String::new(),
            id => format!("Last-Event-ID: {id}\r\n"),
        };
        let path = &self.path;
        format!("GET {path} HTTP/{version}\r\nHost: x\r\nAccept: text/event-stream\r\n{resume}\r\n")
    }

    /// How the body is framed. An `EventSource` gives up for ever on anything but a stream.
    fn framing(&self, head: &str) -> Result<Option<Chunks>, Lost> {
        let lower = head.to_ascii_lowercase();
        if lower.split(' ').nth(1) == Some("204")
            && lower.contains("\r\ncache-control: no-store\r\n")
        {
            return Err(Lost::Over);
        }
        let ok = lower.split(' ').nth(1) == Some("200")
            && lower.contains(&format!("\r\ncontent-type: {MEDIA_TYPE}\r\n"));
        let chunked = lower.contains("\r\ntransfer-encoding: chunked\r\n");
        if !ok || chunked == self.is_old() {
            return Err(self.wrong(format!("not a stream: {head:?}")));
        }
        Ok(chunked.then(Chunks::default))
    }

    fn wrong(&self, what: String) -> Lost {
        self.record.note(What::Wrong(what));
        Lost::Closed("it sent what it may not".into())
    }

    fn take(
        &self,
        parser: &mut Parser,
        chunks: &mut Option<Chunks>,
        piece: &[u8],
    ) -> Result<(), Lost> {
        let mut decoded = Vec::new();
        let body = match chunks {
            None => piece,
            Some(chunks) => {
                chunks.feed(piece, &mut decoded).map_err(|error| self.wrong(error))?;
                &decoded
            }
        };
        let mut items = Vec::new();
        parser.feed(body, &mut items).map_err(|error| self.wrong(error.to_string()))?;
        for item in items {
            self.record.note(understand(item));
        }
        match chunks {
            Some(chunks) if chunks.complete() => Err(Lost::Closed(FINISHED.into())),
            _ => Ok(()),
        }
    }
}

/// What an item of the stream says.
pub fn understand(item: Item) -> What {
    match item {
        Item::Comment(text) if COMMENTS.contains(&&*text) => What::Signal(text),
        Item::Comment(text) => What::Wrong(format!("an unknown comment {text:?}")),
        Item::Event(event) if event.event_type == CONTROL_EVENT => {
            control(&event).unwrap_or_else(|| What::Wrong(format!("a control event {event:?}")))
        }
        Item::Event(event) => {
            let id = event.last_event_id.parse();
            match (payload::number(&event.data), id, &*event.event_type) {
                (Some(number), Ok(id), "message") => What::Entry(id, number),
                _ => What::Wrong(format!("torn: {event:.300?}")),
            }
        }
    }
}

fn control(event: &Event) -> Option<What> {
    let control: serde_json::Value = serde_json::from_str(&event.data).ok()?;
    let kind = control["type"].as_str()?;
    if kind == "end" && control["reason"] == "marker" {
        return Some(What::End(event.last_event_id.parse().ok()?));
    }
    if kind == "at" {
        return Some(What::At(event.last_event_id.parse().ok()?));
    }
    if kind != "gap" {
        let known = ["live", "drain", "unavailable", "ping", "source"].contains(&kind);
        return known.then(|| What::Signal(kind.to_owned()));
    }
    let id = |name: &str| match &control[name] {
        serde_json::Value::Null => Some(None),
        value => value.as_str()?.parse::<StreamId>().ok().map(Some),
    };
    let (after, next) = (id("after")?, id("next")?);
    let count = |value: &serde_json::Value| match value {
        serde_json::Value::Null => Some(None),
        value => value.as_u64().map(Some),
    };
    let lost = count(control.get("lost")?)?;
    let at_most = match control.get("at_most") {
        None => None,
        Some(value) => Some(count(value)?),
    };
    let reason = control["reason"].as_str()?.to_owned();
    let id = event.last_event_id.parse().ok()?;
    Some(What::Gap(Gap { id, after, next, lost, at_most, reason }))
}
