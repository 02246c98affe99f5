//! Clients that are level with the tail: one task, one loop, one write for each.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use slab::Slab;
use tokio::sync::mpsc;

use super::broadcast_write::{BroadcastWrite, Sent};
use super::catchup::{DeliveryState, Handoff, Phase, follow};
use super::deadline::Deadline;
use super::poller::SocketPoller;
use super::probe::ShardMessage;
use super::signal::{Signal, closing_frame, is_up};
use super::socket::Input;
use super::wire::{WritePosition, id_before};
use super::{Fanout, Socket, Subscriber, close};
use crate::sse::Control;
use crate::stream::{Batch, ReaderState, Topic};
use crate::telemetry::metrics::DisconnectReason;

mod signals;

/// Pending batches are written together up to about this, so that a socket's buffer takes them.
const PASS_BYTES: usize = 64 << 10;

/// Further clients taken in before the shard looks at anything else.
const ARRIVALS_PER_TURN: usize = 32;

type Inbox = mpsc::UnboundedReceiver<ShardMessage>;

/// A client on its way into a shard.
pub(super) struct Joining {
    pub socket: Socket,
    pub subscriber: Subscriber,
    pub next_seq: u64,
    pub delivery: DeliveryState,
}

/// A shard, seen from outside.
pub(super) struct ShardHandle {
    number: usize,
    inbox: mpsc::UnboundedSender<ShardMessage>,
    subscribers: Arc<AtomicUsize>,
}

impl ShardHandle {
    /// As the topic knows it.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::Relaxed)
    }

    pub(super) fn send(&self, joining: Joining) {
        self.subscribers.fetch_add(1, Ordering::Relaxed);
        // The shard lives as long as its topic, and the client holds that open; when the runtime
        // itself ends the client ends with it.
        let _ = self.inbox.send(ShardMessage::Subscriber(joining));
    }

    /// Sends a visitor, which comes back, if it is a probe, even from a shard that has ended.
    pub(super) fn deliver(&self, message: ShardMessage) {
        let _ = self.inbox.send(message);
    }
}

struct Member {
    socket: Socket,
    subscriber: Subscriber,
    /// It has everything before this, which may be ahead of the shard.
    has_until: u64,
}

struct Shard {
    number: usize,
    fanout: Arc<Fanout>,
    topic: Arc<Topic>,
    members: Slab<Member>,
    subscribers: Arc<AtomicUsize>,
    poller: SocketPoller,
    /// Everything before this has been written to everybody.
    position: u64,
    /// There may be more in the ring already.
    behind: bool,
    reader: ReaderState,
    last_write: Instant,
    /// No member is due before this.
    next_deadline: Option<Instant>,
    draining: bool,
}

/// Opens a shard at the topic's tail. Fails where there is no descriptor for it.
pub(super) fn open(
    fanout: &Arc<Fanout>,
    topic: &Arc<Topic>,
    number: usize,
) -> io::Result<ShardHandle> {
    let poller = SocketPoller::new()?;
    let (inbox, receiver) = mpsc::unbounded_channel();
    let subscribers = Arc::new(AtomicUsize::new(0));
    let handle = ShardHandle { number, inbox, subscribers: subscribers.clone() };
    let news = topic.subscribe();
    let (position, reader) = {
        let mut state = topic.state();
        let position = state.ring.next_seq();
        state.shards.push((number, position));
        (position, state.reader.clone())
    };
    let shard = Shard {
        number,
        fanout: fanout.clone(),
        topic: topic.clone(),
        members: Slab::new(),
        subscribers,
        poller,
        position,
        behind: false,
        reader,
        last_write: Instant::now(),
        next_deadline: None,
        draining: false,
    };
    // Not tracked: a shard lives as long as its topic, which the last client leaves open for a while.
    tokio::spawn(shard.run(receiver, news));
    Ok(handle)
}

impl Shard {
    async fn run(mut self, mut inbox: Inbox, mut news: tokio::sync::broadcast::Receiver<()>) {
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
                Some(message) = inbox.recv() => {
                    self.receive(message);
                    // Those that came together are taken in together: to wait anew costs as much.
                    let more = std::iter::from_fn(|| inbox.try_recv().ok());
                    more.take(ARRIVALS_PER_TURN).for_each(|message| self.receive(message));
                }
                Ok(slots) = self.poller.heard() => self.hear(&slots),
                () = tokio::time::sleep_until(wake.into()) => self.tick(),
            }
        }
        self.topic.shard_ended(self.number);
        self.fanout.forget_shards(&self.topic);
    }

    fn next_wake(&self) -> Instant {
        let keepalive = self.last_write + self.fanout.settings().keepalive;
        self.next_deadline.map_or(keepalive, |due| due.min(keepalive))
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
        let mut broadcast =
            BroadcastWrite::new(batches, self.position, fanout.metrics.routes().len());
        for slot in 0..self.members.capacity() {
            let Some(member) = self.members.get(slot) else { continue };
            if member.has_until >= end {
                continue;
            }
            broadcast.add(slot, member.subscriber.format, member.has_until);
            if broadcast.is_full() {
                self.send(&mut broadcast);
                tokio::task::yield_now().await;
            }
        }
        self.send(&mut broadcast);
        let now = Instant::now();
        if broadcast.reached_all() {
            self.last_write = now;
        }
        broadcast.count(&fanout.metrics);
        for batch in batches.iter().filter(|_| !self.members.is_empty()) {
            fanout.metrics.fanout.observe(now.duration_since(batch.since), 1);
        }
    }

    fn send(&mut self, broadcast: &mut BroadcastWrite<'_>) {
        let members = &self.members;
        let at_once = self.fanout.settings().at_once;
        let not_whole =
            broadcast.send(at_once, |slot| (&members[slot].socket, &members[slot].subscriber));
        for (slot, sent) in not_whole {
            match sent {
                Sent::Short(done) => {
                    self.leave_to_catch_up(slot, done.position, done.rest.to_vec())
                }
                Sent::Failed => self.remove(slot, DisconnectReason::Client),
            }
        }
    }

    fn receive(&mut self, message: ShardMessage) {
        match message {
            ShardMessage::Subscriber(joining) => self.admit(joining),
            ShardMessage::Probe(probe) => drop(probe),
            ShardMessage::RecheckGrants => self.apply_deadlines(Instant::now()),
        }
    }

    /// Takes a client in: writes what it misses, skips what it already has.
    fn admit(&mut self, joining: Joining) {
        let Joining { socket, subscriber, next_seq, mut delivery } = joining;
        let agrees = delivery.down != is_up(&self.reader);
        let missing = self.missing(&subscriber, next_seq).filter(|_| agrees && !self.is_refused());
        let Some(missing) = missing else {
            // A catch-up subscriber catches up, and says what is to be said of Redis.
            let phase = Phase::Ring(WritePosition { seq: next_seq, offset: 0 });
            let handoff = Handoff { phase, delivery, unsent: Vec::new(), partial: None };
            return self.hand_over(socket, subscriber, handoff);
        };
        let metrics = self.fanout.metrics.clone();
        let mut broadcast = BroadcastWrite::new(&missing, next_seq, metrics.routes().len());
        broadcast.add(0, subscriber.format, next_seq);
        let not_whole = broadcast.send(false, |_| (&socket, &subscriber)).pop();
        broadcast.count(&metrics);
        match not_whole.map(|(_, sent)| sent) {
            None => self.take_in(socket, subscriber, next_seq),
            Some(Sent::Short(done)) => {
                delivery.last_id = id_before(&missing, done.position.seq).or(delivery.last_id);
                let partial =
                    (done.position.offset > 0).then(|| id_before(&missing, done.position.seq + 1));
                let (phase, unsent) = (Phase::Ring(done.position), done.rest.to_vec());
                let handoff = Handoff { phase, delivery, unsent, partial: partial.flatten() };
                self.hand_over(socket, subscriber, handoff);
            }
            Some(Sent::Failed) => {
                self.subscribers.fetch_sub(1, Ordering::Relaxed);
                subscriber.ended(&metrics, DisconnectReason::Client);
            }
        }
    }

    fn hand_over(&self, socket: Socket, subscriber: Subscriber, handoff: Handoff) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
        follow(&self.fanout, socket, subscriber, handoff);
    }

    fn take_in(&mut self, socket: Socket, subscriber: Subscriber, next_seq: u64) {
        let due = subscriber.next_deadline();
        let has_until = next_seq.max(self.position);
        let slot = self.members.insert(Member { socket, subscriber, has_until });
        let member = &self.members[slot];
        if let Err(error) = self.poller.add(slot, &member.socket) {
            tracing::warn!(connection = member.subscriber.id.connection, %error, "cannot watch a client; it is closed and comes back");
            return self.remove(slot, DisconnectReason::Error);
        }
        if self.draining {
            self.set_expiry(slot, self.fanout.drain_expiry());
        } else if let Some(due) = due {
            self.note_deadline(due);
        }
    }

    fn is_refused(&self) -> bool {
        matches!(self.reader, ReaderState::Refused(_))
    }

    /// The batches between a client and the shard; `None` where it has to catch up by itself.
    fn missing(&self, subscriber: &Subscriber, next_seq: u64) -> Option<Vec<Arc<Batch>>> {
        if next_seq >= self.position {
            return Some(Vec::new());
        }
        let state = self.topic.state();
        let batches = state.ring.from(next_seq).take_while(|batch| batch.first_seq < self.position);
        let batches: Vec<_> = batches.cloned().collect();
        let first = batches.first()?;
        let last = batches.last()?;
        // The shard stands between two batches, so what it misses are whole ones.
        let whole = first.first_seq <= next_seq && last.end_seq() == self.position;
        let small = batches.iter().map(|batch| batch.size_bytes()).sum::<usize>() <= PASS_BYTES;
        (whole && small && subscriber.format.is_in(first)).then_some(batches)
    }

    /// Hears which clients left; whatever else they send is thrown away.
    fn hear(&mut self, slots: &[usize]) {
        for slot in slots {
            let Some(member) = self.members.get(*slot) else { continue };
            if member.socket.discard_input() == Input::Closed {
                self.remove(*slot, DisconnectReason::Client);
            }
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.next_deadline.is_some_and(|due| due <= now) {
            self.apply_deadlines(now);
        }
        if self.last_write + self.fanout.settings().keepalive <= now {
            self.signal(Signal::of_silence(&self.reader));
            self.fanout.metrics.heartbeats.increment(self.members.len() as u64);
        }
    }

    fn apply_deadlines(&mut self, now: Instant) {
        self.next_deadline = None;
        for slot in 0..self.members.capacity() {
            let Some(member) = self.members.get(slot) else { continue };
            match member.subscriber.due(now, self.draining) {
                Some(Deadline::End(control, left)) => self.disconnect(slot, control, left),
                Some(Deadline::Warning(control)) => self.warn(slot, control),
                None => {}
            }
            if let Some(due) = self.members.get(slot).and_then(|m| m.subscriber.next_deadline()) {
                self.note_deadline(due);
            }
        }
    }

    fn note_deadline(&mut self, due: Instant) {
        self.next_deadline = Some(self.next_deadline.map_or(due, |next| next.min(due)));
    }

    fn set_expiry(&mut self, slot: usize, expires: Instant) {
        let subscriber = &mut self.members[slot].subscriber;
        subscriber.expires = Some(expires);
        let due = subscriber.next_deadline().unwrap_or(expires);
        self.note_deadline(due);
    }

    fn begin_drain(&mut self) {
        self.draining = true;
        self.next_deadline = None;
        for slot in 0..self.members.capacity() {
            if self.members.contains(slot) {
                self.set_expiry(slot, self.fanout.drain_expiry());
            }
        }
    }

    fn take(&mut self, slot: usize) -> Option<Member> {
        let member = self.members.try_remove(slot)?;
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
        self.poller.remove(&member.socket);
        Some(member)
    }

    fn remove(&mut self, slot: usize, why: DisconnectReason) {
        if let Some(member) = self.take(slot) {
            member.subscriber.ended(&self.fanout.metrics, why);
        }
    }

    fn leave_to_catch_up(&mut self, slot: usize, from: WritePosition, rest: Vec<u8>) {
        let Some(Member { socket, subscriber, .. }) = self.take(slot) else { return };
        let last_id = self.topic.state().ring.told_before(from.seq);
        let delivery = DeliveryState { last_id, live: true, down: !is_up(&self.reader) };
        let handoff = Handoff::left_by_pack(&self.topic, from, delivery, rest);
        follow(&self.fanout, socket, subscriber, handoff);
    }

    fn disconnect(&mut self, slot: usize, control: Option<Control>, why: DisconnectReason) {
        let Some(member) = self.take(slot) else { return };
        let id = self.last_id(&member);
        let words = closing_frame(&self.fanout.settings(), member.subscriber.format, id, control);
        member.subscriber.ended(&self.fanout.metrics, why);
        close(&self.fanout, member.socket, member.subscriber, words);
    }
}
