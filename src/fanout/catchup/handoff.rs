//! Where a catch-up subscriber begins: what a new client asked for, or where its shard left it.

use super::super::Subscriber;
use super::super::signal::is_up;
use super::super::wire::WritePosition;
use super::backfill::Backfill;
use super::{CatchUp, End};
use crate::config::Replay;
use crate::sse::{Control, StreamId};
use crate::stream::Topic;
use crate::stream::continuity::Continuity;
use crate::stream::start::{Resolved, Start, StartPoint, resolve_now};

/// How a catch-up subscriber begins.
pub struct Handoff {
    pub(in crate::fanout) phase: Phase,
    pub(in crate::fanout) delivery: DeliveryState,
    /// Bytes to write before anything else.
    pub(in crate::fanout) unsent: Vec<u8>,
    /// A half-written entry, by its id.
    pub(in crate::fanout) partial: Option<StreamId>,
}

/// Where a catch-up subscriber is.
pub(in crate::fanout) enum Phase {
    /// Not looked up yet.
    Start {
        /// What the client asked for.
        start: Start,
        /// What its route lets it ask back for.
        replay: Replay,
        /// What that is, where it counts from "now".
        now: Option<Resolved>,
        /// The stream's end when it came.
        tail: StreamId,
    },
    /// In the ring.
    Ring(WritePosition),
    /// In the source.
    Source(Backfill),
    /// The stream began anew; its new beginning is to be asked for.
    NewGeneration,
}

/// What a client has been told so far; it goes with it from shard to catch-up subscriber and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::fanout) struct DeliveryState {
    /// The last event id it was told; `None` where that is none of ours to say.
    pub last_id: Option<StreamId>,
    /// Whether it was told that it is live.
    pub live: bool,
    /// Whether it was told that Redis is away.
    pub down: bool,
}

impl DeliveryState {
    /// It goes on in the ring after `id`. Whoever read the source may be ahead of the reader, and have entries
    /// that the reader missed: what it was told last never goes back, or it would be sent these again.
    pub(super) fn goes_on_after(&mut self, id: StreamId) {
        self.last_id = Some(self.last_id.map_or(id, |told| told.max(id)));
    }
}

impl Handoff {
    /// Where a new client asked to start, after the opening bytes of its response. What is "now" to
    /// it is settled here, before it can know that its stream is open.
    pub fn new(subscriber: &Subscriber, replay: Replay, start: Start, unsent: Vec<u8>) -> Self {
        let now = resolve_now(subscriber.topic(), replay, start);
        let (tail, is_up) = {
            let state = subscriber.topic().state();
            (state.ring.tail(), is_up(&state.reader))
        };
        if let (Start::Live, Some(Resolved { from: StartPoint::Ring(seq, tail), gap: None })) =
            (start, &now)
            && is_up
        {
            return Self::live(subscriber, *seq, *tail, unsent);
        }
        let last_id = if let Start::After(id) = start { Some(id) } else { None };
        let delivery = DeliveryState { last_id, ..DeliveryState::default() };
        Self { phase: Phase::Start { start, replay, now, tail }, delivery, unsent, partial: None }
    }

    /// Level with the tail as it comes, so that it is told so together with the head.
    fn live(subscriber: &Subscriber, seq: u64, tail: StreamId, mut unsent: Vec<u8>) -> Self {
        subscriber.format.append_control(Some(tail), Control::Live { replayed: 0 }, &mut unsent);
        let delivery = DeliveryState { last_id: Some(tail), live: true, down: false };
        Self {
            phase: Phase::Ring(WritePosition { seq, offset: 0 }),
            delivery,
            unsent,
            partial: None,
        }
    }

    /// The place in the ring of a new client that has to be told nothing more than its opening bytes.
    pub(super) fn level(&self) -> Option<u64> {
        match self.phase {
            Phase::Ring(position) if self.delivery.live => Some(position.seq),
            _ => None,
        }
    }

    /// At a place of the ring, which the shard still holds in memory.
    pub(in crate::fanout) fn left_by_pack(
        topic: &Topic,
        position: WritePosition,
        delivery: DeliveryState,
        unsent: Vec<u8>,
    ) -> Self {
        let partial = (position.offset > 0).then(|| topic.state().ring.id_before(position.seq + 1));
        Self { phase: Phase::Ring(position), delivery, unsent, partial }
    }
}

impl CatchUp {
    /// Finds out where the client begins, and tells it what there is to tell before its first entry.
    pub(super) async fn handoff(
        &mut self,
        start: Start,
        replay: Replay,
        now: Option<Resolved>,
        tail: StreamId,
    ) -> Result<(), End> {
        let topic = self.subscriber.topic().clone();
        // Looked at first: a reset while the source is asked has to show.
        let (generation, read_up_to) = {
            let state = topic.state();
            (state.ring.generation(), state.ring.tail())
        };
        if generation == 0 {
            return self.wait_for_source().await;
        }
        let fanout = self.fanout.clone();
        let rendering = usize::from(self.subscriber.format.rendering);
        let asked = async {
            if let Some(resolved) = now {
                return Ok(resolved);
            }
            let replays = &fanout.replays;
            replays.resolve(&topic, generation, read_up_to, rendering, replay, start).await
        };
        let resolved = match self.meanwhile(asked).await? {
            Some(Ok(resolved)) => resolved,
            Some(Err(error)) => return self.failed(&error).await,
            None => return Ok(()),
        };
        let served_from = match resolved.from {
            StartPoint::Ring(seq, last_id) => {
                self.phase = Phase::Ring(WritePosition { seq, offset: 0 });
                self.delivery.goes_on_after(last_id);
                "ring"
            }
            StartPoint::Source(after) => {
                // The newest as of now, but nothing that came after the stream was opened is left out.
                let after = if matches!(start, Start::Newest(_)) { after.min(tail) } else { after };
                let backfill =
                    Backfill::new(Continuity::after(after), generation).begun_at(read_up_to);
                let resumes = matches!(start, Start::After(_));
                self.phase =
                    Phase::Source(if resumes { backfill } else { backfill.of_what_is_kept() });
                "redis"
            }
        };
        if matches!(start, Start::After(_) | Start::Unknown) {
            let invalid = if start == Start::Unknown { "invalid" } else { "gap" };
            let result = if resolved.gap.is_some() { invalid } else { served_from };
            self.fanout.metrics.resumed(result, 1);
        }
        if let Some((gap, id)) = resolved.gap {
            self.tell_gap(gap, id);
        }
        if let (Start::Live | Start::Unknown, StartPoint::Ring(_, tail)) = (start, resolved.from) {
            // Level by definition; whatever came since is news already.
            self.tell_live(tail);
        }
        Ok(())
    }
}
