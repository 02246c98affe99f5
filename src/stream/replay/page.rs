//! A page: what one read of a stream's past found, shared by all subscribers that are in it.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::source::{Reply, StreamInfo, StreamState};
use crate::sse::{Entry, Gap, Rendering, StreamId};
use crate::stream::batch::Batch;
use crate::stream::continuity::{Continuity, Verdict};
use crate::stream::item::Item;

/// A generation of one stream: the topic's id, and the number that its ring gives the generation.
pub(super) type Generation = (u64, u64);

/// What a page is read for: two reads with the same key find the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PageKey {
    pub(super) generation: Generation,
    pub(super) rendering: usize,
    /// Where the page begins.
    pub(super) from: Continuity,
    /// For a client that is spared what newer entries supersede.
    pub(super) conflates: bool,
}

impl PageKey {
    /// Whether a page for the one may hold what is wanted with the other.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        let kind = |key: &Self| (key.generation, key.rendering, key.conflates);
        kind(self) == kind(other)
    }
}

/// A run of entries of the past.
#[derive(Debug)]
pub struct Page {
    /// The entries, in the one rendering that was asked for; numbered from zero.
    pub batch: Arc<Batch>,
    /// Where the next page begins.
    pub next: Continuity,
    /// The stream was recreated meanwhile; the topic's reader will tell how it goes on.
    pub reset: bool,
    /// The gap before its first entry, which is its first item.
    pub gap: Option<Gap>,
    /// Before each of its items: how many entries are not in it, for it has newer ones with the same value. Empty in a
    /// page that conflates nothing.
    spared: Vec<u64>,
    /// Whether deletions up to its end were counted, and so are part of that gap.
    counted: bool,
    /// The id that it was read after.
    after: StreamId,
    /// Whether the stream still held the entry with that id.
    anchored: bool,
    /// The stream right after the read.
    info: Option<StreamInfo>,
    /// Its share of the memory that all pages may have.
    pub(super) memory: Option<OwnedSemaphorePermit>,
}

/// A page, and the first item of it that a subscriber still needs.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The page.
    pub page: Arc<Page>,
    /// The item.
    pub seq: u64,
}

impl Page {
    /// The page that begins at `from`, of the reply to a read there.
    pub(super) fn of_reply(
        from: Continuity,
        reply: Reply,
        rendering: Rendering,
        max_entry_bytes: usize,
    ) -> Self {
        let (begun, entries) = Begun::by(from, reply);
        begun.page(entries, Vec::new(), rendering, max_entry_bytes)
    }

    /// How many entries a client was spared that was at the item `from_seq` and is at `to_seq` now.
    pub fn spared_between(&self, from_seq: u64, to_seq: u64) -> u64 {
        // At an item, the client has the one before, and was spared what was before that.
        let passed = |seq: u64| {
            let had = seq.checked_sub(1).and_then(|seq| usize::try_from(seq).ok());
            had.and_then(|had| self.spared.get(had)).copied().unwrap_or(0)
        };
        passed(to_seq) - passed(from_seq)
    }

    /// Whether the stream holds nothing more.
    pub fn is_empty(&self) -> bool {
        self.batch.ids().is_empty()
    }

    /// The first item after `id`, if the page shows that nothing is missing between the two.
    pub(super) fn first_after(&self, id: StreamId) -> Option<u64> {
        let ids = self.batch.ids();
        if id == self.after && !self.is_empty() {
            return Some(0);
        }
        if self.info.is_some_and(|info| info.may_have_holes) {
            return None;
        }
        // A gap right after the entry may have the same id: the first item with the id is the entry.
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

    /// The first entry among the items from `seq` on.
    pub fn first_entry(&self, seq: u64) -> Option<StreamId> {
        match self.gap.filter(|_| seq == 0) {
            Some(gap) => gap.next,
            None => self.batch.ids_from(seq).first().copied(),
        }
    }

    /// The last entry that was deleted after `cursor`, if the page itself does not tell that to a subscriber
    /// that enters it at `seq` with this cursor.
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

/// The first read of a page, compared with the stream.
pub(super) struct Begun {
    from: Continuity,
    /// Where the next read begins.
    pub(super) next: Continuity,
    reset: bool,
    gap: Option<Gap>,
    anchored: bool,
    info: Option<StreamInfo>,
}

impl Begun {
    /// By the reply to a read at `from`; and its entries.
    pub(super) fn by(from: Continuity, mut reply: Reply) -> (Self, Vec<Entry>) {
        let anchored = take_anchor(from, &mut reply);
        let mut next = from;
        let (gap, reset) = match next.check_from(&reply, anchored) {
            Verdict::Whole => (None, false),
            Verdict::Missing(gap) => (Some(gap), false),
            Verdict::Reset(_) => (None, true),
        };
        let info = if let StreamState::Stream(info) = reply.seen { Some(info) } else { None };
        let entries = if reset { Vec::new() } else { reply.entries };
        (Self { from, next, reset, gap, anchored, info }, entries)
    }

    /// Whether the stream held more at the last look.
    pub(super) fn has_more(&self) -> bool {
        !self.reset && self.info.is_some_and(|info| info.last_generated > self.next.cursor())
    }

    /// Goes on with the reply to a read at its end, if nothing is missing between the two: its entries.
    pub(super) fn go_on(&mut self, mut reply: Reply) -> Option<Vec<Entry>> {
        let mut next = self.next;
        let anchored = take_anchor(next, &mut reply);
        let verdict = next.check_from(&reply, anchored);
        let is_whole = !reply.entries.is_empty() && verdict == Verdict::Whole;
        let StreamState::Stream(info) = reply.seen else { return None };
        if !is_whole {
            return None;
        }
        (self.next, self.info) = (next, Some(info));
        Some(reply.entries)
    }

    /// The page of these entries; so many are `spared` before each.
    pub(super) fn page(
        self,
        entries: Vec<Entry>,
        mut spared: Vec<u64>,
        rendering: Rendering,
        max_entry_bytes: usize,
    ) -> Page {
        let Self { from, next, reset, gap, anchored, info } = self;
        let mut items = Vec::with_capacity(entries.len() + 1);
        items.extend(gap.map(|gap| Item::Gap(gap, gap.next.map_or(next.cursor(), StreamId::prev))));
        items.extend(entries.into_iter().map(Item::Entry));
        if gap.is_some() && !spared.is_empty() {
            spared.insert(0, 0);
        }
        Page {
            batch: Arc::new(Batch::encode(&items, &[rendering], max_entry_bytes)),
            next,
            reset,
            gap,
            spared,
            counted: from.is_counted(),
            after: from.cursor(),
            anchored,
            info,
            memory: None,
        }
    }
}

/// Takes the entry at the cursor out of a reply that was to begin with it; whether it did.
fn take_anchor(from: Continuity, reply: &mut Reply) -> bool {
    let first = reply.entries.first().map(|entry| entry.id);
    let anchored = from.anchor().is_some() && first == Some(from.cursor());
    if anchored {
        reply.entries.remove(0);
    }
    anchored
}

#[cfg(test)]
impl Page {
    /// Of these items, with nothing else known.
    pub(crate) fn of(items: &[Item], rendering: Rendering) -> Self {
        Self {
            batch: Arc::new(Batch::encode(items, &[rendering], 1000)),
            next: Continuity::after(StreamId::ZERO),
            reset: false,
            gap: None,
            spared: Vec::new(),
            counted: false,
            after: StreamId::ZERO,
            anchored: false,
            info: None,
            memory: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::{Data, Entry, EventName, Reason};

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    /// Read after 10, whose entry was still there: a gap up to 20, then 20 and 30.
    fn page() -> Page {
        let entry = |ms| Item::Entry(Entry { id: id(ms), fields: Vec::new() });
        let gap =
            Gap { after: Some(id(10)), next: Some(id(20)), lost: None, reason: Reason::Trimmed };
        let items = [Item::Gap(gap, id(20).prev()), entry(20), entry(30)];
        let rendering = Rendering {
            event: EventName::Fixed("message".into()),
            data: Data::Field("payload".into()),
            missing: None,
            ..Rendering::default()
        };
        Page {
            batch: Arc::new(Batch::encode(&items, &[rendering], 1000)),
            next: Continuity::after(id(30)),
            reset: false,
            gap: Some(gap),
            spared: Vec::new(),
            counted: false,
            after: id(10),
            anchored: true,
            info: Some(StreamInfo::default()),
            memory: None,
        }
    }

    #[test]
    fn a_subscriber_with_an_id_of_the_page_goes_on_in_it() {
        let page = page();
        let after = |id| page.first_after(id);
        assert_eq!(after(id(10)), Some(0));
        assert_eq!(after(id(20).prev()), Some(1));
        assert_eq!(after(id(20)), Some(2));
        // What follows the last entry is in the next page; an id that is not in this one tells nothing.
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
    fn a_deletion_ahead_is_part_of_the_page_or_is_still_to_be_told() {
        let mut page = page();
        let deleted = |at| Some(StreamInfo { max_deleted: id(at), ..StreamInfo::default() });
        page.info = deleted(9);
        assert_eq!(page.deleted_ahead(id(10), 0), None, "it is behind");
        page.info = deleted(15);
        assert_eq!(page.deleted_ahead(id(10), 0), None, "the gap covers it");
        page.info = deleted(25);
        assert_eq!(page.deleted_ahead(id(10), 0), Some(id(25)));
        page.counted = true;
        assert_eq!(page.deleted_ahead(id(10), 0), None, "the count has it");
        assert_eq!(page.deleted_ahead(id(20), 2), Some(id(25)), "the first item is skipped");
        assert_eq!(page.deleted_ahead(id(25), 2), None);
    }
}
