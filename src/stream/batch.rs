//! A batch: what one read found, encoded once for all subscribers, as SSE events in HTTP chunks.
//!
//! Each event is a chunk of its own, so that a subscriber can start, stop and go on at any event. For those
//! that need no chunk frames (HTTP/1.0, HTTP/2, TLS) they are taken off, which copies nothing.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::conflation::{FieldValue, NewestItems, ValuedItem};
use super::item::Item;
use super::rows::Rows;
use crate::sse::{
    Control, Gap, Reason, Rendering, RowValue, Selection, StreamId, Written, write_chunk,
    write_control, write_entry,
};

/// Items of one read, encoded for each rendering of their topic.
#[derive(Debug)]
pub struct Batch {
    /// The first item's number in the topic.
    pub first_seq: u64,
    /// When its items were handed over to be encoded.
    pub since: Instant,
    ids: Vec<StreamId>,
    /// The gaps among the items, by index; there is hardly ever one.
    gaps: Vec<(usize, Gap)>,
    /// By the number of the rendering; there are few.
    rendered: Vec<(usize, Rendered)>,
}

/// The bytes of a batch in one rendering.
#[derive(Debug)]
struct Rendered {
    bytes: Bytes,
    /// Where each item ends; an item that this rendering skips is empty.
    ends: Vec<usize>,
    /// Which entries cannot be sent, by index, and why: a gap is sent in their place.
    unsent: Vec<(usize, Reason)>,
    /// The last item is the entry that ends the stream.
    ends_stream: bool,
    /// By which value of its field each item can be superseded; empty where the rendering conflates nothing.
    values: Vec<Option<FieldValue>>,
    /// By which values of its fields each entry is selected.
    rows: Rows,
}

/// How many entries could not be sent, by reason, counted once for each rendering.
pub type Unsent = [(Reason, u64); 2];

impl Batch {
    /// Encodes `items` for each rendering, by its index; the ring numbers them.
    pub fn encode(items: &[Item], renderings: &[Rendering], max_entry_bytes: usize) -> Self {
        Self::encode_for(items, renderings.iter().enumerate(), max_entry_bytes)
    }

    /// Encodes `items` for each rendering, by its number.
    pub fn encode_for<'a>(
        items: &[Item],
        renderings: impl Iterator<Item = (usize, &'a Rendering)>,
        max_entry_bytes: usize,
    ) -> Self {
        let since = Instant::now();
        let rendered = renderings
            .map(|(number, rendering)| (number, Rendered::new(items, rendering, max_entry_bytes)))
            .collect();
        let gap = |(index, item): (usize, &Item)| match item {
            Item::Gap(gap, _) => Some((index, *gap)),
            Item::Entry(_) => None,
        };
        Self {
            first_seq: 0,
            since,
            ids: items.iter().map(Item::id).collect(),
            gaps: items.iter().enumerate().filter_map(gap).collect(),
            rendered,
        }
    }

    /// The number after the last item's.
    pub fn end_seq(&self) -> u64 {
        self.first_seq + self.ids.len() as u64
    }

    /// Each item's last event id.
    pub fn ids(&self) -> &[StreamId] {
        &self.ids
    }

    /// The same, of the items from `from_seq` on.
    pub fn ids_from(&self, from_seq: u64) -> &[StreamId] {
        self.ids.get(self.index(from_seq)..).unwrap_or_default()
    }

    /// Roughly the memory that it holds, as the ring counts it.
    pub fn size_bytes(&self) -> usize {
        let ends_bytes = size_of::<usize>() * self.ids.len();
        let value_bytes = |made: &Rendered| size_of::<Option<FieldValue>>() * made.values.len();
        let of_one = |made: &Rendered| {
            made.bytes.len() + ends_bytes + value_bytes(made) + made.rows.size_bytes()
        };
        let rendered: usize = self.rendered.iter().map(|(_, made)| of_one(made)).sum();
        rendered + self.ids.len() * size_of::<StreamId>() + size_of::<Self>()
    }

    /// Whether it was encoded for this rendering.
    pub fn has(&self, rendering: usize) -> bool {
        self.rendered.iter().any(|(number, _)| *number == rendering)
    }

    /// The item, if it is a gap.
    pub fn gap(&self, seq: u64) -> Option<Gap> {
        let index = self.index(seq);
        self.gaps.iter().find(|(at, _)| *at == index).map(|(_, gap)| *gap)
    }

    /// Whether the item is a gap.
    pub fn is_gap(&self, seq: u64) -> bool {
        self.gap(seq).is_some()
    }

    /// How many entries are among the items from `from_seq` on.
    pub fn entries_from(&self, from_seq: u64) -> u64 {
        let from = self.index(from_seq);
        let gaps = self.gaps.iter().filter(|(at, _)| *at >= from).count();
        self.ids.len().saturating_sub(from + gaps) as u64
    }

    /// Entries that could not be sent.
    pub fn unsent(&self) -> Unsent {
        let all = || self.rendered.iter().flat_map(|(_, made)| &made.unsent);
        let count = |of| all().filter(|(_, reason)| *reason == of).count() as u64;
        [Reason::Oversize, Reason::Unreadable].map(|reason| (reason, count(reason)))
    }

    /// What supersedes items of these batches, among themselves.
    pub fn newest(batches: &[Arc<Self>]) -> NewestItems {
        let mut newest = NewestItems::default();
        for batch in batches {
            newest.push(batch.values());
        }
        newest
    }

    /// The items that can be superseded.
    pub(super) fn values(&self) -> impl Iterator<Item = ValuedItem> {
        self.rendered.iter().flat_map(|(number, made)| {
            let values = (self.first_seq..).zip(&made.values);
            values.filter_map(|(seq, value)| value.map(|value| (*number, seq, value)))
        })
    }

    /// The same in one rendering, with nothing in place of the items from `from_seq` on that are superseded; and these.
    pub fn conflated(
        &self,
        rendering: usize,
        from_seq: u64,
        newest: &NewestItems,
    ) -> (Self, Vec<u64>) {
        let made = self.rendered(rendering);
        let (mut batch, spared) = self.without(rendering, |index, seq| {
            let value = made.values.get(index).copied().flatten().filter(|_| seq >= from_seq);
            value.is_some_and(|value| newest.supersede(rendering, seq, value))
        });
        if spared.last().is_some_and(|last| last + 1 == self.end_seq()) {
            batch.rendered[0].1.ends_stream = false;
        }
        (batch, spared)
    }

    /// The same in one rendering, with nothing in place of the entries that a client with this selection does not get;
    /// and these.
    pub fn selected(&self, rendering: usize, selection: &Selection) -> (Self, Vec<u64>) {
        self.without(rendering, |_, seq| !self.admits(rendering, seq, selection))
    }

    /// Whether a client with this selection gets the item. Gaps are for everybody; and an entry that nobody can read
    /// may be anybody's.
    pub fn admits(&self, rendering: usize, seq: u64, selection: &Selection) -> bool {
        let (made, index) = (self.rendered(rendering), self.index(seq));
        let is_unreadable = || made.unsent.contains(&(index, Reason::Unreadable));
        selection.admits(made.rows.row(index)) || self.is_gap(seq) || is_unreadable()
    }

    /// By which values of its columns the item is selected.
    pub fn row(&self, rendering: usize, seq: u64) -> &[Option<RowValue>] {
        self.rendered(rendering).rows.row(self.index(seq))
    }

    /// Whether it holds more than entries that go to whom they are for: a gap, or the end of the stream.
    pub fn concerns_all(&self) -> bool {
        let concerns_all = |made: &Rendered| made.ends_stream || !made.unsent.is_empty();
        !self.gaps.is_empty() || self.rendered.iter().any(|(_, made)| concerns_all(made))
    }

    /// The same in one rendering, with nothing in place of the items that `leaves_out` names by index and number; and
    /// these.
    fn without(
        &self,
        rendering: usize,
        leaves_out: impl Fn(usize, u64) -> bool,
    ) -> (Self, Vec<u64>) {
        let made = self.rendered(rendering);
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(made.ends.len()));
        let (mut left_out, mut values) = (Vec::new(), made.values.clone());
        for (index, seq) in (0..made.ends.len()).zip(self.first_seq..) {
            if leaves_out(index, seq) {
                left_out.push(seq);
                values.get_mut(index).map(Option::take);
            } else {
                bytes.extend_from_slice(&made.bytes[made.range(index)]);
            }
            ends.push(bytes.len());
        }
        let seq = |index: usize| self.first_seq + index as u64;
        let is_left_out = |index: usize| left_out.binary_search(&seq(index)).is_ok();
        let unsent = made.unsent.iter().filter(|(index, _)| !is_left_out(*index));
        let rendered = Rendered {
            bytes: bytes.into(),
            ends,
            unsent: unsent.copied().collect(),
            ends_stream: made.ends_stream,
            values,
            rows: Rows::default(),
        };
        let Self { first_seq, since, ref ids, ref gaps, .. } = *self;
        let rendered = vec![(rendering, rendered)];
        (Self { first_seq, since, ids: ids.clone(), gaps: gaps.clone(), rendered }, left_out)
    }

    /// Whether its last item is the entry that ends the stream.
    pub fn ends_stream(&self, rendering: usize) -> bool {
        self.has(rendering) && self.rendered(rendering).ends_stream
    }

    /// The first item from `from_seq` on that tells of missing entries, if there is one.
    pub fn next_gap(&self, rendering: usize, from_seq: u64) -> Option<u64> {
        let rendered = self.rendered.iter().filter(|(number, _)| *number == rendering);
        let unsent = rendered.flat_map(|(_, made)| &made.unsent).map(|(index, _)| index);
        let gaps = self.gaps.iter().map(|(index, _)| index);
        let seqs = gaps.chain(unsent).map(|index| self.first_seq + *index as u64);
        seqs.filter(|seq| *seq >= from_seq).min()
    }

    /// Whether the item is sent as an entry: it is no gap, could be sent, and is not skipped by this rendering.
    pub fn is_entry(&self, rendering: usize, seq: u64) -> bool {
        let (rendered, index) = (self.rendered(rendering), self.index(seq));
        let is_unsent = rendered.unsent.iter().any(|(unsent, _)| *unsent == index);
        let control = self.is_gap(seq) || is_unsent;
        !control && !rendered.range(index).is_empty()
    }

    /// The framed bytes of the items from `from_seq` on.
    pub fn framed(&self, rendering: usize, from_seq: u64) -> Bytes {
        let rendered = self.rendered(rendering);
        rendered.bytes.slice(rendered.start(self.index(from_seq))..)
    }

    /// The framed bytes of one item; empty if this rendering skips it.
    pub fn item(&self, rendering: usize, seq: u64) -> Bytes {
        let rendered = self.rendered(rendering);
        rendered.bytes.slice(rendered.range(self.index(seq)))
    }

    fn rendered(&self, rendering: usize) -> &Rendered {
        let mut made = self.rendered.iter();
        let found = made.find(|(number, _)| *number == rendering);
        &found.expect("only a batch that has the rendering is asked for it").1
    }

    fn index(&self, seq: u64) -> usize {
        usize::try_from(seq.saturating_sub(self.first_seq)).expect("a batch has few items")
    }
}

impl Rendered {
    fn new(items: &[Item], rendering: &Rendering, max_entry_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(items.iter().map(Item::event_bytes).sum());
        let mut ends = Vec::with_capacity(items.len());
        let mut unsent = Vec::new();
        let mut event = Vec::new();
        let mut before = None;
        for (index, item) in items.iter().enumerate() {
            event.clear();
            match item {
                Item::Gap(gap, id) => write_gap(&mut event, rendering, *gap, *id),
                Item::Entry(entry) => {
                    let reason = match write_entry(&mut event, entry, rendering, max_entry_bytes) {
                        Written::Oversize => Some(Reason::Oversize),
                        Written::Unreadable => Some(Reason::Unreadable),
                        Written::Event | Written::Skipped => None,
                    };
                    if let Some(reason) = reason {
                        unsent.push((index, reason));
                        let next =
                            items.get(index + 1).map(Item::id).filter(|next| *next > entry.id);
                        let after = Some(before.unwrap_or(entry.id.prev()));
                        let gap = Gap { after, next, lost: Some(1), reason };
                        let id = next.map_or(entry.id, StreamId::prev);
                        write_gap(&mut event, rendering, gap, id);
                    }
                }
            }
            write_chunk(&mut bytes, &event);
            ends.push(bytes.len());
            before = Some(item.id());
        }
        // Copied into the exact size: spare capacity would be memory that the ring does not count.
        let bytes = Bytes::copy_from_slice(&bytes);
        let ends_stream = items.last().is_some_and(|last| last.ends_stream(rendering));
        let values = match &rendering.conflate {
            Some(field) => values(items, field, &unsent),
            None => Vec::new(),
        };
        let rows = Rows::of(items, &rendering.columns);
        Self { bytes, ends, unsent, ends_stream, values, rows }
    }

    fn start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] }
    }

    fn range(&self, index: usize) -> Range<usize> {
        self.start(index)..self.ends[index]
    }
}

/// By which value each item can be superseded: gaps are not, nor what stands for an entry that cannot be sent.
fn values(items: &[Item], field: &str, unsent: &[(usize, Reason)]) -> Vec<Option<FieldValue>> {
    let is_unsent = |index: usize| unsent.iter().any(|(at, _)| *at == index);
    let value = |(index, item): (usize, &Item)| {
        let entry = item.entry().filter(|_| !is_unsent(index))?;
        FieldValue::of(entry, field)
    };
    items.iter().enumerate().map(value).collect()
}

fn write_gap(out: &mut Vec<u8>, rendering: &Rendering, gap: Gap, id: StreamId) {
    let id = rendering.gaps_have_ids.then_some(id);
    // An entry that is too large is the client's own.
    let may_be_others = !rendering.columns.is_empty() && gap.reason != Reason::Oversize;
    write_control(out, rendering.controls, id, Control::gap(gap, may_be_others));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::Entry;

    /// A shard has batches that are older than the rendering of a client that has just joined.
    #[test]
    fn a_batch_may_be_asked_about_a_rendering_that_it_lacks() {
        let id = StreamId { ms: 5, seq: 0 };
        let gap = Gap { after: None, next: None, lost: None, reason: Reason::Trimmed };
        let rendering = Rendering::default();
        let items = [Item::Gap(gap, id), Item::Entry(Entry { id, fields: Vec::new() })];
        let batch = Batch::encode_for(&items, [(1, &rendering)].into_iter(), 1000);
        assert_eq!((batch.next_gap(1, 0), batch.next_gap(1, 1)), (Some(0), Some(1)));
        assert_eq!((batch.next_gap(0, 0), batch.next_gap(0, 1)), (Some(0), None));
        assert!(!batch.ends_stream(0));
    }
}
