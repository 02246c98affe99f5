//! The state of a stream, which a client gets before its entries, and after a gap.

use std::sync::Arc;

use bytes::Bytes;

use crate::fanout::wire::WireFormat;
use crate::sse::{StreamId, unframed};
use crate::stream::replay::Snapshot;

/// A client that is to get a state.
pub(in crate::fanout) struct StateDelivery {
    /// The state is level with this at least: what is before it, the client will not get.
    pub(super) least: StreamId,
    /// The client was told of a gap.
    pub(super) heals_gap: bool,
    /// `None`: it is still to be read.
    pub(super) snapshot: Option<Arc<Snapshot>>,
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

    /// The client took so many bytes; whether it has all of it now.
    pub(super) fn wrote(&mut self, format: WireFormat, sent: usize) -> bool {
        self.offset += sent;
        if self.offset == self.event(format).len() {
            (self.event, self.offset) = (self.event + 1, 0);
        }
        self.snapshot.as_ref().is_some_and(|snapshot| self.event == snapshot.events.len())
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
