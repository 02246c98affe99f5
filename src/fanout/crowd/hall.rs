//! The loop of a hall: what is new in any topic goes to the crowds that follow it; clients come and go.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use slab::Slab;
use tokio::sync::mpsc;

use super::feed::Feeds;
use super::write::{Composed, Position};
use super::{CrowdKey, HallMessage};
use crate::config::StreamRules;
use crate::fanout::broadcast_write::observe_latency;
use crate::fanout::members::Members;
use crate::fanout::{Admitted, Fanout, Subscriber, WireFormat, uring};
use crate::stream::Batch;
use crate::telemetry::metrics::Metrics;

type Inbox = mpsc::UnboundedReceiver<HallMessage>;

/// A hall, as its task has it.
pub(super) struct Hall {
    pub(super) fanout: Arc<Fanout>,
    /// Which of the halls it is.
    index: usize,
    pub(super) feeds: Feeds,
    pub(super) crowds: Slab<Crowd>,
    pub(super) by_key: HashMap<CrowdKey, usize>,
    pub(super) members: Members<Member>,
    /// No crowd was written to before this.
    pub(super) oldest_write: Instant,
    /// No member is due before this.
    pub(super) next_deadline: Option<Instant>,
}

/// Clients that get the same bytes.
pub(super) struct Crowd {
    pub(super) key: CrowdKey,
    pub(super) format: WireFormat,
    pub(super) parts: Vec<Part>,
    /// Its members.
    pub(super) slots: Vec<usize>,
    pub(super) last_write: Instant,
}

/// One of its streams.
pub(super) struct Part {
    pub(super) name: Arc<str>,
    pub(super) feed: usize,
    pub(super) format: WireFormat,
}

/// One client of a crowd.
pub(super) struct Member {
    pub(super) admitted: Admitted,
    pub(super) route: u16,
    pub(super) rules: Arc<StreamRules>,
    /// Of each part; it holds the topic open.
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) crowd: usize,
    /// Its place among the crowd's slots.
    pub(super) place: usize,
}

/// What is written to a crowd.
struct Write {
    crowd: usize,
    /// How many members it has,
    clients: u64,
    /// and how the part is encoded that has news.
    format: WireFormat,
    /// Where its members were before.
    before: Vec<Position>,
    composed: Composed,
}

/// Starts a hall for the first client that comes into it.
pub(super) fn spawn(fanout: &Arc<Fanout>, index: usize, inbox: Inbox) {
    // Not tracked: a drain sends its members back to tasks that are.
    tokio::spawn(Hall::new(fanout, index).run(inbox));
}

impl Hall {
    pub(super) fn new(fanout: &Arc<Fanout>, index: usize) -> Self {
        let number = fanout.opened_shards.fetch_add(1, Ordering::Relaxed);
        Self {
            fanout: fanout.clone(),
            index,
            feeds: Feeds::new(number),
            crowds: Slab::new(),
            by_key: HashMap::new(),
            members: Members::with_capacity(1),
            oldest_write: Instant::now(),
            next_deadline: None,
        }
    }

    async fn run(mut self, mut inbox: Inbox) {
        let draining = self.fanout.draining.clone();
        while !self.is_over(&inbox) {
            self.close_ranks();
            let wake = self.next_wake();
            // No branch comes first: under a flood of entries the others have their turns as well.
            tokio::select! {
                () = draining.cancelled(), if !self.members.is_empty() => self.dissolve_all(),
                Some(feed) = self.feeds.next() => self.write_news(feed).await,
                () = std::future::ready(()), if self.feeds.is_any_behind() => {
                    tokio::task::yield_now().await;
                    for feed in self.feeds.take_behind() {
                        self.write_news(feed).await;
                    }
                }
                Some(message) = inbox.recv() => self.receive(message).await,
                Ok(slots) = self.members.readable() => self.read_input(&slots),
                () = tokio::time::sleep_until(wake.into()) => self.tick().await,
            }
        }
    }

    /// Whether nobody is there, and nobody is on the way.
    fn is_over(&self, inbox: &Inbox) -> bool {
        let is_left = || self.fanout.halls.remove_if(&self.index, |_, _| inbox.is_empty()).is_some();
        self.members.is_empty() && is_left()
    }

    async fn receive(&mut self, message: HallMessage) {
        match message {
            HallMessage::Join(joining) => {
                let (socket, stream) = *joining;
                // Level with the rings, it is nowhere behind a newcomer.
                for part in &stream.parts {
                    if let Some(feed) = self.feeds.of_topic(part.subscriber.topic()) {
                        self.write_news(feed).await;
                    }
                }
                self.admit(socket, stream);
            }
            HallMessage::Probe(probe) => drop(probe),
            HallMessage::RecheckGrants => self.send_back_those_due(),
        }
    }

    /// Writes what is new in a topic, as much as goes in one write.
    pub(super) async fn write_news(&mut self, feed: usize) {
        // Its followers may have left.
        let Some(found) = self.feeds.get(feed) else { return };
        let Some(batches) = found.pending() else { return self.dissolve_followers(feed, None) };
        let Some(end_seq) = batches.last().map(|last| last.end_seq()) else { return };
        let seqs = found.seq..end_seq;
        self.dissolve_followers(feed, Some(&batches));
        let Some(found) = self.feeds.get(feed) else { return };
        let followers = found.followers.iter();
        let writes = followers.map(|(crowd, part)| self.write_to(*crowd, *part, &batches, end_seq));
        let writes: Vec<Write> = writes.collect();
        self.feeds.move_on(feed, &batches);
        self.send(&writes).await;
        self.feeds.sent(feed);
        self.observe(&writes, &batches, seqs);
    }

    /// Composes what a crowd gets of one of its parts.
    fn write_to(&self, crowd: usize, part: usize, batches: &[Arc<Batch>], end_seq: u64) -> Write {
        let before = self.positions(crowd);
        let (mut positions, mut composed) = (before.clone(), Composed::default());
        let Crowd { parts, format: as_sent, slots, .. } = &self.crowds[crowd];
        let format = parts[part].format;
        composed.add(&mut positions, part, batches, end_seq, (format, *as_sent));
        Write { crowd, clients: slots.len() as u64, format, before, composed }
    }

    /// Where a crowd is in each of its streams.
    pub(super) fn positions(&self, crowd: usize) -> Vec<Position> {
        let position = |part: &Part| {
            let feed = self.feeds.get(part.feed).expect("a crowd follows its parts' topics");
            Position { name: part.name.clone(), seq: feed.seq, id: feed.id }
        };
        self.crowds[crowd].parts.iter().map(position).collect()
    }

    async fn send(&mut self, writes: &[Write]) {
        let (at_once, mut outcomes) = (self.fanout.settings().at_once, Vec::new());
        let mut due = Vec::new();
        for write in writes.iter().filter(|write| !write.composed.bytes.is_empty()) {
            let crowd = &mut self.crowds[write.crowd];
            crowd.last_write = Instant::now();
            due.extend(crowd.slots.iter().map(|slot| (*slot, write)));
        }
        for burst in due.chunks(uring::MOST) {
            let sends = burst
                .iter()
                .map(|(slot, write)| (self.members.socket(*slot), &*write.composed.bytes));
            uring::send(at_once, sends, &mut outcomes);
            for ((slot, write), outcome) in burst.iter().zip(outcomes.drain(..)) {
                self.sent(*slot, write, &outcome);
            }
            tokio::task::yield_now().await;
        }
    }

    /// A member took so much of a write.
    fn sent(&mut self, slot: usize, write: &Write, outcome: &io::Result<usize>) {
        let Ok(sent) = *outcome else { return self.remove(slot) };
        let (Member { admitted, route, .. }, composed) = (&self.members[slot], &write.composed);
        if sent == composed.bytes.len() {
            return count(&self.fanout.metrics, admitted, *route, composed.events(), sent);
        }
        let mut positions = write.before.clone();
        let (events, rest) = composed.advance(&mut positions, sent);
        count(&self.fanout.metrics, admitted, *route, events, sent);
        self.send_back(slot, &positions, rest.to_vec());
    }

    /// Observes the latency of what was written, once for each rendering.
    fn observe(&self, writes: &[Write], batches: &[Arc<Batch>], seqs: Range<u64>) {
        let (metrics, now) = (&self.fanout.metrics, Instant::now());
        let mut clients: HashMap<WireFormat, u64> = HashMap::new();
        for write in writes {
            *clients.entry(write.format).or_default() += write.clients;
        }
        for (format, clients) in clients {
            observe_latency(metrics, batches, format, seqs.clone(), clients);
        }
        for batch in batches.iter().filter(|_| !writes.is_empty()) {
            metrics.fanout.observe(now.duration_since(batch.since), 1);
        }
    }

    fn next_wake(&self) -> Instant {
        let keepalive = self.oldest_write + self.fanout.settings().keepalive;
        self.next_deadline.map_or(keepalive, |due| due.min(keepalive))
    }
}

/// Counts what a client got.
pub(super) fn count(metrics: &Metrics, admitted: &Admitted, route: u16, events: u64, sent: usize) {
    metrics.routes()[usize::from(route)].events.increment(events);
    admitted.count_bytes(metrics, route, sent);
    admitted.record(events, 0, 0);
}
