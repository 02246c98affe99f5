//! A crowd that comes for one state at once, in a process of its own. Says at the end, on standard output, how long it
//! took until the last of them had all of it.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use serde_json::json;

use crate::redis::Redis;

/// The route of the state, beside the one that all rows have.
pub(crate) const ROUTE: &str = r#"
    [[route]]
    path = "/tables/{name}"
    key = "tables:{name}"
    access = "public"
    snapshot = "state:{name}""#;

/// Nearly 1 MiB as JSON, and one event.
const FIELDS: usize = 1_000;
const VALUE_BYTES: usize = 1_000;

const REQUEST: &[u8] =
    b"GET /tables/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
/// What follows the state.
const LIVE: &[u8] = br#"{"type":"live""#;
/// Connections between two looks at what has come, fewer than any listener's backlog.
const AT_A_TIME: u64 = 100;
/// Without anything new for this long, nothing more arrives.
const PATIENCE: Duration = Duration::from_secs(20);

/// Writes the state, and an entry of its stream.
pub(crate) fn write(redis: &Path) -> Result<()> {
    let mut redis = Redis::connect(redis)?;
    let value = "x".repeat(VALUE_BYTES);
    for nth in 0..FIELDS {
        redis.queue(&[b"HSET", b"state:a", format!("row-{nth}").as_bytes(), value.as_bytes()]);
    }
    redis.queue(&[b"XADD", b"tables:a", b"*", b"payload", b"written"]);
    redis.flush()?;
    for _ in 0..=FIELDS {
        redis.reply()?;
    }
    Ok(())
}

/// How often Redis has read a hash whole.
pub(crate) fn reads(redis: &Path) -> Result<f64> {
    let mut redis = Redis::connect(redis)?;
    redis.queue(&[b"INFO", b"commandstats"]);
    redis.flush()?;
    let text = String::from_utf8_lossy(&redis.reply()?.text()).into_owned();
    let calls = text.lines().find_map(|line| line.strip_prefix("cmdstat_hgetall:calls="));
    let Some((calls, _)) = calls.and_then(|rest| rest.split_once(',')) else { return Ok(0.0) };
    calls.parse().context("not a number of calls")
}

/// One of the crowd.
struct Client {
    socket: TcpStream,
    /// The end of what came last: what is looked for may be cut in two.
    tail: Vec<u8>,
}

struct Crowd {
    epoll: OwnedFd,
    all: Vec<Client>,
    scratch: Vec<u8>,
    bytes: u64,
    level: u64,
}

/// So many clients come at once; all stay until each has the state.
pub(crate) fn run(address: SocketAddr, clients: u64) -> Result<()> {
    let began = Instant::now();
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut crowd =
        Crowd { epoll, all: Vec::new(), scratch: vec![0; 256 << 10], bytes: 0, level: 0 };
    for nth in 1..=clients {
        crowd.connect(address).with_context(|| format!("client {nth}"))?;
        if nth % AT_A_TIME == 0 {
            crowd.turn(Duration::ZERO)?;
        }
    }
    let (mut before, mut since) = (0, Instant::now());
    while crowd.level < clients {
        crowd.turn(Duration::from_millis(100))?;
        if crowd.bytes != before {
            (before, since) = (crowd.bytes, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            bail!("{} of {clients} clients got the state, and then nothing came", crowd.level);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", json!({ "seconds": seconds, "bytes": crowd.bytes }));
    Ok(())
}

impl Crowd {
    fn connect(&mut self, address: SocketAddr) -> Result<()> {
        let mut socket = TcpStream::connect(address).context("cannot connect")?;
        // A reset at the end leaves no port behind in TIME_WAIT for the next run.
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        socket.write_all(REQUEST)?;
        let index = EventData::new_u64(self.all.len() as u64);
        epoll::add(&self.epoll, &socket, index, EventFlags::IN)?;
        self.all.push(Client { socket, tail: Vec::new() });
        Ok(())
    }

    /// One round of epoll.
    fn turn(&mut self, wait: Duration) -> Result<()> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        let mut events = Vec::with_capacity(1024);
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout))?;
        for event in &events {
            let client = &mut self.all[usize::try_from(event.data.u64())?];
            let count = match recv(&client.socket, &mut self.scratch[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => bail!("the server closed a stream before it was level"),
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => continue,
                Err(error) => bail!("a stream broke: {error}"),
            };
            self.bytes += count as u64;
            if client.is_level_with(&self.scratch[..count]) {
                self.level += 1;
                epoll::delete(&self.epoll, &client.socket)?;
            }
        }
        Ok(())
    }
}

impl Client {
    /// The state has no such text in it, and ends with what came just before.
    fn is_level_with(&mut self, bytes: &[u8]) -> bool {
        let near = &bytes[bytes.len().saturating_sub(2 * LIVE.len() + 64)..];
        self.tail.extend_from_slice(near);
        let found = memchr::memmem::find(&self.tail, LIVE).is_some();
        let kept = self.tail.len().saturating_sub(LIVE.len());
        self.tail.drain(..kept);
        found
    }
}
