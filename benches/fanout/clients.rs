//! The viewers: one thread with many connections, in a process of its own. Says `ready` on
//! standard output when every client has its response head, and at the end one line of JSON: what
//! arrived, what was missing, and when.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use serde_json::json;

use crate::entry;
use crate::latency::Histogram;

const REQUEST: &[u8] = b"GET /events/bench HTTP/1.1\r\nHost: localhost\r\n\
    Accept: text/event-stream\r\n\r\n";

/// Connections whose heads are awaited together: fewer than any listener's backlog.
const WAVE: u64 = 100;

/// Without anything new for this long, what is missing stays missing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listened for after the last entry, so that a doubled one does not go unseen.
const AFTERMATH: Duration = Duration::from_millis(200);

struct Client {
    socket: TcpStream,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    has_head: bool,
    /// The number that the next entry must have.
    next: u64,
}

/// What all clients together have seen.
#[derive(Default)]
struct Tally {
    heads: u64,
    delivered: u64,
    missing: u64,
    doubled: u64,
    gaps: u64,
    closed: u64,
    first_fault: Option<String>,
    first_sent_ns: Option<u64>,
    last_received_ns: u64,
    latency: Histogram,
}

struct Clients {
    epoll: OwnedFd,
    all: Vec<Client>,
    tally: Tally,
    scratch: Vec<u8>,
}

/// Opens `count` streams and reads `events` entries from each.
pub(crate) fn run(address: SocketAddr, count: u64, events: u64) -> Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let (tally, scratch) = (Tally::default(), vec![0; 64 << 10]);
    let mut clients = Clients { epoll, all: Vec::new(), tally, scratch };
    for opened in 1..=count {
        clients.open(address).with_context(|| format!("client {opened} cannot connect"))?;
        if opened % WAVE == 0 || opened == count {
            clients.receive_until(PATIENCE, |tally| tally.heads == opened)?;
        }
    }
    if let Some(fault) = clients.tally.first_fault {
        bail!("{} of {count} clients got a response head: {fault}", clients.tally.heads);
    }
    println!("ready");
    clients.receive_until(PATIENCE, |tally| tally.delivered >= count * events)?;
    clients.receive_until(AFTERMATH, |_| false)?;
    println!("{}", clients.report(events));
    Ok(())
}

impl Clients {
    fn open(&mut self, address: SocketAddr) -> Result<()> {
        let mut socket = TcpStream::connect(address)?;
        // A reset at the end leaves no port behind in TIME_WAIT for the next run.
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        socket.write_all(REQUEST)?;
        socket.set_nonblocking(true)?;
        let index = EventData::new_u64(self.all.len() as u64);
        epoll::add(&self.epoll, &socket, index, EventFlags::IN)?;
        self.all.push(Client { socket, partial: Vec::new(), has_head: false, next: 0 });
        Ok(())
    }

    /// Returns when `done`, or when nothing new came for as long as `patience`.
    fn receive_until(&mut self, patience: Duration, done: impl Fn(&Tally) -> bool) -> Result<()> {
        let mut before = u64::MAX;
        let mut since = Instant::now();
        while !done(&self.tally) && since.elapsed() < patience {
            let seen = self.tally.heads + self.tally.delivered;
            if seen != before {
                (before, since) = (seen, Instant::now());
            }
            self.turn()?;
        }
        Ok(())
    }

    /// One round of epoll; comes back within a tenth of a second.
    fn turn(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(1024);
        let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout))?;
        for event in &events {
            let client = &mut self.all[usize::try_from(event.data.u64())?];
            let ended = match client.socket.read(&mut self.scratch) {
                Ok(0) => "the server closed a stream".to_owned(),
                Ok(count) => {
                    self.tally.take(client, &self.scratch[..count]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => format!("a stream broke: {error}"),
            };
            epoll::delete(&self.epoll, &client.socket)?;
            self.tally.closed += 1;
            self.tally.fault(|| ended);
        }
        Ok(())
    }

    fn report(&self, events: u64) -> serde_json::Value {
        let never: u64 = self.all.iter().map(|client| events.saturating_sub(client.next)).sum();
        let Tally { delivered, doubled, gaps, closed, first_fault, latency, .. } = &self.tally;
        let first_sent_ns = self.tally.first_sent_ns;
        let elapsed_ns =
            self.tally.last_received_ns.saturating_sub(first_sent_ns.unwrap_or_default());
        json!({
            "delivered": delivered,
            "missing": self.tally.missing + never,
            "doubled": doubled,
            "gaps": gaps,
            "closed": closed,
            "first_fault": first_fault,
            "seconds": elapsed_ns as f64 / 1e9,
            "p50_ms": latency.quantile_ms(0.5),
            "p99_ms": latency.quantile_ms(0.99),
            "p999_ms": latency.quantile_ms(0.999),
        })
    }
}

impl Tally {
    /// Cuts what one client received into lines. Chunk frames are lines too, which mean nothing:
    /// that no chunk ends within a line is assumed, and an entry that is cut counts as missing.
    fn take(&mut self, client: &mut Client, mut bytes: &[u8]) {
        let now_ns = entry::now_ns();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            if client.partial.is_empty() {
                self.line(client, &bytes[..end], now_ns);
            } else {
                let mut line = std::mem::take(&mut client.partial);
                line.extend_from_slice(&bytes[..end]);
                self.line(client, &line, now_ns);
            }
            bytes = &bytes[end + 1..];
        }
        client.partial.extend_from_slice(bytes);
    }

    fn line(&mut self, client: &mut Client, line: &[u8], now_ns: u64) {
        if client.has_head {
            let Some(data) = line.strip_prefix(b"data: ") else { return };
            match entry::decode(data) {
                Some((number, sent_ns)) => self.entry(client, number, sent_ns, now_ns),
                None => self.control(&String::from_utf8_lossy(data)),
            }
        } else if line == b"\r" {
            client.has_head = true;
            self.heads += 1;
        } else if line.starts_with(b"HTTP/") && !line.starts_with(b"HTTP/1.1 200 ") {
            self.fault(|| String::from_utf8_lossy(line).trim().to_owned());
        }
    }

    fn entry(&mut self, client: &mut Client, number: u64, sent_ns: u64, now_ns: u64) {
        let due = client.next;
        if number < due {
            self.doubled += 1;
            return self.fault(|| format!("entry {number} again, or late: {due} is due"));
        }
        if number > due {
            self.missing += number - due;
            self.fault(|| format!("entry {number} came where {due} is due"));
        }
        client.next = number + 1;
        self.delivered += 1;
        self.first_sent_ns.get_or_insert(sent_ns);
        self.last_received_ns = now_ns;
        self.latency.record(now_ns.saturating_sub(sent_ns));
    }

    fn control(&mut self, data: &str) {
        if !data.contains(r#""type":"live""#) {
            self.gaps += 1;
            self.fault(|| format!("a stream said {data}"));
        }
    }

    fn fault(&mut self, describe: impl FnOnce() -> String) {
        self.first_fault.get_or_insert_with(describe);
    }
}
