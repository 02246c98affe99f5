//! One write to members that get only some entries: each group gets its own.

use std::sync::Arc;

use super::groups::Due;
use super::task::Shard;
use crate::fanout::broadcast_write::BroadcastWrite;
use crate::fanout::wire::WritePosition;
use crate::stream::Batch;

impl Shard {
    /// Adds to a write what is due to each group, and sends it as it gets full. Members whose streams may end with these
    /// batches leave for catch-up.
    pub(super) async fn write_to_groups(&mut self, broadcast: &mut BroadcastWrite<'_>, end: u64) {
        let Some(groups) = &self.groups else { return };
        let (batches, from_seq) = (broadcast.batches(), self.position);
        let concerns_all = batches.iter().any(|batch| batch.concerns_all());
        let due = if concerns_all {
            groups.due_of_all(batches, from_seq)
        } else {
            groups.due(batches, from_seq)
        };
        self.count_withheld(batches, end, &due);
        for due in due {
            let seen = concerns_all.then(|| due.format.selected(batches, &due.selection));
            // The same bytes for all that are not ahead of the shard.
            let mut shared = None;
            for slot in &due.slots {
                let Some(member) = self.members.get(*slot) else { continue };
                if member.has_until >= end {
                    continue;
                }
                let seq = from_seq.max(member.has_until);
                if seen.as_ref().is_some_and(|seen| member.subscriber.may_leave_in(seen, seq)) {
                    self.leave_to_catch_up(*slot, WritePosition { seq, offset: 0 }, Vec::new());
                    continue;
                }
                let part = match shared {
                    Some(part) if seq == from_seq => part,
                    _ => broadcast.part_of(due.format, &due.selection, seq, &due.seqs),
                };
                if seq == from_seq {
                    shared = Some(part);
                }
                broadcast.add_to(*slot, part);
                if broadcast.is_full() {
                    self.send(broadcast);
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn count_withheld(&self, batches: &[Arc<Batch>], end: u64, due: &[Due]) {
        let entries: u64 = batches.iter().map(|batch| batch.entries_from(self.position)).sum();
        // Every group gets the gaps.
        let gaps = end - self.position - entries;
        let delivered =
            |due: &Due| due.slots.len() as u64 * (due.seqs.len() as u64).saturating_sub(gaps);
        let all = entries * self.members.len() as u64;
        let withheld = all.saturating_sub(due.iter().map(delivered).sum());
        self.fanout.metrics.withheld.increment(withheld);
    }
}
