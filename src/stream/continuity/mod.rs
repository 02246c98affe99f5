//! Continuity: whether a read went on exactly where the last one ended.
//!
//! Redis reports no loss. After a trim, after a deletion, and when a key was deleted and created again, the next
//! `XREAD` answers as always. So each read is followed by a look at the stream (`XINFO STREAM`), and the two
//! are compared.
//!
//! **Marks.** Other commands may run between a read and its look, so most of what a look says proves nothing
//! about the read. At two ids, though, a look is certain how many entries were ever added up to there:
//! - at the stream's end: all of `entries-added`;
//! - just before its first entry, if none after it was deleted: `entries-added` less `length`, for all
//!   entries that were removed came before the first.
//!
//! Such an id with its number is a mark. The reader counts along: how many entries were ever added up to its
//! cursor. When it passes a mark, what the mark counts more than the reader is missing: a gap. What the reader
//! counts more, it has read from another stream: a reset. A mark that lies ahead is kept until it is passed.
//!
//! For example, a reader at entry 5 knows of five entries. It reads 8 and 9, and the look says that the stream
//! ends at 9 with nine entries added: the reader counts seven, so two are missing between 5 and 8. Had the look
//! said six, the reader would have read an entry that this stream never had.
//!
//! **A recreated stream** also shows in two looks: something went back that never goes back within one
//! generation, such as the end, the first entry, or how many entries were added.
//!
//! What cannot be told apart:
//! - a recreated stream that is behind the old one in nothing when it is looked at (its end, its first entry,
//!   how many entries were added and how many of these removed), while no more are read than were added;
//! - `XSETID … ENTRIESADDED` with a greater id, from entries that were added and trimmed. If it moves the count
//!   alone, or moves anything back, it is taken for a recreated stream;
//! - which entry was deleted: the gap is told once everything up to a mark was read, in front of the reply
//!   that passed the mark;
//! - which entries were trimmed from the middle (Redis 8.2, [`StreamInfo::may_have_holes`]): who goes on after an
//!   entry, with nothing counted, is told of a gap that there may be;
//! - before Redis 7, which does not count: whether more was trimmed than had been read, once everything up
//!   to the cursor is gone (a gap is told), and what was deleted (no gap is told).

use crate::source::{Reply, StreamInfo, StreamState};
use crate::sse::{Entry, Gap, Reason, StreamId};

/// A cursor in one stream, and what is known there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Continuity {
    /// Everything up to this id was read, was told as missing, or will be told at the next mark.
    cursor: StreamId,
    /// How many entries were ever added up to the cursor, without those that are still to be told as missing;
    /// `None` if Redis cannot tell.
    added: Option<u64>,
    /// The stream at the last look.
    seen: Option<StreamInfo>,
    /// Holes that may lie ahead are still to be told, once.
    tells_holes: bool,
}

/// What lies between the last read and this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is missing.
    Whole,
    /// Entries are missing before those of the reply.
    Missing(Gap),
    /// The stream was recreated: do not use the reply's entries, read on from the new cursor.
    Reset(Gap),
}

/// An id at which a look is certain how many entries were ever added up to there.
#[derive(Clone, Copy)]
struct Mark {
    id: StreamId,
    added: u64,
}

impl Continuity {
    /// At the end of the stream as it is now.
    pub fn at_tail(info: Option<&StreamInfo>) -> Self {
        match info {
            Some(info) => {
                let seen = Some(*info);
                let (cursor, added) = (info.last_generated, info.entries_added);
                Self { cursor, added, seen, tells_holes: false }
            }
            None => Self::after(StreamId::ZERO),
        }
    }

    /// After `id`, from which the stream is known to go on exactly.
    pub fn after(id: StreamId) -> Self {
        // Nothing was ever added before the first of all ids.
        let added = (id == StreamId::ZERO).then_some(0);
        Self { cursor: id, added, seen: None, tells_holes: true }
    }

    /// The same, where nobody has to be told of holes that may lie ahead.
    #[must_use]
    pub fn without_holes_told(self) -> Self {
        Self { tells_holes: false, ..self }
    }

    /// The id to read after.
    pub fn cursor(&self) -> StreamId {
        self.cursor
    }

    /// The end of the stream at the last look.
    pub fn end(&self) -> Option<StreamId> {
        self.seen.map(|info| info.last_generated)
    }

    /// How many entries there were after the cursor at the last look; `None` if Redis cannot tell.
    pub fn behind(&self) -> Option<u64> {
        let end = self.seen?;
        if end.last_generated <= self.cursor {
            return Some(0);
        }
        Some(end.entries_added?.saturating_sub(self.added?))
    }

    /// Whether a gap here tells how many entries are missing.
    pub fn is_counted(&self) -> bool {
        self.added.is_some()
    }

    /// If nothing is counted: the id to read after so that the reply begins with the entry at the cursor. If
    /// it does, nothing is missing after that entry.
    pub fn anchor(&self) -> Option<StreamId> {
        (self.added.is_none() && self.cursor != StreamId::ZERO).then(|| self.cursor.prev())
    }

    /// Compares a reply with the stream, and moves the cursor past it.
    pub fn check(&mut self, reply: &Reply) -> Verdict {
        self.check_from(reply, false)
    }

    /// The same for a reply that is `anchored`: the entry at the cursor came right before it.
    pub fn check_from(&mut self, reply: &Reply, anchored: bool) -> Verdict {
        let entries = &reply.entries;
        let info = match &reply.seen {
            StreamState::Missing if entries.is_empty() => return self.leave(false),
            StreamState::Gone if entries.is_empty() => return self.leave(true),
            StreamState::Stream(info)
                if entries.last().is_none_or(|e| e.id <= info.last_generated) =>
            {
                Some(info)
            }
            // The stream was replaced between the read and the look: the next look will tell.
            StreamState::Missing
            | StreamState::Gone
            | StreamState::Stream(_)
            | StreamState::Unseen => None,
        };
        // What was trimmed after an anchored read is for the next one to tell.
        let reached = self.reached(entries, info.filter(|_| !anchored));
        let passed = self.passed(reached, info);
        if let Some(info) = info {
            if self.was_recreated(info, entries, &passed) {
                return self.reset(info);
            }
            self.added = self.added.filter(|_| info.entries_added.is_some());
        }
        let may_have_holes = self.tells_holes && info.is_some_and(|info| info.may_have_holes);
        let gap = match (self.added, info) {
            (Some(added), _) => self.count(added, entries, info, &passed),
            (None, Some(info)) if may_have_holes || !anchored => {
                self.uncounted(entries, info, may_have_holes)
            }
            (None, _) => None,
        };
        self.tells_holes &= info.is_none();
        self.cursor = reached;
        if let Some(info) = info {
            self.seen = Some(*info);
            if self.added.is_none() && reached == info.last_generated {
                // From the stream's end on everything is counted.
                self.added = info.entries_added;
            }
        }
        gap.map_or(Verdict::Whole, Verdict::Missing)
    }

    /// Goes on with the beginning of another stream under the same key, whatever its ids are.
    pub fn leave_for(&mut self, info: &StreamInfo) -> Verdict {
        self.reset(info)
    }

    /// The key does not exist: what comes under it next is another stream. `was_there`: it came and went since the last
    /// look.
    fn leave(&mut self, was_there: bool) -> Verdict {
        let after = self.cursor;
        let end = self.seen.map_or(after, |seen| seen.last_generated.max(after));
        *self = Self::after(StreamId::ZERO);
        if end == StreamId::ZERO && !was_there {
            return Verdict::Whole;
        }
        Verdict::Reset(Gap { after: Some(after), next: None, lost: None, reason: Reason::Reset })
    }

    fn reset(&mut self, info: &StreamInfo) -> Verdict {
        let gap =
            Gap { after: Some(self.cursor), next: info.first, lost: None, reason: Reason::Reset };
        let before_first = info.first.map_or(info.last_generated, StreamId::prev);
        let (added, seen) = (removed(info), Some(*info));
        *self = Self { cursor: before_first, added, seen, tells_holes: false };
        Verdict::Reset(gap)
    }

    /// Whether this is another stream: something went back, or more entries were read than were ever added.
    fn was_recreated(&self, info: &StreamInfo, entries: &[Entry], passed: &[Mark]) -> bool {
        let too_few = |mark: &Mark| {
            self.added.is_some_and(|added| mark.added < added + up_to(entries, mark.id))
        };
        info.last_generated < self.cursor
            || self.seen.is_some_and(|seen| went_back(&seen, info))
            || passed.iter().any(too_few)
    }

    /// The id up to which everything was read or is gone.
    fn reached(&self, entries: &[Entry], info: Option<&StreamInfo>) -> StreamId {
        if let Some(last) = entries.last() {
            return last.id.max(self.cursor);
        }
        // The read found nothing: all that there was at the last look is gone, and so is all before the
        // entry that is the first now.
        let seen = self.seen.map_or(self.cursor, |seen| seen.last_generated.max(self.cursor));
        let ahead = info.map(|info| info.first.map_or(info.last_generated, StreamId::prev));
        ahead.map_or(seen, |ahead| ahead.max(seen))
    }

    /// The marks, of the last look and this one, that are passed once this reply is read.
    fn passed(&self, reached: StreamId, info: Option<&StreamInfo>) -> Vec<Mark> {
        let marks = self.seen.iter().chain(info).flat_map(marks);
        marks.filter(|mark| (self.cursor..=reached).contains(&mark.id)).collect()
    }

    /// Counts what is missing up to the last mark that was passed.
    fn count(
        &mut self,
        added: u64,
        entries: &[Entry],
        info: Option<&StreamInfo>,
        passed: &[Mark],
    ) -> Option<Gap> {
        let furthest = passed.iter().max_by_key(|mark| mark.id);
        let missing = |mark: &Mark| mark.added.saturating_sub(added + up_to(entries, mark.id));
        let lost = furthest.map_or(0, missing);
        self.added = Some(added + lost + entries.len() as u64);
        (lost > 0).then(|| self.gap(entries, info, Some(lost)))
    }

    /// Without counts: a gap, unless nothing was ever removed or the first entry follows directly.
    fn uncounted(&self, entries: &[Entry], info: &StreamInfo, may_have_holes: bool) -> Option<Gap> {
        let first_ahead = info.first.filter(|first| *first > self.cursor);
        let next = entries.first().map(|entry| entry.id).or(first_ahead);
        let trimmed_ahead = may_have_holes || info.first.is_none_or(|first| first > self.cursor);
        let whole = info.entries_added == Some(info.length)
            || (next.is_none() && info.last_generated == self.cursor)
            || (next.is_some() && next == self.cursor.next());
        (trimmed_ahead && !whole).then(|| self.gap(entries, Some(info), None))
    }

    fn gap(&self, entries: &[Entry], info: Option<&StreamInfo>, lost: Option<u64>) -> Gap {
        let first = info.and_then(|info| info.first).filter(|first| *first > self.cursor);
        let next = entries.first().map(|entry| entry.id).or(first);
        // If the stream still holds entries at or before the cursor, nothing was trimmed here: the gap is a
        // deletion that is told late.
        let deleted = info.or(self.seen.as_ref()).is_some_and(|info| {
            let holds_behind = info.first.is_some_and(|first| first <= self.cursor);
            info.max_deleted > if holds_behind { StreamId::ZERO } else { self.cursor }
        });
        let reason = if deleted { Reason::Deleted } else { Reason::Trimmed };
        Gap { after: Some(self.cursor), next, lost, reason }
    }
}

/// Just before the first entry, if none after it was deleted; and the end.
fn marks(info: &StreamInfo) -> impl Iterator<Item = Mark> + use<> {
    let first = info.first.filter(|first| info.max_deleted < *first);
    let before_first =
        first.zip(removed(info)).map(|(first, added)| Mark { id: first.prev(), added });
    let end = info.entries_added.map(|added| Mark { id: info.last_generated, added });
    before_first.into_iter().chain(end)
}

/// How many entries were ever removed.
fn removed(info: &StreamInfo) -> Option<u64> {
    info.entries_added.map(|added| added.saturating_sub(info.length))
}

/// Whether something went back that never goes back within one generation.
fn went_back(old: &StreamInfo, new: &StreamInfo) -> bool {
    let before_old = old.first.map_or(old.last_generated, StreamId::prev);
    let counted = old.entries_added.zip(new.entries_added).zip(removed(old).zip(removed(new)));
    let counts_back = counted.is_some_and(|((old_added, added), (old_removed, removed))| {
        // Each entry that is added moves the end, and all entries before the first were removed.
        let same_end = new.last_generated == old.last_generated;
        let all_gone = new.first.is_none_or(|first| first > old.last_generated);
        added < old_added
            || removed < old_removed
            || (same_end && added != old_added)
            || (all_gone && removed < old_added)
    });
    let first_back = new.first.is_some_and(|first| first <= before_old);
    new.last_generated < old.last_generated || first_back || counts_back
}

/// How many of the entries are at or before `id`.
fn up_to(entries: &[Entry], id: StreamId) -> u64 {
    entries.partition_point(|entry| entry.id <= id) as u64
}

#[cfg(test)]
pub(crate) mod histories;
#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;
