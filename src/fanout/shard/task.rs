//! The loop of one shard: what is new goes to all of its subscribers; it takes them in and lets them go.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::broadcast;

use super::ShardMessage;
use super::groups::Groups;
use super::inbox::Inbox;
use crate::fanout::broadcast_write::{BroadcastWrite, Sent};
use crate::fanout::members::Members;
use crate::fanout::signal::Signal;
use crate::fanout::wire::WritePosition;
use crate::fanout::{Fanout, Subscriber};
use crate::stream::{Batch, ReaderState, Topic};
use crate::telemetry::metrics::DisconnectReason;

/// Batches are written together up to about this, so that a socket's buffer takes them.
pub(super) const WRITE_BYTES: usize = 64 << 10;

/// Further messages taken in before the shard looks at anything else.
const MESSAGES_PER_TURN: usize = 32;

/// One subscriber of a shard.
pub(super) struct Member {
    pub(super) subscriber: Subscriber,
    /// Its client has everything before this, which may be ahead of the shard.
    pub(super) has_until: u64,
}

/// A shard, as its task has it.
pub(super) struct Shard {
    pub(super) number: usize,
    pub(super) fanout: Arc<Fanout>,
    pub(super) topic: Arc<Topic>,
    pub(super) members: Members<Member>,
    pub(super) inbox: Arc<Inbox>,
    /// Everything before this item was written to every member.
    pub(super) position: u64,
    /// There may be more in the ring already.
    pub(super) behind: bool,
    pub(super) reader: ReaderState,
    pub(super) last_write: Instant,
    /// No member is due before this.
    pub(super) next_deadline: Option<Instant>,
    pub(super) draining: bool,
    /// The members by what they get, in a shard for those that get only some entries.
    pub(super) groups: Option<Box<Groups>>,
    /// How far its clients were told that they have come, where entries are withheld from them.
    pub(super) told_position: u64,
}

/// Starts a shard at the topic's tail.
pub(super) fn spawn(
    fanout: &Arc<Fanout>,
    topic: &Arc<Topic>,
    number: usize,
    selects: bool,
    inbox: Arc<Inbox>,
) {
    let mut news = topic.subscribe();
    let mut shard = Shard::at_tail(fanout, topic, number, inbox);
    shard.groups = selects.then(Box::default);
    // Not tracked: a shard lives as long as its topic, which outlives the last subscriber.
    tokio::spawn(async move { shard.run(&mut news).await });
}

impl Shard {
    pub(super) fn at_tail(
        fanout: &Arc<Fanout>,
        topic: &Arc<Topic>,
        number: usize,
        inbox: Arc<Inbox>,
    ) -> Self {
        let (position, reader) = {
            let mut state = topic.state();
            let position = state.ring.next_seq();
            state.shards.reserve_exact(1);
            state.shards.push((number, position));
            (position, state.reader.clone())
        };
        Self {
            number,
            fanout: fanout.clone(),
            topic: topic.clone(),
            // Of ten thousand keys most have one client.
            members: Members::with_capacity(1),
            inbox,
            position,
            behind: false,
            reader,
            last_write: Instant::now(),
            next_deadline: None,
            draining: false,
            groups: None,
            told_position: position,
        }
    }

    /// Runs until its topic is closed. It borrows: a future that is given a shard has room for two.
    pub(super) async fn run(&mut self, news: &mut broadcast::Receiver<()>) {
        self.draining = self.fanout.draining.is_cancelled();
        while !self.topic.is_closed() {
            self.close_ranks();
            let wake = self.next_wake();
            // No branch comes first: under a flood of entries the others have their turns as well.
            tokio::select! {
                // A closed or lagged channel is news as well: the topic's state tells the rest.
                _ = news.recv(), if !self.behind => self.write_news().await,
                () = std::future::ready(()), if self.behind => {
                    tokio::task::yield_now().await;
                    self.write_news().await;
                }
                message = self.inbox.next() => {
                    self.receive(message).await;
                    // Messages that came together are taken together: each wait costs as much as one.
                    for _ in 0..MESSAGES_PER_TURN {
                        let Some(message) = self.inbox.take() else { break };
                        self.receive(message).await;
                    }
                }
                Ok(slots) = self.members.readable() => self.read_input(&slots),
                () = tokio::time::sleep_until(wake.into()) => self.tick().await,
            }
        }
        self.topic.shard_ended(self.number);
        self.fanout.forget_shards(&self.topic);
    }

    pub(super) fn next_wake(&self) -> Instant {
        let keepalive = self.last_write + self.fanout.settings().keepalive;
        self.next_deadline.map_or(keepalive, |due| due.min(keepalive))
    }

    /// Writes what is new, as much as goes in one write, and tells of Redis' coming and going.
    pub(super) async fn write_news(&mut self) {
        let reader = self.topic.state().reader.clone();
        if reader != self.reader {
            self.reader_changed(reader).await;
        }
        let batches = self.pending();
        self.behind = false;
        let Some(last) = batches.last() else { return };
        let end = last.end_seq();
        self.write(&batches, end).await;
        self.position = end;
        self.behind = self.topic.shard_sent(self.number, end);
    }

    pub(super) fn pending(&self) -> Vec<Arc<Batch>> {
        self.topic.state().ring.some_from(self.position, WRITE_BYTES).cloned().collect()
    }

    pub(super) async fn write(&mut self, batches: &[Arc<Batch>], end: u64) {
        let fanout = self.fanout.clone();
        let mut broadcast =
            BroadcastWrite::new(batches, self.position, fanout.metrics.routes().len());
        self.write_to_groups(&mut broadcast, end).await;
        let slots = if self.groups.is_none() { self.members.slots() } else { 0..0 };
        for slot in slots {
            let Some(member) = self.members.get(slot) else { continue };
            if member.has_until >= end {
                continue;
            }
            let seq = self.position.max(member.has_until);
            if member.subscriber.may_leave_in(batches, seq) {
                self.leave_to_catch_up(slot, WritePosition { seq, offset: 0 }, Vec::new());
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
        if broadcast.reached_all() && self.groups.is_none() {
            self.last_write = now;
        }
        broadcast.count(&fanout.metrics);
        for batch in batches.iter().filter(|_| !self.members.is_empty()) {
            fanout.metrics.fanout.observe(now.duration_since(batch.since), 1);
        }
    }

    pub(super) fn send(&mut self, broadcast: &mut BroadcastWrite<'_>) {
        let members = &self.members;
        let at_once = self.fanout.settings().at_once;
        let not_whole =
            broadcast.send(at_once, |slot| (members.socket(slot), &members[slot].subscriber));
        for (slot, sent) in not_whole {
            match sent {
                Sent::Short(done) => {
                    self.leave_to_catch_up(slot, done.position, done.rest.to_vec());
                }
                Sent::Failed => self.remove(slot, DisconnectReason::Client),
            }
        }
    }

    pub(super) async fn receive(&mut self, message: ShardMessage) {
        match message {
            ShardMessage::Join(joining) => self.admit(*joining),
            ShardMessage::Probe(probe) => drop(probe),
            ShardMessage::Drain => self.begin_drain().await,
            ShardMessage::RecheckGrants => self.apply_deadlines(Instant::now()).await,
        }
    }

    /// Removes the clients that left; what else they send is discarded.
    pub(super) fn read_input(&mut self, slots: &[usize]) {
        for slot in slots {
            if self.members.has_left(*slot) {
                self.remove(*slot, DisconnectReason::Client);
            }
        }
    }

    pub(super) async fn tick(&mut self) {
        let now = Instant::now();
        if self.next_deadline.is_some_and(|due| due <= now) {
            self.apply_deadlines(now).await;
        }
        if self.last_write + self.fanout.settings().keepalive <= now {
            self.signal(Signal::of_silence(&self.reader)).await;
            self.fanout.metrics.heartbeats.increment(self.members.len() as u64);
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.inbox.close();
    }
}
