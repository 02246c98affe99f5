//! A follower in the past: reads pages of the source until the ring reaches back to it.

use std::sync::Arc;

use super::super::View;
use super::super::wire::Spot;
use super::{End, Follower, Place};
use crate::continuity::Continuity;
use crate::event::{Gap, Reason, StreamId};
use crate::metrics::Left;
use crate::replay::Page;

/// A place in the source.
pub(in crate::fanout) struct Past {
    /// Where the page begins, or the next one is to begin.
    from: Continuity,
    life: u64,
    page: Option<Arc<Page>>,
    /// Bytes of the largest entry of the last page.
    largest_bytes: Option<usize>,
    /// The place in the page; an offset without a page is one in the first item after `from`.
    pub(super) spot: Spot,
}

impl Past {
    pub(super) fn new(from: Continuity, life: u64) -> Self {
        Self { from, life, page: None, largest_bytes: None, spot: Spot::default() }
    }

    /// The same past, further on.
    fn going_on(&self, from: Continuity) -> Self {
        Self { largest_bytes: self.largest_bytes, ..Self::new(from, self.life) }
    }
}

impl Follower {
    pub(super) async fn follow_source(&mut self) -> Result<(), End> {
        let topic = self.client.topic().clone();
        let Place::Source(past) = &mut self.place else { return Ok(()) };
        if let Some(page) = past.page.clone() {
            return self.follow_page(&page).await;
        }
        let (life, reached) = {
            let state = topic.state();
            (state.ring.life(), state.ring.reach(past.from.cursor()))
        };
        if life != past.life {
            return self.follow_new_life();
        }
        let (from, offset, largest) = (past.from, past.spot.offset, past.largest_bytes);
        if let Some(seq) = reached.filter(|seq| offset == 0 && self.in_ring(*seq)) {
            self.place = Place::Ring(Spot { seq, offset: 0 });
            return Ok(());
        }
        let rendering = usize::from(self.client.view.rendering);
        let page = match self.fanout.replays.page(&topic, life, rendering, from, largest).await {
            Ok(page) => page,
            Err(error) => return self.failed(&error).await,
        };
        if page.is_empty() && !page.reset && page.next != from {
            // Where the stream ended now is known: the next look tells whether anything is left.
            if let Place::Source(past) = &mut self.place {
                past.from = page.next;
            }
            return Ok(());
        }
        if page.reset || page.is_empty() {
            // The reader has not told yet how it goes on, or has not yet what we would read.
            return self.wait_for_source().await;
        }
        self.open_page(page)
    }

    pub(super) fn in_ring(&self, seq: u64) -> bool {
        let state = self.client.topic().state();
        seq == state.ring.next_seq()
            || state.ring.at(seq).is_some_and(|b| self.client.view.is_in(b))
    }

    pub(super) fn open_page(&mut self, page: Arc<Page>) -> Result<(), End> {
        let Place::Source(past) = &mut self.place else { return Ok(()) };
        if let Some(partial) = self.partial
            && page.batch.ids().first() != Some(&partial)
        {
            // The rest of a half-written event is gone. The client's parser drops what it has of
            // it, and its last event id stands before it: it comes back and is told of the gap.
            return Err(End::Cut(Left::Slow));
        }
        past.largest_bytes = Some(page.largest_bytes);
        past.page = Some(page);
        Ok(())
    }

    pub(super) async fn follow_page(&mut self, page: &Arc<Page>) -> Result<(), End> {
        let Place::Source(past) = &mut self.place else { return Ok(()) };
        if past.spot.seq >= page.batch.end_seq() {
            *past = past.going_on(page.next);
            return Ok(());
        }
        let view = View { rendering: 0, ..self.client.view };
        let spot = past.spot;
        let done = self.write(std::slice::from_ref(&page.batch), view, spot).await?;
        let Place::Source(past) = &mut self.place else { return Ok(()) };
        if past.page.is_some() {
            past.spot = done;
        }
        Ok(())
    }

    /// The stream began anew while the client was in its past.
    pub(super) fn follow_new_life(&mut self) -> Result<(), End> {
        if self.partial.is_some() {
            return Err(End::Cut(Left::Slow));
        }
        let gap = Gap { after: Some(self.last_id), next: None, lost: None, reason: Reason::Reset };
        let life = self.client.topic().state().ring.life();
        self.place = Place::Source(Past::new(Continuity::after(StreamId::ZERO), life));
        self.tell_gap(gap, StreamId::ZERO);
        Ok(())
    }

    pub(super) fn has_page(&self) -> bool {
        matches!(&self.place, Place::Source(Past { page: Some(_), .. }))
    }

    /// Gives back the page; the place in it is found again by what the client has.
    pub(super) fn forget_page(&mut self) {
        if let Place::Source(past) = &mut self.place {
            let offset = past.spot.offset;
            *past = past.going_on(Continuity::after(self.last_id));
            past.spot.offset = offset;
        }
    }
}
