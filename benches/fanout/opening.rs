//! Streams that are opened in quick succession: a new stream key for each, and one client, which leaves with its
//! first entry.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::clients::{ARRIVING, request};
use crate::entry;
use crate::latency::Histogram;
use crate::many::Connections;
use crate::measure::check;
use crate::processes::{Scratch, free_address};
use crate::redis::{Redis, cpu_seconds, key};
use crate::tally::{Progress, Tally};

const PAYLOAD_BYTES: usize = 100;
/// When nothing happens, it is looked so often whether a client is due.
const LOOK_NANOSECONDS: i64 = 500_000;
/// Without anything new for this long, the run has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// One run.
pub(crate) struct Opening {
    pub(crate) keys_per_second: f64,
    /// From connecting to the response head, when the stream is live.
    pub(crate) head_p50_ms: f64,
    pub(crate) head_p99_ms: f64,
    /// From just before the `XADD`, which follows the head, to just after the client's `recv`.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// First entries that took longer than a second.
    pub(crate) late: f64,
    pub(crate) gateway_ms_per_key: f64,
    pub(crate) redis_ms_per_key: f64,
}

/// The clients, by the number of their stream key.
struct Clients {
    address: SocketAddr,
    epoll: OwnedFd,
    all: Vec<Option<Client>>,
    tally: Tally,
    heads: Histogram,
    /// Takes the keys whose clients are live.
    live: mpsc::Sender<u64>,
    scratch: Vec<u8>,
}

struct Client {
    socket: TcpStream,
    progress: Progress,
    opened_ns: u64,
}

/// Opens `rate` streams in each of so many `seconds`.
pub(crate) fn measure(
    scratch: &Scratch,
    connections: Connections,
    rate: u64,
    seconds: u64,
) -> Result<Opening> {
    entry::clear(&scratch.redis())?;
    let address = free_address()?;
    let gateway = scratch.start_gateway_of_many_keys(address, connections)?;
    let keys = rate * seconds;
    let (cpu, redis_cpu) = (gateway.cpu()?, cpu_seconds(&scratch.redis())?);
    let began = Instant::now();
    let (report, heads) = thread::scope(|scope| {
        let (live, live_keys) = mpsc::channel();
        let writer = scope.spawn(move || add_first_entries(&scratch.redis(), &live_keys));
        let mut clients = Clients::new(address, live)?;
        let opened = clients.open_all(keys, rate);
        let Clients { tally, heads, live, .. } = clients;
        drop(live);
        writer.join().expect("no panic")?;
        opened.map(|()| (tally.report(), heads))
    })
    .with_context(|| format!("the gateway said: {}", gateway.log()))?;
    check(&report)?;
    let took = began.elapsed();
    let number = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
    Ok(Opening {
        keys_per_second: keys as f64 / took.as_secs_f64(),
        head_p50_ms: heads.quantile_ms(0.5),
        head_p99_ms: heads.quantile_ms(0.99),
        p50_ms: number("p50_ms"),
        p99_ms: number("p99_ms"),
        late: number("late"),
        gateway_ms_per_key: gateway.cpu()?.since(cpu).total * 1e3 / keys as f64,
        redis_ms_per_key: (cpu_seconds(&scratch.redis())? - redis_cpu) * 1e3 / keys as f64,
    })
}

/// Adds an entry to each key whose client is live.
fn add_first_entries(redis: &Path, live: &mpsc::Receiver<u64>) -> Result<()> {
    let mut redis = Redis::connect(redis)?;
    while let Ok(first) = live.recv() {
        let mut unanswered = 0;
        for nth in std::iter::once(first).chain(live.try_iter()) {
            let payload = entry::encode(0, PAYLOAD_BYTES);
            let words = ["XADD", &key(nth), "*", "payload", &payload];
            redis.queue(&words.map(str::as_bytes));
            unanswered += 1;
        }
        redis.flush()?;
        for _ in 0..unanswered {
            redis.reply()?;
        }
    }
    Ok(())
}

impl Clients {
    fn new(address: SocketAddr, live: mpsc::Sender<u64>) -> Result<Self> {
        Ok(Self {
            address,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            all: Vec::new(),
            tally: Tally::new(1),
            heads: Histogram::default(),
            live,
            scratch: vec![0; 4 << 10],
        })
    }

    /// Opens each when it is due, while few others wait for their heads, and returns when all have their entries.
    fn open_all(&mut self, keys: u64, rate: u64) -> Result<()> {
        let began = Instant::now();
        let (mut seen, mut since) = (0, began);
        while self.tally.delivered < keys {
            let due = u64::try_from(began.elapsed().as_micros())? * rate / 1_000_000;
            while self.opened() < keys.min(due).min(self.tally.heads + ARRIVING) {
                self.open()?;
            }
            self.turn()?;
            if let Some(fault) = &self.tally.first_fault {
                bail!("of {} streams one failed: {fault}", self.opened());
            }
            let news = self.tally.heads + self.tally.delivered;
            if news != seen {
                (seen, since) = (news, Instant::now());
            }
            let Tally { heads, delivered, .. } = self.tally;
            ensure!(
                since.elapsed() < PATIENCE,
                "of {heads} live streams {delivered} got their entry"
            );
        }
        Ok(())
    }

    fn opened(&self) -> u64 {
        self.all.len() as u64
    }

    fn open(&mut self) -> Result<()> {
        let (nth, opened_ns) = (self.opened(), entry::now_ns());
        let mut socket = TcpStream::connect(self.address).context("cannot connect")?;
        // A reset at the end leaves no port behind in TIME_WAIT.
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        socket.write_all(request(nth).as_bytes())?;
        epoll::add(&self.epoll, &socket, EventData::new_u64(nth), EventFlags::IN)?;
        self.all.push(Some(Client { socket, progress: Progress::new(0, 0), opened_ns }));
        Ok(())
    }

    fn turn(&mut self) -> Result<()> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: LOOK_NANOSECONDS };
        let mut events = Vec::with_capacity(1024);
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout))?;
        for event in &events {
            self.receive(event.data.u64())?;
        }
        Ok(())
    }

    /// What came for one client: with its head the entry is asked for, with the entry it leaves.
    fn receive(&mut self, nth: u64) -> Result<()> {
        let place = &mut self.all[usize::try_from(nth)?];
        let Some(client) = place else { return Ok(()) };
        let (heads, delivered) = (self.tally.heads, self.tally.delivered);
        match recv(&client.socket, &mut self.scratch[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.tally.ended(|| "the server closed a stream".to_owned()),
            Ok((count, _)) => self.tally.take(&mut client.progress, &self.scratch[..count]),
            Err(Errno::AGAIN) => {}
            Err(error) => self.tally.ended(|| format!("a stream broke: {error}")),
        }
        if self.tally.heads > heads {
            self.heads.record(entry::now_ns().saturating_sub(client.opened_ns));
            // A writer that is gone has failed, and says why.
            let _ = self.live.send(nth);
        }
        if self.tally.delivered > delivered {
            *place = None;
        }
        Ok(())
    }
}
