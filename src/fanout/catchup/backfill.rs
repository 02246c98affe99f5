//! A position in the source, and the page around it.

use std::sync::Arc;

use crate::fanout::wire::{WireFormat, WritePosition};
use crate::sse::StreamId;
use crate::stream::Ring;
use crate::stream::continuity::Continuity;
use crate::stream::replay::Page;

/// A position in the source.
pub(in crate::fanout) struct Backfill {
    /// After what the page begins, or the next one is to begin.
    pub(super) from: Continuity,
    pub(super) generation: u64,
    pub(super) page: Option<Arc<Page>>,
    /// Its page has entries that newer ones supersede, for its client had one of them by half.
    pub(super) is_page_plain: bool,
    /// The position in the page; an offset without a page is one in the first item after `from`.
    pub(super) at: WritePosition,
    /// Deletions up to this id the client need not be told of any more; `None`: of none that there were
    /// when it came.
    pub(super) deletions_told: Option<StreamId>,
    /// The client had all up to this id; `None`: it asked for what is kept.
    had: Option<StreamId>,
    /// Where it began, if that is beyond all that the reader had then. Should the reader find that the stream
    /// was recreated right there, the client is in that generation already.
    pub(super) began_ahead: Option<StreamId>,
}

impl Backfill {
    /// After `from`, in a stream in this generation.
    pub(super) fn new(from: Continuity, generation: u64) -> Self {
        let (deletions_told, had) = (Some(StreamId::ZERO), Some(from.cursor()));
        let at = WritePosition::default();
        Self {
            from,
            generation,
            page: None,
            is_page_plain: false,
            at,
            deletions_told,
            had,
            began_ahead: None,
        }
    }

    /// With so many bytes of the first item written already.
    pub(super) fn amid_item(mut self, offset: usize) -> Self {
        self.at.offset = offset;
        self
    }

    /// For a client that asked for what is kept, not for what follows an entry that it has.
    pub(super) fn of_what_is_kept(self) -> Self {
        Self { deletions_told: None, had: None, from: self.from.without_holes_told(), ..self }
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
        // Of holes that there may be, the page's first item has told.
        let after = |id: &StreamId| Continuity::after(*id).without_holes_told();
        self.from = done.map_or(self.from, after);
        self.at.seq = 0;
    }

    /// How many entries its client was spared on the way to this item of its page.
    pub(super) fn spared_up_to(&self, seq: u64) -> u64 {
        self.page.as_ref().map_or(0, |page| page.spared_between(self.at.seq, seq))
    }

    /// Everything before this position of the page was written.
    pub(super) fn moved_to(&mut self, at: WritePosition) {
        if self.page.is_some() {
            self.at = at;
        }
    }

    /// The page is behind.
    pub(super) fn go_on_after(&mut self, page: &Page) {
        (self.from, self.page, self.at) = (page.next, None, WritePosition::default());
    }

    /// Whether the reader has told of a deletion, before this item of the ring, that the client knows nothing of.
    pub(super) fn has_missed_deletion(&self, ring: &Ring, seq: u64) -> bool {
        let is_untold = self.deletions_told == Some(StreamId::ZERO);
        is_untold && self.had.is_some_and(|had| ring.has_told_of_deletion(had, seq))
    }

    /// The number in the ring of the first item that the client has not, if the ring has all from there on. Not where the
    /// reader's gap begins before the client: the next page has its own.
    pub(super) fn reached_by(&self, ring: &Ring, format: WireFormat) -> Option<u64> {
        let is_in_format = |seq| ring.at(seq).is_some_and(|batch| format.is_in(batch));
        let cursor = self.from.cursor();
        let seq = ring.reach(cursor).filter(|_| self.at.offset == 0)?;
        if ring.begins_amid_gap(cursor, seq) {
            return None;
        }
        (seq == ring.next_seq() || is_in_format(seq)).then_some(seq)
    }
}
