//! How far a reader is in its stream, and how much it asks for.

use crate::source::{ReadRequest, StreamInfo};
use crate::sse::{Entry, StreamId};
use crate::stream::Sizes;
use crate::stream::continuity::Continuity;
use crate::telemetry::throttle::LogThrottle;

/// The memory that a reply is meant to take,
const REPLY_BYTES: usize = 2 << 20;
/// and the most that it may take, unless it is about one entry.
pub(super) const MOST_REPLY_BYTES: usize = 2 * REPLY_BYTES;

/// How far a reader is in its stream, and how much it asks for.
pub(super) struct Progress {
    pub(super) continuity: Continuity,
    /// The entry that was read last, or was the last one at the start; `None` after a reset.
    pub(super) last_entry: Option<StreamId>,
    pub(super) sizes: Sizes,
    /// How many entries the last read asked for,
    asked: u64,
    /// and how many one may ask for, after a connection was lost over a read.
    most: u64,
    pub(super) gap_log: LogThrottle,
}

impl Progress {
    pub(super) fn at_tail(info: Option<&StreamInfo>) -> Self {
        Self {
            continuity: Continuity::at_tail(info),
            last_entry: info.and_then(|info| info.last),
            sizes: Sizes::default(),
            asked: 1,
            most: u64::MAX,
            gap_log: LogThrottle::default(),
        }
    }

    pub(super) fn advance(&mut self, continuity: Continuity, last_read: Option<&Entry>) {
        self.continuity = continuity;
        self.last_entry = last_read.map(|entry| entry.id).or(self.last_entry);
    }

    /// Whether the cursor is the id of an entry that was there. It may be the end of the stream, which can move
    /// without an entry.
    pub(super) fn is_cursor_at_entry(&self) -> bool {
        self.last_entry == Some(self.continuity.cursor())
    }

    /// The next read.
    pub(super) fn ask<'a>(&mut self, key: &'a str, read_count: u64) -> ReadRequest<'a> {
        self.asked = self.sizes.count(REPLY_BYTES).min(read_count).min(self.most);
        let after = self.continuity.cursor();
        ReadRequest { key, after, count: self.asked, most_bytes: MOST_REPLY_BYTES }
    }

    /// The connection was lost before the last read was answered: some servers and proxies close one for which they
    /// hold too much. Whether this was one is not known, so the next read asks for half, and those after it for more.
    pub(super) fn was_lost(&mut self) {
        self.most = (self.asked / 2).max(1);
    }

    /// The last read was answered.
    pub(super) fn was_answered(&mut self) {
        self.most = self.most.saturating_mul(2);
    }

    /// The last read asked for too much: the next ones ask for fewer entries.
    pub(super) fn ask_for_fewer(&mut self) {
        self.sizes.were_too_many(self.asked, REPLY_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Reply, StreamState};
    use crate::stream::continuity::Verdict;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    /// A stream of 1, 2 and 3 whose end an operator has moved.
    fn ends_at(end: u64) -> StreamInfo {
        StreamInfo {
            length: 3,
            last_generated: id(end),
            first: Some(id(1)),
            last: Some(id(3)),
            max_deleted: StreamId::ZERO,
            entries_added: Some(3),
            may_have_holes: false,
        }
    }

    #[test]
    fn after_a_lost_connection_it_asks_for_half_and_then_for_more_again() {
        let mut progress = Progress::at_tail(None);
        let ask = |progress: &mut Progress| progress.ask("k", 500).count;
        let first = ask(&mut progress);
        let mut asked = first;
        while asked > 1 {
            progress.was_lost();
            assert_eq!(ask(&mut progress), asked / 2);
            asked /= 2;
        }
        while ask(&mut progress) < first {
            progress.was_answered();
        }
        progress.was_lost();
        progress.was_answered();
        assert_eq!(ask(&mut progress), first, "one connection that was lost costs one read");
    }

    #[test]
    fn an_end_that_moved_without_an_entry_is_no_entry() {
        assert!(Progress::at_tail(Some(&ends_at(3))).is_cursor_at_entry());
        assert!(!Progress::at_tail(Some(&ends_at(10))).is_cursor_at_entry());
        assert!(!Progress::at_tail(None).is_cursor_at_entry());
        let mut progress = Progress::at_tail(Some(&ends_at(3)));
        let mut look = |info: StreamInfo, read: &[u64]| {
            let entries = read.iter().map(|ms| Entry { id: id(*ms), fields: Vec::new() });
            let reply = Reply { entries: entries.collect(), seen: StreamState::Stream(info) };
            let mut continuity = progress.continuity;
            assert_eq!(continuity.check(&reply), Verdict::Whole);
            progress.advance(continuity, reply.entries.last());
            (continuity.cursor(), progress.is_cursor_at_entry())
        };
        look(ends_at(10), &[]);
        assert_eq!(look(ends_at(10), &[]), (id(10), false));
        let added =
            StreamInfo { length: 4, entries_added: Some(4), last: Some(id(11)), ..ends_at(11) };
        assert_eq!(look(added, &[11]), (id(11), true));
    }
}
