//! Before what follows a state: the client gets that first.

use std::sync::Arc;

use super::backfill::Backfill;
use super::machine::{Action, CatchUp, Phase};
use super::state::StateDelivery;
use crate::sse::StreamId;
use crate::stream::replay::Snapshot;

impl StateDelivery {
    /// What comes next, the topic's stream being in this generation.
    pub(super) fn next(&self, generation: u64) -> Action {
        match self.snapshot {
            // Its topic's reader is still to find out how the stream is.
            None if generation == 0 => Action::WaitForSource,
            None => Action::ReadState { least: self.least },
            Some(_) => Action::WriteState,
        }
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
        let has_all = delivery.wrote(format, sent);
        self.half_written = delivery.is_amid_event().then(|| snapshot.id());
        if !has_all {
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
