//! What a catch-up subscriber does next, without doing it.

use std::sync::Arc;

use crate::config::{OnGap, Replay, StreamRules};
use crate::fanout::Subscriber;
use crate::fanout::signal::{StatusChange, status_change};
use crate::fanout::wire::{WireFormat, WritePosition, WriteProgress};
use crate::sse::{Control, EndReason, Gap, Selection, StreamId};
use crate::stream::Batch;
use crate::stream::continuity::Continuity;
use crate::stream::start::{Resolved, Start};
use crate::stream::{ReaderState, Ring, StreamEnd, TopicState};
use crate::telemetry::metrics::DisconnectReason;

use super::backfill::Backfill;
use super::run::{Run, run_from};
use super::state::StateDelivery;

/// Ring items are written in runs of about this.
const RUN_BYTES: usize = 128 << 10;

/// A catch-up subscriber: where it is, and what its client has.
pub struct CatchUp {
    pub(in crate::fanout) phase: Phase,
    pub(in crate::fanout) delivery: DeliveryState,
    /// Bytes to write before anything else.
    pub(in crate::fanout) unsent: Vec<u8>,
    /// The id of an entry that is half written.
    pub(in crate::fanout) half_written: Option<StreamId>,
    pub(super) format: WireFormat,
    pub(super) rules: Arc<StreamRules>,
    /// Which entries its client gets; `None`: all.
    pub(super) selection: Option<Arc<Selection>>,
    /// Up to where it was last told that its client has come.
    pub(super) told_at: Option<StreamId>,
    /// The last that its client got is the entry that ends the stream, as long as none follows.
    pub(super) is_at_end: bool,
    /// The source has refused a read of the past: a part of a merged stream waits until it does not.
    pub(super) is_denied: bool,
    /// The stream is over once everything unsent is written.
    pub(super) over: Option<EndReason>,
    /// Its client did not take all that there was: it is spared what newer entries supersede, where its route conflates.
    pub(super) is_behind: bool,
    /// Entries that it was spared and not told of yet,
    pub(super) spared: u64,
    /// and those that it was told of and that are not counted yet.
    pub(super) spared_uncounted: u64,
    /// Entries that were withheld from it and that are not counted yet.
    pub(super) withheld_uncounted: u64,
    /// Entries delivered before it was live.
    pub(super) replayed: u64,
    /// Gaps that were told and not counted yet.
    pub(super) uncounted: Vec<ToldGap>,
}

/// Where a catch-up subscriber is.
pub(in crate::fanout) enum Phase {
    /// Where it begins is yet to be found out.
    Start(Beginning),
    /// In the ring.
    Ring(WritePosition),
    /// In the source.
    Source(Backfill),
    /// The stream was recreated; where it begins now is yet to be found out.
    NewGeneration,
    /// Before what follows a state, which the client is to get first.
    State(StateDelivery),
}

/// What a client asked for, and what was true when it came.
#[derive(Clone, Copy)]
pub(in crate::fanout) struct Beginning {
    /// Where it asked to begin.
    pub(super) asked: Start,
    /// How far back its route lets it ask.
    pub(super) replay: Replay,
    /// Where that is, if it counts from "now".
    pub(super) now: Option<Resolved>,
    /// The stream's end when the client came.
    pub(super) tail: StreamId,
}

/// What a client has been told so far; it goes with the subscriber from shard to catch-up and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::fanout) struct DeliveryState {
    /// The last event id it was told; `None` where we told it none.
    pub last_id: Option<StreamId>,
    /// Whether it was told that it is live.
    pub live: bool,
    /// Whether it was told that Redis is away.
    pub source_down: bool,
}

/// A gap that a client is told of.
pub(super) struct ToldGap {
    pub(super) gap: Gap,
    /// It is an item of a page, and counted in the subscriber's record when it is written.
    pub(super) in_page: bool,
}

/// The topic as it is at one moment.
pub(super) struct TopicView<'a> {
    ring: &'a Ring,
    reader: &'a ReaderState,
    end: Option<StreamEnd>,
    /// More than this is not written in one go.
    max_bytes: usize,
}

/// What the driver is to do next.
pub(super) enum Action {
    /// Nothing: ask again.
    Again,
    /// Write what is unsent.
    Flush,
    /// Find out where the client begins.
    Resolve(Beginning),
    /// Find out where the recreated stream begins.
    ResolveGeneration,
    /// Read the page after this; `conflates`: without what newer entries supersede.
    ReadPage { after: Continuity, generation: u64, conflates: bool },
    /// Write this run.
    Write(Run),
    /// Read the state, which is to be level with `least` at least.
    ReadState { least: StreamId },
    /// Write what comes next of the state.
    WriteState,
    /// Wait until the source may have more.
    WaitForSource,
    /// The client has everything before this item: a shard may take it.
    Level(u64),
    /// Stop.
    End(End),
}

/// Why a subscriber leaves catch-up.
pub(super) enum End {
    /// It is level with the tail: a shard takes it, from this item on.
    Level(u64),
    /// Its client is gone, or is cut where it stands.
    Cut(DisconnectReason),
    /// It gets a closing frame.
    Disconnect(Option<Control>, DisconnectReason),
}

impl End {
    /// The stream is over. At a gap the client was told that already.
    pub(super) fn over(reason: EndReason) -> Self {
        let control = (reason != EndReason::Gap).then_some(Control::End { reason });
        Self::Disconnect(control, DisconnectReason::Ended(reason))
    }
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Cut(DisconnectReason::Client)
    }
}

impl DeliveryState {
    /// The client goes on in the ring after `id`. A client that read the source may be ahead of the reader, and
    /// have entries that the reader missed: its last event id never goes back, or it would get these again.
    pub(super) fn goes_on_after(&mut self, id: StreamId) {
        self.last_id = Some(self.last_id.map_or(id, |told| told.max(id)));
    }
}

impl<'a> TopicView<'a> {
    /// As a stream with these rules sees it, of which no more than `max_bytes` is written in one go.
    pub(super) fn of(topic: &'a TopicState, rules: &StreamRules, max_bytes: usize) -> Self {
        let end = topic.end(rules);
        let (ring, reader) = (&topic.ring, &topic.reader);
        Self { ring, reader, end, max_bytes: max_bytes.min(RUN_BYTES) }
    }

    /// Whether a client that has everything in the ring has all of the stream.
    fn is_over(&self) -> bool {
        matches!(self.end, Some(StreamEnd::Ended(end)) if end <= self.ring.tail())
    }
}

impl CatchUp {
    /// For `subscriber`, which is in this phase and was told so much; `unsent` is written before anything else.
    pub(in crate::fanout) fn at(
        subscriber: &Subscriber,
        phase: Phase,
        delivery: DeliveryState,
        unsent: Vec<u8>,
    ) -> Self {
        let (format, rules) = (subscriber.format, subscriber.rules.clone());
        let (half_written, uncounted, over) = (None, Vec::new(), None);
        Self {
            phase,
            delivery,
            unsent,
            half_written,
            format,
            rules,
            selection: subscriber.selection().cloned(),
            told_at: None,
            is_at_end: false,
            is_denied: false,
            over,
            is_behind: false,
            spared: 0,
            spared_uncounted: 0,
            withheld_uncounted: 0,
            replayed: 0,
            uncounted,
        }
    }

    /// For a client that has not had all that there is.
    pub(in crate::fanout) fn behind(self) -> Self {
        Self { is_behind: true, ..self }
    }

    /// With an entry, by its id, of which the client has the first half.
    pub(in crate::fanout) fn amid(self, half_written: Option<StreamId>) -> Self {
        Self { half_written, ..self }
    }

    /// The item in the ring from which on a shard may take it, if the client needs nothing but what is unsent.
    pub(in crate::fanout) fn level(&self) -> Option<u64> {
        match self.phase {
            Phase::Ring(at) if self.delivery.live => Some(at.seq),
            _ => None,
        }
    }

    /// Whether the next thing is to write entries to a client that is not live yet. What it has to be told of
    /// its source comes first.
    pub(super) fn replays(&self, topic: &TopicState) -> bool {
        let has_entries = match &self.phase {
            Phase::Ring(at) => at.seq < topic.ring.next_seq(),
            Phase::Source(backfill) => backfill.has_unwritten(),
            Phase::State(delivery) => delivery.has_snapshot(),
            Phase::Start(_) | Phase::NewGeneration => false,
        };
        let status = status_change(self.delivery.source_down, &topic.reader);
        let has_status = self.half_written.is_none() && !matches!(status, StatusChange::None);
        let is_live = self.delivery.live && !matches!(self.phase, Phase::State(_));
        has_entries && !has_status && !is_live && self.unsent.is_empty()
    }

    /// Whether the client has only whole events.
    pub(super) fn is_between_events(&self) -> bool {
        self.half_written.is_none() && self.unsent.is_empty()
    }

    /// What is to be done, the topic being as it is.
    pub(super) fn next(&mut self, topic: &TopicView<'_>) -> Action {
        if self.unsent.is_empty()
            && let Err(end) = self.tell_status(topic.reader)
        {
            return Action::End(end);
        }
        if !self.unsent.is_empty() {
            return Action::Flush;
        }
        if let Some(reason) = self.over {
            return Action::End(End::over(reason));
        }
        if self.rules.of_part && matches!(topic.reader, ReaderState::Refused(_)) {
            // Whatever is half written: the others go on.
            return Action::WaitForSource;
        }
        match self.phase {
            Phase::State(ref delivery) => delivery.next(topic.ring.generation()),
            Phase::Start(_) if topic.ring.generation() == 0 => Action::WaitForSource,
            Phase::Start(beginning) => Action::Resolve(beginning),
            Phase::Ring(at) => self.next_in_ring(at, topic),
            Phase::Source(_) => self.next_in_source(topic.ring),
            // Its client's parser drops what it has of the entry, and comes back.
            Phase::NewGeneration if self.half_written.is_some() => {
                Action::End(End::Cut(DisconnectReason::Slow))
            }
            Phase::NewGeneration => Action::ResolveGeneration,
        }
    }

    /// The client took so many bytes of what was unsent.
    pub(super) fn sent(&mut self, sent: usize) {
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
        }
    }

    fn next_in_ring(&mut self, at: WritePosition, topic: &TopicView<'_>) -> Action {
        let ring = topic.ring;
        let generation = ring.knows_generation(at.seq).then(|| ring.generation());
        if self.is_at_end && ring.begins_generation(at.seq) {
            // What comes next is of another life.
            return Action::End(End::over(EndReason::Marker));
        }
        if at.seq >= ring.next_seq() {
            self.is_behind = false;
            if self.spared > 0 {
                self.tell_conflated();
                return Action::Again;
            }
            return match generation {
                Some(_) if topic.is_over() => Action::End(End::over(EndReason::Marker)),
                _ if self.delivery.live => Action::Level(ring.next_seq()),
                Some(_) => {
                    self.tell_live(ring.tail());
                    Action::Again
                }
                // The stream was recreated this moment; what there is to tell of it comes next.
                None => Action::WaitForSource,
            };
        }
        if ring.first_seq() <= at.seq {
            let batches = run_from(ring.from(at.seq), self.format, topic.max_bytes);
            if !batches.is_empty() {
                let run = self.run(batches, self.format, at);
                return Action::Write(match &self.selection {
                    None if self.conflates() => run.conflated(ring.newest()),
                    _ => run,
                });
            }
        }
        self.leave_ring(at, generation);
        Action::Again
    }

    /// The ring has moved on: read on from the source, after what the client has. Without a `generation` the
    /// client was told nothing of the stream's present one.
    fn leave_ring(&mut self, at: WritePosition, generation: Option<u64>) {
        self.is_behind = true;
        self.phase = match self.delivery.last_id.zip(generation) {
            Some((last_id, generation)) => {
                let backfill = Backfill::new(Continuity::after(last_id), generation);
                Phase::Source(backfill.amid_item(at.offset))
            }
            None => Phase::NewGeneration,
        };
    }

    /// What is written in one go, of what its client gets: no further than to a gap, where the stream does not just go on
    /// after it.
    pub(super) fn run(
        &self,
        batches: Vec<Arc<Batch>>,
        format: WireFormat,
        at: WritePosition,
    ) -> Run {
        let stops_at_gap = self.rules.on_gap != OnGap::Tell;
        let (spared, withheld) = Default::default();
        let run = Run { batches, format, at, stops_at_gap, spared, withheld };
        match &self.selection {
            None => run,
            Some(selection) if self.conflates() => run.selected(selection).conflated_by_itself(),
            Some(selection) => run.selected(selection),
        }
    }

    /// The client took `sent` bytes of a run.
    pub(super) fn wrote(&mut self, run: &Run, sent: usize) -> WriteProgress {
        let done = run.format.advance(&run.batches, run.at, sent);
        if !self.delivery.live {
            self.replayed += done.events;
        }
        self.unsent.extend_from_slice(&done.rest);
        let (spared, withheld) = run.left_out_before(done.position.seq);
        self.spared += spared;
        self.withheld_uncounted += withheld;
        let gap = run.has_passed_gap(done.position.seq).then(|| run.id_before(done.position.seq));
        if gap.is_none() || self.rules.on_gap != OnGap::Heal {
            self.delivery.last_id = run.id_before(done.position.seq).or(self.delivery.last_id);
        }
        if done.position != run.at {
            self.is_at_end = run.ends_stream_at(done.position) && self.is_at_end_of_page();
        }
        let is_amid = done.position.offset > 0;
        self.half_written = if is_amid { run.id_before(done.position.seq + 1) } else { None };
        match &mut self.phase {
            Phase::Ring(at) => *at = done.position,
            Phase::Source(backfill) => {
                self.spared += backfill.spared_up_to(done.position.seq);
                backfill.moved_to(done.position);
            }
            Phase::Start(_) | Phase::NewGeneration | Phase::State(_) => {}
        }
        if let Some(id) = gap {
            self.go_on_after_gap(id.unwrap_or_default());
        }
        done
    }

    /// Whether the source had nothing after its page; outside of pages there is none.
    fn is_at_end_of_page(&self) -> bool {
        let Phase::Source(Backfill { page: Some(page), .. }) = &self.phase else { return true };
        page.batch.ids().last() == Some(&page.end())
    }
}
