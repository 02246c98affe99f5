//! From a batch to the bytes of one client's connection, and back to a place in the batch.

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

/// What a write got done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Where it ended.
    pub spot: Spot,
    /// Events completed.
    pub events: u64,
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
        let mut done = Done { spot: from, events: 0 };
        let mut left = sent;
        for batch in batches.iter().filter(|batch| batch.end_seq() > from.seq) {
            while done.spot.seq < batch.end_seq() {
                let len = self.item_len_bytes(batch, done.spot.seq);
                let rest = len - done.spot.offset;
                if rest > left {
                    done.spot.offset += left;
                    return done;
                }
                left -= rest;
                done.events += u64::from(len > 0);
                done.spot = Spot { seq: done.spot.seq + 1, offset: 0 };
            }
        }
        done
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
