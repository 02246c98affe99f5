//! Whether a read went on exactly where the last one ended. Loss needs no error in Redis: trimming,
//! deleting and beginning anew all look like an ordinary reply, so each is held against the stream.
//!
//! Redis looks at the stream after it has answered the read, and other commands may come between.
//! So nothing is inferred from the two together but this: at a mark it is certain how many
//! entries were ever added up to it, and whoever has passed it knows what of them it has not had.
//!
//! What cannot be told apart:
//! - a new life that is in nothing behind the old one when it is looked at: its end, its first entry,
//!   how many were added and how many of these removed, while no more are read than were added;
//! - `XSETID … ENTRIESADDED` with a greater id, and entries added and trimmed. Where it moves the
//!   count alone, or anything back, it is taken for a new life;
//! - which entry it was that was deleted: told once everything up to a mark was read, before the
//!   reply that passed it;
//! - before Redis 7, which counts nothing: whether more was trimmed than had been read, once
//!   everything up to the cursor is gone (a gap is told), and what was deleted (none is).

use crate::source::{Reply, StreamInfo, StreamState};
use crate::sse::{Entry, Gap, Reason, StreamId};

/// What is known at a cursor of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Continuity {
    /// Everything up to this id has been read, told as missing, or will be told at the next mark.
    cursor: StreamId,
    /// How many entries had ever been added up to the cursor, but for what is not told yet; `None`
    /// where Redis cannot tell.
    added: Option<u64>,
    /// The stream as of the last look.
    seen: Option<StreamInfo>,
}

/// What stands between the last read and this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is missing.
    Whole,
    /// Entries are missing before those of the reply.
    Missing(Gap),
    /// The stream began anew: the reply's entries are not to be used, read on from the new cursor.
    Reset(Gap),
}

/// A place in a stream, and how many entries were ever added up to it.
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
                Self { cursor: info.last_generated, added: info.entries_added, seen }
            }
            None => Self::after(StreamId::ZERO),
        }
    }

    /// After `id`, which the stream is known to go on from exactly.
    pub fn after(id: StreamId) -> Self {
        // Before the first of all ids nothing was ever added.
        Self { cursor: id, added: (id == StreamId::ZERO).then_some(0), seen: None }
    }

    /// The id to read after.
    pub fn cursor(&self) -> StreamId {
        self.cursor
    }

    /// The end of the stream as of the last look.
    pub fn end(&self) -> Option<StreamId> {
        self.seen.map(|info| info.last_generated)
    }

    /// How many entries there were after the cursor at the last look, where they are counted.
    pub fn behind(&self) -> Option<u64> {
        let end = self.seen?;
        if end.last_generated <= self.cursor {
            return Some(0);
        }
        Some(end.entries_added?.saturating_sub(self.added?))
    }

    /// Whether what is missing is counted.
    pub fn is_counted(&self) -> bool {
        self.added.is_some()
    }

    /// Where nothing is counted, the id to read after so that the reply begins with the entry at the
    /// cursor, if that is still there: then what follows it is whole.
    pub fn anchor(&self) -> Option<StreamId> {
        (self.added.is_none() && self.cursor != StreamId::ZERO).then(|| self.cursor.prev())
    }

    /// Holds a reply against the stream and moves the cursor past it.
    pub fn check(&mut self, reply: &Reply) -> Verdict {
        self.check_from(reply, false)
    }

    /// The same; where the reply is `anchored`, the entry at the cursor came right before it.
    pub fn check_from(&mut self, reply: &Reply, anchored: bool) -> Verdict {
        let entries = &reply.entries;
        let info = match &reply.seen {
            StreamState::Missing if entries.is_empty() => return self.gone(),
            StreamState::Stream(info)
                if entries.last().is_none_or(|e| e.id <= info.last_generated) =>
            {
                Some(info)
            }
            // Replaced right after the read: the next look tells.
            StreamState::Missing | StreamState::Stream(_) => None,
        };
        // What was trimmed after an anchored read is the next one's to tell.
        let reached = self.reached(entries, info.filter(|_| !anchored));
        let passed = self.passed(reached, info);
        if let Some(info) = info {
            if self.was_recreated(info, entries, &passed) {
                return self.reset(info);
            }
            self.added = self.added.filter(|_| info.entries_added.is_some());
        }
        let gap = match (self.added, info) {
            (Some(added), _) => self.count(added, entries, info, &passed),
            (None, Some(info)) if !anchored => self.uncounted(entries, info),
            (None, _) => None,
        };
        self.cursor = reached;
        if let Some(info) = info {
            self.seen = Some(*info);
            if self.added.is_none() && reached == info.last_generated {
                // Level with the end: what was uncounted on the way is behind.
                self.added = info.entries_added;
            }
        }
        gap.map_or(Verdict::Whole, Verdict::Missing)
    }

    /// Goes on in another stream under the same key, whatever its ids say, from its beginning.
    pub fn leave_for(&mut self, info: &StreamInfo) -> Verdict {
        self.reset(info)
    }

    /// The key is gone: whatever comes under its name next is another stream.
    fn gone(&mut self) -> Verdict {
        let after = self.cursor;
        let end = self.seen.map_or(after, |seen| seen.last_generated.max(after));
        *self = Self::after(StreamId::ZERO);
        if end == StreamId::ZERO {
            return Verdict::Whole;
        }
        Verdict::Reset(Gap { after: Some(after), next: None, lost: None, reason: Reason::Reset })
    }

    fn reset(&mut self, info: &StreamInfo) -> Verdict {
        let gap =
            Gap { after: Some(self.cursor), next: info.first, lost: None, reason: Reason::Reset };
        let before_first = info.first.map_or(info.last_generated, StreamId::prev);
        *self = Self { cursor: before_first, added: removed(info), seen: Some(*info) };
        Verdict::Reset(gap)
    }

    /// What shows a new life: something went back that never does in one, or we have had more than
    /// were ever added.
    fn was_recreated(&self, info: &StreamInfo, entries: &[Entry], passed: &[Mark]) -> bool {
        let too_few = |mark: &Mark| {
            self.added.is_some_and(|added| mark.added < added + up_to(entries, mark.id))
        };
        info.last_generated < self.cursor
            || self.seen.is_some_and(|seen| went_back(&seen, info))
            || passed.iter().any(too_few)
    }

    /// Up to where everything was read or is gone.
    fn reached(&self, entries: &[Entry], info: Option<&StreamInfo>) -> StreamId {
        if let Some(last) = entries.last() {
            return last.id.max(self.cursor);
        }
        // The read found nothing of what there was at the last look, nor is anything before what
        // is first now.
        let seen = self.seen.map_or(self.cursor, |seen| seen.last_generated.max(self.cursor));
        let ahead = info.map(|info| info.first.map_or(info.last_generated, StreamId::prev));
        ahead.map_or(seen, |ahead| ahead.max(seen))
    }

    /// The marks of the last look and this one that are behind once this reply is read.
    fn passed(&self, reached: StreamId, info: Option<&StreamInfo>) -> Vec<Mark> {
        let marks = self.seen.iter().chain(info).flat_map(marks);
        marks.filter(|mark| (self.cursor..=reached).contains(&mark.id)).collect()
    }

    /// Counts what is missing up to the last mark that was passed, and moves the count on.
    fn count(
        &mut self,
        added: u64,
        entries: &[Entry],
        info: Option<&StreamInfo>,
        passed: &[Mark],
    ) -> Option<Gap> {
        let furthest = passed.iter().max_by_key(|mark| mark.id);
        let short = |mark: &Mark| mark.added.saturating_sub(added + up_to(entries, mark.id));
        let lost = furthest.map_or(0, short);
        self.added = Some(added + lost + entries.len() as u64);
        (lost > 0).then(|| self.gap(entries, info, Some(lost)))
    }

    /// A gap, unless nothing was ever removed or the first entry follows directly.
    fn uncounted(&self, entries: &[Entry], info: &StreamInfo) -> Option<Gap> {
        let next = entries.first().map(|entry| entry.id).or(info.first);
        let trimmed_ahead = info.first.is_none_or(|first| first > self.cursor);
        let whole = info.entries_added == Some(info.length)
            || (next.is_none() && info.last_generated == self.cursor)
            || (next.is_some() && next == self.cursor.next());
        (trimmed_ahead && !whole).then(|| self.gap(entries, Some(info), None))
    }

    fn gap(&self, entries: &[Entry], info: Option<&StreamInfo>, lost: Option<u64>) -> Gap {
        let first = info.and_then(|info| info.first).filter(|first| *first > self.cursor);
        let next = entries.first().map(|entry| entry.id).or(first);
        // Told late, what was deleted is behind; trimming leaves nothing there.
        let deleted = info.or(self.seen.as_ref()).is_some_and(|info| {
            let holds_behind = info.first.is_some_and(|first| first <= self.cursor);
            info.max_deleted > if holds_behind { StreamId::ZERO } else { self.cursor }
        });
        let reason = if deleted { Reason::Deleted } else { Reason::Trimmed };
        Gap { after: Some(self.cursor), next, lost, reason }
    }
}

/// Just before the first entry, where none after it was deleted: all that were removed came before.
/// And the end.
fn marks(info: &StreamInfo) -> impl Iterator<Item = Mark> + use<> {
    let first = info.first.filter(|first| info.max_deleted < *first);
    let before_first =
        first.zip(removed(info)).map(|(first, added)| Mark { id: first.prev(), added });
    let end = info.entries_added.map(|added| Mark { id: info.last_generated, added });
    before_first.into_iter().chain(end)
}

fn removed(info: &StreamInfo) -> Option<u64> {
    info.entries_added.map(|added| added.saturating_sub(info.length))
}

/// Whether something went back that never does within one life.
fn went_back(old: &StreamInfo, new: &StreamInfo) -> bool {
    let before_old = old.first.map_or(old.last_generated, StreamId::prev);
    let counted = old.entries_added.zip(new.entries_added).zip(removed(old).zip(removed(new)));
    let counts_back = counted.is_some_and(|((old_added, added), (old_removed, removed))| {
        // Nothing is added without an id, and what is behind the first entry was removed.
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

/// How many of these there are up to `id`.
fn up_to(entries: &[Entry], id: StreamId) -> u64 {
    entries.partition_point(|entry| entry.id <= id) as u64
}

#[cfg(test)]
pub(crate) mod histories;
#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;
