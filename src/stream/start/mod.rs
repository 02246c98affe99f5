//! Where a subscriber begins in its stream, and of which gap it is told first.
//!
//! `rule.rs` is the whole decision, as a table and as functions without I/O; `lookup.rs` asks the source what
//! the rule has to know.

use crate::config::Replay;
use crate::sse::{Gap, StreamId};
use crate::stream::View;
use crate::stream::topic::Topic;

pub(super) mod lookup;
pub(super) mod rule;
#[cfg(test)]
mod tests;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// What comes from now on.
    Live,
    /// The same: the client's last event id is not one of ours.
    Unknown,
    /// Everything after this id.
    After(StreamId),
    /// The newest entries, as many as this.
    Newest(u64),
    /// Everything since this time, in milliseconds, by the clock of the ids.
    Since(u64),
    /// Everything that the stream still holds.
    Earliest,
}

/// Where a subscriber begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Where it goes on.
    pub from: StartPoint,
    /// The gap that it is told of before that, and the last event id that goes with it.
    pub gap: Option<(Gap, StreamId)>,
}

/// Where a subscriber goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPoint {
    /// In the ring, with this item; and the last event id of a client that has all before it.
    Ring(u64, StreamId),
    /// In the source, after this id.
    Source(StreamId),
}

/// Where "now" is, for a client that counts from it. Settled before the client hears that its stream is
/// open. `None`: the client asked for something else, or only the source can tell.
pub fn resolve_now(
    topic: &Topic,
    replay: Replay,
    asked: Start,
    view: View<'_>,
) -> Option<Resolved> {
    let state = topic.state();
    let from_now = matches!(asked, Start::Live | Start::Unknown | Start::Newest(_));
    let tail_is_known = state.ring.generation() > 0;
    if from_now && tail_is_known { rule::in_ring(&state.ring, replay, asked, view) } else { None }
}

/// Where a subscriber begins if the ring can tell, however long after its admission. "The newest" are those
/// at admission; by now the ring may have as many that came later, so it cannot tell.
pub(super) fn resolve_in_ring(
    topic: &Topic,
    replay: Replay,
    asked: Start,
    view: View<'_>,
) -> Option<Resolved> {
    let counts_from_admission = matches!(asked, Start::Newest(_));
    if counts_from_admission {
        return None;
    }
    rule::in_ring(&topic.state().ring, replay, asked, view)
}
