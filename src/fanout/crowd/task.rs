//! The loop of a crowd: what is new in any of its streams goes to all members; they come and go.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;
use tokio::sync::mpsc;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{StreamExt as _, StreamMap};

use super::write::{Composed, Position};
use super::{CrowdKey, CrowdMessage};
use crate::config::StreamRules;
use crate::fanout::broadcast_write::observe_latency;
use crate::fanout::merged::{LevelPart, LevelStream};
use crate::fanout::poller::{MemberSocket, SocketPoller};
use crate::fanout::signal::is_up;
use crate::fanout::{Admitted, Fanout, Subscriber, WireFormat, uring};
use crate::stream::{Batch, Topic};
use crate::telemetry::metrics::Metrics;

/// Batches of a stream are written together up to about this, so that a socket's buffer takes them.
const WRITE_BYTES: usize = 32 << 10;

type Inbox = mpsc::UnboundedReceiver<CrowdMessage>;

/// A crowd, as its task has it.
pub(super) struct Crowd {
    pub(super) fanout: Arc<Fanout>,
    pub(super) key: CrowdKey,
    /// Its number among the shards of each of its topics.
    pub(super) number: usize,
    pub(super) format: WireFormat,
    pub(super) parts: Vec<Part>,
    /// Everything before was written to every member.
    pub(super) positions: Vec<Position>,
    pub(super) members: Slab<Member>,
    /// Watches the members' sockets; `None` as long as there was no more than one at once.
    pub(super) poller: Option<SocketPoller>,
    /// There may be more in the rings already.
    pub(super) behind: bool,
    pub(super) last_write: Instant,
    /// No member is due before this.
    pub(super) next_deadline: Option<Instant>,
}

/// One of its streams.
pub(super) struct Part {
    pub(super) topic: Arc<Topic>,
    pub(super) format: WireFormat,
}

/// One client of a crowd.
pub(super) struct Member {
    pub(super) socket: MemberSocket,
    pub(super) admitted: Admitted,
    pub(super) route: u16,
    pub(super) rules: Arc<StreamRules>,
    /// Of each part; it holds the topic open.
    pub(super) subscribers: Vec<Subscriber>,
}

/// Starts a crowd where its first member is.
pub(super) fn spawn(
    fanout: &Arc<Fanout>,
    key: CrowdKey,
    number: usize,
    first: &LevelStream,
    inbox: Inbox,
) {
    let mut news = StreamMap::new();
    let (mut parts, mut positions) = (Vec::new(), Vec::new());
    for (index, LevelPart { name, subscriber, seq, id }) in first.parts.iter().enumerate() {
        let topic = subscriber.topic().clone();
        news.insert(index, BroadcastStream::new(topic.subscribe()));
        topic.state().shards.push((number, *seq));
        parts.push(Part { topic, format: subscriber.format });
        positions.push(Position { name: name.clone(), seq: *seq, id: *id });
    }
    let crowd = Crowd {
        fanout: fanout.clone(),
        key,
        number,
        format: first.format,
        parts,
        positions,
        members: Slab::with_capacity(1),
        poller: None,
        behind: true,
        last_write: Instant::now(),
        next_deadline: None,
    };
    // Not tracked: a drain sends its members back to tasks that are.
    tokio::spawn(crowd.run(inbox, news));
}

impl Crowd {
    async fn run(mut self, mut inbox: Inbox, mut news: StreamMap<usize, BroadcastStream<()>>) {
        let draining = self.fanout.draining.clone();
        while !self.is_over(&inbox) {
            let wake = self.next_wake();
            // No branch comes first: under a flood of entries the others have their turns as well.
            tokio::select! {
                () = draining.cancelled(), if !self.members.is_empty() => self.dissolve(),
                // A lagged channel is news as well.
                Some(_) = news.next(), if !self.behind => self.write_news().await,
                () = std::future::ready(()), if self.behind && !self.members.is_empty() => {
                    tokio::task::yield_now().await;
                    self.write_news().await;
                }
                Some(message) = inbox.recv() => self.receive(message).await,
                Ok(slots) = self.readable() => self.read_input(&slots),
                () = tokio::time::sleep_until(wake.into()) => self.tick().await,
            }
        }
        for Part { topic, .. } in &self.parts {
            topic.shard_ended(self.number);
        }
    }

    /// Whether nobody is there, and nobody is on the way.
    fn is_over(&self, inbox: &Inbox) -> bool {
        let is_left = || self.fanout.crowds.remove_if(&self.key, |_, _| inbox.is_empty()).is_some();
        self.members.is_empty() && is_left()
    }

    async fn receive(&mut self, message: CrowdMessage) {
        match message {
            CrowdMessage::Join(joining) => {
                let (socket, stream) = *joining;
                // Level with the rings, it is nowhere behind a newcomer.
                self.write_news().await;
                self.admit(socket, stream);
            }
            CrowdMessage::Probe(probe) => drop(probe),
            CrowdMessage::RecheckGrants => self.send_back_those_due(),
        }
    }

    /// Writes what is new, of each stream as much as goes in one write.
    async fn write_news(&mut self) {
        self.behind = false;
        for part in 0..self.parts.len() {
            let Some(batches) = self.pending(part) else { return self.dissolve() };
            let Some(end_seq) = batches.last().map(|last| last.end_seq()) else { continue };
            self.write(part, &batches, end_seq).await;
            self.behind |= self.parts[part].topic.shard_sent(self.number, end_seq);
        }
    }

    /// The next batches of a part; `None`: there is more to tell than entries.
    fn pending(&self, part: usize) -> Option<Vec<Arc<Batch>>> {
        self.batches(part, self.positions[part].seq, u64::MAX)
    }

    /// Batches of a part from one item on up to another, as many as go in one write.
    pub(super) fn batches(
        &self,
        part: usize,
        from_seq: u64,
        end_seq: u64,
    ) -> Option<Vec<Arc<Batch>>> {
        let Part { topic, format } = &self.parts[part];
        let state = topic.state();
        let mut bytes = 0;
        let more = state.ring.from(from_seq).take_while(|batch| {
            let fits = bytes == 0 || bytes + batch.size_bytes() <= WRITE_BYTES;
            bytes += batch.size_bytes();
            fits && batch.first_seq < end_seq
        });
        let batches: Vec<_> = more.cloned().collect();
        let is_plain = |batch: &Arc<Batch>| format.is_in(batch) && !batch.concerns_all();
        let is_end = || from_seq >= end_seq.min(state.ring.next_seq());
        let reaches_back = batches.first().map_or_else(is_end, |first| first.first_seq <= from_seq);
        (is_up(&state.reader) && reaches_back && batches.iter().all(is_plain)).then_some(batches)
    }

    async fn write(&mut self, part: usize, batches: &[Arc<Batch>], end_seq: u64) {
        let (before, mut composed) = (self.positions.clone(), Composed::default());
        let formats = (self.parts[part].format, self.format);
        composed.add(&mut self.positions, part, batches, end_seq, formats);
        let (settings, mut outcomes) = (self.fanout.settings().clone(), Vec::new());
        for first in (0..self.members.capacity()).step_by(uring::MOST) {
            let slots = (first..first + uring::MOST).filter(|slot| self.members.contains(*slot));
            let slots: Vec<_> = slots.filter(|_| !composed.bytes.is_empty()).collect();
            let sends =
                slots.iter().map(|slot| (self.members[*slot].socket.get(), &*composed.bytes));
            uring::send(settings.at_once, sends, &mut outcomes);
            for (slot, outcome) in slots.into_iter().zip(outcomes.drain(..)) {
                self.sent(slot, &composed, &outcome, &before);
            }
            tokio::task::yield_now().await;
        }
        if !composed.bytes.is_empty() {
            self.last_write = Instant::now();
        }
        let seqs = before[part].seq..end_seq;
        let (metrics, clients) = (&self.fanout.metrics, self.members.len() as u64);
        observe_latency(metrics, batches, self.parts[part].format, seqs, clients);
        for batch in batches.iter().filter(|_| clients > 0) {
            metrics.fanout.observe(self.last_write.duration_since(batch.since), 1);
        }
    }

    /// A member took so much of a write, before which it was at these positions.
    fn sent(
        &mut self,
        slot: usize,
        composed: &Composed,
        outcome: &io::Result<usize>,
        before: &[Position],
    ) {
        let Ok(sent) = *outcome else { return self.remove(slot) };
        let Member { admitted, route, .. } = &self.members[slot];
        if sent == composed.bytes.len() {
            return count(&self.fanout.metrics, admitted, *route, composed.events(), sent);
        }
        let mut positions = before.to_vec();
        let (events, rest) = composed.advance(&mut positions, sent);
        count(&self.fanout.metrics, admitted, *route, events, sent);
        self.send_back(slot, &positions, rest.to_vec());
    }

    fn next_wake(&self) -> Instant {
        let keepalive = self.last_write + self.fanout.settings().keepalive;
        self.next_deadline.map_or(keepalive, |due| due.min(keepalive))
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        if self.next_deadline.is_some_and(|due| due <= now) {
            self.send_back_those_due();
        }
        if self.last_write + self.fanout.settings().keepalive <= now {
            self.keep_alive().await;
        }
    }
}

/// Counts what a client got.
pub(super) fn count(metrics: &Metrics, admitted: &Admitted, route: u16, events: u64, sent: usize) {
    metrics.routes()[usize::from(route)].events.increment(events);
    admitted.count_bytes(metrics, route, sent);
    admitted.record(events, 0, 0);
}
