//! What of some batches is written in one go, and which of it belongs to an event that was begun.

use std::sync::Arc;

use bytes::Bytes;

use super::super::View;
use super::super::wire::Spot;
use crate::stream::Batch;

/// A run of batches that is written in one go.
pub(super) fn run_from<'a>(
    batches: impl Iterator<Item = &'a Arc<Batch>>,
    view: View,
    most_bytes: usize,
) -> Vec<Arc<Batch>> {
    let mut bytes = 0;
    let run = batches.take_while(|batch| {
        let fits = bytes == 0 || bytes + batch.size_bytes() <= most_bytes;
        bytes += batch.size_bytes();
        fits && view.is_in(batch)
    });
    run.cloned().collect()
}

/// Whether the entry at `spot`, if it is half-written, can be the one that was begun.
pub(super) fn is_as_begun(batches: &[Arc<Batch>], view: View, spot: Spot) -> bool {
    let begun = batches.iter().find(|batch| batch.first_seq <= spot.seq);
    begun.is_some_and(|begun| spot.offset == 0 || view.item(begun, spot.seq).len() > spot.offset)
}

/// Of the bytes from `spot` on, those of the event that was begun: whoever is due gets no other.
pub(super) fn half_written(batches: &[Arc<Batch>], view: View, spot: Spot, all: Bytes) -> Bytes {
    let batch = batches.iter().find(|batch| (batch.first_seq..batch.end_seq()).contains(&spot.seq));
    match batch {
        Some(batch) if spot.offset > 0 => {
            let rest_bytes = view.item(batch, spot.seq).len() - spot.offset;
            all.slice(..rest_bytes.min(all.len()))
        }
        _ => all,
    }
}
