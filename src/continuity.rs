//! Whether a read went on exactly where the last one ended. Loss needs no error in Redis: trimming,
//! deleting and beginning anew all look like an ordinary reply, so each is held against the stream.

use crate::event::{Gap, Reason, StreamId};
use crate::source::{Info, Reply, Seen};

/// What is known at a cursor of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Continuity {
    /// Everything up to this id has been read, or told as missing.
    cursor: StreamId,
    /// How many entries had ever been added up to the cursor; `None` where Redis cannot tell.
    added: Option<u64>,
    /// The stream's end as of the last look: the next read reports whatever is left before it.
    end: Option<(StreamId, Option<u64>)>,
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

impl Continuity {
    /// At the end of the stream as it is now.
    pub fn at_tail(info: Option<&Info>) -> Self {
        match info {
            Some(info) => Self::new(info.last_generated, info.entries_added),
            None => Self::new(StreamId::ZERO, Some(0)),
        }
    }

    /// After `id`, which the stream is known to go on from exactly.
    pub fn after(id: StreamId) -> Self {
        // Before the first of all ids nothing was ever added.
        Self::new(id, (id == StreamId::ZERO).then_some(0))
    }

    fn new(cursor: StreamId, added: Option<u64>) -> Self {
        Self { cursor, added, end: None }
    }

    /// The id to read after.
    pub fn cursor(&self) -> StreamId {
        self.cursor
    }

    /// Where nothing is counted, the id to read after so that the reply begins with the entry at the
    /// cursor, if that is still there: then what follows it is whole.
    pub fn anchor(&self) -> Option<StreamId> {
        (self.added.is_none() && self.cursor != StreamId::ZERO).then(|| self.cursor.prev())
    }

    /// Holds a reply against the stream and moves the cursor past it.
    pub fn check(&mut self, reply: &Reply) -> Verdict {
        let verdict = self.check_from(reply, false);
        if let Seen::Stream(info) = reply.seen
            && self.added.is_none()
            && info.last_generated == self.cursor
        {
            // Level with the end: what was uncounted on the way is behind.
            self.added = info.entries_added;
        }
        verdict
    }

    /// The same; where the reply is `anchored`, the entry at the cursor came right before it.
    pub fn check_from(&mut self, reply: &Reply, anchored: bool) -> Verdict {
        let received = reply.entries.len() as u64;
        let last = reply.entries.last().map(|entry| entry.id);
        let info = match reply.seen {
            Seen::Stream(info) if last.is_none_or(|last| last <= info.last_generated) => info,
            Seen::Missing if last.is_none() => return self.gone(),
            // Nothing known, or the stream was replaced right after the read: the next one tells.
            _ => {
                self.pass(received, last);
                return Verdict::Whole;
            }
        };
        if self.began_anew(&info, received) {
            return self.reset(&info);
        }
        let gap = if anchored { None } else { self.missing(reply, &info) };
        if let Some(gap) = gap {
            self.added = self.added.zip(gap.lost).map(|(added, lost)| added + lost);
            let end = self.end.filter(|_| info.first.is_some()).map(|(end, _)| end);
            let resumed = gap.next.map(StreamId::prev).or(end);
            self.cursor = resumed.unwrap_or(info.last_generated).max(self.cursor);
        }
        if gap.is_none() && reply.entries.is_empty() {
            // Nothing is left up to the end as it was before this read.
            self.cursor = self.end.map_or(self.cursor, |(end, _)| end.max(self.cursor));
        }
        self.pass(received, last);
        self.end = Some((info.last_generated, info.entries_added));
        gap.map_or(Verdict::Whole, Verdict::Missing)
    }

    fn pass(&mut self, received: u64, last: Option<StreamId>) {
        self.cursor = last.unwrap_or(self.cursor);
        self.added = self.added.map(|added| added + received);
        self.end = None;
    }

    /// The key is gone: whatever comes under its name next is another stream.
    fn gone(&mut self) -> Verdict {
        if self.cursor == StreamId::ZERO {
            return Verdict::Whole;
        }
        let gap = Gap { after: Some(self.cursor), next: None, lost: None, reason: Reason::Reset };
        *self = Self::new(StreamId::ZERO, Some(0));
        Verdict::Reset(gap)
    }

    /// What shows a new life: a lower end, fewer entries ever added than we know of, or a first entry
    /// that we have not seen but that was added earlier than the last one that we have. A life with
    /// ids on both sides of the cursor and as many before it as the old one cannot be told apart.
    fn began_anew(&self, info: &Info, received: u64) -> bool {
        let Some((added, total)) = self.added.zip(info.entries_added) else {
            return info.last_generated < self.cursor;
        };
        // The first entry's place among all ever added; nothing that we passed can still be ahead.
        let first_ahead = info.first.is_some_and(|first| first > self.cursor);
        let place = total.saturating_sub(info.length);
        info.last_generated < self.cursor
            || total < added + received
            || (first_ahead && place < added)
    }

    fn reset(&mut self, info: &Info) -> Verdict {
        let gap =
            Gap { after: Some(self.cursor), next: info.first, lost: None, reason: Reason::Reset };
        let before_first = info.first.map_or(info.last_generated, StreamId::prev);
        let removed = info.entries_added.map(|total| total.saturating_sub(info.length));
        *self = Self::new(before_first, removed);
        Verdict::Reset(gap)
    }

    /// Counted at two places: before the first entry where everything earlier is gone, and at the
    /// stream's end. A deletion that was passed on the way is therefore told late, but told.
    fn missing(&self, reply: &Reply, info: &Info) -> Option<Gap> {
        let next = reply.entries.first().map(|entry| entry.id);
        let reached = reply.entries.last().map_or(self.cursor, |entry| entry.id);
        let trimmed_ahead = info.first.is_none_or(|first| first > self.cursor);
        let reason = if info.max_deleted > self.cursor { Reason::Deleted } else { Reason::Trimmed };
        let gap = |next, lost| Gap { after: Some(self.cursor), next, lost, reason };
        let Some((added, total)) = self.added.zip(info.entries_added) else {
            // Uncounted: told, unless nothing was ever removed or the first entry follows directly.
            let whole = info.entries_added == Some(info.length);
            if info.first.is_none() && next.is_none() && info.last_generated > self.cursor {
                // Trimmed to nothing, the entry that gave the last id too.
                return (!whole).then(|| gap(None, None));
            }
            let first = info.first.filter(|_| trimmed_ahead && !whole)?;
            let next = next.unwrap_or(first);
            return (self.cursor.next() != Some(next)).then(|| gap(Some(next), None));
        };
        let counted = |next, expected: u64| {
            let lost = total.saturating_sub(expected);
            (lost > 0).then(|| gap(next, Some(lost)))
        };
        if trimmed_ahead && next.is_none_or(|next| info.first == Some(next)) {
            return counted(info.first, added + info.length);
        }
        if let Some(first) = info.first.filter(|first| trimmed_ahead && reached >= *first) {
            // Trimmed further since the read, but not past it.
            let held = reply.entries.iter().filter(|entry| entry.id >= first).count() as u64;
            let rest = info.length.saturating_sub(held);
            return counted(next, added + reply.entries.len() as u64 + rest);
        }
        if reached == info.last_generated {
            return counted(next, added + reply.entries.len() as u64);
        }
        if trimmed_ahead {
            // Trimmed past the reply since the read: some of it may have been before the reply. Not
            // where a read at the end of the stream was woken by one entry.
            let woken =
                reply.entries.len() == 1 && self.end.is_some_and(|(end, _)| end == self.cursor);
            let expected = added + reply.entries.len() as u64 + info.length;
            return (total > expected && !woken).then(|| gap(next, None));
        }
        // Everything up to the end as it was before this read, which found nothing on the way.
        let (end, total) = self.end.filter(|(end, _)| next.is_none_or(|next| next > *end))?;
        let lost = total.map(|total| total.saturating_sub(added)).filter(|lost| *lost > 0)?;
        (end > self.cursor).then(|| gap(next, Some(lost)))
    }
}

#[cfg(test)]
mod tests;
