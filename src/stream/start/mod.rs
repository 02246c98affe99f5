//! Where a client begins: what it asked for, held against the ring and, past it, the source.

use std::time::Duration;

use crate::config::Replay;
use crate::source::{Error, ErrorClass, Source, StreamInfo};
use crate::sse::{Entry, Gap, Reason, StreamId};
use crate::stream::{RingLookup, Topic, count_for};

/// Looking back for the newest entries, one reply stays near this.
const LOOK_BACK_BYTES: usize = 1 << 20;
/// The first look back, when the entries' sizes are not known.
const FIRST_LOOK_BACK: u64 = 16;

/// A replica that is behind may take this long to catch up; whoever waits for more asks again.
const LAG_PATIENCE: Duration = Duration::from_millis(500);

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// StartPoint now on.
    Live,
    /// StartPoint now on; it named a last event id that is none of ours.
    Unknown,
    /// Everything after this id.
    After(StreamId),
    /// The newest so many first.
    Newest(u64),
    /// Everything since this time, in milliseconds, by the ids' clock.
    Since(u64),
    /// Everything that is kept.
    Earliest,
}

/// Where a client begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// StartPoint where it is served.
    pub from: StartPoint,
    /// What it has to be told first, and the last event id that goes with it.
    pub gap: Option<(Gap, StreamId)>,
}

/// StartPoint where a client is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPoint {
    /// The ring, from this item on, and the last event id of whoever has what is before it.
    Ring(u64, StreamId),
    /// The source, after this id.
    Source(StreamId),
}

/// A stream of the source, looked at.
#[derive(Clone, Copy)]
pub struct StreamQuery<'a> {
    /// Where it is.
    pub source: &'a Source,
    /// Its key.
    pub key: &'a str,
}

/// How far back a route's `replay` lets a client ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The first entry that it may have; `None` where it may have none.
    next: Option<StreamId>,
    /// The entry before that.
    left_out: Option<StreamId>,
}

/// Finds out from the source where a client begins; `reach` tells how far back so many entries are. Fails
/// where the stream ends before `read_up_to`, for then it began anew and its reader is still to tell.
pub async fn resolve<F: Future<Output = Result<Reach, Error>>>(
    query: StreamQuery<'_>,
    read_up_to: StreamId,
    replay: Replay,
    start: Start,
    reach: impl FnOnce(u64) -> F,
) -> Result<Resolved, Error> {
    let info = query.info().await?;
    let info = info.as_ref();
    if info.map_or(StreamId::ZERO, |info| info.last_generated) < read_up_to {
        return Err(behind_its_reader());
    }
    let (base, asked) = match start {
        Start::After(id) => (resume_believably(query, id, info).await?, Some(id)),
        Start::Since(ms) => (since(StreamId { ms, seq: 0 }.prev(), info), None),
        Start::Newest(count) => match query.nth_newest(count).await? {
            Some(oldest) => (Base::exact(oldest.prev()), None),
            None => (Base::kept(info), None),
        },
        Start::Earliest | Start::Live | Start::Unknown => (Base::kept(info), None),
    };
    within_replay(base, asked, info, replay, reach).await
}

/// After `id`, which the stream is known to have held when it was `info`.
pub async fn resolve_known<F: Future<Output = Result<Reach, Error>>>(
    id: StreamId,
    info: &StreamInfo,
    replay: Replay,
    reach: impl FnOnce(u64) -> F,
) -> Result<Resolved, Error> {
    within_replay(Base::exact(id), Some(id), Some(info), replay, reach).await
}

/// Holds where a client would begin against how far back it may ask.
async fn within_replay<F: Future<Output = Result<Reach, Error>>>(
    base: Base,
    asked: Option<StreamId>,
    info: Option<&StreamInfo>,
    replay: Replay,
    reach: impl FnOnce(u64) -> F,
) -> Result<Resolved, Error> {
    let length = info.map_or(0, |info| info.length);
    let tail = info.map_or(StreamId::ZERO, |info| info.last_generated);
    if let Replay::Newest(allowed) = replay
        && length > allowed
        && base.after < tail
    {
        let Reach { next, left_out } = reach(allowed).await?;
        if left_out.is_some_and(|left_out| left_out > base.after) {
            let after = next.map_or(tail, StreamId::prev);
            let gap = Gap { after: asked, next, lost: None, reason: Reason::Limit };
            return Ok(Resolved { from: StartPoint::Source(after), gap: Some((gap, after)) });
        }
    }
    Ok(base.resolved())
}

/// StartPoint the beginning of what is kept, where a client wanted to go on after `asked`.
pub async fn from_the_first(
    query: StreamQuery<'_>,
    asked: Option<StreamId>,
    reason: Reason,
) -> Result<Resolved, Error> {
    // Where others are read from than the primary, each may be at another place.
    query.source.primary_snapshot(query.key, LAG_PATIENCE).await?;
    let info = query.info().await?;
    Ok(Base::first(asked, info.as_ref(), reason).resolved())
}

fn behind_its_reader() -> Error {
    let message = "the stream ends before what its reader has read".to_owned();
    Error { class: ErrorClass::Away, code: "LAGGING", message }
}

impl StreamQuery<'_> {
    async fn info(self) -> Result<Option<StreamInfo>, Error> {
        self.source.info(self.key).await
    }

    /// How far back the newest `allowed` entries are.
    pub async fn reach(self, allowed: u64) -> Result<Reach, Error> {
        let next = self.nth_newest(allowed).await?;
        let before = self.source.newest(self.key, next, 1).await?;
        Ok(Reach { next, left_out: before.first().map(|entry| entry.id) })
    }

    /// The id of the `count`-th newest entry; the oldest where there are fewer, `None` where none.
    async fn nth_newest(self, count: u64) -> Result<Option<StreamId>, Error> {
        let (mut left, mut oldest, mut ask) = (count, None, FIRST_LOOK_BACK);
        while left > 0 {
            let entries = match self.source.newest(self.key, oldest, ask.min(left)).await {
                Err(error) if error.class == ErrorClass::TooLarge => {
                    ask = (ask.min(left) / 8).max(1);
                    continue;
                }
                entries => entries?,
            };
            let Some(last) = entries.last() else { break };
            oldest = Some(last.id);
            left -= entries.len() as u64;
            let largest = entries.iter().map(Entry::memory_bytes).max();
            ask = count_for(largest.unwrap_or(0), LOOK_BACK_BYTES).min(ask * 8);
        }
        Ok(oldest)
    }
}

/// Where "now" is, for a start that counts from it: found out before the client is told that its
/// stream is open. `None` where the start does not, or the source has to tell.
pub fn resolve_now(topic: &Topic, replay: Replay, start: Start) -> Option<Resolved> {
    let from_now = matches!(start, Start::Live | Start::Unknown | Start::Newest(_));
    let known = from_now && topic.state().ring.generation() > 0;
    if known { in_ring_now(topic, replay, start) } else { None }
}

/// An id to go on after, and what is missing before it.
#[derive(Debug, PartialEq, Eq)]
struct Base {
    after: StreamId,
    gap: Option<Gap>,
}

impl Base {
    fn exact(after: StreamId) -> Self {
        Self { after, gap: None }
    }

    /// All that is kept; what is not was not asked for. It is read from just before the first entry:
    /// a read that began earlier could not tell what was never there from what was trimmed.
    fn kept(info: Option<&StreamInfo>) -> Self {
        let first = info.and_then(|info| info.first);
        let end = info.map_or(StreamId::ZERO, |info| info.last_generated);
        Self::exact(first.map_or(end, StreamId::prev))
    }

    /// StartPoint the beginning of what is kept, where more was asked for.
    fn first(asked: Option<StreamId>, info: Option<&StreamInfo>, reason: Reason) -> Self {
        let first = info.and_then(|info| info.first);
        let end = info.map_or(StreamId::ZERO, |info| info.last_generated);
        let gap = Gap { after: asked, next: first, lost: None, reason };
        Self { after: first.map_or(end, StreamId::prev), gap: Some(gap) }
    }

    fn resolved(self) -> Resolved {
        let gap = self.gap.map(|gap| (gap, self.after));
        Resolved { from: StartPoint::Source(self.after), gap }
    }
}

/// Where the ring alone can tell, however long ago the client came. The newest are those of that moment:
/// where the ring did not have them then, it may by now have as many that came since.
pub fn in_ring(topic: &Topic, replay: Replay, start: Start) -> Option<Resolved> {
    let of_then = matches!(start, Start::Newest(_));
    if of_then { None } else { in_ring_now(topic, replay, start) }
}

fn in_ring_now(topic: &Topic, replay: Replay, start: Start) -> Option<Resolved> {
    let state = topic.state();
    let ring = &state.ring;
    let (seq, asked) = match start {
        Start::Live | Start::Unknown => (ring.next_seq(), None),
        Start::After(id) => match ring.find(id) {
            RingLookup::At(seq) => (seq, Some(id)),
            RingLookup::Foreign | RingLookup::Outside => return None,
        },
        Start::Since(ms) => (ring.reach(StreamId { ms, seq: 0 }.prev())?, None),
        Start::Newest(count) => (ring.nth_newest(count)?, None),
        Start::Earliest => return None,
    };
    if start == Start::Unknown {
        let tail = ring.tail();
        let gap = Gap { after: None, next: None, lost: None, reason: Reason::Unknown };
        return Some(Resolved { from: StartPoint::Ring(seq, tail), gap: Some((gap, tail)) });
    }
    let exact = Resolved { from: StartPoint::Ring(seq, ring.id_before(seq)), gap: None };
    let Replay::Newest(allowed) = replay else { return Some(exact) };
    if ring.next_seq() - seq <= allowed {
        return Some(exact);
    }
    // Gaps are items of the ring too, and no entries.
    let behind = ring.entries_from(seq);
    if behind <= allowed {
        return Some(exact);
    }
    let seq = if allowed == 0 { ring.next_seq() } else { ring.nth_newest(allowed)? };
    let id = ring.id_before(seq);
    let lost = Some(behind - allowed);
    let next = (allowed > 0).then(|| ring.id_before(seq + 1));
    let gap = Gap { after: asked, next, lost, reason: Reason::Limit };
    let before = next.map_or(id, StreamId::prev);
    Some(Resolved { from: StartPoint::Ring(seq, before), gap: Some((gap, before)) })
}

/// A replica that lags looks like another life of the stream, which is told only on the primary's word.
async fn resume_believably(
    query: StreamQuery<'_>,
    id: StreamId,
    info: Option<&StreamInfo>,
) -> Result<Base, Error> {
    let base = resume(query, id, info).await?;
    let is_reset = base.gap.is_some_and(|gap| gap.reason == Reason::Reset);
    if !is_reset || query.source.primary_snapshot(query.key, LAG_PATIENCE).await?.is_none() {
        return Ok(base);
    }
    // What is read from has caught up with the primary: what it says now is right.
    resume(query, id, query.info().await?.as_ref()).await
}

/// Whether a resume after `id` is exact; if not, from where it goes on and what is told.
///
/// An id that this stream never held, at or above its first entry, is of another life of it, even
/// where nothing was ever removed: 100, 200, 300, DEL, then 50, 150, 350 leaves no other trace.
///
/// What cannot be told apart from an id of this life: one of another that is an entry's here too, or
/// one less, or the last that was generated, or between the first entry and the last deleted one.
async fn resume(
    query: StreamQuery<'_>,
    id: StreamId,
    info: Option<&StreamInfo>,
) -> Result<Base, Error> {
    if let Some(base) = known(id, info) {
        return Ok(base);
    }
    if query.source.holds(query.key, id).await? {
        return Ok(Base::exact(id));
    }
    // Trimming and deleting go on: what is not there any more is held against the stream as it is now.
    let info = query.info().await?;
    Ok(absent(id, info.as_ref()))
}

/// What the stream itself tells; `None`: that depends on whether it holds the id.
fn known(id: StreamId, info: Option<&StreamInfo>) -> Option<Base> {
    let Some(info) = info.filter(|info| id <= info.last_generated) else {
        // To whoever has nothing yet a stream that is not there is no loss.
        let never = id == StreamId::ZERO;
        let reset = || Base::first(Some(id), info, Reason::Reset);
        return Some(if never { Base::exact(id) } else { reset() });
    };
    let at_seam = id == info.last_generated || info.first.is_some_and(|f| id.next() == Some(f));
    let deleted = info.first.is_some_and(|first| id >= first) && id <= info.max_deleted;
    if at_seam || deleted {
        return Some(Base::exact(id));
    }
    (id == StreamId::ZERO && nothing_removed(info)).then(|| Base::kept(Some(info)))
}

/// The same where the stream does not hold the id: trimmed, of another life, or deleted just now.
fn absent(id: StreamId, info: Option<&StreamInfo>) -> Base {
    known(id, info).unwrap_or_else(|| {
        let trimmed = info.is_some_and(|info| {
            info.first.is_none_or(|first| id < first) && !nothing_removed(info)
        });
        let reason = if trimmed { Reason::Trimmed } else { Reason::Reset };
        Base::first(Some(id), info, reason)
    })
}

fn nothing_removed(info: &StreamInfo) -> bool {
    info.entries_added == Some(info.length)
}

fn since(after: StreamId, info: Option<&StreamInfo>) -> Base {
    let Some(info) = info else { return Base::exact(StreamId::ZERO) };
    if after >= info.last_generated {
        return Base::exact(info.last_generated);
    }
    let removed = info.entries_added.is_some_and(|added| added > info.length);
    let reaches = info.first.is_some_and(|first| first <= after);
    if removed && !reaches {
        Base::first(None, Some(info), Reason::Trimmed)
    } else {
        // The first entry of all may be younger than what was asked for.
        Base::exact(after.max(info.first.map_or(after, StreamId::prev)))
    }
}

#[cfg(test)]
mod tests;
