//! Whether a reader believes what its server answers. Another server, or the same one after a restart, may
//! hold another history of the stream; and a replica may only lag.
//!
//! [`HistoryCheck::examine`] and [`HistoryCheck::decide`] hold the rules, without I/O. [`HistoryCheck::judge`]
//! asks the primary in between.

use std::time::Duration;

use crate::source::{Connection, Error, ErrorClass, ReadRequest, Reply, StreamInfo, StreamState};
use crate::sse::{Entry, StreamId};
use crate::stream::continuity::{Continuity, Verdict};

/// A replica that lags has this long to catch up before its subscribers hear of it.
const LAG_PATIENCE: Duration = Duration::from_secs(5);

/// What a connection has yet to show before its replies are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HistoryCheck {
    /// The entry at the cursor: a new connection may lead to another history.
    Fresh,
    /// Nothing: its last reply was believed.
    Settled,
    /// Its reply to the same read: the last one showed a reset that the primary denies, so the server is a
    /// replica that lagged. By now it has caught up. `was_fresh`: the entry at the cursor is still to be seen.
    WaitedForReplica { was_fresh: bool },
}

/// What a read found, compared with what was known before it.
#[derive(Debug, PartialEq)]
pub(super) struct CheckedRead {
    /// None after a reset.
    pub(super) entries: Vec<Entry>,
    pub(super) verdict: Verdict,
    /// What is known after the read.
    pub(super) continuity: Continuity,
}

/// A read that was not yet compared with what the primary says.
struct Unconfirmed {
    read: CheckedRead,
    /// The stream lacks the entry at the cursor, though its ids alone would show no reset.
    lacks_cursor_entry: bool,
}

/// What becomes of a read.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a decision lives for one match")]
enum Belief {
    Believe(CheckedRead),
    /// The server lagged and has caught up: read again.
    ReadAgain,
    /// The server has caught up, and still shows a reset that the primary denies.
    Contradiction,
}

impl CheckedRead {
    fn new(mut continuity: Continuity, reply: Reply) -> Self {
        let verdict = continuity.check(&reply);
        let entries = if matches!(verdict, Verdict::Reset(_)) { Vec::new() } else { reply.entries };
        Self { entries, verdict, continuity }
    }

    /// The stream was recreated, whatever its ids say.
    fn recreated(mut continuity: Continuity, info: &StreamInfo) -> Self {
        let verdict = continuity.leave_for(info);
        Self { entries: Vec::new(), verdict, continuity }
    }

    /// Whether there is nothing new.
    pub(super) fn is_nothing(&self) -> bool {
        self.entries.is_empty() && self.verdict == Verdict::Whole
    }

    fn is_reset(&self) -> bool {
        matches!(self.verdict, Verdict::Reset(_))
    }
}

impl HistoryCheck {
    /// For a new connection. If the cursor is an id that no entry ever had (the end of the stream, as `XSETID`
    /// or a deletion left it), there is no entry to be seen at it.
    pub(super) fn new(is_cursor_at_entry: bool) -> Self {
        if is_cursor_at_entry { Self::Fresh } else { Self::Settled }
    }

    fn is_fresh(self) -> bool {
        matches!(self, Self::Fresh | Self::WaitedForReplica { was_fresh: true })
    }

    /// What to read: the entry at the cursor too, if that is yet to be seen.
    pub(super) fn ask(self, ask: ReadRequest<'_>) -> ReadRequest<'_> {
        if self.is_fresh() && ask.after != StreamId::ZERO {
            ReadRequest { after: ask.after.prev(), count: ask.count + 1, ..ask }
        } else {
            ask
        }
    }

    /// Checks a reply, and asks the primary about a reset; `None`: read again.
    pub(super) async fn judge(
        &mut self,
        reply: Reply,
        continuity: Continuity,
        key: &str,
        connection: &mut Connection,
    ) -> Result<Option<CheckedRead>, Error> {
        let found = self.examine(reply, continuity);
        let mut primary = None;
        if found.read.is_reset() {
            // Nothing is kept of the reply, and asking the primary may take long.
            connection.release_permit();
            primary = connection.primary_snapshot(key, LAG_PATIENCE).await?;
        }
        match self.decide(found, continuity, primary) {
            Belief::Believe(read) => {
                *self = Self::Settled;
                Ok(Some(read))
            }
            Belief::ReadAgain => {
                *self = Self::WaitedForReplica { was_fresh: self.is_fresh() };
                Ok(None)
            }
            Belief::Contradiction => Err(contradiction()),
        }
    }

    fn examine(self, mut reply: Reply, continuity: Continuity) -> Unconfirmed {
        let recreated =
            if self.is_fresh() { take_cursor_entry(&mut reply, continuity.cursor()) } else { None };
        let read = match &recreated {
            Some(info) => CheckedRead::recreated(continuity, info),
            None => CheckedRead::new(continuity, reply),
        };
        Unconfirmed { read, lacks_cursor_entry: recreated.is_some() }
    }

    /// `primary` is what the primary says of the stream now that the server has caught up with it; `None`: the
    /// server is the primary, or nothing had to be asked.
    fn decide(
        self,
        found: Unconfirmed,
        continuity: Continuity,
        primary: Option<StreamState>,
    ) -> Belief {
        let Some(seen) = primary else { return Belief::Believe(found.read) };
        let by_primary = CheckedRead::new(continuity, Reply { entries: Vec::new(), seen });
        if by_primary.is_reset() {
            return Belief::Believe(by_primary);
        }
        match self {
            Self::Fresh | Self::Settled => Belief::ReadAgain,
            // The state of the primary's stream cannot show that; the entries of the replica's do.
            Self::WaitedForReplica { .. } if found.lacks_cursor_entry => {
                Belief::Believe(found.read)
            }
            Self::WaitedForReplica { .. } => Belief::Contradiction,
        }
    }
}

/// Takes the entry at the cursor out of the reply. If the stream goes on at both sides of the cursor, lacks
/// that entry and has removed nothing so late, it was recreated: returns its state.
fn take_cursor_entry(reply: &mut Reply, cursor: StreamId) -> Option<StreamInfo> {
    if reply.entries.first().is_some_and(|entry| entry.id == cursor) {
        reply.entries.remove(0);
        return None;
    }
    let StreamState::Stream(info) = reply.seen else { return None };
    let is_within = info.first.is_some_and(|first| first <= cursor) && cursor < info.last_generated;
    let kept_all = info.max_deleted < cursor && !info.may_have_holes;
    (is_within && info.entries_added.is_some() && kept_all).then_some(info)
}

fn contradiction() -> Error {
    let message =
        "the replica has caught up with its primary and still holds less of this stream".to_owned();
    Error { class: ErrorClass::Away, code: "LAGGING", message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    fn reply(ids: &[u64], info: StreamInfo) -> Reply {
        let entries = ids.iter().map(|ms| Entry { id: id(*ms), fields: Vec::new() });
        Reply { entries: entries.collect(), seen: StreamState::Stream(info) }
    }

    fn info(first: u64, last: u64) -> StreamInfo {
        let (first, last_generated) = (Some(id(first)), id(last));
        StreamInfo {
            length: 5,
            first,
            last_generated,
            entries_added: Some(5),
            ..StreamInfo::default()
        }
    }

    #[test]
    fn the_entry_at_the_cursor_is_not_new() {
        let mut both = reply(&[7, 9], info(5, 9));
        assert_eq!(take_cursor_entry(&mut both, id(7)), None);
        assert_eq!(both.entries.len(), 1);
    }

    #[test]
    fn no_entries_are_kept_after_a_reset() {
        let went_back = CheckedRead::new(Continuity::after(id(20)), reply(&[7, 9], info(5, 9)));
        assert!(went_back.is_reset() && went_back.entries.is_empty());
        let went_on = CheckedRead::new(Continuity::after(id(5)), reply(&[7, 9], info(5, 9)));
        assert!(!went_on.is_reset() && went_on.entries.len() == 2);
    }

    #[test]
    fn a_stream_that_lacks_the_entry_at_the_cursor_was_recreated() {
        assert!(take_cursor_entry(&mut reply(&[9], info(5, 9)), id(7)).is_some());
        let deleted = StreamInfo { max_deleted: id(7), ..info(5, 9) };
        assert_eq!(take_cursor_entry(&mut reply(&[9], deleted), id(7)), None);
        assert_eq!(take_cursor_entry(&mut reply(&[9], info(8, 9)), id(7)), None, "trimmed");
        assert_eq!(take_cursor_entry(&mut reply(&[], info(5, 7)), id(7)), None, "the end, deleted");
        let old = StreamInfo { entries_added: None, ..info(5, 9) };
        assert_eq!(
            take_cursor_entry(&mut reply(&[9], old), id(7)),
            None,
            "Redis before 7 does not say"
        );
    }

    /// A reader that has read up to 20, a reply of the stream that it reads, and one that shows a reset.
    fn cursor() -> Continuity {
        Continuity::after(id(20))
    }

    fn same_stream() -> Reply {
        reply(&[], info(5, 20))
    }

    fn older_stream() -> Reply {
        reply(&[], info(5, 9))
    }

    fn decide(state: HistoryCheck, reply: Reply, primary: Option<Reply>) -> Belief {
        let found = state.examine(reply, cursor());
        state.decide(found, cursor(), primary.map(|reply| reply.seen))
    }

    fn is_believed_reset(decision: &Belief) -> bool {
        matches!(decision, Belief::Believe(read) if read.is_reset())
    }

    const STATES: [HistoryCheck; 4] = [
        HistoryCheck::Fresh,
        HistoryCheck::Settled,
        HistoryCheck::WaitedForReplica { was_fresh: true },
        HistoryCheck::WaitedForReplica { was_fresh: false },
    ];

    #[test]
    fn a_whole_reply_and_the_primarys_own_reset_are_believed_in_every_state() {
        for state in STATES {
            let whole = decide(state, same_stream(), None);
            assert!(matches!(whole, Belief::Believe(read) if read.is_nothing()), "{state:?}");
            assert!(is_believed_reset(&decide(state, older_stream(), None)), "{state:?}");
        }
    }

    #[test]
    fn a_reset_that_the_primary_confirms_is_reported_as_the_primary_has_it() {
        for state in STATES {
            let decision = decide(state, older_stream(), Some(reply(&[], info(6, 8))));
            let by_primary = CheckedRead::new(cursor(), reply(&[], info(6, 8)));
            assert_eq!(decision, Belief::Believe(by_primary), "{state:?}");
        }
    }

    #[test]
    fn a_reset_that_the_primary_denies_is_read_again_once() {
        for state in [HistoryCheck::Fresh, HistoryCheck::Settled] {
            let decision = decide(state, older_stream(), Some(same_stream()));
            assert_eq!(decision, Belief::ReadAgain, "{state:?}");
            let waited = HistoryCheck::WaitedForReplica { was_fresh: state.is_fresh() };
            let decision = decide(waited, older_stream(), Some(same_stream()));
            assert_eq!(decision, Belief::Contradiction, "{state:?}");
        }
    }

    #[test]
    fn a_replica_that_caught_up_and_lacks_the_entry_at_the_cursor_is_believed() {
        let (fresh, longer) = (HistoryCheck::Fresh, || reply(&[25], info(5, 25)));
        assert_eq!(decide(fresh, longer(), Some(longer())), Belief::ReadAgain);
        let waited = HistoryCheck::WaitedForReplica { was_fresh: true };
        assert!(is_believed_reset(&decide(waited, longer(), Some(longer()))));
    }

    #[test]
    fn the_entry_at_the_cursor_is_read_until_it_was_seen() {
        let asked = |state: HistoryCheck, after| {
            let ask = state.ask(ReadRequest { key: "a", after, count: 5, most_bytes: 100 });
            (ask.after, ask.count)
        };
        for state in STATES {
            let expected = if state.is_fresh() { (id(20).prev(), 6) } else { (id(20), 5) };
            assert_eq!(asked(state, id(20)), expected, "{state:?}");
            assert_eq!(asked(state, StreamId::ZERO), (StreamId::ZERO, 5), "{state:?}");
        }
        assert_eq!(HistoryCheck::new(true), HistoryCheck::Fresh);
        assert_eq!(HistoryCheck::new(false), HistoryCheck::Settled);
    }
}
