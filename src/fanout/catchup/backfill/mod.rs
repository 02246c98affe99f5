//! In the past: pages of the source, until the ring reaches back to the client.

use std::sync::Arc;

use super::machine::{Action, CatchUp, End, Phase};
use super::run::Run;
use crate::fanout::wire::{WireFormat, WritePosition};
use crate::sse::{Gap, Reason, StreamId};
use crate::stream::Ring;
use crate::stream::continuity::Continuity;
use crate::stream::replay::{Opened, Page};
use crate::telemetry::metrics::DisconnectReason;

/// A position in the source.
pub(in crate::fanout) struct Backfill {
    /// After what the page begins, or the next one is to begin.
    from: Continuity,
    generation: u64,
    page: Option<Arc<Page>>,
    /// The position in the page; an offset without a page is one in the first item after `from`.
    at: WritePosition,
    /// Deletions up to this id the client need not be told of any more; `None`: of none that there were
    /// when it came.
    deletions_told: Option<StreamId>,
    /// Where it began, if that is beyond all that the reader had then. Should the reader find that the stream
    /// was recreated right there, the client is in that generation already.
    began_ahead: Option<StreamId>,
}

impl Backfill {
    /// After `from`, in a stream in this generation.
    pub(super) fn new(from: Continuity, generation: u64) -> Self {
        let deletions_told = Some(StreamId::ZERO);
        let at = WritePosition::default();
        Self { from, generation, page: None, at, deletions_told, began_ahead: None }
    }

    /// With so many bytes of the first item written already.
    pub(super) fn amid_item(mut self, offset: usize) -> Self {
        self.at.offset = offset;
        self
    }

    /// For a client that asked for what is kept, not for what follows an entry that it has.
    pub(super) fn of_what_is_kept(self) -> Self {
        Self { deletions_told: None, ..self }
    }

    /// For a client whose beginning was found out when the reader had read up to `tail`.
    pub(super) fn begun_at(self, tail: StreamId) -> Self {
        let began_ahead = Some(self.from.cursor()).filter(|begun| *begun > tail);
        Self { began_ahead, ..self }
    }

    /// Whether it holds a page in memory.
    pub(super) fn has_page(&self) -> bool {
        self.page.is_some()
    }

    /// Whether a page has something to write.
    pub(super) fn has_unwritten(&self) -> bool {
        self.page.as_ref().is_some_and(|page| self.at.seq < page.batch.end_seq())
    }

    /// Gives the page back; the position in it is found again by what the client has of it.
    pub(super) fn forget_page(&mut self) {
        let Some(page) = self.page.take() else { return };
        let done = self.at.seq.checked_sub(1).and_then(|seq| page.batch.ids_from(seq).first());
        self.from = done.map_or(self.from, |id| Continuity::after(*id));
        self.at.seq = 0;
    }

    /// Everything before this position of the page was written.
    pub(super) fn moved_to(&mut self, at: WritePosition) {
        if self.page.is_some() {
            self.at = at;
        }
    }

    /// The page is behind.
    fn go_on_after(&mut self, page: &Page) {
        (self.from, self.page, self.at) = (page.next, None, WritePosition::default());
    }

    /// The number in the ring of the first item that the client has not, if the ring has all from there on.
    fn reached_by(&self, ring: &Ring, format: WireFormat) -> Option<u64> {
        let is_in_format = |seq| ring.at(seq).is_some_and(|batch| format.is_in(batch));
        let seq = ring.reach(self.from.cursor()).filter(|_| self.at.offset == 0)?;
        (seq == ring.next_seq() || is_in_format(seq)).then_some(seq)
    }
}

impl CatchUp {
    pub(super) fn next_in_source(&mut self, ring: &Ring) -> Action {
        let Phase::Source(backfill) = &mut self.phase else { return Action::Again };
        if let Some(page) = backfill.page.clone() {
            if backfill.at.seq >= page.batch.end_seq() {
                backfill.go_on_after(&page);
                return Action::Again;
            }
            // A page has one rendering.
            let format = WireFormat { rendering: 0, ..self.format };
            let batches = vec![page.batch.clone()];
            return Action::Write(Run { batches, format, at: backfill.at });
        }
        let generation = ring.generation();
        if generation != backfill.generation {
            if backfill.began_ahead != Some(ring.base()) {
                self.phase = Phase::NewGeneration;
                return Action::Again;
            }
            // The client was there before the reader.
            (backfill.generation, backfill.began_ahead) = (generation, None);
        }
        if let Some(seq) = backfill.reached_by(ring, self.format) {
            self.phase = Phase::Ring(WritePosition { seq, offset: 0 });
            self.delivery.goes_on_after(ring.id_before(seq));
            return Action::Again;
        }
        Action::ReadPage { after: backfill.from, generation }
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

    /// Whether it holds a page in memory.
    pub(super) fn has_page(&self) -> bool {
        matches!(&self.phase, Phase::Source(backfill) if backfill.has_page())
    }

    /// Gives back the memory of its page.
    pub(super) fn forget_page(&mut self) {
        if let Phase::Source(backfill) = &mut self.phase {
            backfill.forget_page();
        }
    }
}

#[cfg(test)]
mod histories;

#[cfg(test)]
mod tests;
