//! What a catch-up subscriber tells its client besides entries.

use super::machine::{CatchUp, End, Phase, ToldGap};
use super::state::StateDelivery;
use crate::config::OnGap;
use crate::fanout::signal::{Signal, StatusChange, status_change};
use crate::sse::{Control, EndReason, Gap, StreamId};
use crate::stream::ReaderState;
use crate::telemetry::metrics::DisconnectReason;

impl CatchUp {
    /// Tells of Redis' coming and going, between two events.
    pub(super) fn tell_status(&mut self, reader: &ReaderState) -> Result<(), End> {
        if self.half_written.is_some() {
            return Ok(());
        }
        let told_down = self.delivery.source_down;
        let change = match (status_change(told_down, reader), self.rules.of_part) {
            // A part of a merged stream waits.
            (StatusChange::Refused(_), true) if told_down => StatusChange::None,
            (StatusChange::Refused(_), true) => StatusChange::Told(Signal::SourceDown),
            (StatusChange::Told(Signal::SourceUp), _) if self.is_denied => StatusChange::None,
            (StatusChange::None, _) if self.is_denied && !told_down => {
                StatusChange::Told(Signal::SourceDown)
            }
            (change, _) => change,
        };
        match change {
            StatusChange::None => {}
            StatusChange::Refused(reason) => {
                let control = Control::Unavailable { reason };
                return Err(End::Disconnect(Some(control), DisconnectReason::Error));
            }
            StatusChange::Told(signal) => {
                self.delivery.source_down = !self.delivery.source_down;
                self.unsent = signal.bytes(self.format, self.rules.signals);
            }
        }
        Ok(())
    }

    /// Says that the stream lives, and whether Redis is away; and how far it has come, where entries are withheld.
    pub(super) fn tell_alive(&mut self, reader: &ReaderState) {
        let signal = Signal::of_silence(reader);
        self.unsent = signal.bytes(self.format, self.rules.signals);
        let at = self.delivery.last_id.filter(|_| self.selection.is_some());
        if at.is_some() && at != self.told_at {
            self.told_at = at;
            self.format.append_control(at, Control::At, &mut self.unsent);
        }
    }

    /// Tells the client that its token expires.
    pub(super) fn warn(&mut self, control: Control) {
        self.format.append_control(self.delivery.last_id, control, &mut self.unsent);
    }

    /// Tells of a gap, after which the client goes on after `id`.
    pub(super) fn tell_gap(&mut self, gap: Gap, id: StreamId) {
        self.count(gap, false);
        let control = Control::gap(gap, self.selection.is_some());
        if self.rules.on_gap == OnGap::Heal {
            self.format.append_control(None, control, &mut self.unsent);
        } else {
            self.tell(id, control);
        }
        self.go_on_after_gap(id);
    }

    /// The client was told of a gap up to this id.
    pub(super) fn go_on_after_gap(&mut self, id: StreamId) {
        match self.rules.on_gap {
            OnGap::Tell => {}
            OnGap::End => self.over = Some(EndReason::Gap),
            OnGap::Heal => self.phase = Phase::State(StateDelivery::after_gap(id)),
        }
    }

    /// The driver is to count this gap.
    pub(super) fn count(&mut self, gap: Gap, in_page: bool) {
        self.uncounted.push(ToldGap { gap, in_page });
    }

    /// The gaps that were told since this was last asked.
    pub(super) fn take_gaps(&mut self) -> Vec<ToldGap> {
        std::mem::take(&mut self.uncounted)
    }

    /// Tells how many entries the client was spared.
    pub(super) fn tell_conflated(&mut self) {
        let entries = std::mem::take(&mut self.spared);
        self.spared_uncounted += entries;
        let id = self.delivery.last_id;
        self.format.append_control(id, Control::Conflated { entries }, &mut self.unsent);
    }

    /// Whether it is spared what newer entries supersede.
    pub(super) fn conflates(&self) -> bool {
        self.is_behind && self.rules.rendering.conflate.is_some()
    }

    /// Tells that the client is level with the tail, which has this id.
    pub(super) fn tell_live(&mut self, id: StreamId) {
        self.delivery.live = true;
        self.tell(id, Control::Live { replayed: self.replayed });
    }

    fn tell(&mut self, id: StreamId, control: Control) {
        self.format.append_control(Some(id), control, &mut self.unsent);
        (self.delivery.last_id, self.told_at) = (Some(id), Some(id));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Replay;
    use crate::fanout::testing::TestFanout;
    use crate::sse::{RowValue, Selection};
    use crate::stream::start::Start;

    /// An id is a place from which the client goes on: one that nobody knows yet would be the beginning of the stream.
    #[tokio::test]
    async fn a_client_is_told_no_place_but_one_to_which_it_has_moved() {
        let test = TestFanout::new();
        let (mut subscriber, lease) = test.unattached("a");
        let wanted = Selection::new([(0, vec![RowValue::of(b"acme")])]);
        subscriber.lease.select(&Arc::new(wanted), 1).unwrap();
        let machine = || CatchUp::begin(&subscriber, Replay::All, Start::Live, Vec::new());
        let told = |mut machine: CatchUp| {
            machine.tell_alive(&ReaderState::Up);
            String::from_utf8(machine.unsent).unwrap()
        };
        let is_told_at = |machine: CatchUp| told(machine).contains("\"at\"");
        assert!(!is_told_at(machine()), "the reader has not read yet");
        lease.topic().start_generation(StreamId { ms: 7, seq: 0 });
        lease.topic().answered();
        assert!(machine().delivery.live);
        assert!(!is_told_at(machine()), "it was told with `live`");
        let mut moved = machine();
        moved.delivery.last_id = Some(StreamId { ms: 9, seq: 0 });
        assert!(told(moved).contains("id: 9-0"));
    }
}
