//! From a batch to the bytes of one client's connection, and back to a position in the batch.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::sse::{Control, Controls, Selection, StreamId, write_control};
use crate::sse::{LAST_CHUNK, unframed, write_chunk};
use crate::stream::Batch;

/// The form in which a client gets its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WireFormat {
    /// Index of its rendering in the topic.
    pub rendering: u16,
    /// In which form control events are sent; the rendering has the same.
    pub controls: Controls,
    /// HTTP/1.1 chunks; else the bare events, for HTTP/1.0 and where hyper makes the frames.
    pub framed: bool,
}

/// A position in a topic's items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WritePosition {
    /// The item.
    pub seq: u64,
    /// Bytes of the item that are sent already.
    pub offset: usize,
}

/// The rest of a half-written event is kept where it is no larger than this; a larger rest is made again from
/// its entry. Every control event is smaller: it could not be made again, for what it says depends on the
/// read that found it.
const SMALL_REST_BYTES: usize = 512;

/// How far a write came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteProgress {
    /// Where the next write goes on, once the rest is written.
    pub position: WritePosition,
    /// Events of entries that are then complete.
    pub events: u64,
    /// Events of gaps that are then complete.
    pub gaps: u64,
    /// The rest of an event that was begun.
    pub rest: Bytes,
}

impl WireFormat {
    fn rendering(self) -> usize {
        usize::from(self.rendering)
    }

    /// Whether the batch was encoded in this format.
    pub fn is_in(self, batch: &Batch) -> bool {
        batch.has(self.rendering())
    }

    /// The bytes of one or more batches from a position on, at most `most_bytes`. They are shared, not copied, where
    /// that keeps no other bytes alive.
    pub fn bytes_of(self, batches: &[Arc<Batch>], from: WritePosition, most_bytes: usize) -> Bytes {
        let WritePosition { seq, offset } = from;
        let done = batches.iter().take_while(|batch| batch.end_seq() <= seq).count();
        let batches = &batches[done..];
        if let [only] = batches {
            let all = only.framed(self.rendering(), seq);
            if self.framed && all.len() <= most_bytes {
                return all.slice(offset..);
            }
            let item = self.item(only, seq);
            if only.ids().len() == 1 && item.len() <= most_bytes {
                return item.slice(offset..);
            }
        }
        let framed_bytes = |batch: &Arc<Batch>| batch.framed(self.rendering(), seq).len();
        let room_bytes: usize = batches.iter().map(framed_bytes).sum();
        let mut out = Vec::with_capacity(room_bytes.min(most_bytes));
        for batch in batches {
            for seq in batch.first_seq.max(from.seq)..batch.end_seq() {
                let skipped = if seq == from.seq { offset } else { 0 };
                let item = &self.item(batch, seq)[skipped..];
                let room_bytes = most_bytes - out.len();
                out.extend_from_slice(&item[..item.len().min(room_bytes)]);
                if out.len() == most_bytes {
                    return out.into();
                }
            }
        }
        out.into()
    }

    /// Where a write of `sent` bytes that began at `from` ended.
    pub fn advance(
        self,
        batches: &[Arc<Batch>],
        from: WritePosition,
        sent: usize,
    ) -> WriteProgress {
        let mut done = WriteProgress { position: from, ..WriteProgress::default() };
        let mut left = sent;
        for batch in batches.iter().filter(|batch| batch.end_seq() > from.seq) {
            while done.position.seq < batch.end_seq() {
                let WritePosition { seq, offset } = done.position;
                let len = self.item(batch, seq).len();
                let begun = offset.saturating_add(left);
                if begun < len && (begun == 0 || len - begun > SMALL_REST_BYTES) {
                    done.position.offset = begun;
                    return done;
                }
                let is_entry = batch.is_entry(self.rendering(), seq);
                done.events += u64::from(is_entry);
                done.gaps += u64::from(!is_entry && len > 0);
                done.position = WritePosition { seq: seq + 1, offset: 0 };
                if begun < len {
                    done.rest = self.item(batch, seq).slice(begun..);
                    return done;
                }
                left = begun - len;
            }
        }
        done
    }

    /// These batches as a client with this selection sees them; without those that are older than its rendering.
    pub fn selected(self, batches: &[Arc<Batch>], selection: &Selection) -> Vec<Arc<Batch>> {
        let selected = |batch: &Arc<Batch>| batch.selected(self.rendering(), selection).0;
        let made = batches.iter().filter(|batch| self.is_in(batch));
        made.map(|batch| Arc::new(selected(batch))).collect()
    }

    /// The ids of the entries among these items whose events this format has in `batch`.
    pub fn entries_of(self, batch: &Batch, seqs: Range<u64>) -> impl Iterator<Item = StreamId> {
        let from = seqs.start.max(batch.first_seq);
        let ids = (from..seqs.end.min(batch.end_seq())).zip(batch.ids_from(from));
        ids.filter(move |(seq, _)| batch.is_entry(self.rendering(), *seq)).map(|(_, id)| *id)
    }

    /// One item's bytes.
    pub fn item(self, batch: &Batch, seq: u64) -> Bytes {
        let chunk = batch.item(self.rendering(), seq);
        if self.framed { chunk } else { unframed(&chunk) }
    }

    /// A bare event in this format.
    pub fn frame(self, event: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.append_event(event, &mut out);
        out
    }

    /// Appends a bare event in this format.
    pub fn append_event(self, event: &[u8], out: &mut Vec<u8>) {
        if self.framed { write_chunk(out, event) } else { out.extend_from_slice(event) }
    }

    /// Appends a control event with this last event id.
    pub fn append_control(self, id: Option<StreamId>, control: Control, out: &mut Vec<u8>) {
        let mut bare = Vec::new();
        write_control(&mut bare, self.controls, id, control);
        self.append_event(&bare, out);
    }

    /// The end of the body.
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

/// Milliseconds since the Unix epoch, as stream ids have them.
pub(super) fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// How old an entry is by its id; `None` where the id is more than an hour from now, and so perhaps no time.
pub(super) fn age_ms(id: StreamId, now_ms: u64) -> Option<u64> {
    const HOUR_MS: u64 = 3_600_000;
    (id.ms.abs_diff(now_ms) <= HOUR_MS).then(|| now_ms.saturating_sub(id.ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::{Entry, Gap, Reason, Rendering};
    use crate::stream::Item;

    const MAX_ENTRY_BYTES: usize = 2000;

    fn format_of(framed: bool) -> WireFormat {
        WireFormat { rendering: 0, controls: Controls::Event, framed }
    }

    fn batches() -> Vec<Arc<Batch>> {
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
        let rendering = Rendering { missing: None, ..Rendering::default() };
        // In one batch of each size.
        let mut first_seq = 0;
        let batches = [&items[..1], &items[1..3], &items[3..]].map(|items| {
            let mut batch = Batch::encode(items, std::slice::from_ref(&rendering), MAX_ENTRY_BYTES);
            batch.first_seq = first_seq;
            first_seq = batch.end_seq();
            Arc::new(batch)
        });
        batches.into()
    }

    /// The number after the last item's.
    fn end_seq(batches: &[Arc<Batch>]) -> u64 {
        batches.last().unwrap().end_seq()
    }

    #[test]
    fn wherever_a_write_ends_it_goes_on_with_the_next_byte() {
        let batches = batches();
        for framed in [true, false] {
            let format = format_of(framed);
            let all_of = |from| format.bytes_of(&batches, from, usize::MAX);
            let whole = all_of(WritePosition::default());
            for sent in 0..=whole.len() {
                let done = format.advance(&batches, WritePosition::default(), sent);
                let mut all = [&whole[..sent], &done.rest].concat();
                if done.position.seq < end_seq(&batches) {
                    all.extend_from_slice(&all_of(done.position));
                }
                assert!(all == whole, "after {sent} bytes: {done:?}");
            }
        }
    }

    #[test]
    fn a_client_that_is_ahead_gets_the_rest_or_nothing() {
        let batches = batches();
        for framed in [true, false] {
            let format = format_of(framed);
            let from =
                |seq| format.bytes_of(&batches, WritePosition { seq, offset: 0 }, usize::MAX);
            let whole = from(0);
            for seq in 0..end_seq(&batches) {
                assert!(whole.ends_with(&from(seq)) && from(seq).len() > from(seq + 1).len());
            }
            assert!(from(end_seq(&batches) + 3).is_empty());
        }
    }

    #[test]
    fn pieces_are_the_whole() {
        let batches = batches();
        for framed in [true, false] {
            let format = format_of(framed);
            let whole = format.bytes_of(&batches, WritePosition::default(), usize::MAX);
            for most_bytes in [1, 7, 100, 1000, 5000] {
                let (mut position, mut all) = (WritePosition::default(), Vec::new());
                while position.seq < end_seq(&batches) {
                    let piece = format.bytes_of(&batches, position, most_bytes);
                    assert!((1..=most_bytes).contains(&piece.len()), "at {position:?}");
                    let done = format.advance(&batches, position, piece.len());
                    all.extend_from_slice(&[piece, done.rest].concat());
                    position = done.position;
                }
                assert!(all == whole, "in pieces of {most_bytes}");
            }
        }
    }

    /// What a notice or a gap says depends on the read that found it, so it is not made again.
    #[test]
    fn only_an_entry_is_left_half_written() {
        let batches = batches();
        let format = format_of(true);
        for sent in 0..format.bytes_of(&batches, WritePosition::default(), usize::MAX).len() {
            let done = format.advance(&batches, WritePosition::default(), sent);
            let holds = |batch: &&Arc<Batch>| done.position.seq < batch.end_seq();
            let is_entry = || batches.iter().find(holds).unwrap().is_entry(0, done.position.seq);
            assert!(done.position.offset == 0 || is_entry(), "after {sent} bytes: {done:?}");
        }
    }

    #[test]
    fn the_last_piece_does_not_keep_the_whole_alive() {
        let all = batches();
        let one_entry = &all[..1];
        for framed in [true, false] {
            let format = format_of(framed);
            let whole = format.item(&all[0], 0);
            let from = WritePosition { seq: 0, offset: 20 };
            let rest = format.bytes_of(one_entry, from, whole.len() - 20);
            assert_eq!(rest, whole[20..]);
            assert!(!whole.as_ptr_range().contains(&rest.as_ptr()), "framed: {framed}");
            let shared = format.bytes_of(one_entry, from, usize::MAX);
            assert!(whole.as_ptr_range().contains(&shared.as_ptr()), "framed: {framed}");
        }
    }

    #[test]
    fn the_largest_gap_fits_into_what_is_kept() {
        let id = Some(StreamId { ms: u64::MAX, seq: u64::MAX });
        let gap = Gap { after: id, next: id, lost: Some(u64::MAX), reason: Reason::Oversize };
        let mut event = Vec::new();
        write_control(&mut event, Controls::Event, id, Control::Gap(gap));
        assert!(format_of(true).frame(&event).len() <= SMALL_REST_BYTES);
    }
}
