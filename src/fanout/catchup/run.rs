//! Batches that are written in one go, and which of their bytes belong to an event that was begun.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::fanout::wire::{WireFormat, WritePosition, age_ms, id_before, now_ms};
use crate::sse::{Selection, StreamId};
use crate::stream::{Batch, NewestItems};

/// Batches that are written in one go.
pub(super) struct Run {
    pub(super) batches: Vec<Arc<Batch>>,
    /// How their bytes look; in a page, which has one rendering, not as in the ring.
    pub(super) format: WireFormat,
    /// From where on.
    pub(super) at: WritePosition,
    /// Nothing after a gap is written.
    pub(super) stops_at_gap: bool,
    /// Items that its client is spared.
    pub(super) spared: Vec<u64>,
    /// Entries that its client does not get.
    pub(super) withheld: Vec<u64>,
}

/// The first batches that this format has, and that make about `max_bytes`; at least one, and none after an entry that
/// ends the stream.
pub(super) fn run_from<'a>(
    batches: impl Iterator<Item = &'a Arc<Batch>>,
    format: WireFormat,
    max_bytes: usize,
) -> Vec<Arc<Batch>> {
    let (mut bytes, mut is_over) = (0, false);
    let run = batches.take_while(|batch| {
        if std::mem::replace(&mut is_over, batch.ends_stream(usize::from(format.rendering))) {
            return false;
        }
        let fits = bytes == 0 || bytes + batch.size_bytes() <= max_bytes;
        bytes += batch.size_bytes();
        fits && format.is_in(batch)
    });
    run.cloned().collect()
}

/// Makes of each batch one that leaves out some items; and these.
fn each(
    batches: &[Arc<Batch>],
    made: impl Fn(&Batch) -> (Batch, Vec<u64>),
) -> (Vec<Arc<Batch>>, Vec<u64>) {
    let (batches, left_out): (Vec<_>, Vec<_>) = batches.iter().map(|batch| made(batch)).unzip();
    (batches.into_iter().map(Arc::new).collect(), left_out.concat())
}

impl Run {
    /// Without the items that are superseded; not without one that is half written.
    pub(super) fn conflated(self, newest: &NewestItems) -> Self {
        let from_seq = self.at.seq + u64::from(self.at.offset > 0);
        let rendering = usize::from(self.format.rendering);
        let (batches, spared) =
            each(&self.batches, |batch| batch.conflated(rendering, from_seq, newest));
        Self { batches, spared, ..self }
    }

    /// The same by what it holds itself: what a client with a selection does not get supersedes nothing.
    pub(super) fn conflated_by_itself(self) -> Self {
        let newest = Batch::newest(&self.batches);
        self.conflated(&newest)
    }

    /// Without the entries that a client with this selection does not get.
    pub(super) fn selected(self, selection: &Selection) -> Self {
        let rendering = usize::from(self.format.rendering);
        let (batches, mut withheld) =
            each(&self.batches, |batch| batch.selected(rendering, selection));
        withheld.retain(|seq| *seq >= self.at.seq);
        Self { batches, withheld, ..self }
    }

    /// How many items before `seq` its client was spared, and how many entries were withheld from it.
    pub(super) fn left_out_before(&self, seq: u64) -> (u64, u64) {
        let before = |left_out: &[u64]| left_out.partition_point(|at| *at < seq) as u64;
        (before(&self.spared), before(&self.withheld))
    }

    /// All of its bytes, up to `max_bytes`.
    pub(super) fn bytes(&self, max_bytes: usize) -> Bytes {
        let all = self.format.bytes_of(&self.batches, self.at, max_bytes);
        match self.gap() {
            Some(gap) => all.slice(..self.bytes_up_to(gap).min(all.len())),
            None => all,
        }
    }

    /// The first gap, if it stops there.
    fn gap(&self) -> Option<u64> {
        let rendering = usize::from(self.format.rendering);
        let mut batches = self.batches.iter().filter(|_| self.stops_at_gap);
        batches.find_map(|batch| batch.next_gap(rendering, self.at.seq))
    }

    /// How many bytes there are to the end of this item.
    fn bytes_up_to(&self, last: u64) -> usize {
        let items = self.batches.iter().flat_map(|batch| {
            let seqs = batch.first_seq.max(self.at.seq)..batch.end_seq().min(last + 1);
            seqs.map(|seq| self.format.item(batch, seq).len())
        });
        items.sum::<usize>() - self.at.offset
    }

    /// Whether a client that has everything before `position` has the gap at which it stops.
    pub(super) fn has_passed_gap(&self, position: u64) -> bool {
        self.gap().is_some_and(|gap| gap < position)
    }

    /// Whether the entry that ends the stream is the last one before this position.
    pub(super) fn ends_stream_at(&self, position: WritePosition) -> bool {
        let rendering = usize::from(self.format.rendering);
        let mut batches = self.batches.iter();
        let last = batches.find(|batch| batch.end_seq() == position.seq);
        position.offset == 0 && last.is_some_and(|last| last.ends_stream(rendering))
    }

    /// Whether the entry that was begun, if one was, can be the one that comes first.
    pub(super) fn begins_as_begun(&self) -> bool {
        let WritePosition { seq, offset } = self.at;
        let begun = self.batches.iter().find(|batch| batch.first_seq <= seq);
        begun.is_some_and(|begun| offset == 0 || self.format.item(begun, seq).len() > offset)
    }

    /// Of `all` its bytes those of the event that was begun: a client that is due to go gets no other.
    pub(super) fn half_written(&self, all: Bytes) -> Bytes {
        let WritePosition { seq, offset } = self.at;
        let holds = |batch: &&Arc<Batch>| (batch.first_seq..batch.end_seq()).contains(&seq);
        match self.batches.iter().find(holds) {
            Some(batch) if offset > 0 => {
                let rest_bytes = self.format.item(batch, seq).len() - offset;
                all.slice(..rest_bytes.min(all.len()))
            }
            _ => all,
        }
    }

    /// Whether the first that it sends is older than `max_lag`.
    pub(super) fn is_older_than(&self, max_lag: Duration) -> bool {
        let items = self.batches.iter().flat_map(|batch| {
            let from = batch.first_seq.max(self.at.seq);
            (from..batch.end_seq()).zip(batch.ids_from(from)).map(move |(seq, id)| (batch, seq, id))
        });
        let mut sent = items.filter(|(batch, seq, _)| !self.format.item(batch, *seq).is_empty());
        let age = sent.next().and_then(|(_, _, id)| age_ms(*id, now_ms()));
        age.is_some_and(|age| Duration::from_millis(age) > max_lag)
    }

    /// Whether it came to the gateway no longer than `max_lag` ago, however old its entries are.
    pub(super) fn is_news(&self, max_lag: Duration) -> bool {
        self.batches.first().is_some_and(|batch| batch.since.elapsed() <= max_lag)
    }

    /// The id of the item before `seq`, if it is in this run.
    pub(super) fn id_before(&self, seq: u64) -> Option<StreamId> {
        id_before(&self.batches, seq)
    }
}
