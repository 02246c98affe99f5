//! The floor: the least that any fan-out on this kernel must do. One thread, one epoll, and one
//! connection with an `XREAD` for each stream key; an event is encoded once and sent with one
//! `send(2)` per client. Of a request only the number of its key is read, nothing is kept for
//! replay, no client is counted. It runs in a process of its own, so that its CPU time is its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use socket2::{Domain, Socket, Type};

use crate::entry::leading_number;
use crate::merged;
use crate::redis::{Redis, Reply, key};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-cache, no-transform\r\nConnection: close\r\n\
    Transfer-Encoding: chunked\r\n\r\n";

const BACKLOG: i32 = 4096;

/// Names the listener in epoll, where a key is named by its number.
const LISTENER: u64 = u64::MAX;

/// What is served, and by how many.
#[derive(Clone, clap::Args)]
pub(crate) struct Settings {
    pub(crate) address: SocketAddr,
    /// Each has its own clients and its own connections to Redis.
    pub(crate) threads: u64,
    pub(crate) keys: u64,
    pub(crate) redis: PathBuf,
    /// The keys are values of one stream's second field: each entry is for the clients of one.
    #[arg(long)]
    pub(crate) selects: bool,
}

/// Serves until killed.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let address = settings.address;
    let listener =
        listen(address).with_context(|| format!("the floor cannot listen on {address}"))?;
    thread::scope(|scope| {
        let serve = || Floor::new(settings)?.serve(&listener);
        for _ in 1..settings.threads {
            scope.spawn(serve);
        }
        serve()
    })
}

/// A queue as long as the gateway's: from a full one the kernel drops new connections, for a second.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    listener.bind(&address.into())?;
    listener.listen(BACKLOG)?;
    // Several threads may wake for one client; those that come too late must not block.
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

struct Floor {
    epoll: OwnedFd,
    topics: Vec<Topic>,
    selects: bool,
}

/// A stream key, its connection, and its clients.
struct Topic {
    key: String,
    /// The type of its events, which says of which stream they are.
    name: String,
    redis: Redis,
    /// By the value that they select; else all together.
    clients: Vec<Vec<TcpStream>>,
}

impl Floor {
    fn new(settings: &Settings) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut topics = Vec::new();
        let (keys, values) = if settings.selects { (1, settings.keys) } else { (settings.keys, 1) };
        for nth in 0..keys {
            let redis = Redis::connect(&settings.redis)?;
            let socket = redis.socket.get_ref();
            epoll::add(&epoll, socket, EventData::new_u64(nth), EventFlags::IN)?;
            let clients = (0..values).map(|_| Vec::new()).collect();
            let name = format!("{nth}.message");
            let mut topic = Topic { key: key(nth), name, redis, clients };
            topic.ask(b"0-0")?;
            topics.push(topic);
        }
        Ok(Self { epoll, topics, selects: settings.selects })
    }

    fn serve(mut self, listener: &TcpListener) -> Result<()> {
        epoll::add(&self.epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let mut events = Vec::with_capacity(256);
        loop {
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), None)?;
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept(listener)?,
                    nth => self.topics[usize::try_from(nth)?].deliver()?,
                }
            }
        }
    }

    /// Our clients send their request, in one piece, as soon as they are connected.
    fn accept(&mut self, listener: &TcpListener) -> Result<()> {
        let mut socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("the floor cannot accept"),
        };
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut request = [0; 4096];
        let count = socket.read(&mut request).unwrap_or_default();
        let several = merged::requested(&request[..count]);
        let one = || requested(&request[..count], self.selects).map(|nth| vec![nth]);
        let Some(streams) = several.or_else(one) else { return Ok(()) };
        if socket.write_all(HEAD).is_ok() {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            for nth in streams {
                let (topic, value) = if self.selects { (0, nth) } else { (nth, 0) };
                let topic = self.topics.get_mut(topic).context("no such stream key")?;
                let socket = socket.try_clone()?;
                topic.clients.get_mut(value).context("no such value")?.push(socket);
            }
        }
        Ok(())
    }
}

/// The number of the stream key, or of the value that is selected of it.
fn requested(request: &[u8], selects: bool) -> Option<usize> {
    let (mut nth, rest) = leading_number(request.strip_prefix(b"GET /events/")?)?;
    if selects {
        (nth, _) = leading_number(rest.strip_prefix(b"?tenant=")?)?;
    }
    usize::try_from(nth).ok()
}

impl Topic {
    fn ask(&mut self, cursor: &[u8]) -> Result<()> {
        ask(&mut self.redis, &self.key, cursor)
    }

    fn deliver(&mut self) -> Result<()> {
        let (clients, name) = (&mut self.clients, self.name.as_str());
        let cursor = take(&mut self.redis, name, |event, value| {
            let value = if clients.len() == 1 { Some(0) } else { value };
            let Some(clients) = value.and_then(|value| clients.get_mut(value)) else { return };
            let event = [format!("{:x}\r\n", event.len()).as_bytes(), &event, b"\r\n"].concat();
            clients.retain_mut(|client| send(client, &event).is_ok());
        })?;
        self.ask(&cursor)
    }
}

/// Each event of the first stream key, for ever.
pub(crate) fn each_event(redis: &Path, mut serve: impl FnMut(Vec<u8>)) -> Result<()> {
    let mut redis = Redis::connect(redis)?;
    let mut cursor = b"0-0".to_vec();
    loop {
        ask(&mut redis, &key(0), &cursor)?;
        cursor = take(&mut redis, "message", |event, _| serve(event))?;
    }
}

fn ask(redis: &mut Redis, key: &str, cursor: &[u8]) -> Result<()> {
    let words = [b"XREAD".as_slice(), b"COUNT", b"500", b"BLOCK", b"0", b"STREAMS"];
    redis.queue(&[&words[..], &[key.as_bytes(), cursor]].concat());
    redis.flush()
}

/// Serves each event of the reply, and the number in its second field; the last id.
fn take(
    redis: &mut Redis,
    name: &str,
    mut serve: impl FnMut(Vec<u8>, Option<usize>),
) -> Result<Vec<u8>> {
    let reply = redis.reply()?;
    let mut cursor = Vec::new();
    for entry in reply.array().filter_map(|stream| stream.array().nth(1)).flat_map(Reply::array) {
        let mut parts = entry.array();
        cursor = parts.next().map(Reply::text).unwrap_or_default();
        let mut fields = parts.next().map(Reply::array).into_iter().flatten();
        let payload = fields.nth(1).map(Reply::text).unwrap_or_default();
        let value = fields.nth(1).map(Reply::text);
        let value = value.and_then(|value| leading_number(&value).map(|(value, _)| value));
        serve(encode(&cursor, name, &payload), value.and_then(|value| usize::try_from(value).ok()));
    }
    Ok(cursor)
}

fn encode(id: &[u8], name: &str, payload: &[u8]) -> Vec<u8> {
    [b"id: ", id, b"\nevent: ", name.as_bytes(), b"\ndata: ", payload, b"\n\n"].concat()
}

/// One `send(2)`; only a client whose socket is full costs more, and all others wait for it.
fn send(socket: &mut TcpStream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(&*socket, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
