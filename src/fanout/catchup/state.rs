//! The state of a stream, which a client gets before its entries, and after a gap.

use std::sync::Arc;

use bytes::Bytes;

use super::backfill::Backfill;
use super::machine::{Action, CatchUp, Phase};
use crate::fanout::wire::WireFormat;
use crate::sse::{StreamId, unframed};
use crate::stream::replay::Snapshot;

/// A client that is to get a state.
pub(in crate::fanout) struct StateDelivery {
    /// The state is level with this at least: what is before it, the client will not get.
    least: StreamId,
    /// The client was told of a gap.
    heals_gap: bool,
    /// `None`: it is still to be read.
    snapshot: Option<Arc<Snapshot>>,
    /// The event to be written next, and how many of its bytes are.
    event: usize,
    offset: usize,
}

impl StateDelivery {
    /// For a client that begins.
    pub(super) fn first() -> Self {
        Self { least: StreamId::ZERO, heals_gap: false, snapshot: None, event: 0, offset: 0 }
    }

    /// For a client that was told of a gap up to this id.
    pub(super) fn after_gap(least: StreamId) -> Self {
        Self { least, heals_gap: true, ..Self::first() }
    }

    /// What comes next, the topic's stream being in this generation.
    pub(super) fn next(&self, generation: u64) -> Action {
        match self.snapshot {
            // Its topic's reader is still to find out how the stream is.
            None if generation == 0 => Action::WaitForSource,
            None => Action::ReadState { least: self.least },
            Some(_) => Action::WriteState,
        }
    }

    /// Whether it holds a state in memory.
    pub(super) fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Whether an event of it is half written.
    pub(super) fn is_amid_event(&self) -> bool {
        self.offset > 0
    }

    /// Gives back the memory of a state of which no event is half written: the client begins anew, with a later one.
    pub(super) fn forget(&mut self) {
        (self.snapshot, self.event) = (None, 0);
    }

    /// What to write next, up to `most_bytes`, in this format.
    pub(super) fn bytes(&self, format: WireFormat, most_bytes: usize) -> Bytes {
        let event = self.event(format);
        event.slice(self.offset..event.len().min(self.offset.saturating_add(most_bytes)))
    }

    fn event(&self, format: WireFormat) -> Bytes {
        let snapshot = self.snapshot.as_ref().expect("only a state that was read is written");
        let chunk = &snapshot.events[self.event];
        if format.framed { chunk.clone() } else { unframed(chunk) }
    }
}

impl CatchUp {
    /// The state was read.
    pub(super) fn state_read(&mut self, snapshot: Arc<Snapshot>) {
        if let Phase::State(delivery) = &mut self.phase {
            delivery.snapshot = Some(snapshot);
        }
    }

    /// The client took so many bytes of the state; whether it has all of it now, and a gap is healed with that. Then it
    /// goes on with what follows. `read_up_to`: how far the topic's reader has read.
    pub(super) fn wrote_state(&mut self, sent: usize, read_up_to: StreamId) -> bool {
        let format = self.format;
        let Phase::State(delivery) = &mut self.phase else { return false };
        let Some(snapshot) = delivery.snapshot.clone() else { return false };
        delivery.offset += sent;
        if delivery.offset == delivery.event(format).len() {
            (delivery.event, delivery.offset) = (delivery.event + 1, 0);
        }
        self.half_written = delivery.is_amid_event().then(|| snapshot.id());
        if delivery.event < snapshot.events.len() {
            return false;
        }
        let heals_gap = delivery.heals_gap;
        let backfill = Backfill::new(snapshot.next, snapshot.generation).begun_at(read_up_to);
        self.phase = Phase::Source(backfill);
        self.delivery.last_id = Some(snapshot.id());
        heals_gap
    }

    /// Whether it holds a state of which an event is half written.
    pub(super) fn is_amid_state(&self) -> bool {
        matches!(&self.phase, Phase::State(delivery) if delivery.is_amid_event())
    }
}
