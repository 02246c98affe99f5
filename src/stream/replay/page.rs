//! A run of entries of the past, read once for all clients that are in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use super::Replays;
use crate::source::{Error, ErrorClass, ReadRequest, StreamInfo, StreamState};
use crate::sse::{Gap, StreamId};
use crate::stream::continuity::{Continuity, Verdict};
use crate::stream::{Batch, Item, Topic};
use crate::telemetry::metrics::Scope;

/// One read of the past is meant to stay near this.
const PAGE_BYTES: usize = 256 << 10;
/// And never gets larger than this, but for one entry.
const MOST_PAGE_BYTES: usize = 4 * PAGE_BYTES;

/// A run of entries of the past.
#[derive(Debug)]
pub struct Page {
    /// What it holds, in the one rendering that was asked for; numbered from zero.
    pub batch: Arc<Batch>,
    /// Where the next page begins.
    pub next: Continuity,
    /// The stream began anew meanwhile: the topic's reader will tell how it goes on.
    pub reset: bool,
    /// What is missing before its first entry: its first item tells of it.
    pub gap: Option<Gap>,
    /// Whether deletions before its end were counted, and so told by its first item.
    counted: bool,
    /// The id that it was read after.
    after: StreamId,
    /// Whether the stream still held the entry with that id.
    anchored: bool,
    /// The stream right after the read.
    info: Option<StreamInfo>,
    /// Its share of what all pages in memory may have.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// A place in a page.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The page.
    pub page: Arc<Page>,
    /// Its first item that is still to be told.
    pub seq: u64,
}

impl Page {
    /// Whether the stream holds nothing more.
    pub fn is_empty(&self) -> bool {
        self.batch.ids().is_empty()
    }

    /// The first item after `id`, where the page shows that nothing is missing between the two.
    pub(super) fn first_after(&self, id: StreamId) -> Option<u64> {
        let ids = self.batch.ids();
        if id == self.after && !self.is_empty() {
            return Some(0);
        }
        // Behind the entry: a gap that follows it may have the same id.
        let index = ids.partition_point(|at| *at < id);
        let known = ids.get(index) == Some(&id) && index + 1 < ids.len();
        known.then_some(index as u64 + 1)
    }

    /// The last entry that was deleted so far.
    pub fn last_deleted(&self) -> StreamId {
        self.info.map_or(StreamId::ZERO, |info| info.max_deleted)
    }

    /// The stream's end.
    pub fn end(&self) -> StreamId {
        self.info.map_or(self.next.cursor(), |info| info.last_generated)
    }

    /// The entry that comes first of those from `seq` on.
    pub fn first_entry(&self, seq: u64) -> Option<StreamId> {
        match self.gap.filter(|_| seq == 0) {
            Some(gap) => gap.next,
            None => self.batch.ids_from(seq).first().copied(),
        }
    }

    /// The last entry that was deleted ahead of `cursor`, where whoever enters at `seq` with that cursor
    /// is not told of it by the page itself.
    pub fn deleted_ahead(&self, cursor: StreamId, seq: u64) -> Option<StreamId> {
        let deleted = Some(self.last_deleted()).filter(|deleted| *deleted > cursor)?;
        let covers = |gap: Gap| gap.next.is_none_or(|next| next > deleted);
        let told = seq == 0 && (self.counted || self.gap.is_some_and(covers));
        (!told && !self.reset).then_some(deleted)
    }

    /// The stream as it was when the page showed that it held the entry `id`.
    pub(super) fn holds(&self, id: StreamId) -> Option<StreamInfo> {
        let held = if id == self.after {
            self.anchored
        } else {
            let index = self.batch.ids().partition_point(|at| *at < id);
            self.batch.ids().get(index) == Some(&id)
        };
        self.info.filter(|_| held && !self.reset)
    }
}

#[cfg(test)]
impl Page {
    /// Of these items, with nothing else known.
    pub(crate) fn of(items: &[Item], rendering: crate::sse::Rendering) -> Self {
        Self {
            batch: Arc::new(Batch::encode(items, &[rendering], 1000)),
            next: Continuity::after(StreamId::ZERO),
            reset: false,
            gap: None,
            counted: false,
            after: StreamId::ZERO,
            anchored: false,
            info: None,
            room: None,
        }
    }
}

impl Replays {
    /// Reads the page after `from`.
    pub(super) async fn read(
        &self,
        topic: &Topic,
        rendering: usize,
        from: Continuity,
    ) -> Result<Page, Error> {
        let rendering = topic.state().renderings[rendering].clone();
        let anchor = from.anchor();
        let count =
            topic.backfill_sizes.count(PAGE_BYTES).min(self.read_count.load(Ordering::Relaxed));
        // An anchor is never read alone.
        let count = count.max(if anchor.is_some() { 2 } else { 1 });
        let after = anchor.unwrap_or(from.cursor());
        let most_bytes = MOST_PAGE_BYTES;
        let ask = ReadRequest { key: &topic.key, after, count, most_bytes };
        let outcome = self.source.read(ask).await;
        let is_too_much =
            |error: &Error| error.class == ErrorClass::TooLarge || error.code == "TIMEOUT";
        if outcome.as_ref().is_err_and(is_too_much) {
            // Entries have grown; to more than the connection brings in time, it may be.
            topic.backfill_sizes.were_too_many(count, PAGE_BYTES);
        }
        let mut reply = outcome?;
        // The end of a stream tells what is left of it, not what a read can bring.
        if reply.entries.len() as u64 == count {
            topic.backfill_sizes.observe(&reply.entries);
        }
        let first = reply.entries.first().map(|entry| entry.id);
        let anchored = anchor.is_some() && first == Some(from.cursor());
        if anchored {
            reply.entries.remove(0);
        }
        let (mut next, counted) = (from, from.is_counted());
        let mut items = Vec::with_capacity(reply.entries.len() + 1);
        let (gap, reset) = match next.check_from(&reply, anchored) {
            Verdict::Whole => (None, false),
            Verdict::Missing(gap) => (Some(gap), false),
            Verdict::Reset(_) => (None, true),
        };
        items.extend(gap.map(|gap| Item::Gap(gap, gap.next.map_or(next.cursor(), StreamId::prev))));
        if !reset {
            items.extend(reply.entries.into_iter().map(Item::Entry));
        }
        let batch = Batch::encode(&items, &[rendering], self.max_entry_bytes);
        self.metrics.oversize(Scope::Resume, batch.oversize());
        let info = if let StreamState::Stream(info) = reply.seen { Some(info) } else { None };
        let batch = Arc::new(batch);
        Ok(Page {
            batch,
            next,
            reset,
            gap,
            counted,
            after: from.cursor(),
            anchored,
            info,
            room: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::{Data, Entry, EventName, Reason, Rendering};

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    /// What was read after 10, whose entry was still there: a gap up to 20, 20, 30.
    fn page() -> Page {
        let entry = |ms| Item::Entry(Entry { id: id(ms), fields: Vec::new() });
        let gap =
            Gap { after: Some(id(10)), next: Some(id(20)), lost: None, reason: Reason::Trimmed };
        let items = [Item::Gap(gap, id(20).prev()), entry(20), entry(30)];
        let rendering = Rendering {
            event: EventName::Fixed("message".into()),
            data: Data::Field("payload".into()),
            missing: None,
        };
        Page {
            batch: Arc::new(Batch::encode(&items, &[rendering], 1000)),
            next: Continuity::after(id(30)),
            reset: false,
            gap: Some(gap),
            counted: false,
            after: id(10),
            anchored: true,
            info: Some(StreamInfo::default()),
            room: None,
        }
    }

    #[test]
    fn whoever_has_an_id_of_a_page_goes_on_in_it() {
        let page = page();
        let after = |id| page.first_after(id);
        assert_eq!(after(id(10)), Some(0));
        assert_eq!(after(id(20).prev()), Some(1));
        assert_eq!(after(id(20)), Some(2));
        // What follows the last is in the next one; where a stranger stands nobody knows.
        assert_eq!([after(id(30)), after(id(9)), after(id(25))], [None; 3]);
    }

    #[test]
    fn a_page_shows_that_the_stream_held_what_is_in_it() {
        let mut page = page();
        for known in [id(10), id(20).prev(), id(20), id(30)] {
            assert!(page.holds(known).is_some(), "{known}");
        }
        assert_eq!([page.holds(id(9)), page.holds(id(25))], [None; 2]);
        page.anchored = false;
        assert_eq!(page.holds(id(10)), None);
    }

    #[test]
    fn a_deletion_ahead_is_told_by_the_page_or_to_be_told() {
        let mut page = page();
        let deleted = |at| Some(StreamInfo { max_deleted: id(at), ..StreamInfo::default() });
        page.info = deleted(9);
        assert_eq!(page.deleted_ahead(id(10), 0), None, "it is behind");
        page.info = deleted(15);
        assert_eq!(page.deleted_ahead(id(10), 0), None, "the gap covers it");
        page.info = deleted(25);
        assert_eq!(page.deleted_ahead(id(10), 0), Some(id(25)));
        page.counted = true;
        assert_eq!(page.deleted_ahead(id(10), 0), None, "it is among what was counted");
        assert_eq!(page.deleted_ahead(id(20), 2), Some(id(25)), "the first item is passed over");
        assert_eq!(page.deleted_ahead(id(25), 2), None);
    }
}
