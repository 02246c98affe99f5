//! A client as a browser's `EventSource` is one: it reads an event stream as it comes, comes back
//! when it ends, names its last event id, and waits for the reconnection time, though not for long.
//! It keeps a record of everything, and calls wrong what no gateway may send.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::Request;
use ssegate::sse::MEDIA_TYPE;
use ssegate::sse::parse::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::chunks::Chunks;
use crate::following::Following;
use crate::history::{AMID_AN_EVENT, CUT, FINISHED, What};
use crate::support::ends_between_events;
use crate::support::waiting::pause_of_the_scenario_in_a_task;

/// `retry:` is honoured up to this, so that a run stays short.
const LONGEST_PAUSE: Duration = Duration::from_millis(300);
/// A server that has gone without a `retry:` is asked again after this.
const PAUSE: Duration = Duration::from_millis(100);
/// A response's head is shorter than this.
const HEAD_BYTES: usize = 8 << 10;
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
    pub follows: Following,
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
            self.follows.note(&match lost {
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
        self.follows.opened(&last_event_id);
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
        self.follows.opened(&last_event_id);
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
        self.follows.note(&What::Wrong(what));
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
        items.into_iter().for_each(|item| self.follows.hear(item));
        match chunks {
            Some(chunks) if chunks.complete() => Err(Lost::Closed(FINISHED.into())),
            _ => Ok(()),
        }
    }
}
