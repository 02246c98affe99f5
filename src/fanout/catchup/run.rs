//! What of some batches is written in one go, and which of it belongs to an event that was begun.

use std::sync::Arc;

use bytes::Bytes;

use super::super::WireFormat;
use super::super::wire::WritePosition;
use crate::stream::Batch;

/// A run of batches that is written in one go.
pub(super) fn run_from<'a>(
    batches: impl Iterator<Item = &'a Arc<Batch>>,
    format: WireFormat,
    most_bytes: usize,
) -> Vec<Arc<Batch>> {
    let mut bytes = 0;
    let run = batches.take_while(|batch| {
        let fits = bytes == 0 || bytes + batch.size_bytes() <= most_bytes;
        bytes += batch.size_bytes();
        fits && format.is_in(batch)
    });
    run.cloned().collect()
}

/// Whether the entry at `spot`, if it is half-written, can be the one that was begun.
pub(super) fn is_as_begun(
    batches: &[Arc<Batch>],
    format: WireFormat,
    position: WritePosition,
) -> bool {
    let begun = batches.iter().find(|batch| batch.first_seq <= position.seq);
    begun.is_some_and(|begun| {
        position.offset == 0 || format.item(begun, position.seq).len() > position.offset
    })
}

/// Of the bytes from `spot` on, those of the event that was begun: whoever is due gets no other.
pub(super) fn half_written(
    batches: &[Arc<Batch>],
    format: WireFormat,
    position: WritePosition,
    all: Bytes,
) -> Bytes {
    let batch =
        batches.iter().find(|batch| (batch.first_seq..batch.end_seq()).contains(&position.seq));
    match batch {
        Some(batch) if position.offset > 0 => {
            let rest_bytes = format.item(batch, position.seq).len() - position.offset;
            all.slice(..rest_bytes.min(all.len()))
        }
        _ => all,
    }
}
