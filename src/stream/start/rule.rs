//! The rule of where a subscriber begins, and which gap it is told first.
//!
//! Of each table the first row that fits decides. After that the route's `replay` may shorten what it gave.
//!
//! **In the ring** ([`in_ring`]):
//!
//! | the client asked for | and the ring | it goes on | gap |
//! |---|---|---|---|
//! | `Live` | | at the ring's end | |
//! | `Unknown` | | at the ring's end | `unknown` |
//! | `After(id)` | knows `id` as one that we may have sent | after `id` | |
//! | `Since(ms)` | reaches back to that time | with the first item since then | |
//! | `Newest(n)`, at admission | holds `n` entries ⁴ | with the `n`-th newest | |
//! | anything else | | as the source says, below | |
//! | *then:* any of these | has more entries from there on than `replay` allows | with the oldest allowed one | `limit`, counted |
//!
//! **In the source** ([`decide`]). "First" is the first entry that the stream still holds, "end" its
//! last-generated-id.
//!
//! | the client asked for | and the stream | it goes on | gap |
//! |---|---|---|---|
//! | `After(id)` | holds the entry `id`, as a page that was just read shows | after `id` | |
//! | anything | ends before what the topic's reader has read: it was recreated, or the server lags | once the reader has told how | |
//! | `After(id)` | holds the entry `id`, or the one with the next id | after `id` | |
//! | `After(0-0)` | does not exist | after `0-0` | |
//! | `After(id)` | does not exist, or ends before `id` | with the first | `reset` ¹ |
//! | `After(id)` | ends at `id`, or its first has the next id | after `id` | |
//! | `After(id)` | has its first at or before `id`, and had a deletion at or after `id` or may have holes ³ | after `id` | |
//! | `After(0-0)` | has lost nothing ² | with the first | |
//! | `After(id)` | has its first after `id`, or none, and may have lost entries ² | with the first | `trimmed` |
//! | `After(id)` | none of these: `id` is of another generation | with the first | `reset` ¹ |
//! | `Since(ms)` | does not exist | after `0-0` | |
//! | `Since(ms)` | ends before that time | at its end | |
//! | `Since(ms)` | has its first after that time, and has lost entries ² | with the first | `trimmed` |
//! | `Since(ms)` | none of these | with the first since then | |
//! | `Newest(n)` | | with the `n`-th newest ⁴, or the first | |
//! | `Earliest` | | with the first | |
//! | *then:* any of these | has entries from there on that `replay` does not allow | with the oldest allowed one | `limit` |
//!
//! ¹ Once the primary confirms it: a replica that lags looks the same.
//! ² By its counts. Redis before 7 does not count: there `After` is told of a gap, and `Since` of none.
//! ³ [`StreamInfo::may_have_holes`]; the read that follows tells of them.
//! ⁴ That the client gets, among those that `replay` allows.
//!
//! If the stream is recreated under a subscriber ([`recreated`]), the subscriber goes on with the first, after a
//! `reset`.
//!
//! An id at or after the first that the stream never held is of another generation, even if nothing was ever
//! removed: 100, 200, 300, DEL, then 50, 150, 350 leaves no other trace. What cannot be told from an id of this
//! generation: an id of another one that is also an entry's here, or one less than an entry's, or the last
//! that was generated, or between the first and the last deleted entry.

use super::{Resolved, Start, StartPoint};
use crate::config::Replay;
use crate::source::{StreamInfo, StreamState};
use crate::sse::{Gap, Reason, StreamId};
use crate::stream::View;
use crate::stream::ring::{Ring, RingLookup};

/// What the source has said so far. `None`: it was not asked yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// How far the topic's reader has read.
    pub(crate) read_up_to: StreamId,
    /// The stream.
    pub(crate) stream: Option<StreamState>,
    /// Whether the stream holds the entry with the client's id, or with the next one.
    pub(crate) holds: Option<bool>,
    /// Whether the primary confirms what was found.
    pub(crate) is_confirmed: bool,
    /// The newest entries that the client asked for.
    pub(crate) newest: Option<Newest>,
    /// The newest entries that the route's `replay` allows.
    pub(crate) allowed: Option<Newest>,
}

/// The newest so many entries of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Newest {
    /// The oldest of them; `None` where there are none.
    pub(crate) first: Option<StreamId>,
    /// The entry before that, if the stream holds one.
    pub(crate) left_out: Option<StreamId>,
}

/// What has to be known before the rule can decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// How the stream is now.
    Stream,
    /// Whether it holds the entry with this id, or with the next one.
    Holds(StreamId),
    /// Whether the primary confirms a reset.
    Primary,
    /// The newest so many entries, which the client asked for.
    Newest(u64),
    /// The newest so many entries, which `replay` allows.
    Allowed(u64),
    /// How the stream goes on: its reader is still to find out.
    Reader,
}

/// The rows of the ring; `None`: the source has to tell.
pub(super) fn in_ring(
    ring: &Ring,
    replay: Replay,
    asked: Start,
    view: View<'_>,
) -> Option<Resolved> {
    let seq = match asked {
        Start::Live | Start::Unknown => ring.next_seq(),
        Start::After(id) => match ring.find(id) {
            RingLookup::At(seq) => seq,
            RingLookup::Foreign | RingLookup::Outside => return None,
        },
        Start::Since(ms) => ring.reach(StreamId { ms, seq: 0 }.prev())?,
        Start::Newest(count) => ring.nth_newest_in(view, count, replay.most())?,
        Start::Earliest => return None,
    };
    if asked == Start::Unknown {
        let gap = Gap { after: None, next: None, lost: None, reason: Reason::Unknown };
        return Some(ring_after_gap(seq, gap, ring.tail()));
    }
    match replay {
        Replay::Newest(allowed) if ring.next_seq() - seq > allowed => {
            ring_within(ring, allowed, seq, asked)
        }
        _ => Some(ring_exactly(ring, seq)),
    }
}

/// The row of `replay` in the ring, for a client that asked for all from `seq` on.
fn ring_within(ring: &Ring, allowed: u64, seq: u64, asked: Start) -> Option<Resolved> {
    // Items of the ring may be gaps; `replay` counts entries.
    let wanted = ring.entries_from(seq);
    if wanted <= allowed {
        return Some(ring_exactly(ring, seq));
    }
    let seq = if allowed == 0 { ring.next_seq() } else { ring.nth_newest(allowed)? };
    let next = (allowed > 0).then(|| ring.id_before(seq + 1));
    let last_id = next.map_or(ring.id_before(seq), StreamId::prev);
    let lost = Some(wanted - allowed);
    let gap = Gap { after: id_of(asked), next, lost, reason: Reason::Limit };
    Some(ring_after_gap(seq, gap, last_id))
}

fn ring_exactly(ring: &Ring, seq: u64) -> Resolved {
    Resolved { from: StartPoint::Ring(seq, ring.id_before(seq)), gap: None }
}

fn ring_after_gap(seq: u64, gap: Gap, last_id: StreamId) -> Resolved {
    Resolved { from: StartPoint::Ring(seq, last_id), gap: Some((gap, last_id)) }
}

/// The rows of the source; an error is the question to answer first.
pub(super) fn decide(asked: Start, replay: Replay, known: &Known) -> Result<Resolved, Question> {
    let begin = match asked {
        Start::After(id) => resume(id, known)?,
        Start::Since(ms) => since(StreamId { ms, seq: 0 }.prev(), known.stream()?),
        Start::Newest(count) => {
            let stream = known.stream()?;
            let newest = known.newest.ok_or(Question::Newest(count))?;
            Begin::after(newest.first.map_or(before_first(stream), StreamId::prev))
        }
        Start::Earliest | Start::Live | Start::Unknown => {
            Begin::after(before_first(known.stream()?))
        }
    };
    Ok(within_replay(begin, asked, replay, known)?.resolved())
}

/// A stream was recreated under a subscriber that has all up to `last_id`.
pub(super) fn recreated(last_id: Option<StreamId>, stream: Option<&StreamInfo>) -> Resolved {
    Begin::at_first(last_id, stream, Reason::Reset).resolved()
}

fn resume(id: StreamId, known: &Known) -> Result<Begin, Question> {
    if known.holds == Some(true) {
        return Ok(Begin::after(id));
    }
    let stream = known.stream()?;
    let begin = match without_entry(id, stream) {
        Some(begin) => begin,
        None if known.holds.is_none() => return Err(Question::Holds(id)),
        None => Begin::at_first(Some(id), stream, why_absent(id, stream)),
    };
    let is_reset = begin.gap.is_some_and(|gap| gap.reason == Reason::Reset);
    if is_reset && !known.is_confirmed { Err(Question::Primary) } else { Ok(begin) }
}

/// The rows of `After(id)` for which it does not matter whether the stream holds the entry.
fn without_entry(id: StreamId, stream: Option<&StreamInfo>) -> Option<Begin> {
    let Some(info) = stream.filter(|info| id <= info.last_generated) else {
        let has_nothing = id == StreamId::ZERO;
        let reset = || Begin::at_first(Some(id), stream, Reason::Reset);
        return Some(if has_nothing { Begin::after(id) } else { reset() });
    };
    let at_an_end = id == info.last_generated || info.first.is_some_and(|f| id.next() == Some(f));
    let is_within = info.first.is_some_and(|first| first <= id);
    let was_removed = is_within && (id <= info.max_deleted || info.may_have_holes);
    if at_an_end || was_removed {
        return Some(Begin::after(id));
    }
    (id == StreamId::ZERO && is_whole(info)).then(|| Begin::after(before_first(stream)))
}

/// Why the stream does not hold `id`, about which nothing else is known.
fn why_absent(id: StreamId, stream: Option<&StreamInfo>) -> Reason {
    let was_trimmed = |info: &StreamInfo| {
        let begins_later = info.first.is_none_or(|first| id < first);
        begins_later && !is_whole(info)
    };
    if stream.is_some_and(was_trimmed) { Reason::Trimmed } else { Reason::Reset }
}

fn since(after: StreamId, stream: Option<&StreamInfo>) -> Begin {
    let Some(info) = stream else { return Begin::after(StreamId::ZERO) };
    if after >= info.last_generated {
        return Begin::after(info.last_generated);
    }
    let lost_entries = info.entries_added.is_some_and(|added| added > info.length);
    let reaches_back = info.first.is_some_and(|first| first.prev() <= after);
    if lost_entries && !reaches_back {
        Begin::at_first(None, stream, Reason::Trimmed)
    } else {
        // The first entry may be younger than the time that was asked for.
        Begin::after(after.max(info.first.map_or(after, StreamId::prev)))
    }
}

/// The last row: `replay` may allow less than what was asked for.
fn within_replay(
    begin: Begin,
    asked: Start,
    replay: Replay,
    known: &Known,
) -> Result<Begin, Question> {
    let Replay::Newest(allowed) = replay else { return Ok(begin) };
    let Some(StreamState::Stream(info)) = known.stream else { return Ok(begin) };
    if info.length <= allowed || begin.after >= info.last_generated {
        return Ok(begin);
    }
    let Newest { first, left_out } = known.allowed.ok_or(Question::Allowed(allowed))?;
    if left_out.is_none_or(|left_out| left_out <= begin.after) {
        return Ok(begin);
    }
    let after = first.map_or(info.last_generated, StreamId::prev);
    let gap = Gap { after: id_of(asked), next: first, lost: None, reason: Reason::Limit };
    Ok(Begin { after, gap: Some(gap) })
}

impl Known {
    /// The stream, unless its reader has to find out first how it goes on.
    fn stream(&self) -> Result<Option<&StreamInfo>, Question> {
        let info = match self.stream.as_ref().ok_or(Question::Stream)? {
            StreamState::Missing | StreamState::Gone => None,
            StreamState::Stream(info) => Some(info),
            StreamState::Unseen => return Err(Question::Stream),
        };
        let end = info.map_or(StreamId::ZERO, |info| info.last_generated);
        if end < self.read_up_to { Err(Question::Reader) } else { Ok(info) }
    }
}

/// An id of the source to go on after, and the gap before that.
struct Begin {
    after: StreamId,
    gap: Option<Gap>,
}

impl Begin {
    fn after(after: StreamId) -> Self {
        Self { after, gap: None }
    }

    /// With the first entry that the stream still holds, where the client asked for more.
    fn at_first(asked: Option<StreamId>, stream: Option<&StreamInfo>, reason: Reason) -> Self {
        let next = stream.and_then(|info| info.first);
        let gap = Gap { after: asked, next, lost: None, reason };
        Self { after: before_first(stream), gap: Some(gap) }
    }

    fn resolved(self) -> Resolved {
        let gap = self.gap.map(|gap| (gap, self.after));
        Resolved { from: StartPoint::Source(self.after), gap }
    }
}

/// Just before the first entry, or the end of a stream without entries. A read that began earlier could not
/// tell what was trimmed from what never was.
pub(crate) fn before_first(stream: Option<&StreamInfo>) -> StreamId {
    let end = stream.map_or(StreamId::ZERO, |info| info.last_generated);
    stream.and_then(|info| info.first).map_or(end, StreamId::prev)
}

/// Whether the stream holds everything that was ever added to it.
fn is_whole(info: &StreamInfo) -> bool {
    info.entries_added == Some(info.length)
}

fn id_of(asked: Start) -> Option<StreamId> {
    if let Start::After(id) = asked { Some(id) } else { None }
}
