//! `ssegate tail`: a client that reads, reconnects and resumes as a browser's `EventSource` does, and shows
//! what a page cannot see: the lag of each event, gaps, and why the server refused.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, TRANSFER_ENCODING, USER_AGENT,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};
use url::{Position, Url};

use crate::net::dial::{DialError, address_of, dial};
use crate::sse::parse::{Event, Item, Parser, TooLarge};
use crate::sse::{CONTROL_EVENT, SNAPSHOT_EVENT, comment};

pub(super) mod command;
mod progress;
mod refusal;
mod text;

use progress::Progress;
use refusal::refusal;
use text::{authority, in_words, lag_ms, printable};

/// Until the server names a reconnection time.
const RECONNECTION_TIME: Duration = Duration::from_secs(3);
/// Even if the server names a shorter one: zero would cause a busy loop.
const SHORTEST_RECONNECTION_TIME: Duration = Duration::from_millis(100);
/// For connecting and for the head of the answer, which a gateway sends within seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// What to tail.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stream's URL, `http://` only.
    pub url: String,
    /// Where to resume; `None` leaves it to the URL's query, else the stream is read from now on.
    pub last_event_id: Option<String>,
    /// Whether the notes go to a terminal, and get a progress line.
    pub progress: bool,
}

/// Why tailing ended before it was stopped.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The server answered, but not with a readable stream.
    #[error("{0}")]
    Refused(String),
    /// The events cannot be written.
    #[error("cannot write the events: {0}; is the disk full?")]
    Output(io::Error),
}

/// Prints a stream's events to `out`, one a line, and notes about the stream to `notes`, until `stop`, a
/// 204 of the server, or until the reader of `out` closes it: these are successes.
///
/// A line is `ID LAG TYPE DATA`: control characters are escaped, an unknown lag is `-`. After a failure it
/// reconnects, without end.
pub async fn run(
    options: Options,
    out: &mut impl Write,
    notes: &mut impl Write,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut tail = Tail::new(options, out, notes)?;
    let end = tokio::select! {
        () = stop => {
            tail.note(&format!("stopped {}", tail.position()));
            Ok(())
        }
        end = tail.follow() => end,
    };
    tail.sum_up();
    match end {
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        end => end,
    }
}

/// How a connection ended without a failure.
enum End {
    /// The stream is over: the server wants no reconnection. How it said so.
    Over(&'static str),
    /// Another connection continues the stream.
    Lost(String),
}

struct Tail<'a, O, N> {
    url: Url,
    out: &'a mut O,
    notes: &'a mut N,
    parser: Parser,
    /// Whether the server reaches Redis: it repeats the comment about a loss.
    source_up: bool,
    /// The server has said that the stream is over.
    is_over: bool,
    /// The last event's id, and whether the event had none of its own: one that stands for the end has none.
    last_id: String,
    is_without_id: bool,
    /// `None`: the notes do not go to a terminal.
    progress: Option<Progress>,
}

impl<'a, O: Write, N: Write> Tail<'a, O, N> {
    fn new(options: Options, out: &'a mut O, notes: &'a mut N) -> Result<Self, Failure> {
        let url = stream_url(&options.url)?;
        let last_event_id = options.last_event_id.unwrap_or_default();
        if HeaderValue::from_str(&last_event_id).is_err() {
            let problem = "holds control characters; give the id as the server sent it, such as 1700000000000-0";
            return Err(Failure::Usage(format!("--last-event-id {last_event_id:?} {problem}")));
        }
        let parser = Parser::new().with_last_event_id(last_event_id.clone());
        let progress = options.progress.then(Progress::begin);
        let (last_id, is_without_id, is_over) = (last_event_id, false, false);
        let source_up = true;
        Ok(Self { url, out, notes, parser, source_up, is_over, last_id, is_without_id, progress })
    }

    async fn follow(&mut self) -> Result<(), Failure> {
        loop {
            let why = match self.connection().await? {
                End::Over(how) => {
                    self.note(&format!("{how} {}", self.position()));
                    return Ok(());
                }
                End::Lost(why) => why,
            };
            self.parser.reconnect();
            let pause = self.parser.reconnection_time().unwrap_or(RECONNECTION_TIME);
            let pause = pause.max(SHORTEST_RECONNECTION_TIME);
            self.note(&format!(
                "{why}; reconnecting in {} ms {}",
                pause.as_millis(),
                self.position()
            ));
            self.meanwhile(sleep(pause)).await;
        }
    }

    /// Shows the progress line while `work` runs.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            let Some(progress) = &mut self.progress else { return work.await };
            tokio::select! {
                done = &mut work => return done,
                () = progress.is_due() => progress.show(self.notes),
            }
        }
    }

    /// One connection, from its request to its end.
    async fn connection(&mut self) -> Result<End, Failure> {
        let request = self.request()?;
        let url = self.url.clone();
        let answer = timeout(ANSWER_TIMEOUT, ask(&url, request));
        let answer = match self.meanwhile(answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Ok(End::Lost(format!("{error:#}"))),
            Err(_) => {
                let seconds = ANSWER_TIMEOUT.as_secs();
                return Ok(End::Lost(format!(
                    "{} gave no answer in {seconds} s",
                    authority(&self.url)
                )));
            }
        };
        if answer.status() == StatusCode::NO_CONTENT {
            return Ok(End::Over("the server has finished the stream (204)"));
        }
        if answer.status() != StatusCode::OK || !is_event_stream(&answer) {
            return Err(Failure::Refused(refusal(&self.url, answer).await));
        }
        (self.source_up, self.is_without_id) = (true, false);
        if let Some(progress) = &mut self.progress {
            progress.connected();
        }
        self.note(&format!("connected to {} {}", authority(&self.url), self.position()));
        let tells_its_end = answer.headers().contains_key(TRANSFER_ENCODING);
        self.read(answer.into_body(), tells_its_end).await
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, Failure> {
        let mut request = Request::get(&self.url[Position::BeforePath..Position::AfterQuery])
            .header(HOST, authority(&self.url))
            .header(ACCEPT, "text/event-stream")
            .header(CACHE_CONTROL, "no-cache")
            .header(USER_AGENT, concat!("ssegate-tail/", env!("CARGO_PKG_VERSION")));
        let id = self.parser.last_event_id();
        if !id.is_empty() {
            request = request.header("Last-Event-ID", id);
        }
        request.body(Empty::new()).map_err(|error| {
            Failure::Refused(format!("cannot ask to resume after the server's id {id:?}: {error}"))
        })
    }

    async fn read(&mut self, mut body: Incoming, tells_its_end: bool) -> Result<End, Failure> {
        let mut items = Vec::new();
        while let Some(frame) = self.meanwhile(body.frame()).await {
            let bytes = match frame {
                Ok(frame) => frame.into_data().unwrap_or_default(),
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    return Ok(End::Lost(format!("the connection broke ({error:#})")));
                }
            };
            let fed = self.parser.feed(&bytes, &mut items);
            for item in items.drain(..) {
                self.show(item)?;
            }
            self.out.flush().map_err(Failure::Output)?;
            fed.map_err(|error: TooLarge| Failure::Refused(format!("the stream holds {error}")))?;
        }
        if self.is_over || self.is_without_id && tells_its_end {
            return Ok(End::Over("the stream has ended"));
        }
        Ok(End::Lost("the server closed the stream".to_owned()))
    }

    fn show(&mut self, item: Item) -> Result<(), Failure> {
        if let Item::Event(event) = &item {
            let is_repeated = event.last_event_id == self.last_id && !self.last_id.is_empty();
            // The parts of a state have none either, but for the last.
            let may_be_end = ![CONTROL_EVENT, SNAPSHOT_EVENT].contains(&&*event.event_type);
            self.is_without_id = is_repeated && may_be_end;
            self.last_id.clone_from(&event.last_event_id);
        }
        match item {
            Item::Event(event) if event.event_type == CONTROL_EVENT => {
                self.show_control(&event.data);
            }
            Item::Event(event) => return self.print(&event),
            Item::Comment(text) if is_comment(&text, comment::RECONNECTING) => self.source(false),
            Item::Comment(text) if is_comment(&text, comment::RECONNECTED) => self.source(true),
            Item::Comment(text) => {
                // Where a route sends its control events as comments.
                let control = text.split_once(' ').map(|(_, control)| control);
                if let Some(control) = control.filter(|control| control.starts_with('{')) {
                    self.show_control(control);
                }
            }
        }
        Ok(())
    }

    fn print(&mut self, event: &Event) -> Result<(), Failure> {
        let id = if event.last_event_id.is_empty() { "-" } else { &event.last_event_id };
        // A state is as old as its last change: it is not late.
        let is_state = event.event_type == SNAPSHOT_EVENT;
        let lag = lag_ms(id, SystemTime::now()).filter(|_| !is_state);
        if let Some(progress) = &mut self.progress {
            progress.event(lag);
            progress.hide(self.notes);
        }
        let lag = lag.map_or_else(|| "-".to_owned(), in_words);
        let (id, event_type) = (printable(id), printable(&event.event_type));
        writeln!(self.out, "{id} {lag} {event_type} {}", printable(&event.data))
            .map_err(Failure::Output)
    }

    fn show_control(&mut self, data: &str) {
        let control: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
        let member = |name: &str| match &control[name] {
            serde_json::Value::Null => "unknown".to_owned(),
            serde_json::Value::String(text) => printable(text),
            other => other.to_string(),
        };
        // Of several streams on one connection.
        let of = match &control["stream"] {
            serde_json::Value::String(name) => format!(" of \"{}\"", printable(name)),
            _ => String::new(),
        };
        let told = match control["type"].as_str() {
            Some("live") => format!("live {}, {} replayed", self.position(), member("replayed")),
            Some("gap") => {
                if let Some(progress) = &mut self.progress {
                    progress.gap(control["lost"].as_u64());
                }
                // Others' may be among them.
                let may_be = !control["at_most"].is_null();
                let lost = if may_be { "at_most" } else { "lost" };
                format!(
                    "*** GAP{of} *** reason: {}, {}: {}, after: {}, next: {}",
                    member("reason"),
                    lost.replace('_', " "),
                    member(lost),
                    member("after"),
                    member("next")
                )
            }
            Some("conflated") => {
                format!("caught up, spared {} entries that newer ones replace", member("entries"))
            }
            Some("end") if !of.is_empty() => {
                format!("the stream{of} is over: {}", member("reason"))
            }
            Some("end") => {
                self.is_over = true;
                format!("the stream is over: {}", member("reason"))
            }
            Some("drain") => format!("the server drains and will close {}", self.position()),
            Some("expiring") => format!("the token expires in {} s", member("seconds")),
            Some("expired") => format!("the token has expired {}", self.position()),
            Some("unavailable") => format!("the server cannot serve now: {}", member("reason")),
            Some("source") if !of.is_empty() => {
                let told = if control["up"] == true { "is back" } else { "cannot be read now" };
                format!("the stream{of} {told}; the others go on")
            }
            Some("source") => return self.source(control["up"] == true),
            // Events of others have no line: the position shows with what comes next.
            Some("ping" | "at") => return,
            _ => format!("control event: {}", printable(data)),
        };
        self.note(&told);
    }

    fn sum_up(&mut self) {
        if let Some(line) = self.progress.as_ref().map(Progress::line) {
            self.note(&line);
        }
    }

    fn source(&mut self, up: bool) {
        if std::mem::replace(&mut self.source_up, up) != up {
            let told = if up { "is back at" } else { "is lost to" };
            self.note(&format!("Redis {told} the server; the stream stays open"));
        }
    }

    fn position(&self) -> String {
        match self.parser.last_event_id() {
            "" => "with no event id yet".to_owned(),
            id => format!("after {}", printable(id)),
        }
    }

    /// Notes something for the operator; the events go on if this fails.
    fn note(&mut self, text: &str) {
        if let Some(progress) = &mut self.progress {
            progress.hide(self.notes);
        }
        let _ = writeln!(self.notes, "ssegate: {text}");
    }
}

fn stream_url(text: &str) -> Result<Url, Failure> {
    // A token may be in the query.
    let shown = text.split_once('?').map_or(text, |(before, _)| before);
    let usage = |problem: String| {
        Err(Failure::Usage(format!("{shown:?} {problem}; expected http://HOST:PORT/PATH")))
    };
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return usage(format!("is no URL ({error})")),
    };
    match url.scheme() {
        "http" if url.username().is_empty() && url.password().is_none() => Ok(url),
        "http" => usage("holds a user name or password, which tail does not send".to_owned()),
        "https" => usage("needs TLS, which tail does not speak: ask the plain listener".to_owned()),
        other => usage(format!("has the scheme {other:?}")),
    }
}

async fn ask(url: &Url, request: Request<Empty<Bytes>>) -> anyhow::Result<Response<Incoming>> {
    let address = address_of(url).expect("an http URL has a host and a port");
    let socket = dial(&address, None, ANSWER_TIMEOUT).await.map_err(DialError::into_io);
    let socket = socket.with_context(|| format!("cannot connect to {}", authority(url)))?;
    let no_answer = || format!("no HTTP answer from {}", authority(url));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .with_context(no_answer)?;
    // Ends by itself when the answer's body is dropped; its errors surface there as well.
    tokio::spawn(connection);
    sender.send_request(request).await.with_context(no_answer)
}

fn is_event_stream(answer: &Response<Incoming>) -> bool {
    let value = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("text/event-stream")
}

fn is_comment(text: &str, on_the_wire: &str) -> bool {
    on_the_wire.trim_end().strip_prefix(": ") == Some(text)
}

#[cfg(test)]
mod tests;
