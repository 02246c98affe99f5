//! The viewers: many connections to a thread, few threads, in a process of its own. Says on
//! standard output how long they took to arrive, when every client has its response head, and at
//! the end one line of JSON: what came, what was missing, and when.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::entry;
use crate::merged;
use crate::multiplexed::Connection;
use crate::scenario::Past;
use crate::tally::{Progress, Tally};

/// Connections of a thread that wait for their heads at one time: fewer than any listener's
/// backlog, and enough that the server is never without one.
pub(crate) const ARRIVING: u64 = 200;

/// Without anything new for this long, nothing more arrives.
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(10);

/// Listened for after the last entry, so that a doubled one does not go unseen.
const AFTERMATH: Duration = Duration::from_millis(200);

/// The clients that come, and what each must get.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Crowd {
    pub(crate) address: SocketAddr,
    pub(crate) clients: u64,
    /// The number of the first stream key.
    pub(crate) first_key: u64,
    pub(crate) keys: u64,
    /// Entries for each client.
    pub(crate) events: u64,
    /// The number of the first of them.
    pub(crate) first: u64,
    pub(crate) threads: u64,
    /// Without a new entry for so many seconds, what is missing stays missing.
    pub(crate) patience_seconds: u64,
    /// Of each connection over HTTP/2; zero: over HTTP/1, which has one.
    pub(crate) streams: u64,
    /// The route conflates: those that are behind may be spared entries.
    #[arg(long)]
    pub(crate) conflated: bool,
    /// The stream keys are values of one stream's field, by which clients select.
    #[arg(long)]
    pub(crate) selects: bool,
    /// Each follows several streams.
    #[arg(long)]
    pub(crate) merges: bool,
}

/// The clients of one thread.
struct Clients {
    crowd: Crowd,
    epoll: OwnedFd,
    all: Vec<Viewer>,
    tally: Tally,
    scratch: Vec<u8>,
}

/// A connection and what came over it.
enum Viewer {
    One(TcpStream, Progress),
    Many(Connection),
}

/// Opens all streams, and reads each to its last entry.
pub(crate) fn run(crowd: Crowd) -> Result<()> {
    let began = Instant::now();
    let arrived = in_threads(0..crowd.threads, |nth| Clients::arrive(crowd, nth))?;
    println!("{}", began.elapsed().as_secs_f64());
    let mut tallies = in_threads(arrived, Clients::read_all)?.into_iter();
    let mut tally = tallies.next().context("there must be a thread")?;
    tallies.for_each(|other| tally.add(other));
    println!("{}", tally.report());
    Ok(())
}

/// Clients that come back with as many different ids of the past, and read on from there for `seconds`:
/// what they are sent must be in order.
pub(crate) fn come_back(address: SocketAddr, past: Past, seconds: u64) -> Result<()> {
    let crowd = Crowd {
        address,
        clients: past.clients,
        first_key: 0,
        keys: 1,
        events: 0,
        first: 0,
        threads: 1,
        patience_seconds: seconds,
        streams: 0,
        conflated: false,
        selects: false,
        merges: false,
    };
    let mut clients = Clients::new(crowd)?;
    for index in 0..past.clients {
        let had = 1 + index * (past.entries - 1) / past.clients;
        clients.connect(&entry::past_request(past, had), Progress::new(0, had))?;
    }
    println!("{}", past.clients);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        clients.turn()?;
    }
    println!("{}", clients.tally.report());
    Ok(())
}

/// Each of `items` in a thread of its own.
fn in_threads<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    thread::scope(|scope| {
        let spawn = |item| scope.spawn(|| work(item));
        let threads: Vec<_> = items.into_iter().map(spawn).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread of the clients panicked"),
        };
        threads.into_iter().map(join).collect()
    })
}

impl Clients {
    fn new(crowd: Crowd) -> Result<Self> {
        let mut tally = Tally::new(usize::try_from(crowd.keys)?);
        tally.may_be_spared = crowd.conflated;
        Ok(Self {
            crowd,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            all: Vec::new(),
            tally,
            scratch: vec![0; 64 << 10],
        })
    }

    /// Every `threads`th client, from the `nth` on.
    fn arrive(crowd: Crowd, nth: u64) -> Result<Self> {
        let mut clients = Self::new(crowd)?;
        let mut opened = 0;
        while crowd.streams > 0 && opened < crowd.clients {
            clients.connect_many(crowd.streams)?;
            opened += crowd.streams;
            clients.receive_until(ARRIVAL_PATIENCE, |tally| tally.heads == opened)?;
        }
        for index in (nth + opened..crowd.clients).step_by(usize::try_from(crowd.threads)?) {
            let (request, progress) = crowd.client(index)?;
            clients.connect(&request, progress).with_context(|| format!("client {index}"))?;
            opened += 1;
            let few_wait = |tally: &Tally| tally.heads + ARRIVING > opened;
            clients.receive_until(ARRIVAL_PATIENCE, few_wait)?;
            if !few_wait(&clients.tally) {
                break;
            }
        }
        clients.receive_until(ARRIVAL_PATIENCE, |tally| tally.heads == opened)?;
        let Tally { heads, first_fault, .. } = &clients.tally;
        if *heads < opened || first_fault.is_some() {
            let fault = first_fault.as_deref().unwrap_or("the others wait in vain");
            bail!("{heads} of {opened} clients got a response head: {fault}");
        }
        Ok(clients)
    }

    /// On loopback a connection is made within the call, however busy the server is: there is
    /// nothing to wait for.
    fn connect(&mut self, request: &str, progress: Progress) -> Result<()> {
        let mut socket = TcpStream::connect(self.crowd.address).context("cannot connect")?;
        // A reset at the end leaves no port behind in TIME_WAIT for the next run.
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        socket.write_all(request.as_bytes())?;
        self.add(Viewer::One(socket, progress))
    }

    /// A connection with so many streams.
    fn connect_many(&mut self, streams: u64) -> Result<()> {
        let socket = TcpStream::connect(self.crowd.address).context("cannot connect")?;
        self.add(Viewer::Many(Connection::open(socket, streams)?))
    }

    fn add(&mut self, viewer: Viewer) -> Result<()> {
        let index = EventData::new_u64(self.all.len() as u64);
        epoll::add(&self.epoll, viewer.socket(), index, EventFlags::IN)?;
        self.all.push(viewer);
        Ok(())
    }

    fn read_all(mut self) -> Result<Tally> {
        let Crowd { events, first, .. } = self.crowd;
        let streams = || self.all.iter().flat_map(Viewer::streams);
        let of_each = if self.crowd.merges { merged::PARTS } else { 1 };
        let expected = streams().count() as u64 * of_each * events;
        let patience = Duration::from_secs(self.crowd.patience_seconds);
        self.receive_until(patience, |tally| tally.delivered >= expected)?;
        self.receive_until(AFTERMATH, |_| false)?;
        let streams = self.all.iter().flat_map(Viewer::streams);
        let never = streams.map(|client| client.never_came(first + events)).sum();
        self.tally.never_came(never);
        Ok(self.tally)
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
        let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let mut events = Vec::with_capacity(1024);
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout))?;
        for event in &events {
            let (socket, client) = match &mut self.all[usize::try_from(event.data.u64())?] {
                Viewer::One(socket, client) => (socket, client),
                Viewer::Many(connection) => {
                    if !connection.read(&mut self.scratch, &mut self.tally)? {
                        bail!("the server closed a connection");
                    }
                    continue;
                }
            };
            match recv(&*socket, &mut self.scratch[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.tally.ended(|| "the server closed a stream".to_owned()),
                Ok((count, _)) => {
                    self.tally.take(client, &self.scratch[..count]);
                    continue;
                }
                Err(Errno::AGAIN) => continue,
                Err(error) => self.tally.ended(|| format!("a stream broke: {error}")),
            }
            epoll::delete(&self.epoll, &*socket)?;
        }
        Ok(())
    }
}

impl Viewer {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::One(socket, _) => socket,
            Self::Many(connection) => connection.socket(),
        }
    }

    fn streams(&self) -> &[Progress] {
        match self {
            Self::One(_, client) => std::slice::from_ref(client),
            Self::Many(connection) => connection.streams(),
        }
    }
}

impl Crowd {
    /// How the client of this number asks, and what it is to get.
    fn client(&self, number: u64) -> Result<(String, Progress)> {
        let key = number % self.keys;
        if self.merges {
            let streams = merged::streams_of(number, self.keys);
            let progress = Progress::of_several(&streams, self.first);
            return Ok((merged::request(&streams), progress));
        }
        let progress = Progress::new(usize::try_from(key)?, self.first);
        let request = if self.selects {
            request(format_args!("{}?tenant={key}", self.first_key))
        } else {
            request(self.first_key + key)
        };
        Ok((request, progress))
    }
}

pub(crate) fn request(key: impl std::fmt::Display) -> String {
    format!("GET /events/{key} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
}
