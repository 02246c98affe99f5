//! What a reader makes of what its connection says: another server, or the same one after a restart,
//! may hold another history of the stream, and a replica may just lag.

use std::time::Duration;

use crate::source::{Connection, Error, ErrorClass, ReadRequest, Reply, StreamInfo, StreamState};
use crate::sse::{Entry, StreamId};
use crate::stream::continuity::{Continuity, Verdict};

/// A replica that is behind may take this long to catch up before clients hear of it.
const LAG_PATIENCE: Duration = Duration::from_secs(5);

/// What is known of the history that a connection reads.
pub(super) struct HistoryCheck {
    /// Whether the entry at the cursor is yet to be seen over this connection.
    fresh: bool,
    /// Whether the server was seen to have caught up with its primary.
    caught_up: bool,
}

/// What a read found that is to be believed, held against what was known before it.
pub(super) struct CheckedRead {
    pub(super) entries: Vec<Entry>,
    pub(super) verdict: Verdict,
    /// What is known after it.
    pub(super) continuity: Continuity,
}

impl CheckedRead {
    fn new(mut continuity: Continuity, reply: Reply) -> Self {
        let verdict = continuity.check(&reply);
        let mut found = Self { entries: reply.entries, verdict, continuity };
        if found.is_reset() {
            // They are not to be used.
            found.entries = Vec::new();
        }
        found
    }

    /// The stream is another one than the one that was read before, whatever its ids say.
    fn another(mut continuity: Continuity, info: &StreamInfo) -> Self {
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
    /// Of a new connection; `at_entry` where the cursor is an entry that was there to be read. It may
    /// be an id that no entry ever had: the end, as `XSETID` or a deletion left it.
    pub(super) fn new(at_entry: bool) -> Self {
        Self { fresh: at_entry, caught_up: false }
    }

    /// What to ask for: over a new connection the entry at the cursor too.
    pub(super) fn ask<'a>(&self, ask: ReadRequest<'a>) -> ReadRequest<'a> {
        if self.fresh && ask.after != StreamId::ZERO {
            ReadRequest { after: ask.after.prev(), count: ask.count + 1, ..ask }
        } else {
            ask
        }
    }

    /// What the reply says, or what the primary has to say instead; `None`: the server lagged and has
    /// caught up, ask it again.
    pub(super) async fn judge(
        &mut self,
        mut reply: Reply,
        continuity: Continuity,
        key: &str,
        connection: &mut Connection,
    ) -> Result<Option<CheckedRead>, Error> {
        let another = if self.fresh { another(&mut reply, continuity.cursor()) } else { None };
        let found = match &another {
            Some(info) => {
                drop(reply);
                CheckedRead::another(continuity, info)
            }
            None => CheckedRead::new(continuity, reply),
        };
        if found.is_reset() {
            // The primary may be long in coming, and of the reply nothing is kept.
            connection.release_permit();
        }
        if found.is_reset()
            && let Some(seen) = connection.primary_says(key, LAG_PATIENCE).await?
        {
            let word = CheckedRead::new(continuity, Reply { entries: Vec::new(), seen });
            if word.is_reset() {
                *self = Self::new(false);
                return Ok(Some(word));
            }
            if !self.caught_up {
                self.caught_up = true;
                return Ok(None);
            }
            if another.is_none() {
                return Err(contradiction());
            }
        }
        *self = Self::new(false);
        Ok(Some(found))
    }
}

/// Takes the entry at the cursor out of the reply. Where the stream goes on both sides of it and lacks
/// it, and nothing so late was deleted, it is another stream.
fn another(reply: &mut Reply, cursor: StreamId) -> Option<StreamInfo> {
    if reply.entries.first().is_some_and(|entry| entry.id == cursor) {
        reply.entries.remove(0);
        return None;
    }
    let StreamState::Stream(info) = reply.seen else { return None };
    let within = info.first.is_some_and(|first| first <= cursor) && cursor < info.last_generated;
    (within && info.entries_added.is_some() && info.max_deleted < cursor).then_some(info)
}

fn contradiction() -> Error {
    let message =
        "the replica has all that its primary has, and still less of this stream".to_owned();
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
    fn the_entry_at_the_cursor_is_known_already() {
        let mut both = reply(&[7, 9], info(5, 9));
        assert_eq!(another(&mut both, id(7)), None);
        assert_eq!(both.entries.len(), 1);
    }

    #[test]
    fn of_a_reset_no_entries_are_kept() {
        let went_back = CheckedRead::new(Continuity::after(id(20)), reply(&[7, 9], info(5, 9)));
        assert!(went_back.is_reset() && went_back.entries.is_empty());
        let went_on = CheckedRead::new(Continuity::after(id(5)), reply(&[7, 9], info(5, 9)));
        assert!(!went_on.is_reset() && went_on.entries.len() == 2);
    }

    #[test]
    fn a_stream_that_lacks_the_entry_at_the_cursor_is_another() {
        assert!(another(&mut reply(&[9], info(5, 9)), id(7)).is_some());
        let deleted = StreamInfo { max_deleted: id(7), ..info(5, 9) };
        assert_eq!(another(&mut reply(&[9], deleted), id(7)), None);
        assert_eq!(another(&mut reply(&[9], info(8, 9)), id(7)), None, "trimmed");
        assert_eq!(another(&mut reply(&[], info(5, 7)), id(7)), None, "the end, deleted");
        let old = StreamInfo { entries_added: None, ..info(5, 9) };
        assert_eq!(another(&mut reply(&[9], old), id(7)), None, "Redis before 7 does not say");
    }
}
