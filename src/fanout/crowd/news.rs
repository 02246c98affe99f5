//! What is new in a topic, written to the crowds that follow it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::hall::{Crowd, Hall, Member};
use super::write::{Composed, Position};
use crate::fanout::broadcast_write::observe_latency;
use crate::fanout::{Admitted, WireFormat, uring};
use crate::stream::Batch;
use crate::telemetry::metrics::Metrics;

/// What is composed for several crowds is written once it has about so much.
const ROUND_BYTES: usize = 1 << 20;

/// What is written to a crowd.
struct Write {
    crowd: usize,
    /// Where its members were before.
    before: Vec<Position>,
    composed: Composed,
    /// How many events that are.
    events: u64,
}

impl Hall {
    /// Writes what is new in a topic, as much as goes in one write.
    pub(super) async fn write_news(&mut self, feed: usize) {
        // Its followers may have left.
        let Some(found) = self.feeds.get(feed) else { return };
        let Some(batches) = found.pending() else { return self.dissolve_followers(feed, None) };
        let Some(end_seq) = batches.last().map(|last| last.end_seq()) else { return };
        self.dissolve_followers(feed, Some(&batches));
        let Some(found) = self.feeds.get(feed) else { return };
        let seqs = found.seq..end_seq;
        let clients = self.write_to_followers(feed, &batches, end_seq).await;
        self.feeds.sent(feed, &batches);
        let (metrics, now) = (&self.fanout.metrics, Instant::now());
        for (format, clients) in clients {
            observe_latency(metrics, &batches, format, seqs.clone(), clients);
        }
        for batch in &batches {
            metrics.fanout.observe(now.duration_since(batch.since), 1);
        }
    }

    /// Writes these batches to each crowd that follows the topic; to how many clients, by how the part is encoded.
    async fn write_to_followers(
        &mut self,
        feed: usize,
        batches: &[Arc<Batch>],
        end_seq: u64,
    ) -> HashMap<WireFormat, u64> {
        let mut clients = HashMap::new();
        let Some(found) = self.feeds.get(feed) else { return clients };
        let followers: Vec<_> =
            found.followers.iter().map(|(crowd, part)| (*crowd, *part)).collect();
        let (mut writes, mut recipients, mut bytes) = (Vec::new(), 0, 0);
        for (crowd, part) in followers {
            let write = self.write_to(crowd, part, batches, end_seq);
            let Crowd { parts, slots, .. } = &self.crowds[crowd];
            *clients.entry(parts[part].format).or_default() += slots.len() as u64;
            recipients += slots.len();
            bytes += write.composed.bytes.len();
            writes.push(write);
            // Thousands of crowds may have one member each: their bytes are not held all at once.
            if recipients >= uring::MOST || bytes >= ROUND_BYTES {
                self.send(&std::mem::take(&mut writes)).await;
                tokio::task::yield_now().await;
                (recipients, bytes) = (0, 0);
            }
        }
        self.send(&writes).await;
        clients
    }

    /// Composes what a crowd gets of one of its parts.
    fn write_to(&self, crowd: usize, part: usize, batches: &[Arc<Batch>], end_seq: u64) -> Write {
        let before = self.positions(crowd);
        let (mut positions, mut composed) = (before.clone(), Composed::default());
        let Crowd { parts, format, .. } = &self.crowds[crowd];
        composed.add(&mut positions, part, batches, end_seq, (parts[part].format, *format));
        let events = composed.events();
        Write { crowd, before, composed, events }
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
            if burst.len() == uring::MOST {
                tokio::task::yield_now().await;
            }
        }
    }

    /// A member took so much of a write.
    fn sent(&mut self, slot: usize, write: &Write, outcome: &io::Result<usize>) {
        let Ok(sent) = *outcome else { return self.remove(slot) };
        let (Member { admitted, route, .. }, composed) = (&self.members[slot], &write.composed);
        if sent == composed.bytes.len() {
            return count(&self.fanout.metrics, admitted, *route, write.events, sent);
        }
        let mut positions = write.before.clone();
        let (events, rest) = composed.advance(&mut positions, sent);
        count(&self.fanout.metrics, admitted, *route, events, sent);
        self.send_back(slot, &positions, rest.to_vec());
    }
}

/// Counts what a client got.
pub(super) fn count(metrics: &Metrics, admitted: &Admitted, route: u16, events: u64, sent: usize) {
    metrics.routes()[usize::from(route)].events.increment(events);
    admitted.count_bytes(metrics, route, sent);
    admitted.record(events, 0, 0);
}
