//! HTTP/2 on the wire, frame by frame: a client that can be told to behave badly, and on top of it one
//! that reads streams as it should.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use ssegate::sse::parse::{Event, Item, Parser};

use super::DEADLINE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The largest frame that every server takes.
const FRAME_BYTES: usize = 1 << 14;

pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// Error codes of resets.
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub id: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The number that the payload begins with.
    pub fn code(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }
}

/// A connection, frame by frame.
pub struct Wire<S = TcpStream> {
    pub socket: S,
    input: Vec<u8>,
}

impl Wire {
    /// Connects and says nothing but what it must, and these settings.
    pub fn open(address: &str, settings: &[(u16, u32)]) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        Self::over(socket, settings)
    }
}

impl<S: Read + Write> Wire<S> {
    pub fn over(mut socket: S, settings: &[(u16, u32)]) -> Self {
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut wire = Self { socket, input: Vec::new() };
        let payload = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
        wire.send(SETTINGS, 0, 0, &payload.collect::<Vec<_>>());
        wire
    }

    #[track_caller]
    pub fn send(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        assert!(self.try_send(&frame(kind, flags, id, payload)), "the connection is closed");
    }

    /// Whether the other end still takes it.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// Asks for a path, in as many frames as its head needs.
    pub fn get(&mut self, id: u32, path: &str, headers: &[(&str, &str)]) {
        let head = head(path, headers);
        let last = head.len().div_ceil(FRAME_BYTES) - 1;
        for (nth, part) in head.chunks(FRAME_BYTES).enumerate() {
            let (kind, flags) = if nth == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
            self.send(kind, if nth == last { flags | END_HEADERS } else { flags }, id, part);
        }
    }

    /// The next frame; `None` at the end of the connection, however that comes.
    #[track_caller]
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            let mut bytes = [0; 64 << 10];
            match self.socket.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    panic!("nothing came, and the connection is open")
                }
                Err(_) => return None,
            }
        }
    }

    /// Reads until the other end closes; everything that it said.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.next()).collect()
    }

    fn take(&mut self) -> Option<Frame> {
        let (head, rest) = self.input.split_at_checked(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let id = u32::from_be_bytes(head[5..9].try_into().unwrap());
        let payload = rest.get(..length)?.to_vec();
        let frame = Frame { kind: head[3], flags: head[4], id, payload };
        self.input.drain(..9 + length);
        Some(frame)
    }
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A request's header block, without Huffman codes and tables (RFC 7541): GET and http by their
/// indices, the path and the authority by their names' indices.
pub fn head(path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04];
    block.extend(text(path));
    block.push(0x01);
    block.extend(text("localhost"));
    for (name, value) in headers {
        block.push(0);
        block.extend(text(&name.to_ascii_lowercase()));
        block.extend(text(value));
    }
    block
}

/// A text after its length, of which seven bits are in the first byte (RFC 7541, 5.2).
pub fn text(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.len());
    if rest < 127 {
        bytes.push(u8::try_from(rest).unwrap());
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128 + 128).unwrap());
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Whole,
    Reset(u32),
    /// With its connection.
    Lost,
}

#[derive(Default)]
struct Stream {
    parser: Parser,
    items: VecDeque<Item>,
    status: Option<u16>,
    end: Option<End>,
}

/// A connection whose streams are read with the specification's parser.
pub struct Session<S = TcpStream> {
    pub wire: Wire<S>,
    streams: HashMap<u32, Stream>,
    next_id: u32,
    /// The last stream that the server will answer, once it has said so.
    pub last_answered: Option<u32>,
    is_closed: bool,
}

impl Session {
    pub fn open(address: &str) -> Self {
        Self::over(Wire::open(address, &[(INITIAL_WINDOW_SIZE, 1 << 20)]))
    }
}

impl<S: Read + Write> Session<S> {
    pub fn over(wire: Wire<S>) -> Self {
        Self { wire, streams: HashMap::new(), next_id: 1, last_answered: None, is_closed: false }
    }

    /// Asks for a stream; its id.
    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> u32 {
        let id = self.next_id;
        self.next_id += 2;
        self.streams.insert(id, Stream::default());
        self.wire.get(id, path, headers);
        id
    }

    /// The same, and it must be accepted.
    #[track_caller]
    pub fn stream(&mut self, path: &str) -> u32 {
        let id = self.get(path, &[]);
        assert_eq!(self.status(id), 200);
        id
    }

    /// Asks for a stream, and leaves open whether a body follows; its id.
    pub fn open_request(&mut self, path: &str) -> u32 {
        let id = self.next_id;
        self.next_id += 2;
        self.streams.insert(id, Stream::default());
        self.wire.send(HEADERS, END_HEADERS, id, &head(path, &[]));
        id
    }

    #[track_caller]
    pub fn status(&mut self, id: u32) -> u16 {
        self.pump_until("a head", |session| session.streams[&id].status)
    }

    /// The next event or comment; `None` at the end of the stream.
    #[track_caller]
    pub fn item(&mut self, id: u32) -> Option<Item> {
        self.pump_until("an event", |session| {
            let stream = session.streams.get_mut(&id).unwrap();
            let item = stream.items.pop_front();
            if item.is_none() && stream.end.is_some() { Some(None) } else { item.map(Some) }
        })
    }

    #[track_caller]
    pub fn event(&mut self, id: u32) -> Event {
        loop {
            match self.item(id) {
                Some(Item::Event(event)) => return event,
                Some(Item::Comment(_)) => {}
                None => panic!("stream {id} ended: {:?}", self.streams[&id].end),
            }
        }
    }

    /// The next control event and its id; entries before it are an error.
    #[track_caller]
    pub fn control(&mut self, id: u32) -> (serde_json::Value, String) {
        let event = self.event(id);
        assert_eq!(event.event_type, "ssegate", "an entry came first: {event:?}");
        (serde_json::from_str(&event.data).unwrap(), event.last_event_id)
    }

    #[track_caller]
    pub fn live(&mut self, id: u32) -> u64 {
        let (control, _) = self.control(id);
        assert_eq!(control["type"], "live", "{control}");
        control["replayed"].as_u64().unwrap()
    }

    #[track_caller]
    pub fn comment(&mut self, id: u32, text: &str) {
        while self.item(id).expect("the stream goes on") != Item::Comment(text.into()) {}
    }

    /// How the stream ends; what comes before is left to be read.
    #[track_caller]
    pub fn end(&mut self, id: u32) -> End {
        self.pump_until("an end", |session| session.streams[&id].end)
    }

    /// Returns once the server has closed the connection.
    #[track_caller]
    pub fn closed(&mut self) {
        self.pump_until("the end of the connection", |session| session.is_closed.then_some(()));
    }

    pub fn reconnection_time(&self, id: u32) -> Option<std::time::Duration> {
        self.streams[&id].parser.reconnection_time()
    }

    pub fn reset(&mut self, id: u32) {
        self.wire.send(RST_STREAM, 0, id, &CANCEL.to_be_bytes());
    }

    #[track_caller]
    fn pump_until<T>(&mut self, what: &str, mut of: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = of(self) {
                return found;
            }
            assert!(Instant::now() < end, "not in time: {what}");
            self.pump();
        }
    }

    /// Takes one frame, and answers it as a client should.
    #[track_caller]
    pub fn pump(&mut self) {
        let Some(frame) = self.wire.next() else {
            self.is_closed = true;
            self.streams.values_mut().for_each(|stream| _ = stream.end.get_or_insert(End::Lost));
            return;
        };
        let Frame { kind, flags, id, payload } = &frame;
        match (*kind, self.streams.get_mut(id)) {
            (SETTINGS, _) if flags & ACK == 0 => _ = self.answer(SETTINGS, ACK, 0, &[]),
            (PING, _) if flags & ACK == 0 => _ = self.answer(PING, ACK, 0, payload),
            (GOAWAY, _) => self.last_answered = Some(frame.code()),
            (HEADERS, Some(stream)) => {
                // Those that are in the static table from its 8th place on (RFC 7541, appendix A).
                const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
                let place = usize::from(payload[0]).wrapping_sub(0x88);
                stream.status = Some(KNOWN.get(place).copied().unwrap_or(0));
            }
            (DATA, Some(stream)) => {
                let mut items = Vec::new();
                stream.parser.feed(payload, &mut items).unwrap();
                stream.items.extend(items);
                if !payload.is_empty() {
                    let more = u32::try_from(payload.len()).unwrap().to_be_bytes();
                    self.answer(WINDOW_UPDATE, 0, 0, &more);
                    if flags & END_STREAM == 0 {
                        self.answer(WINDOW_UPDATE, 0, *id, &more);
                    }
                }
            }
            (RST_STREAM, Some(stream)) => _ = stream.end.get_or_insert(End::Reset(frame.code())),
            _ => {}
        }
        let ends = matches!(*kind, DATA | HEADERS) && flags & END_STREAM > 0;
        if let Some(stream) = self.streams.get_mut(id).filter(|_| ends) {
            stream.end.get_or_insert(End::Whole);
        }
    }

    /// A peer that has closed already needs none.
    fn answer(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> bool {
        self.wire.try_send(&frame(kind, flags, id, payload))
    }
}
