//! The ring: the recent batches of a topic, in order. Shards and catch-up subscribers read from it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::Batch;
use super::conflation::NewestItems;
use super::item::Item;
use super::view::View;
use crate::config;
use crate::sse::{Reason, StreamId};

/// The recent batches of a topic. Every item has a number (`seq`) that is never used again. Ids have an order
/// only within one generation of the stream: the ring counts these.
pub struct Ring {
    limits: config::Ring,
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    next_seq: u64,
    /// Everything of this generation after this id is here.
    floor: StreamId,
    tail: StreamId,
    /// The id that this generation began after.
    base: StreamId,
    /// The first item of this generation.
    generation_seq: u64,
    /// The stream's generations, as this topic saw them; zero: nothing was read yet.
    generation: u64,
    /// The gaps of deleted entries that are here, and the last that was: the item, and the id that a client has who
    /// was told of it.
    deletions: VecDeque<(u64, StreamId)>,
    /// What supersedes items that are here.
    newest: NewestItems,
}

/// What the ring knows of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingLookup {
    /// A client that has it goes on with this item.
    At(u64),
    /// The ring has what was around it, and no item with it: it may be of another generation.
    Foreign,
    /// It is older than the ring, or newer than its tail: the source has to tell.
    Outside,
}

impl Ring {
    pub(super) fn new(limits: config::Ring) -> Self {
        Self {
            limits,
            batches: VecDeque::new(),
            bytes: 0,
            next_seq: 0,
            floor: StreamId::ZERO,
            tail: StreamId::ZERO,
            base: StreamId::ZERO,
            generation_seq: 0,
            generation: 0,
            deletions: VecDeque::new(),
            newest: NewestItems::default(),
        }
    }

    /// The number that the next item gets.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The last event id of a client that is level with the tail.
    pub fn tail(&self) -> StreamId {
        self.tail
    }

    /// The id that this generation of the stream began after.
    pub fn base(&self) -> StreamId {
        self.base
    }

    /// The stream's generation, counted from one as this topic saw them.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Memory held.
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Items held.
    pub fn items(&self) -> usize {
        usize::try_from(self.next_seq - self.first_seq()).expect("the ring is bounded")
    }

    /// The number of the oldest item held.
    pub fn first_seq(&self) -> u64 {
        self.batches.front().map_or(self.next_seq, |batch| batch.first_seq)
    }

    /// Appends a batch, and drops what is over the limits and before `needed_seq`.
    pub(super) fn push(&mut self, mut batch: Batch, needed_seq: u64) {
        let Some(last) = batch.ids().last() else { return };
        self.tail = *last;
        batch.first_seq = self.next_seq;
        self.next_seq = batch.end_seq();
        self.bytes += batch.size_bytes();
        self.newest.push(batch.values());
        self.batches.push_back(Arc::new(batch));
        self.shrink_to(self.limits.bytes, needed_seq);
    }

    /// Of the items that are pushed next: where they tell of deleted entries.
    pub(super) fn note_deletions(&mut self, items: &[Item]) {
        for (seq, item) in (self.next_seq..).zip(items) {
            match item {
                // The entry before such a gap may have its id.
                Item::Gap(gap, id) if gap.reason == Reason::Deleted => {
                    let told = id.next().filter(|_| gap.after == Some(*id));
                    self.deletions.push_back((seq, told.unwrap_or(*id)));
                }
                _ => {}
            }
        }
    }

    /// Drops the oldest batches before `needed_seq`, until the rest has at most `bytes` and the limit of
    /// entries. The last batch stays, unless `bytes` is zero.
    pub(super) fn shrink_to(&mut self, bytes: usize, needed_seq: u64) {
        while let Some(first) = self.batches.front() {
            let over = self.bytes > bytes || self.items() > self.limits.entries;
            let last_one = self.batches.len() == 1 && bytes > 0;
            if !over || last_one || first.end_seq() > needed_seq {
                return;
            }
            if first.end_seq() > self.generation_seq {
                self.floor = *first.ids().last().expect("a batch has items");
            }
            self.bytes -= first.size_bytes();
            self.newest.drop_oldest(first.values());
            self.batches.pop_front();
            let first_seq = self.first_seq();
            while self.deletions.get(1).is_some_and(|(seq, _)| *seq < first_seq) {
                self.deletions.pop_front();
            }
        }
    }

    /// Begins a new generation of the stream, after `base`.
    pub(super) fn start_generation(&mut self, base: StreamId) {
        self.generation += 1;
        self.generation_seq = self.next_seq;
        self.deletions.clear();
        (self.floor, self.tail, self.base) = (base, base, base);
    }

    /// From now on it has what follows no id at all.
    #[cfg(test)]
    pub(crate) fn reaches_nowhere(&mut self) {
        self.floor = StreamId { ms: u64::MAX, seq: u64::MAX };
    }

    /// Whether a shard at `seq` still has more than half a ring to send.
    pub(super) fn is_far_behind(&self, seq: u64) -> bool {
        if seq >= self.next_seq {
            return false;
        }
        let items = usize::try_from(self.next_seq - seq).unwrap_or(usize::MAX);
        let behind = self.batches.iter().rev().take_while(|batch| batch.end_seq() > seq);
        let bytes: usize = behind.map(|batch| batch.size_bytes()).sum();
        items > self.limits.entries / 2 || bytes > self.limits.bytes / 2
    }

    /// The batch that holds the item `seq`.
    pub fn at(&self, seq: u64) -> Option<&Arc<Batch>> {
        self.from(seq).next().filter(|batch| batch.first_seq <= seq)
    }

    /// What supersedes items that are here.
    pub fn newest(&self) -> &NewestItems {
        &self.newest
    }

    /// The batches that hold items from `seq` on.
    pub fn from(&self, seq: u64) -> impl Iterator<Item = &Arc<Batch>> {
        let index = self.batches.partition_point(|batch| batch.end_seq() <= seq);
        self.batches.range(index..)
    }

    /// The same, as many as have together no more than about so many bytes; one in any case.
    pub fn some_from(&self, seq: u64, most_bytes: usize) -> impl Iterator<Item = &Arc<Batch>> {
        let mut bytes = 0;
        self.from(seq).take_while(move |batch| {
            let fits = bytes == 0 || bytes + batch.size_bytes() <= most_bytes;
            bytes += batch.size_bytes();
            fits
        })
    }

    /// The last event id of a client that has everything before `seq`.
    pub fn id_before(&self, seq: u64) -> StreamId {
        let before = seq.checked_sub(1).filter(|before| *before >= self.generation_seq);
        before.and_then(|before| self.id_of(before)).unwrap_or(self.floor)
    }

    /// The same if the ring still knows it: it reaches back to `seq`, and the client was told of this
    /// generation.
    pub fn told_before(&self, seq: u64) -> Option<StreamId> {
        (seq >= self.first_seq() && self.knows_generation(seq)).then(|| self.id_before(seq))
    }

    fn id_of(&self, seq: u64) -> Option<StreamId> {
        let batch = self.at(seq)?;
        batch.ids().get(usize::try_from(seq - batch.first_seq).ok()?).copied()
    }

    /// Where a client goes on whose last event id is `id`.
    ///
    /// The ring knows the ids that we may have sent: an item's own, the one less (a gap before the item has
    /// it), and both ends of the ring.
    pub fn find(&self, id: StreamId) -> RingLookup {
        let Some(seq) = self.reach(id) else { return RingLookup::Outside };
        let known = id == self.floor
            || id == self.tail
            || self.id_before(seq) == id
            || id.next().is_some_and(|next| self.id_of(seq) == Some(next));
        if known { RingLookup::At(seq) } else { RingLookup::Foreign }
    }

    /// The first item after `id`, if everything after `id` is here.
    pub fn reach(&self, id: StreamId) -> Option<u64> {
        (id >= self.floor && id <= self.tail).then(|| self.first_after(id))
    }

    /// Whether somebody who had all up to `id`, and comes back to the ring at `seq`, has missed the gap of an entry that
    /// was deleted: such a gap comes late, and may come after the entries around it.
    pub fn has_told_of_deletion(&self, id: StreamId, seq: u64) -> bool {
        let mut before = self.deletions.iter().rev().skip_while(|(at, _)| *at >= seq);
        before.next().is_some_and(|(_, told)| id < *told)
    }

    /// Whether the item `seq` tells of a gap amid which somebody is who has all up to `id`: it tells of more than that one
    /// lacks.
    pub fn begins_amid_gap(&self, id: StreamId, seq: u64) -> bool {
        let gap = self.at(seq).and_then(|batch| batch.gap(seq));
        let gap = gap.filter(|gap| gap.reason != Reason::Reset);
        gap.is_some_and(|gap| {
            gap.after.is_some_and(|after| after < id) && gap.next.is_some_and(|next| id < next)
        })
    }

    /// The first entry from `seq` on, if it is here.
    pub fn first_entry(&self, seq: u64) -> Option<StreamId> {
        let mut entries = (seq..self.next_seq).filter(|seq| !self.is_gap(*seq));
        entries.next().and_then(|seq| self.id_of(seq))
    }

    /// Whether a client at `seq` was told of this generation, and not only of an earlier one.
    pub fn knows_generation(&self, seq: u64) -> bool {
        self.generation <= 1 || seq > self.generation_seq
    }

    /// Whether another generation begins with the item `seq`.
    pub fn begins_generation(&self, seq: u64) -> bool {
        self.generation > 1 && seq == self.generation_seq
    }

    /// How many entries are among the items from `seq` on; the others are gaps.
    pub fn entries_from(&self, seq: u64) -> u64 {
        self.from(seq).map(|batch| batch.entries_from(seq)).sum()
    }

    /// The item that is the `count`-th newest entry of this generation, if it is here.
    pub fn nth_newest(&self, count: u64) -> Option<u64> {
        let mut left = count;
        for batch in self.batches.iter().rev() {
            let first = batch.first_seq.max(self.generation_seq);
            let entries = batch.entries_from(first);
            if entries >= left {
                return (first..batch.end_seq()).rev().find(|seq| batch.entries_from(*seq) == left);
            }
            left -= entries;
        }
        None
    }

    /// The same of the entries that a client with this view gets, among the `most` newest of all: where there are fewer,
    /// the oldest of these. `None`: that is not known here.
    pub fn nth_newest_in(&self, view: View<'_>, count: u64, most: u64) -> Option<u64> {
        let Some(selection) = view.selection else { return self.nth_newest(count) };
        let rendering = view.rendering;
        let (mut left, mut looked_at) = (count, 0);
        for batch in self.batches.iter().rev() {
            let first = batch.first_seq.max(self.generation_seq);
            if !batch.has(rendering) {
                return None;
            }
            for seq in (first..batch.end_seq()).rev().filter(|seq| !batch.is_gap(*seq)) {
                looked_at += 1;
                left -= u64::from(batch.admits(rendering, seq, selection));
                if left == 0 || looked_at == most {
                    return Some(seq);
                }
            }
        }
        None
    }

    /// The oldest item of this generation that is here.
    pub fn first_in_generation(&self) -> u64 {
        self.first_seq().max(self.generation_seq)
    }

    /// The first item that a client with `id` may not have. A gap that was found late may have the id of the
    /// entry right before it: better sent twice than never.
    fn first_after(&self, id: StreamId) -> u64 {
        let (mut low, mut high) = (self.first_in_generation(), self.next_seq);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.id_of(middle).is_some_and(|at| at <= id) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        // The first item of a generation has none before it.
        while low > self.generation_seq + 1 && self.is_gap(low - 1) && self.id_before(low - 1) == id
        {
            low -= 1;
        }
        low
    }

    fn is_gap(&self, seq: u64) -> bool {
        self.at(seq).is_some_and(|batch| batch.is_gap(seq))
    }
}

#[cfg(test)]
mod tests;
