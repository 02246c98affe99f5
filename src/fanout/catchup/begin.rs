//! Where a catch-up subscriber begins: as a new client asked, or where its shard left it.

use super::backfill::Backfill;
use super::machine::{Beginning, CatchUp, DeliveryState, Phase};
use super::state::StateDelivery;
use crate::config::Replay;
use crate::fanout::Subscriber;
use crate::fanout::signal::is_up;
use crate::fanout::wire::WritePosition;
use crate::sse::{Control, EndReason, Gap, Reason, StreamId};
use crate::stream::continuity::Continuity;
use crate::stream::start::{Resolved, Start, StartPoint, resolve_now};
use crate::stream::{StreamEnd, Topic};

impl CatchUp {
    /// Where a new client asked to start, after the `opening` bytes of its response. Where "now" is for it is
    /// settled here, before it can know that its stream is open.
    pub fn begin(subscriber: &Subscriber, replay: Replay, asked: Start, opening: Vec<u8>) -> Self {
        let now = resolve_now(subscriber.topic(), replay, asked, subscriber.view());
        let (tail, is_up) = {
            let state = subscriber.topic().state();
            // Whether the stream is over has to be found out before the client may wait for more.
            let goes_on = subscriber.rules.end().is_none()
                || matches!(
                    state.end(&subscriber.rules),
                    Some(StreamEnd::Open | StreamEnd::Absent)
                );
            (state.ring.tail(), is_up(&state.reader) && goes_on)
        };
        if let (Start::Live, Some(Resolved { from: StartPoint::Ring(seq, tail), gap: None })) =
            (asked, &now)
            && is_up
            && subscriber.state.is_none()
        {
            return Self::live(subscriber, *seq, *tail, opening);
        }
        if asked == Start::Live && subscriber.state.is_some() {
            let phase = Phase::State(StateDelivery::first());
            return Self::at(subscriber, phase, DeliveryState::default(), opening).behind();
        }
        let last_id = if let Start::After(id) = asked { Some(id) } else { None };
        let delivery = DeliveryState { last_id, ..DeliveryState::default() };
        let phase = Phase::Start(Beginning { asked, replay, now, tail });
        Self::at(subscriber, phase, delivery, opening).behind()
    }

    /// Level with the tail from the first, so that the client is told so together with the head.
    fn live(subscriber: &Subscriber, seq: u64, tail: StreamId, mut opening: Vec<u8>) -> Self {
        subscriber.format.append_control(Some(tail), Control::Live { replayed: 0 }, &mut opening);
        let delivery = DeliveryState { last_id: Some(tail), live: true, source_down: false };
        let phase = Phase::Ring(WritePosition { seq, offset: 0 });
        Self { told_at: Some(tail), ..Self::at(subscriber, phase, delivery, opening) }
    }

    /// At a position in the ring, which the shard still holds in memory.
    pub(in crate::fanout) fn left_by_shard(
        topic: &Topic,
        subscriber: &Subscriber,
        at: WritePosition,
        delivery: DeliveryState,
        unsent: Vec<u8>,
    ) -> Self {
        let half_written = (at.offset > 0).then(|| topic.state().ring.id_before(at.seq + 1));
        let is_behind = at.offset > 0 || !unsent.is_empty();
        let machine = Self::at(subscriber, Phase::Ring(at), delivery, unsent).amid(half_written);
        if is_behind { machine.behind() } else { machine }
    }

    /// Where the client begins was found out, when the topic was in this generation and its reader had read
    /// up to `read_up_to`; from what it is served, for the metrics.
    pub(super) fn resolved(
        &mut self,
        Beginning { asked, tail, .. }: Beginning,
        resolved: Resolved,
        generation: u64,
        read_up_to: StreamId,
        is_gone: bool,
    ) -> &'static str {
        let served_from = match resolved.from {
            StartPoint::Ring(seq, last_id) => {
                self.phase = Phase::Ring(WritePosition { seq, offset: 0 });
                self.delivery.goes_on_after(last_id);
                "ring"
            }
            StartPoint::Source(after) => {
                // The newest as of now, but nothing that came after the stream was opened is left out.
                let after = if matches!(asked, Start::Newest(_)) { after.min(tail) } else { after };
                let backfill =
                    Backfill::new(Continuity::after(after), generation).begun_at(read_up_to);
                let resumes = matches!(asked, Start::After(_));
                let backfill = if resumes { backfill } else { backfill.of_what_is_kept() };
                self.phase = Phase::Source(backfill);
                "redis"
            }
        };
        // The key may be gone before its reader has noticed.
        let gone = match asked {
            Start::After(id) if is_gone => {
                let gap = Gap { after: Some(id), next: None, lost: None, reason: Reason::Reset };
                Some((gap, id)).filter(|_| id != StreamId::ZERO)
            }
            _ => None,
        };
        if let Some((gap, id)) = resolved.gap.or(gone) {
            self.tell_first_gap(gap, id, is_gone);
        }
        if let (Start::Live | Start::Unknown, StartPoint::Ring(_, tail), None) =
            (asked, resolved.from, self.over)
            && !matches!(self.phase, Phase::State(_))
        {
            // Level by definition; whatever came since is news already.
            self.tell_live(tail);
        }
        served_from
    }

    /// The stream was recreated, is in this generation, and begins there.
    pub(super) fn generation_resolved(
        &mut self,
        resolved: Resolved,
        generation: u64,
        is_gone: bool,
    ) {
        if let StartPoint::Source(after) = resolved.from {
            let backfill = Backfill::new(Continuity::after(after), generation);
            self.phase = Phase::Source(backfill.of_what_is_kept());
        }
        if let Some((gap, id)) = resolved.gap {
            self.tell_first_gap(gap, id, is_gone);
        }
    }

    /// A gap with which the client begins, or begins again. Where the key of an ended stream is gone there is nothing
    /// to wait for: the client keeps the id that it has, and gets 204 for it when it comes back.
    fn tell_first_gap(&mut self, gap: Gap, id: StreamId, is_gone: bool) {
        let heard = self.delivery.last_id.filter(|id| *id != StreamId::ZERO);
        let Some(heard) = heard.filter(|_| is_gone && gap.next.is_none()) else {
            return self.tell_gap(gap, id);
        };
        self.tell_gap(gap, heard);
        self.over = Some(EndReason::Gap);
    }
}
