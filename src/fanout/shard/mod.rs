//! Clients that are level with the tail: one task, one loop, one write for each.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use slab::Slab;
use tokio::sync::mpsc;

use super::broadcast_write::{Pass, Sent};
use super::catchup::{Begin, History, Place, follow};
use super::deadline::Due;
use super::poller::Watch;
use super::probe::Visitor;
use super::signal::{Signal, is_up, last_words};
use super::socket::Input;
use super::wire::{Spot, id_before};
use super::{Client, Fanout, Socket, farewell};
use crate::sse::Control;
use crate::stream::{Batch, Reader, Topic};
use crate::telemetry::metrics::Left;

mod signals;

/// Pending batches are written together up to about this, so that a socket's buffer takes them.
const PASS_BYTES: usize = 64 << 10;

/// Further clients taken in before the pack looks at anything else.
const ARRIVALS_PER_TURN: usize = 32;

type Visitors = mpsc::UnboundedReceiver<Visitor>;

/// A client on its way into a pack.
pub(super) struct Arrival {
    pub socket: Socket,
    pub client: Client,
    pub next_seq: u64,
    pub history: History,
}

/// A pack, seen from outside.
pub(super) struct PackHandle {
    number: usize,
    visitors: mpsc::UnboundedSender<Visitor>,
    clients: Arc<AtomicUsize>,
}

impl PackHandle {
    /// As the topic knows it.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    pub(super) fn send(&self, arrival: Arrival) {
        self.clients.fetch_add(1, Ordering::Relaxed);
        // The pack lives as long as its topic, and the client holds that open; when the runtime
        // itself ends the client ends with it.
        let _ = self.visitors.send(Visitor::Client(arrival));
    }

    /// Sends a visitor, which comes back, if it is a probe, even from a pack that has ended.
    pub(super) fn visit(&self, visitor: Visitor) {
        let _ = self.visitors.send(visitor);
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
    watch: Watch,
    /// Everything before this has been written to everybody.
    position: u64,
    /// There may be more in the ring already.
    behind: bool,
    reader: Reader,
    last_write: Instant,
    /// No member is due before this.
    next_due: Option<Instant>,
    draining: bool,
}

/// Opens a pack at the topic's tail. Fails where there is no descriptor for it.
pub(super) fn open(
    fanout: &Arc<Fanout>,
    topic: &Arc<Topic>,
    number: usize,
) -> io::Result<PackHandle> {
    let watch = Watch::new()?;
    let (visitors, receiver) = mpsc::unbounded_channel();
    let clients = Arc::new(AtomicUsize::new(0));
    let handle = PackHandle { number, visitors, clients: clients.clone() };
    let news = topic.subscribe();
    let (position, reader) = {
        let mut state = topic.state();
        let position = state.ring.next_seq();
        state.packs.push((number, position));
        (position, state.reader.clone())
    };
    let pack = Pack {
        number,
        fanout: fanout.clone(),
        topic: topic.clone(),
        members: Slab::new(),
        clients,
        watch,
        position,
        behind: false,
        reader,
        last_write: Instant::now(),
        next_due: None,
        draining: false,
    };
    fanout.tasks.spawn(pack.run(receiver, news));
    Ok(handle)
}

impl Pack {
    async fn run(mut self, mut visitors: Visitors, mut news: tokio::sync::broadcast::Receiver<()>) {
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
                () = std::future::ready(()), if self.behind => {
                    tokio::task::yield_now().await;
                    self.catch_up().await;
                }
                Some(visitor) = visitors.recv() => {
                    self.receive(visitor);
                    // Those that came together are taken in together: to wait anew costs as much.
                    let more = std::iter::from_fn(|| visitors.try_recv().ok());
                    more.take(ARRIVALS_PER_TURN).for_each(|visitor| self.receive(visitor));
                }
                Ok(slots) = self.watch.heard() => self.hear(&slots),
                () = tokio::time::sleep_until(wake.into()) => self.tick(),
            }
        }
        self.topic.pack_ended(self.number);
        self.fanout.forget_packs(&self.topic);
    }

    fn next_wake(&self) -> Instant {
        let keepalive = self.last_write + self.fanout.settings().keepalive;
        self.next_due.map_or(keepalive, |due| due.min(keepalive))
    }

    /// Writes what is new, one pass of it, and tells of Redis' coming and going.
    async fn catch_up(&mut self) {
        let reader = self.topic.state().reader.clone();
        if reader != self.reader {
            self.reader_changed(reader);
        }
        let batches = self.pending();
        self.behind = false;
        let Some(last) = batches.last() else { return };
        let end = last.end_seq();
        self.write(&batches, end).await;
        self.position = end;
        self.behind = self.topic.moved(self.number, end);
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

    async fn write(&mut self, batches: &[Arc<Batch>], end: u64) {
        let fanout = self.fanout.clone();
        let mut pass = Pass::new(batches, self.position, fanout.metrics.routes().len());
        for slot in 0..self.members.capacity() {
            let Some(member) = self.members.get(slot) else { continue };
            if member.has_until >= end {
                continue;
            }
            pass.add(slot, member.client.view, member.has_until);
            if pass.is_full() {
                self.send(&mut pass);
                tokio::task::yield_now().await;
            }
        }
        self.send(&mut pass);
        let now = Instant::now();
        if pass.reached_all() {
            self.last_write = now;
        }
        pass.count(&fanout.metrics);
        for batch in batches.iter().filter(|_| !self.members.is_empty()) {
            fanout.metrics.fanout.observe(now.duration_since(batch.since), 1);
        }
    }

    fn send(&mut self, pass: &mut Pass<'_>) {
        let members = &self.members;
        let at_once = self.fanout.settings().at_once;
        let not_whole = pass.send(at_once, |slot| (&members[slot].socket, &members[slot].client));
        for (slot, sent) in not_whole {
            match sent {
                Sent::Short(done) => self.leave_to_follower(slot, done.spot, done.rest.to_vec()),
                Sent::Failed => self.remove(slot, Left::Client),
            }
        }
    }

    fn receive(&mut self, visitor: Visitor) {
        match visitor {
            Visitor::Client(arrival) => self.admit(arrival),
            Visitor::Probe(probe) => drop(probe),
            Visitor::Recall => self.attend(Instant::now()),
        }
    }

    /// Takes a client in: writes what it misses, skips what it already has.
    fn admit(&mut self, arrival: Arrival) {
        let Arrival { socket, client, next_seq, mut history } = arrival;
        let agrees = history.down != is_up(&self.reader);
        let missing = self.missing(&client, next_seq).filter(|_| agrees && !self.is_refused());
        let Some(missing) = missing else {
            // A follower catches up, and says what is to be said of Redis.
            let place = Place::Ring(Spot { seq: next_seq, offset: 0 });
            let begin = Begin { place, history, unsent: Vec::new(), partial: None };
            return self.turn_away(socket, client, begin);
        };
        let metrics = self.fanout.metrics.clone();
        let mut pass = Pass::new(&missing, next_seq, metrics.routes().len());
        pass.add(0, client.view, next_seq);
        let not_whole = pass.send(false, |_| (&socket, &client)).pop();
        pass.count(&metrics);
        match not_whole.map(|(_, sent)| sent) {
            None => self.take_in(socket, client, next_seq),
            Some(Sent::Short(done)) => {
                history.last_id = id_before(&missing, done.spot.seq).or(history.last_id);
                let partial =
                    (done.spot.offset > 0).then(|| id_before(&missing, done.spot.seq + 1));
                let (place, unsent) = (Place::Ring(done.spot), done.rest.to_vec());
                let begin = Begin { place, history, unsent, partial: partial.flatten() };
                self.turn_away(socket, client, begin);
            }
            Some(Sent::Failed) => {
                self.clients.fetch_sub(1, Ordering::Relaxed);
                client.ended(&metrics, Left::Client);
            }
        }
    }

    fn turn_away(&self, socket: Socket, client: Client, begin: Begin) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
        follow(&self.fanout, socket, client, begin);
    }

    fn take_in(&mut self, socket: Socket, client: Client, next_seq: u64) {
        let due = client.next_due();
        let has_until = next_seq.max(self.position);
        let slot = self.members.insert(Member { socket, client, has_until });
        let member = &self.members[slot];
        if let Err(error) = self.watch.add(slot, &member.socket) {
            tracing::warn!(connection = member.client.id.connection, %error, "cannot watch a client; it is closed and comes back");
            return self.remove(slot, Left::Error);
        }
        if self.draining {
            self.set_expiry(slot, self.fanout.drain_expiry());
        } else if let Some(due) = due {
            self.expect_due(due);
        }
    }

    fn is_refused(&self) -> bool {
        matches!(self.reader, Reader::Refused(_))
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
        if self.next_due.is_some_and(|due| due <= now) {
            self.attend(now);
        }
        if self.last_write + self.fanout.settings().keepalive <= now {
            self.signal(Signal::of_silence(&self.reader));
            self.fanout.metrics.heartbeats.increment(self.members.len() as u64);
        }
    }

    fn attend(&mut self, now: Instant) {
        self.next_due = None;
        for slot in 0..self.members.capacity() {
            let Some(member) = self.members.get(slot) else { continue };
            match member.client.due(now, self.draining) {
                Some(Due::End(control, left)) => self.send_away(slot, control, left),
                Some(Due::Warning(control)) => self.warn(slot, control),
                None => {}
            }
            if let Some(due) = self.members.get(slot).and_then(|m| m.client.next_due()) {
                self.expect_due(due);
            }
        }
    }

    fn expect_due(&mut self, due: Instant) {
        self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
    }

    fn set_expiry(&mut self, slot: usize, expires: Instant) {
        let client = &mut self.members[slot].client;
        client.expires = Some(expires);
        let due = client.next_due().unwrap_or(expires);
        self.expect_due(due);
    }

    fn begin_drain(&mut self) {
        self.draining = true;
        self.next_due = None;
        for slot in 0..self.members.capacity() {
            if self.members.contains(slot) {
                self.set_expiry(slot, self.fanout.drain_expiry());
            }
        }
    }

    fn take(&mut self, slot: usize) -> Option<Member> {
        let member = self.members.try_remove(slot)?;
        self.clients.fetch_sub(1, Ordering::Relaxed);
        self.watch.remove(&member.socket);
        Some(member)
    }

    fn remove(&mut self, slot: usize, why: Left) {
        if let Some(member) = self.take(slot) {
            member.client.ended(&self.fanout.metrics, why);
        }
    }

    fn leave_to_follower(&mut self, slot: usize, from: Spot, rest: Vec<u8>) {
        let Some(Member { socket, client, .. }) = self.take(slot) else { return };
        let last_id = self.topic.state().ring.told_before(from.seq);
        let history = History { last_id, live: true, down: !is_up(&self.reader) };
        let begin = Begin::left_by_pack(&self.topic, from, history, rest);
        follow(&self.fanout, socket, client, begin);
    }

    fn send_away(&mut self, slot: usize, control: Option<Control>, why: Left) {
        let Some(member) = self.take(slot) else { return };
        let id = self.last_id(&member);
        let words = last_words(&self.fanout.settings(), member.client.view, id, control);
        member.client.ended(&self.fanout.metrics, why);
        farewell(&self.fanout, member.socket, member.client, words);
    }
}
