//! The bytes of one write to a crowd, and where a client is that took only some of them.

use std::sync::Arc;

use crate::fanout::WireFormat;
use crate::sse::{StreamId, composite_id};
use crate::stream::Batch;

/// Where the clients of a crowd are in one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// What clients call it.
    pub(super) name: Arc<str>,
    /// The item that comes next.
    pub(super) seq: u64,
    /// The id of the last that they have.
    pub(super) id: StreamId,
}

/// Items of several streams, each with a composite id, as they are written.
#[derive(Default)]
pub(super) struct Composed {
    pub(super) bytes: Vec<u8>,
    items: Vec<ComposedItem>,
}

struct ComposedItem {
    part: usize,
    seq: u64,
    id: StreamId,
    /// Where its bytes end; one that is skipped has none.
    end: usize,
}

impl Composed {
    /// How many items are events.
    pub(super) fn events(&self) -> u64 {
        self.events_of(self.items.len())
    }

    /// Adds the items of a part up to `end_seq`, which the clients at these positions have then. `format`: how the part
    /// is encoded; `as_sent`: how the client wants it.
    pub(super) fn add(
        &mut self,
        positions: &mut [Position],
        part: usize,
        batches: &[Arc<Batch>],
        end_seq: u64,
        (format, as_sent): (WireFormat, WireFormat),
    ) {
        let bare = WireFormat { framed: false, ..format };
        let from_seq = positions[part].seq;
        for batch in batches {
            let first = batch.first_seq.max(from_seq);
            for (seq, id) in (first..batch.end_seq().min(end_seq)).zip(batch.ids_from(first)) {
                (positions[part].seq, positions[part].id) = (seq + 1, *id);
                self.event(positions, &bare.item(batch, seq), as_sent);
                self.items.push(ComposedItem { part, seq, id: *id, end: self.bytes.len() });
            }
        }
    }

    /// Writes an event with the composite id in place of its own, which is its first line.
    fn event(&mut self, positions: &[Position], event: &[u8], as_sent: WireFormat) {
        let Some(id_end) = event.iter().position(|byte| *byte == b'\n') else { return };
        let ids = positions.iter().map(|position| (&*position.name, position.id));
        let id = composite_id(ids).unwrap_or_default();
        let mut composed = Vec::with_capacity(event.len() + id.len());
        composed.extend_from_slice(b"id: ");
        composed.extend_from_slice(id.as_bytes());
        composed.extend_from_slice(&event[id_end..]);
        as_sent.append_event(&composed, &mut self.bytes);
    }

    /// Moves a client on that took so many bytes: to the end of the event that it has at least begun; how many events
    /// that makes, and what is left to be written of the last.
    pub(super) fn advance(&self, positions: &mut [Position], sent: usize) -> (u64, &[u8]) {
        let begun = |item: &ComposedItem| item.end <= sent;
        let whole = self.items.iter().take_while(|item| begun(item)).count();
        let start = whole.checked_sub(1).map_or(0, |last| self.items[last].end);
        let has_begun_next = sent > start && whole < self.items.len();
        let moved = whole + usize::from(has_begun_next);
        for ComposedItem { part, seq, id, .. } in &self.items[..moved] {
            (positions[*part].seq, positions[*part].id) = (seq + 1, *id);
        }
        let rest = if has_begun_next { &self.bytes[sent..self.items[whole].end] } else { &[][..] };
        (self.events_of(moved), rest)
    }

    fn events_of(&self, items: usize) -> u64 {
        let mut before = 0;
        let events = self.items[..items].iter().filter(|item| {
            let is_event = item.end > before;
            before = item.end;
            is_event
        });
        events.count() as u64
    }
}
