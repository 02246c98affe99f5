//! From a batch to the bytes of one client's connection, and back to a place in the batch.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::event::StreamId;
use crate::topic::Batch;
use crate::topic::batch::{LAST_CHUNK, unframe, write_chunk};

/// How a client wants its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Index of its rendering in the topic.
    pub rendering: u16,
    /// HTTP/1.1 chunks, or (HTTP/1.0) the bare events.
    pub framed: bool,
}

/// A place in a topic's items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    /// The item.
    pub seq: u64,
    /// Bytes of it that are sent already.
    pub offset: usize,
}

/// The rest of a half-written event is kept where it is no larger than this; that of a larger one is
/// made again from its entry. Every control event is smaller, and could not be made again: what it
/// says depends on the read that found it.
const SMALL_REST_BYTES: usize = 512;

/// What a write got done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Where it goes on once the rest is written.
    pub spot: Spot,
    /// Entries' events that are then complete.
    pub events: u64,
    /// The rest of an event that was begun.
    pub rest: Bytes,
}

impl View {
    fn rendering(self) -> usize {
        usize::from(self.rendering)
    }

    /// Whether the batch was encoded for this view.
    pub fn is_in(self, batch: &Batch) -> bool {
        batch.has(self.rendering())
    }

    /// The bytes of one or more batches from item `seq` on; shared where nothing has to be copied.
    pub fn bytes_of(self, batches: &[Arc<Batch>], seq: u64) -> Bytes {
        match batches {
            [only] if self.framed => only.framed(self.rendering(), seq),
            _ => {
                let mut out = Vec::new();
                for batch in batches.iter().filter(|batch| batch.end_seq() > seq) {
                    self.append(
                        &batch.framed(self.rendering(), seq.max(batch.first_seq)),
                        &mut out,
                    );
                }
                out.into()
            }
        }
    }

    /// Where a write of `sent` bytes that began at `from` ended.
    pub fn advance(self, batches: &[Arc<Batch>], from: Spot, sent: usize) -> Done {
        let mut done = Done { spot: from, ..Done::default() };
        let mut left = sent;
        for batch in batches.iter().filter(|batch| batch.end_seq() > from.seq) {
            while done.spot.seq < batch.end_seq() {
                let Spot { seq, offset } = done.spot;
                let len = self.item_len_bytes(batch, seq);
                let begun = offset.saturating_add(left);
                if begun < len && (begun == 0 || len - begun > SMALL_REST_BYTES) {
                    done.spot.offset = begun;
                    return done;
                }
                done.events += u64::from(batch.is_entry(self.rendering(), seq));
                done.spot = Spot { seq: seq + 1, offset: 0 };
                if begun < len {
                    done.rest = self.item(batch, seq).slice(begun..);
                    return done;
                }
                left = begun - len;
            }
        }
        done
    }

    /// The ids of the entries among these items whose events this view has in `batch`.
    pub fn entries_of(self, batch: &Batch, seqs: Range<u64>) -> impl Iterator<Item = StreamId> {
        let from = seqs.start.max(batch.first_seq);
        let ids = (from..seqs.end.min(batch.end_seq())).zip(batch.ids_from(from));
        ids.filter(move |(seq, _)| batch.is_entry(self.rendering(), *seq)).map(|(_, id)| *id)
    }

    /// One item's bytes.
    pub fn item(self, batch: &Batch, seq: u64) -> Bytes {
        let framed = batch.item(self.rendering(), seq);
        if self.framed {
            return framed;
        }
        let mut out = Vec::new();
        unframe(&framed, &mut out);
        out.into()
    }

    fn item_len_bytes(self, batch: &Batch, seq: u64) -> usize {
        if self.framed {
            batch.item(self.rendering(), seq).len()
        } else {
            self.item(batch, seq).len()
        }
    }

    fn append(self, framed: &[u8], out: &mut Vec<u8>) {
        if self.framed { out.extend_from_slice(framed) } else { unframe(framed, out) }
    }

    /// Bare event bytes as this client gets them.
    pub fn frame(self, event: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.append_event(event, &mut out);
        out
    }

    /// Appends bare event bytes as this client gets them.
    pub fn append_event(self, event: &[u8], out: &mut Vec<u8>) {
        if self.framed { write_chunk(out, event) } else { out.extend_from_slice(event) }
    }

    /// What ends the body.
    pub fn end(self) -> &'static [u8] {
        if self.framed { LAST_CHUNK } else { b"" }
    }
}

/// The id of the item before `seq`, if it is among these batches.
pub(super) fn id_before(batches: &[Arc<Batch>], seq: u64) -> Option<StreamId> {
    let before = seq.checked_sub(1)?;
    let batch = batches.iter().find(|b| b.first_seq <= before && before < b.end_seq())?;
    batch.ids_from(before).first().copied()
}

/// Milliseconds of the clock that ids are made with.
pub(super) fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// How old an entry is by its id; `None` where the id is no time of the last or next hour.
pub(super) fn age_ms(id: StreamId, now_ms: u64) -> Option<u64> {
    const HOUR_MS: u64 = 3_600_000;
    (id.ms.abs_diff(now_ms) <= HOUR_MS).then(|| now_ms.saturating_sub(id.ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Data, Entry, EventName, Gap, Reason, Rendering};
    use crate::topic::Item;

    const MAX_ENTRY_BYTES: usize = 2000;

    fn batch() -> Vec<Arc<Batch>> {
        let id = |ms| StreamId { ms, seq: 0 };
        let entry = |ms, len_bytes: usize| {
            let payload = vec![b'x'; len_bytes].into();
            Item::Entry(Entry { id: id(ms), fields: vec![("payload".into(), payload)] })
        };
        let gap = Gap { after: None, next: Some(id(5)), lost: None, reason: Reason::Trimmed };
        let items = [
            entry(1, 10),
            entry(2, 1500),
            entry(3, MAX_ENTRY_BYTES + 1),
            Item::Gap(gap, id(4)),
            entry(5, 1500),
        ];
        let rendering = Rendering {
            event: EventName::Fixed("message".into()),
            data: Data::Field("payload".into()),
            missing: None,
        };
        vec![Arc::new(Batch::encode(&items, &[rendering], MAX_ENTRY_BYTES))]
    }

    #[test]
    fn wherever_a_write_ends_it_goes_on_with_the_next_byte() {
        let batches = batch();
        for framed in [true, false] {
            let view = View { rendering: 0, framed };
            let whole = view.bytes_of(&batches, 0);
            for sent in 0..=whole.len() {
                let done = view.advance(&batches, Spot::default(), sent);
                let mut all = [&whole[..sent], &done.rest].concat();
                if done.spot.seq < batches[0].end_seq() {
                    all.extend_from_slice(
                        &view.bytes_of(&batches, done.spot.seq)[done.spot.offset..],
                    );
                }
                assert!(all == whole, "after {sent} bytes: {done:?}");
            }
        }
    }

    /// What a notice or a gap says depends on the read that found it, so it is not made again.
    #[test]
    fn only_an_entry_is_left_half_written() {
        let batches = batch();
        let view = View { rendering: 0, framed: true };
        for sent in 0..view.bytes_of(&batches, 0).len() {
            let done = view.advance(&batches, Spot::default(), sent);
            let is_entry = || batches[0].is_entry(0, done.spot.seq);
            assert!(done.spot.offset == 0 || is_entry(), "after {sent} bytes: {done:?}");
        }
    }

    #[test]
    fn the_largest_gap_fits_into_what_is_kept() {
        let id = Some(StreamId { ms: u64::MAX, seq: u64::MAX });
        let gap = Gap { after: id, next: id, lost: Some(u64::MAX), reason: Reason::Oversize };
        let mut event = Vec::new();
        crate::event::write_control(&mut event, id, crate::event::Control::Gap(gap));
        assert!(View { rendering: 0, framed: true }.frame(&event).len() <= SMALL_REST_BYTES);
    }
}
