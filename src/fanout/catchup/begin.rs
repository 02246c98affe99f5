//! Where a follower begins: what a new client asked for, or where its pack left it.

use super::super::Client;
use super::super::signal::is_up;
use super::super::wire::Spot;
use super::backfill::Past;
use super::{End, Follower};
use crate::config::Replay;
use crate::sse::{Control, StreamId};
use crate::stream::Topic;
use crate::stream::continuity::Continuity;
use crate::stream::start::{From, Resolved, Start, resolve_now};

/// How a follower begins.
pub struct Begin {
    pub(in crate::fanout) place: Place,
    pub(in crate::fanout) history: History,
    /// Bytes to write before anything else.
    pub(in crate::fanout) unsent: Vec<u8>,
    /// A half-written entry, by its id.
    pub(in crate::fanout) partial: Option<StreamId>,
}

/// Where a follower is.
pub(in crate::fanout) enum Place {
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
    Ring(Spot),
    /// In the source.
    Source(Past),
    /// The stream began anew; its new beginning is to be asked for.
    NewLife,
}

/// What a client has been told so far; it goes with it from pack to follower and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::fanout) struct History {
    /// The last event id it was told; `None` where that is none of ours to say.
    pub last_id: Option<StreamId>,
    /// Whether it was told that it is live.
    pub live: bool,
    /// Whether it was told that Redis is away.
    pub down: bool,
}

impl History {
    /// It goes on in the ring after `id`. Whoever read the source may be ahead of the reader, and have entries
    /// that the reader missed: what it was told last never goes back, or it would be sent these again.
    pub(super) fn goes_on_after(&mut self, id: StreamId) {
        self.last_id = Some(self.last_id.map_or(id, |told| told.max(id)));
    }
}

impl Begin {
    /// Where a new client asked to start, after the opening bytes of its response. What is "now" to
    /// it is settled here, before it can know that its stream is open.
    pub fn new(client: &Client, replay: Replay, start: Start, unsent: Vec<u8>) -> Self {
        let now = resolve_now(client.topic(), replay, start);
        let (tail, is_up) = {
            let state = client.topic().state();
            (state.ring.tail(), is_up(&state.reader))
        };
        if let (Start::Live, Some(Resolved { from: From::Ring(seq, tail), gap: None })) =
            (start, &now)
            && is_up
        {
            return Self::live(client, *seq, *tail, unsent);
        }
        let last_id = if let Start::After(id) = start { Some(id) } else { None };
        let history = History { last_id, ..History::default() };
        Self { place: Place::Start { start, replay, now, tail }, history, unsent, partial: None }
    }

    /// Level with the tail as it comes, so that it is told so together with the head.
    fn live(client: &Client, seq: u64, tail: StreamId, mut unsent: Vec<u8>) -> Self {
        client.view.append_control(Some(tail), Control::Live { replayed: 0 }, &mut unsent);
        let history = History { last_id: Some(tail), live: true, down: false };
        Self { place: Place::Ring(Spot { seq, offset: 0 }), history, unsent, partial: None }
    }

    /// The place in the ring of a new client that has to be told nothing more than its opening bytes.
    pub(super) fn level(&self) -> Option<u64> {
        match self.place {
            Place::Ring(spot) if self.history.live => Some(spot.seq),
            _ => None,
        }
    }

    /// At a place of the ring, which the pack still holds in memory.
    pub(in crate::fanout) fn left_by_pack(
        topic: &Topic,
        spot: Spot,
        history: History,
        unsent: Vec<u8>,
    ) -> Self {
        let partial = (spot.offset > 0).then(|| topic.state().ring.id_before(spot.seq + 1));
        Self { place: Place::Ring(spot), history, unsent, partial }
    }
}

impl Follower {
    /// Finds out where the client begins, and tells it what there is to tell before its first entry.
    pub(super) async fn begin(
        &mut self,
        start: Start,
        replay: Replay,
        now: Option<Resolved>,
        tail: StreamId,
    ) -> Result<(), End> {
        let topic = self.client.topic().clone();
        // Looked at first: a reset while the source is asked has to show.
        let (life, read_up_to) = {
            let state = topic.state();
            (state.ring.life(), state.ring.tail())
        };
        if life == 0 {
            return self.wait_for_source().await;
        }
        let fanout = self.fanout.clone();
        let rendering = usize::from(self.client.view.rendering);
        let asked = async {
            if let Some(resolved) = now {
                return Ok(resolved);
            }
            let replays = &fanout.replays;
            replays.resolve(&topic, life, read_up_to, rendering, replay, start).await
        };
        let resolved = match self.meanwhile(asked).await? {
            Some(Ok(resolved)) => resolved,
            Some(Err(error)) => return self.failed(&error).await,
            None => return Ok(()),
        };
        let served_from = match resolved.from {
            From::Ring(seq, last_id) => {
                self.place = Place::Ring(Spot { seq, offset: 0 });
                self.history.goes_on_after(last_id);
                "ring"
            }
            From::Source(after) => {
                // The newest as of now, but nothing that came after the stream was opened is left out.
                let after = if matches!(start, Start::Newest(_)) { after.min(tail) } else { after };
                let past = Past::new(Continuity::after(after), life).begun_at(read_up_to);
                let resumes = matches!(start, Start::After(_));
                self.place = Place::Source(if resumes { past } else { past.of_what_is_kept() });
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
        if let (Start::Live | Start::Unknown, From::Ring(_, tail)) = (start, resolved.from) {
            // Level by definition; whatever came since is news already.
            self.tell_live(tail);
        }
        Ok(())
    }
}
