//! A catch-up subscriber in the past: reads pages of the source until the ring reaches back to it.

use std::sync::Arc;

use super::super::WireFormat;
use super::super::wire::WritePosition;
use super::{CatchUp, End, Phase};
use crate::sse::{Gap, Reason, StreamId};
use crate::stream::continuity::Continuity;
use crate::stream::replay::{Opened, Page};
use crate::stream::start::StartPoint;
use crate::telemetry::metrics::{DisconnectReason, Scope};

/// A place in the source.
pub(in crate::fanout) struct Backfill {
    /// Where the page begins, or the next one is to begin.
    from: Continuity,
    generation: u64,
    page: Option<Arc<Page>>,
    /// The place in the page; an offset without a page is one in the first item after `from`.
    pub(super) position: WritePosition,
    /// Of deletions up to this one the client need not be told any more; `None`: of none that there were
    /// when it came.
    deletions_told: Option<StreamId>,
    /// Where it began, if that is past all that the reader had then: should the reader find that the stream
    /// began anew there, that is the life which this client is in already.
    began_in: Option<StreamId>,
}

impl Backfill {
    pub(super) fn new(from: Continuity, generation: u64) -> Self {
        let deletions_told = Some(StreamId::ZERO);
        let (page, position) = (None, WritePosition::default());
        Self { from, generation, page, position, deletions_told, began_in: None }
    }

    /// For a client that asked for what is kept, not for what follows something that it has.
    pub(super) fn of_what_is_kept(self) -> Self {
        Self { deletions_told: None, ..self }
    }

    /// For a client whose beginning was found out when the reader had read up to `tail`.
    pub(super) fn begun_at(self, tail: StreamId) -> Self {
        let began_in = Some(self.from.cursor()).filter(|begun| *begun > tail);
        Self { began_in, ..self }
    }

    /// Gives back the page; the place in it is found again by what the client has of it.
    fn forget_page(&mut self) {
        let Some(page) = self.page.take() else { return };
        let done =
            self.position.seq.checked_sub(1).and_then(|seq| page.batch.ids_from(seq).first());
        self.from = done.map_or(self.from, |id| Continuity::after(*id));
        self.position.seq = 0;
    }
}

impl CatchUp {
    pub(super) async fn follow_source(&mut self) -> Result<(), End> {
        let topic = self.subscriber.topic().clone();
        let Phase::Source(backfill) = &mut self.phase else { return Ok(()) };
        if let Some(page) = backfill.page.clone() {
            return self.follow_page(page).await;
        }
        let (from, offset) = (backfill.from, backfill.position.offset);
        let format = self.subscriber.format;
        let (generation, base, reached) = {
            let state = topic.state();
            let ring = &state.ring;
            let reached = ring.reach(from.cursor()).filter(|seq| {
                offset == 0
                    && (*seq == ring.next_seq() || ring.at(*seq).is_some_and(|b| format.is_in(b)))
            });
            (ring.generation(), ring.base(), reached.map(|seq| (seq, ring.id_before(seq))))
        };
        if generation != backfill.generation {
            if backfill.began_in != Some(base) {
                self.phase = Phase::NewGeneration;
                return Ok(());
            }
            // It was there before the reader was.
            (backfill.generation, backfill.began_in) = (generation, None);
        }
        if let Some((seq, last_id)) = reached {
            self.phase = Phase::Ring(WritePosition { seq, offset: 0 });
            self.delivery.goes_on_after(last_id);
            return Ok(());
        }
        let fanout = self.fanout.clone();
        let rendering = usize::from(format.rendering);
        let read = fanout.replays.page(&topic, generation, rendering, from);
        match self.meanwhile(read).await? {
            Some(Ok(opened)) => self.open_page(opened, from).await,
            Some(Err(error)) => self.failed(&error).await,
            None => Ok(()),
        }
    }

    async fn open_page(&mut self, opened: Opened, from: Continuity) -> Result<(), End> {
        let Opened { page, seq } = opened;
        // A gap may have the id of the entry before it.
        let is_as_begun = |begun: StreamId| {
            page.batch.ids_from(seq).first() == Some(&begun) && page.batch.is_entry(0, seq)
        };
        if self.partial.is_some_and(|begun| !is_as_begun(begun)) {
            // The rest of a half-written event is gone. The client's parser drops what it has of
            // it, and its last event id stands before it: it comes back and is told of the gap.
            return Err(End::Cut(DisconnectReason::Slow));
        }
        self.tell_deletion(&page, seq, from)?;
        let Phase::Source(backfill) = &mut self.phase else { return Ok(()) };
        if !page.is_empty() {
            backfill.position.seq = seq;
            if let Some(gap) = page.gap.filter(|_| seq == 0) {
                self.fanout.metrics.gap(Scope::Resume, gap);
                self.subscriber.topic().state().gaps += 1;
            }
            backfill.page = Some(page);
            return Ok(());
        }
        if page.next != from && !page.reset {
            // Where the stream ended now is known: the next look tells whether anything is left.
            backfill.from = page.next;
            return Ok(());
        }
        drop(page);
        // The reader has not told yet how it goes on, or has not yet what we would read.
        self.wait_for_source().await
    }

    /// Tells of entries that were deleted ahead, unless the page does.
    fn tell_deletion(&mut self, page: &Page, seq: u64, from: Continuity) -> Result<(), End> {
        let Phase::Source(backfill) = &mut self.phase else { return Ok(()) };
        let told = *backfill.deletions_told.get_or_insert(page.last_deleted());
        let untold = page.deleted_ahead(from.cursor(), seq).filter(|deleted| *deleted > told);
        let Some(deleted) = untold else { return Ok(()) };
        backfill.deletions_told = Some(deleted);
        if self.partial.is_some() {
            // Not within an event; it comes back and is told.
            return Err(End::Cut(DisconnectReason::Slow));
        }
        let next = page.first_entry(seq);
        let gap = Gap { after: Some(from.cursor()), next, lost: None, reason: Reason::Deleted };
        self.tell_gap(gap, next.map_or(page.end(), StreamId::prev));
        Ok(())
    }

    async fn follow_page(&mut self, page: Arc<Page>) -> Result<(), End> {
        let Phase::Source(backfill) = &mut self.phase else { return Ok(()) };
        if backfill.position.seq >= page.batch.end_seq() {
            let Backfill { deletions_told, began_in, generation, .. } = *backfill;
            *backfill =
                Backfill { deletions_told, began_in, ..Backfill::new(page.next, generation) };
            return Ok(());
        }
        let format = WireFormat { rendering: 0, ..self.subscriber.format };
        let position = backfill.position;
        let batch = page.batch.clone();
        drop(page);
        let fanout = self.fanout.clone();
        let turn = if self.delivery.live { None } else { Some(fanout.replay_turn().await) };
        let done = self.write(vec![batch], format, position, turn).await?;
        if let Phase::Source(backfill) = &mut self.phase
            && backfill.page.is_some()
        {
            backfill.position = done;
        }
        Ok(())
    }

    /// The stream began anew while the client was on its way: it goes on from the new beginning.
    pub(super) async fn follow_new_life(&mut self) -> Result<(), End> {
        if self.partial.is_some() {
            return Err(End::Cut(DisconnectReason::Slow));
        }
        let topic = self.subscriber.topic().clone();
        let generation = topic.state().ring.generation();
        let (fanout, last_id) = (self.fanout.clone(), self.delivery.last_id);
        let resolved = match self.meanwhile(fanout.replays.new_generation(&topic, last_id)).await? {
            Some(Ok(resolved)) => resolved,
            Some(Err(error)) => return self.failed(&error).await,
            None => return Ok(()),
        };
        if let StartPoint::Source(after) = resolved.from {
            let backfill = Backfill::new(Continuity::after(after), generation);
            self.phase = Phase::Source(backfill.of_what_is_kept());
        }
        if let Some((gap, id)) = resolved.gap {
            self.tell_gap(gap, id);
        }
        Ok(())
    }

    pub(super) fn has_page(&self) -> bool {
        matches!(&self.phase, Phase::Source(Backfill { page: Some(_), .. }))
    }

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
