//! Asks the source what the `rule` has to know.

use std::time::Duration;

use super::rule::{self, Known, Newest, Question};
use super::{Resolved, Start};
use crate::config::Replay;
use crate::source::{Error, ErrorClass, Source, StreamInfo, StreamState};
use crate::sse::{Column, Entry, Selection, StreamId, whole_row};
use crate::stream::sizes::count_for;

/// Looking back for the newest entries, one reply stays near this.
const LOOK_BACK_BYTES: usize = 1 << 20;
/// The first look back, when the entries' sizes are not known.
const FIRST_LOOK_BACK: u64 = 16;
/// A replica that is behind may take this long to catch up; after that the subscriber asks again.
const LAG_PATIENCE: Duration = Duration::from_millis(500);

/// One stream of the source.
#[derive(Clone, Copy)]
pub(crate) struct StreamQuery<'a> {
    /// Where it is.
    pub(crate) source: &'a Source,
    /// Its key.
    pub(crate) key: &'a str,
    /// Which entries the newest are counted of; `None`: of all.
    pub(crate) selected: Option<Selected<'a>>,
}

/// The entries that a client gets.
#[derive(Clone, Copy)]
pub(crate) struct Selected<'a> {
    /// By which fields its route tells clients apart.
    pub(crate) columns: &'a [Column],
    /// Which values it gets.
    pub(crate) selection: &'a Selection,
    /// It gets none but these newest of the stream.
    pub(crate) most: u64,
}

impl Selected<'_> {
    fn has(self, entry: &Entry) -> bool {
        self.selection.admits(&whole_row(entry, self.columns))
    }
}

/// Where a subscriber begins; what is not `known` yet is asked of the source, and the entries that `replay`
/// allows of `allowed`. Fails with `LAGGING` where the stream was recreated and its reader is still to tell.
pub(crate) async fn resolve<F: Future<Output = Result<Newest, Error>>>(
    query: StreamQuery<'_>,
    asked: Start,
    replay: Replay,
    mut known: Known,
    allowed: impl Fn(u64) -> F,
) -> Result<Resolved, Error> {
    loop {
        match rule::decide(asked, replay, &known) {
            Ok(resolved) => return Ok(resolved),
            Err(Question::Stream) => known.stream = Some(query.look().await?),
            Err(Question::Holds(id)) => {
                let holds = query.source.holds(query.key, id).await?;
                known.holds = Some(holds);
                if !holds {
                    // It may have been trimmed or deleted since the last look.
                    known.stream = Some(query.look().await?);
                }
            }
            Err(Question::Primary) => {
                known.is_confirmed = true;
                if query.waited_for_primary().await? {
                    (known.stream, known.holds) = (None, None);
                }
            }
            Err(Question::Newest(count)) => {
                let first = query.nth_newest(count, query.selected).await?;
                known.newest = Some(Newest { first, left_out: None });
            }
            Err(Question::Allowed(count)) => known.allowed = Some(allowed(count).await?),
            Err(Question::Reader) => return Err(behind_its_reader()),
        }
    }
}

/// Where a subscriber goes on that has all up to `last_id` of a stream that was recreated.
pub(crate) async fn resolve_recreated(
    query: StreamQuery<'_>,
    last_id: Option<StreamId>,
) -> Result<Resolved, Error> {
    // Each replica may be behind its primary by another length.
    query.waited_for_primary().await?;
    Ok(rule::recreated(last_id, query.info().await?.as_ref()))
}

/// Whether fewer entries may get an answer. A single one that gets none is asked for again by its subscriber, after a
/// pause.
fn is_of_too_many(error: &Error) -> bool {
    error.class == ErrorClass::TooLarge || error.code == "IO"
}

fn behind_its_reader() -> Error {
    let message = "the stream ends before what its reader has read".to_owned();
    Error { class: ErrorClass::Away, code: "LAGGING", message }
}

impl StreamQuery<'_> {
    async fn info(self) -> Result<Option<StreamInfo>, Error> {
        self.source.info(self.key).await
    }

    pub(crate) async fn look(self) -> Result<StreamState, Error> {
        Ok(self.info().await?.map_or(StreamState::Missing, StreamState::Stream))
    }

    /// Waits until the server has all that its primary had just now. `false`: it is the primary, and what
    /// it said stands.
    pub(crate) async fn waited_for_primary(self) -> Result<bool, Error> {
        Ok(self.source.primary_snapshot(self.key, LAG_PATIENCE).await?.is_some())
    }

    /// The newest `count` of all entries, and what is before them.
    pub(crate) async fn newest(self, count: u64) -> Result<Newest, Error> {
        let first = self.nth_newest(count, None).await?;
        let before = self.source.newest(self.key, first, 1).await?;
        Ok(Newest { first, left_out: before.first().map(|entry| entry.id) })
    }

    /// The id of the `count`-th newest entry among those that are `selected`; the oldest of all, or of the newest that
    /// may be looked at, where there are fewer; `None` where there is none.
    async fn nth_newest(
        self,
        count: u64,
        selected: Option<Selected<'_>>,
    ) -> Result<Option<StreamId>, Error> {
        let (mut left, mut oldest, mut ask) = (count, None, FIRST_LOOK_BACK);
        let mut may_look_at = selected.map_or(count, |selected| selected.most);
        while left > 0 && may_look_at > 0 {
            let at_once = ask.min(may_look_at);
            let entries = match self.source.newest(self.key, oldest, at_once).await {
                // Some servers and proxies close a connection for which they hold too much.
                Err(error) if at_once > 1 && is_of_too_many(&error) => {
                    ask = (at_once / 8).max(1);
                    continue;
                }
                entries => entries?,
            };
            if entries.is_empty() {
                break;
            }
            for entry in &entries {
                oldest = Some(entry.id);
                may_look_at -= 1;
                left -= u64::from(selected.is_none_or(|selected| selected.has(entry)));
                if left == 0 {
                    break;
                }
            }
            let largest = entries.iter().map(Entry::memory_bytes).max();
            ask = count_for(largest.unwrap_or(0), LOOK_BACK_BYTES).min(ask * 8);
        }
        Ok(oldest)
    }
}
