//! In the past: pages of the source, until the ring reaches back to the client.

use super::machine::{Action, CatchUp, End, Phase};
use crate::fanout::wire::{WireFormat, WritePosition};
use crate::sse::{EndReason, Gap, Reason, StreamId};
use crate::stream::Ring;
use crate::stream::continuity::Continuity;
use crate::stream::replay::{Opened, Page};
use crate::telemetry::metrics::DisconnectReason;

impl CatchUp {
    pub(super) fn next_in_source(&mut self, ring: &Ring) -> Action {
        // A page is shared by clients with any selection: what supersedes what is found out as it is written.
        let may_be_spared =
            self.conflates() && self.half_written.is_none() && self.selection.is_none();
        let Phase::Source(backfill) = &mut self.phase else { return Action::Again };
        if may_be_spared && backfill.is_page_plain && backfill.has_unwritten() {
            backfill.forget_page();
        }
        if let Some(page) = backfill.page.clone() {
            if backfill.at.seq >= page.batch.end_seq() {
                backfill.go_on_after(&page);
                return Action::Again;
            }
            // A page has one rendering.
            let format = WireFormat { rendering: 0, ..self.format };
            let batches = vec![page.batch.clone()];
            let at = backfill.at;
            return Action::Write(self.run(batches, format, at));
        }
        let generation = ring.generation();
        if generation != backfill.generation {
            if backfill.began_ahead != Some(ring.base()) && self.is_at_end {
                return Action::End(End::over(EndReason::Marker));
            }
            if backfill.began_ahead != Some(ring.base()) {
                self.phase = Phase::NewGeneration;
                return Action::Again;
            }
            // The client was there before the reader.
            (backfill.generation, backfill.began_ahead) = (generation, None);
        }
        if let Some(seq) = backfill.reached_by(ring, self.format) {
            let has_missed_deletion = backfill.has_missed_deletion(ring, seq);
            self.phase = Phase::Ring(WritePosition { seq, offset: 0 });
            self.delivery.goes_on_after(ring.id_before(seq));
            if has_missed_deletion {
                self.tell_missed_deletion(ring.first_entry(seq), ring.id_before(seq));
            }
            return Action::Again;
        }
        // The rest of an entry that is half written is at the beginning of a page that spares nothing.
        backfill.is_page_plain = !may_be_spared;
        Action::ReadPage { after: backfill.from, generation, conflates: may_be_spared }
    }

    /// The page after `from` was read; what to do before anything else.
    pub(super) fn page_read(&mut self, opened: Opened, from: Continuity) -> Action {
        let Opened { page, seq } = opened;
        // A gap may have the id of the entry before it.
        let begins_as_begun = |begun: StreamId| {
            page.batch.ids_from(seq).first() == Some(&begun) && page.batch.is_entry(0, seq)
        };
        if self.half_written.is_some_and(|begun| !begins_as_begun(begun)) {
            // The rest of a half-written event is gone. The client's parser drops what it has of
            // it, and its last event id stands before it: it comes back and is told of the gap.
            return Action::End(End::Cut(DisconnectReason::Slow));
        }
        if let Err(end) = self.tell_deletion(&page, seq, from) {
            return Action::End(end);
        }
        let Phase::Source(backfill) = &mut self.phase else { return Action::Again };
        if !page.is_empty() {
            backfill.at.seq = seq;
            let gap = page.gap.filter(|_| seq == 0);
            backfill.page = Some(page);
            if let Some(gap) = gap {
                self.count(gap, true);
            }
            return Action::Again;
        }
        if page.next != from && !page.reset {
            // Where the stream ended now is known: the next look tells whether anything is left.
            backfill.from = page.next;
            return Action::Again;
        }
        // The reader has not told yet how it goes on, or has not yet what the client would read.
        Action::WaitForSource
    }

    /// Tells of entries that were deleted ahead, unless the page does.
    fn tell_deletion(&mut self, page: &Page, seq: u64, from: Continuity) -> Result<(), End> {
        let Phase::Source(backfill) = &mut self.phase else { return Ok(()) };
        let told = *backfill.deletions_told.get_or_insert(page.last_deleted());
        let untold = page.deleted_ahead(from.cursor(), seq).filter(|deleted| *deleted > told);
        let Some(deleted) = untold else { return Ok(()) };
        backfill.deletions_told = Some(deleted);
        if self.half_written.is_some() {
            // Not within an event; the client comes back and is told.
            return Err(End::Cut(DisconnectReason::Slow));
        }
        let next = page.first_entry(seq);
        let gap = Gap { after: Some(from.cursor()), next, lost: None, reason: Reason::Deleted };
        self.tell_gap(gap, next.map_or(page.end(), StreamId::prev));
        Ok(())
    }

    /// Tells of what the reader told of while the client was not in the ring.
    fn tell_missed_deletion(&mut self, next: Option<StreamId>, id: StreamId) {
        let (after, reason) = (self.delivery.last_id, Reason::Deleted);
        self.tell_gap(Gap { after, next, lost: None, reason }, next.map_or(id, StreamId::prev));
    }

    /// Whether it holds a page in memory, or a state, that can be read again.
    pub(super) fn has_page(&self) -> bool {
        match &self.phase {
            Phase::Source(backfill) => backfill.has_page(),
            Phase::State(delivery) => delivery.has_snapshot() && !delivery.is_amid_event(),
            _ => false,
        }
    }

    /// Gives back the memory of that.
    pub(super) fn forget_page(&mut self) {
        match &mut self.phase {
            Phase::Source(backfill) => backfill.forget_page(),
            Phase::State(delivery) => delivery.forget(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod histories;

#[cfg(test)]
mod tests;
