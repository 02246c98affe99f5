//! Clients that are level with the tail: one task, one loop, one write for each.
//!
//! A pack watches its sockets with an epoll of its own; they are in no other.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use rustix::event::epoll;
use slab::Slab;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::follower::{Begin, Place, follow};
use super::signal::{Signal, last_words};
use super::socket::{Input, watched};
use super::wire::{Spot, age_ms, now_ms};
use super::{Arrivals, Client, Fanout, Socket, View, farewell};
use crate::event::Control;
use crate::metrics::Left;
use crate::topic::{Batch, Reader, Topic};

/// Writes between two looks at the rest of the world.
const WRITES_PER_TURN: usize = 256;
/// Pending batches are written together up to about this, so that a socket's buffer takes them.
const PASS_BYTES: usize = 64 << 10;
/// Sockets heard of in one turn.
const EVENTS_PER_TURN: usize = 256;

/// A client on its way into a pack.
pub(super) struct Arrival {
    pub socket: Socket,
    pub client: Client,
    pub next_seq: u64,
}

/// A pack, seen from outside.
pub(super) struct PackHandle {
    arrivals: mpsc::UnboundedSender<Arrival>,
    clients: Arc<AtomicUsize>,
}

impl PackHandle {
    pub(super) fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    pub(super) fn send(&self, arrival: Arrival) {
        self.clients.fetch_add(1, Ordering::Relaxed);
        // The pack lives as long as its topic, and the client holds that open; when the runtime
        // itself ends the client ends with it.
        let _ = self.arrivals.send(arrival);
    }
}

struct Member {
    socket: Socket,
    client: Client,
    /// It has everything before this, which may be ahead of the pack.
    has_until: u64,
}

struct Pack {
    number: usize,
    fanout: Arc<Fanout>,
    topic: Arc<Topic>,
    members: Slab<Member>,
    clients: Arc<AtomicUsize>,
    watch: AsyncFd<OwnedFd>,
    /// Everything before this has been written to everybody.
    position: u64,
    /// There may be more in the ring already.
    behind: bool,
    reader: Reader,
    last_write: Instant,
    /// No member expires before this.
    next_expiry: Option<Instant>,
    draining: bool,
}

/// Opens a pack at the topic's tail.
pub(super) fn open(fanout: &Arc<Fanout>, topic: &Arc<Topic>, number: usize) -> PackHandle {
    let (arrivals, receiver) = mpsc::unbounded_channel();
    let clients = Arc::new(AtomicUsize::new(0));
    let handle = PackHandle { arrivals, clients: clients.clone() };
    let news = topic.subscribe();
    let (position, reader) = {
        let mut state = topic.state();
        let position = state.ring.next_seq();
        state.packs.push((number, position));
        (position, state.reader.clone())
    };
    let (fanout, topic) = (fanout.clone(), topic.clone());
    fanout.clone().tasks.spawn(async move {
        let watch = match watch() {
            Ok(watch) => watch,
            Err(error) => {
                tracing::error!(key = %topic.key, %error, "no descriptor for a pack; its clients are closed and come back");
                topic.pack_ended(number);
                fanout.forget_packs(&topic);
                return;
            }
        };
        let pack = Pack {
            number,
            fanout,
            topic,
            members: Slab::new(),
            clients,
            watch,
            position,
            behind: false,
            reader,
            last_write: Instant::now(),
            next_expiry: None,
            draining: false,
        };
        pack.run(receiver, news).await;
    });
    handle
}

fn watch() -> std::io::Result<AsyncFd<OwnedFd>> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    watched(epoll, Interest::READABLE)
}

impl Pack {
    async fn run(mut self, mut arrivals: Arrivals, mut news: tokio::sync::broadcast::Receiver<()>) {
        let draining = self.fanout.draining.clone();
        let closed = self.topic.closed.clone();
        loop {
            let wake = self.next_wake();
            // No branch comes first: under a flood of entries the others get their turns as well.
            tokio::select! {
                () = closed.cancelled() => break,
                () = draining.cancelled(), if !self.draining => self.begin_drain(),
                // Closed or lagged is news as well: the state tells the rest.
                _ = news.recv(), if !self.behind => self.catch_up().await,
                () = tokio::task::yield_now(), if self.behind => self.catch_up().await,
                Some(arrival) = arrivals.recv() => self.admit(arrival),
                Ok(mut ready) = self.watch.readable() => {
                    let slots = heard(ready.get_inner());
                    if slots.is_empty() {
                        ready.clear_ready();
                    }
                    drop(ready);
                    self.hear(&slots);
                }
                () = tokio::time::sleep_until(wake.into()) => self.tick(),
            }
        }
        self.topic.pack_ended(self.number);
        self.fanout.forget_packs(&self.topic);
    }

    fn next_wake(&self) -> Instant {
        let keepalive = self.last_write + self.fanout.settings.keepalive;
        self.next_expiry.map_or(keepalive, |expiry| expiry.min(keepalive))
    }

    /// Writes what is new, one pass of it, and tells of Redis' coming and going.
    async fn catch_up(&mut self) {
        let reader = self.topic.state().reader.clone();
        if reader != self.reader {
            self.reader_changed(reader);
        }
        let batches = self.pending();
        self.behind = !batches.is_empty();
        let Some(last) = batches.last() else { return };
        let end = last.end_seq();
        self.write(&batches).await;
        self.position = end;
        self.topic.moved(self.number, end);
    }

    fn pending(&self) -> Vec<Arc<Batch>> {
        let state = self.topic.state();
        let mut bytes = 0;
        let more = state.ring.from(self.position).take_while(|batch| {
            let fits = bytes == 0 || bytes + batch.size_bytes() <= PASS_BYTES;
            bytes += batch.size_bytes();
            fits
        });
        more.cloned().collect()
    }

    async fn write(&mut self, batches: &[Arc<Batch>]) {
        let end = batches.last().map_or(self.position, |batch| batch.end_seq());
        let mut shared = Shared(Vec::with_capacity(1));
        let mut tally = Tally::new(self.fanout.metrics.routes.len());
        let mut writes = 0;
        for slot in 0..self.members.capacity() {
            let Some(member) = self.members.get_mut(slot) else { continue };
            if member.has_until >= end {
                continue;
            }
            let from = self.position.max(member.has_until);
            let view = member.client.view;
            let (bytes, events) = if from > self.position {
                Self::part(view, batches, from)
            } else {
                shared.get(view, || Self::part(view, batches, from))
            };
            let route = member.client.route;
            match member.socket.send(&bytes) {
                Ok(sent) if sent == bytes.len() => tally.add(route, events, sent),
                Ok(sent) => {
                    let done = view.advance(batches, Spot { seq: from, offset: 0 }, sent);
                    tally.add(route, done.events, sent);
                    self.leave_to_follower(slot, done.spot, Vec::new());
                }
                Err(_) => self.remove(slot, Left::Client),
            }
            writes += 1;
            if writes % WRITES_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.last_write = Instant::now();
        self.count(batches, &tally);
    }

    /// The bytes of one view from `seq` on, and how many events they are.
    fn part(view: View, batches: &[Arc<Batch>], seq: u64) -> (Bytes, u64) {
        let all = view.advance(batches, Spot { seq, offset: 0 }, usize::MAX);
        (view.bytes_of(batches, seq), all.events)
    }

    fn count(&self, batches: &[Arc<Batch>], tally: &Tally) {
        tally.publish(&self.fanout.metrics);
        let clients = self.members.len() as u64;
        if clients == 0 {
            return;
        }
        let now = now_ms();
        let ids = batches.iter().flat_map(|batch| batch.ids());
        for age in ids.filter_map(|id| age_ms(*id, now)) {
            self.fanout.metrics.latency.observe(age as f64 / 1e3, clients);
        }
    }

    /// Takes a client in: writes what it misses, skips what it already has.
    fn admit(&mut self, arrival: Arrival) {
        let Arrival { socket, client, next_seq } = arrival;
        let missing = self.missing(&client, next_seq);
        let Some(missing) = missing else {
            self.clients.fetch_sub(1, Ordering::Relaxed);
            let begin = Begin::at(Place::Ring(Spot { seq: next_seq, offset: 0 }), true);
            return follow(&self.fanout, socket, client, begin);
        };
        let expires = client.expires;
        let has_until = next_seq.max(self.position);
        let view = client.view;
        let slot = self.members.insert(Member { socket, client, has_until });
        let member = &self.members[slot];
        let data = epoll::EventData::new_u64(slot as u64);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        if let Err(error) = epoll::add(self.watch.get_ref(), &member.socket, data, flags) {
            tracing::warn!(client = member.client.id, %error, "cannot watch a client; it is closed and comes back");
            return self.remove(slot, Left::Error);
        }
        if self.draining {
            self.set_expiry(slot, Instant::now() + self.fanout.settings.drain_delay());
        } else if let Some(expires) = expires {
            self.expect_expiry(expires);
        }
        if missing.is_empty() {
            return;
        }
        let bytes = view.bytes_of(&missing, next_seq);
        match self.members[slot].socket.send(&bytes) {
            Ok(sent) if sent == bytes.len() => {}
            Ok(sent) => {
                let done = view.advance(&missing, Spot { seq: next_seq, offset: 0 }, sent);
                self.leave_to_follower(slot, done.spot, Vec::new());
            }
            Err(_) => self.remove(slot, Left::Client),
        }
    }

    /// The batches between a client and the pack; `None` where it has to catch up by itself.
    fn missing(&self, client: &Client, next_seq: u64) -> Option<Vec<Arc<Batch>>> {
        if next_seq >= self.position {
            return Some(Vec::new());
        }
        let state = self.topic.state();
        let batches = state.ring.from(next_seq).take_while(|batch| batch.first_seq < self.position);
        let batches: Vec<_> = batches.cloned().collect();
        let first = batches.first()?;
        let last = batches.last()?;
        // The pack stands between two batches, so what it misses are whole ones.
        let whole = first.first_seq <= next_seq && last.end_seq() == self.position;
        let small = batches.iter().map(|batch| batch.size_bytes()).sum::<usize>() <= PASS_BYTES;
        (whole && small && client.view.is_in(first)).then_some(batches)
    }

    /// Hears which clients left; whatever else they send is thrown away.
    fn hear(&mut self, slots: &[usize]) {
        for slot in slots {
            let Some(member) = self.members.get(*slot) else { continue };
            if member.socket.discard_input() == Input::Closed {
                self.remove(*slot, Left::Client);
            }
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.next_expiry.is_some_and(|expiry| expiry <= now) {
            self.expire(now);
        }
        if self.last_write + self.fanout.settings.keepalive <= now {
            self.signal(Signal::of_silence(&self.reader));
            self.fanout.metrics.keepalives.increment(self.members.len() as u64);
        }
    }

    fn expire(&mut self, now: Instant) {
        self.next_expiry = None;
        let control = self.draining.then_some(Control::Drain);
        let left = if self.draining { Left::Drain } else { Left::Rotated };
        for slot in 0..self.members.capacity() {
            let Some(expires) = self.members.get(slot).and_then(|m| m.client.expires) else {
                continue;
            };
            if expires <= now {
                self.send_away(slot, control, left);
            } else {
                self.expect_expiry(expires);
            }
        }
    }

    fn expect_expiry(&mut self, expires: Instant) {
        self.next_expiry = Some(self.next_expiry.map_or(expires, |next| next.min(expires)));
    }

    fn set_expiry(&mut self, slot: usize, expires: Instant) {
        self.members[slot].client.expires = Some(expires);
        self.expect_expiry(expires);
    }

    fn begin_drain(&mut self) {
        self.draining = true;
        let now = Instant::now();
        self.next_expiry = None;
        for slot in 0..self.members.capacity() {
            if self.members.contains(slot) {
                self.set_expiry(slot, now + self.fanout.settings.drain_delay());
            }
        }
    }

    fn reader_changed(&mut self, reader: Reader) {
        if let Reader::Refused(reason) = reader {
            for slot in 0..self.members.capacity() {
                self.send_away(slot, Some(Control::Unavailable { reason }), Left::Error);
            }
        } else if let Some(signal) = Signal::of_change(&self.reader, &reader) {
            self.signal(signal);
        }
        self.reader = reader;
    }

    /// The same few bytes to everybody.
    fn signal(&mut self, signal: Signal) {
        let mut shared = Shared(Vec::with_capacity(1));
        for slot in 0..self.members.capacity() {
            let Some(member) = self.members.get(slot) else { continue };
            let (view, signals) = (member.client.view, member.client.signals);
            let kind = (view.framed, signals);
            let bytes = shared.get(kind, || Bytes::from(signal.bytes(view, signals)));
            match member.socket.send(&bytes) {
                Ok(sent) if sent == bytes.len() => {}
                Ok(sent) => {
                    let spot = Spot { seq: member.has_until.max(self.position), offset: 0 };
                    self.leave_to_follower(slot, spot, bytes[sent..].to_vec());
                }
                Err(_) => self.remove(slot, Left::Client),
            }
        }
        self.last_write = Instant::now();
    }

    fn take(&mut self, slot: usize) -> Option<Member> {
        let member = self.members.try_remove(slot)?;
        self.clients.fetch_sub(1, Ordering::Relaxed);
        // It fails only for a socket that is not watched, and then there is nothing to end.
        let _ = epoll::delete(self.watch.get_ref(), &member.socket);
        Some(member)
    }

    fn remove(&mut self, slot: usize, why: Left) {
        if let Some(member) = self.take(slot) {
            tracing::debug!(client = member.client.id, why = why.as_str(), "stream ended");
            self.fanout.metrics.left(why);
        }
    }

    fn leave_to_follower(&mut self, slot: usize, from: Spot, rest: Vec<u8>) {
        let Some(Member { socket, client, .. }) = self.take(slot) else { return };
        let begin = Begin { unsent: rest, ..Begin::at(Place::Ring(from), true) };
        follow(&self.fanout, socket, client, begin);
    }

    fn send_away(&mut self, slot: usize, control: Option<Control>, why: Left) {
        let Some(member) = self.take(slot) else { return };
        let id = self.topic.state().ring.id_before(self.position.max(member.has_until));
        let words = last_words(&self.fanout.settings, member.client.view, id, control);
        self.fanout.metrics.left(why);
        tracing::debug!(client = member.client.id, why = why.as_str(), "stream ended");
        farewell(&self.fanout, member.socket, member.client, words);
    }
}

/// What was made once for each kind of client.
struct Shared<K, V>(Vec<(K, V)>);

impl<K: PartialEq, V: Clone> Shared<K, V> {
    fn get(&mut self, kind: K, produce: impl FnOnce() -> V) -> V {
        if let Some((_, made)) = self.0.iter().find(|(known, _)| *known == kind) {
            return made.clone();
        }
        let made = produce();
        self.0.push((kind, made.clone()));
        made
    }
}

/// The slots of sockets that have something to say.
fn heard(watch: &OwnedFd) -> Vec<usize> {
    let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_PER_TURN);
    let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let spare = rustix::buffer::spare_capacity(&mut events);
    // An interrupted call is tried again when the descriptor is next looked at.
    let _ = epoll::wait(watch, spare, Some(&at_once));
    let slot = |event: &epoll::Event| {
        let data = event.data;
        usize::try_from(data.u64()).expect("slots are indices")
    };
    events.iter().map(slot).collect()
}

/// What was written in one pass, by route: counted here, published once.
struct Tally(Vec<(u64, u64)>);

impl Tally {
    fn new(routes: usize) -> Self {
        Self(vec![(0, 0); routes])
    }

    fn add(&mut self, route: u16, events: u64, bytes: usize) {
        let (all_events, all_bytes) = &mut self.0[usize::from(route)];
        *all_events += events;
        *all_bytes += bytes as u64;
    }

    fn publish(&self, metrics: &crate::metrics::Metrics) {
        for ((events, bytes), route) in self.0.iter().zip(&metrics.routes) {
            if *bytes > 0 {
                route.events.increment(*events);
                route.bytes.increment(*bytes);
            }
        }
    }
}
