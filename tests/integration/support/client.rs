//! An SSE client that speaks raw HTTP and reads with the specification's parser.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use ssegate::sse::parse::{Event, Item, Parser};

use super::{DEADLINE, read};

/// One stream.
pub struct Client {
    stream: TcpStream,
    parser: Parser,
    items: VecDeque<Item>,
    /// Undecoded bytes of the body.
    raw: Vec<u8>,
    chunked: bool,
    /// The body ended as HTTP wants it.
    pub complete: bool,
    /// How the connection ended.
    closed: Option<String>,
    /// The head of the response.
    pub head: String,
}

impl Client {
    /// Opens a stream, which has to be accepted.
    pub fn open(address: &str, path: &str) -> Self {
        Self::with(address, path, &[])
    }

    /// Resumes by header.
    pub fn resume(address: &str, path: &str, last_event_id: &str) -> Self {
        Self::with(address, path, &[("Last-Event-ID", last_event_id)])
    }

    /// Opens a stream with further headers.
    pub fn with(address: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let headers: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let headers = headers.concat();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{headers}\r\n");
        let client = Self::raw(address, &request);
        assert!(client.head.starts_with("HTTP/1.1 200 "), "{}", client.head);
        client
    }

    /// Opens a stream over a connection whose kernel takes little ahead of the reader.
    pub fn with_small_window(address: &str, path: &str) -> Self {
        Self::with_small_window_and(address, path, "")
    }

    /// The same with further lines in the head.
    pub fn with_small_window_and(address: &str, path: &str, headers: &str) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        Self::raw_with_small_window(address, &request)
    }

    /// The same with a request as it is.
    pub fn raw_with_small_window(address: &str, request: &str) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let address: std::net::SocketAddr = address.parse().unwrap();
        socket.connect(&address.into()).unwrap();
        Self::over(socket.into(), request)
    }

    /// Sends these bytes and reads the head of the response.
    pub fn raw(address: &str, request: &str) -> Self {
        Self::over(TcpStream::connect(address).unwrap(), request)
    }

    pub fn over(mut stream: TcpStream, request: &str) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            assert_eq!(
                read(&mut stream, &mut byte).unwrap(),
                1,
                "no head: {}",
                String::from_utf8_lossy(&head)
            );
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Self {
            stream,
            parser: Parser::new(),
            items: VecDeque::new(),
            raw: Vec::new(),
            chunked,
            complete: false,
            closed: None,
            head,
        }
    }

    /// The next event or comment; `None` at the end of the stream or after `wait`.
    pub fn next_within(&mut self, wait: Duration) -> Option<Item> {
        let end = Instant::now() + wait;
        loop {
            if let Some(item) = self.items.pop_front() {
                return Some(item);
            }
            let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            if self.closed.is_some() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            self.read_some();
        }
    }

    fn read_some(&mut self) {
        let mut bytes = vec![0; 64 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => {
                self.closed = Some(format!("its end, {} bytes undecoded", self.raw.len()));
                self.complete |= !self.chunked;
            }
            Ok(length) => {
                self.raw.extend_from_slice(&bytes[..length]);
                self.decode();
            }
            // A read with a time limit is interrupted where the process was stopped and goes on.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) => self.closed = Some(error.to_string()),
        }
    }

    fn decode(&mut self) {
        let mut items = Vec::new();
        if !self.chunked {
            let body = std::mem::take(&mut self.raw);
            self.parser.feed(&body, &mut items).unwrap();
            self.items.extend(items);
            return;
        }
        while let Some(line) = self.raw.windows(2).position(|pair| pair == b"\r\n") {
            let size = std::str::from_utf8(&self.raw[..line]).unwrap();
            let size = usize::from_str_radix(size, 16).expect("a chunk's size");
            let end = line + 2 + size + 2;
            if self.raw.len() < end {
                break;
            }
            assert_eq!(&self.raw[end - 2..end], b"\r\n", "a chunk ends with CRLF");
            self.parser.feed(&self.raw[line + 2..end - 2], &mut items).unwrap();
            self.raw.drain(..end);
            if size == 0 {
                self.complete = true;
                self.closed = Some("the last chunk".into());
            }
        }
        self.items.extend(items);
    }

    /// The next event of any type.
    #[track_caller]
    pub fn event(&mut self) -> Event {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.next_within(left) {
                Some(Item::Event(event)) => return event,
                Some(Item::Comment(_)) => {}
                None => panic!("no event came; closed: {:?}", self.closed),
            }
        }
    }

    /// The next event that is an entry's.
    #[track_caller]
    pub fn entry(&mut self) -> Event {
        loop {
            let event = self.event();
            if event.event_type != "ssegate" {
                return event;
            }
        }
    }

    /// The next control event, its data parsed; entries before it are an error.
    #[track_caller]
    pub fn control(&mut self) -> (serde_json::Value, String) {
        let event = self.event();
        assert_eq!(event.event_type, "ssegate", "an entry came first: {event:?}");
        (serde_json::from_str(&event.data).unwrap(), event.last_event_id)
    }

    /// The `live` mark: how many were replayed, and its id.
    #[track_caller]
    pub fn live(&mut self) -> (u64, String) {
        let (control, id) = self.control();
        assert_eq!(control["type"], "live", "{control}");
        (control["replayed"].as_u64().unwrap(), id)
    }

    /// Waits for this comment.
    #[track_caller]
    pub fn comment(&mut self, text: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.next_within(left) {
                Some(Item::Comment(comment)) if comment == text => return,
                Some(_) => {}
                None => panic!("no comment {text:?} came; closed: {:?}", self.closed),
            }
        }
    }

    /// Everything up to the end of the stream.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<Item> {
        let mut rest = Vec::new();
        let end = Instant::now() + DEADLINE;
        while !(self.closed.is_some() && self.items.is_empty()) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the stream did not end");
            rest.extend(self.next_within(left));
        }
        rest
    }

    /// Whether the stream has ended, and all of it was read.
    pub fn has_ended(&self) -> bool {
        self.closed.is_some() && self.items.is_empty()
    }

    /// The server's `retry:`.
    pub fn reconnection_time(&self) -> Option<Duration> {
        self.parser.reconnection_time()
    }

    /// The last event id so far.
    pub fn last_event_id(&self) -> String {
        self.parser.last_event_id().to_owned()
    }

    /// Writes to the server what it does not expect.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Leaves.
    pub fn leave(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
