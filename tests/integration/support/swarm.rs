//! Clients by the thousand: one task each, as strict about HTTP as [`super::client::Client`].

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use ssegate::sse::parse::{Event, Item, Parser};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;

/// A response's head is shorter than this.
const HEAD_BYTES: usize = 8 << 10;

/// How the fault of a connection that ended without an end begins.
pub const BROKEN: &str = "the connection broke: ";

/// Where to connect.
#[derive(Clone)]
pub enum Address {
    Tcp(String),
    Unix(PathBuf),
}

trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// One stream; every fault is an `Err`, so that a task can report it.
pub struct Stream {
    connection: Box<dyn Connection>,
    parser: Parser,
    items: VecDeque<Item>,
    /// Undecoded bytes of the body.
    raw: Vec<u8>,
    /// Whether the decoded body so far ends between two events.
    ends_between_events: bool,
    closed: bool,
    /// The body ended with its last chunk.
    pub complete: bool,
}

impl Stream {
    /// Opens a stream, which has to be accepted: anything but a chunked 200 is an error.
    pub async fn open(
        address: &Address,
        path: &str,
        last_event_id: Option<&str>,
    ) -> Result<Self, String> {
        let connection: Box<dyn Connection> = match address {
            Address::Tcp(address) => Box::new(TcpStream::connect(address).await.map_err(said)?),
            Address::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(said)?),
        };
        Self::over(connection, path, last_event_id).await
    }

    async fn over(
        mut connection: Box<dyn Connection>,
        path: &str,
        last_event_id: Option<&str>,
    ) -> Result<Self, String> {
        let resume = last_event_id.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{resume}\r\n");
        connection.write_all(request.as_bytes()).await.map_err(said)?;
        let mut raw = Vec::new();
        let end = loop {
            if let Some(end) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let length = connection.read_buf(&mut raw).await.map_err(said)?;
            if length == 0 || raw.len() > HEAD_BYTES {
                return Err(format!("no head: {:?}", String::from_utf8_lossy(&raw)));
            }
        };
        let head = String::from_utf8_lossy(&raw[..end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200 ") || !head.contains("transfer-encoding: chunked") {
            return Err(format!("not a stream: {head}"));
        }
        raw.drain(..end);
        let mut stream = Self {
            connection,
            parser: Parser::new(),
            items: VecDeque::new(),
            raw,
            ends_between_events: false,
            closed: false,
            complete: false,
        };
        stream.decode()?;
        Ok(stream)
    }

    /// The next event or comment; `None` at the end of the connection.
    pub async fn next(&mut self) -> Result<Option<Item>, String> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(Some(item));
            }
            if self.closed {
                return Ok(None);
            }
            match self.connection.read_buf(&mut self.raw).await {
                Ok(0) => self.closed = true,
                Ok(_) => self.decode()?,
                Err(error) => return Err(format!("{BROKEN}{error}")),
            }
        }
    }

    /// The next event of any type; an end is an error.
    pub async fn event(&mut self) -> Result<Event, String> {
        loop {
            match self.next().await? {
                Some(Item::Event(event)) => return Ok(event),
                Some(Item::Comment(_)) => {}
                None => return Err("the stream ended".into()),
            }
        }
    }

    /// Reads up to the `live` mark, and nothing may come before it.
    pub async fn live(&mut self) -> Result<(), String> {
        let event = self.event().await?;
        let live = event.event_type == "ssegate" && event.data.contains("\"live\"");
        if live { Ok(()) } else { Err(format!("not live: {event:?}")) }
    }

    /// Reads entries whose data are these, in this order and with nothing between them.
    pub async fn entries(&mut self, expected: impl Iterator<Item = String>) -> Result<(), String> {
        for expected in expected {
            let event = self.event().await?;
            if event.event_type != "message" || event.data != expected {
                return Err(format!("expected {expected:.20}, got {event:?}"));
            }
        }
        Ok(())
    }

    fn decode(&mut self) -> Result<(), String> {
        let mut items = Vec::new();
        while let Some(line) = self.raw.windows(2).position(|pair| pair == b"\r\n") {
            let size = std::str::from_utf8(&self.raw[..line]).map_err(|e| e.to_string())?;
            let size = usize::from_str_radix(size, 16).map_err(|e| format!("{size:?}: {e}"))?;
            let end = line + 2 + size + 2;
            if self.raw.len() < end {
                break;
            }
            if &self.raw[end - 2..end] != b"\r\n" {
                return Err("a chunk does not end with CRLF".into());
            }
            let body = &self.raw[line + 2..end - 2];
            self.parser.feed(body, &mut items).map_err(|e| e.to_string())?;
            if size > 0 {
                self.ends_between_events = super::ends_between_events(body);
            }
            self.raw.drain(..end);
            if size == 0 {
                self.complete = true;
                self.closed = true;
            }
        }
        self.items.extend(items);
        Ok(())
    }

    /// Whether what has come so far ends between two events, and between two chunks.
    pub fn at_boundary(&self) -> bool {
        self.raw.is_empty() && self.ends_between_events
    }

    /// What came of a chunk that is not whole.
    pub fn unfinished(&self) -> &[u8] {
        &self.raw
    }

    /// The server's `retry:`.
    pub fn reconnection_time(&self) -> Option<Duration> {
        self.parser.reconnection_time()
    }

    /// The last event id of this stream; `None` where it gave none.
    pub fn last_event_id(&self) -> Option<String> {
        Some(self.parser.last_event_id().to_owned()).filter(|id| !id.is_empty())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn said(error: std::io::Error) -> String {
    error.to_string()
}

/// A runtime for thousands, and no other test has one meanwhile.
pub struct Crowd {
    runtime: Runtime,
    _alone: File,
}

impl Deref for Crowd {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        &self.runtime
    }
}

/// Crowds come one at a time: two are more than a small machine has descriptors and time for. It waits for those
/// of other test processes too; what they all lock is the folder that their files are in.
pub fn crowd() -> Crowd {
    let alone = File::open(std::env::temp_dir()).unwrap();
    while let Err(error) = flock(&alone, FlockOperation::LockExclusive) {
        assert_eq!(error, Errno::INTR, "no lock");
    }
    Crowd { runtime: runtime(), _alone: alone }
}

/// A runtime with as many descriptors as this process, and what it starts, may have.
pub fn runtime() -> Runtime {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = setrlimit(Resource::Nofile, raised);
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
