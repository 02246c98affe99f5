//! What a read of a stream found: entries, and gaps between them.

use crate::sse::{Entry, Gap, Rendering, StreamId};

/// One thing that every subscriber of a topic is sent, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An entry.
    Entry(Entry),
    /// Entries are missing here; the last event id that goes with it.
    Gap(Gap, StreamId),
}

impl Item {
    /// The last event id of a client that has this.
    pub fn id(&self) -> StreamId {
        match self {
            Self::Entry(entry) => entry.id,
            Self::Gap(_, id) => *id,
        }
    }

    /// Whether it is the entry that ends the stream, if it stays the last one.
    pub(super) fn ends_stream(&self, rendering: &Rendering) -> bool {
        match (self, &rendering.end) {
            (Self::Entry(entry), Some(end)) => end.is(entry),
            _ => false,
        }
    }

    /// The entry, if it is one.
    pub(super) fn entry(&self) -> Option<&Entry> {
        if let Self::Entry(entry) = self { Some(entry) } else { None }
    }

    /// About how many bytes its event will have.
    pub(super) fn event_bytes(&self) -> usize {
        const AROUND_BYTES: usize = 64;
        match self {
            Self::Entry(entry) => entry.size_bytes() + AROUND_BYTES,
            Self::Gap(..) => 4 * AROUND_BYTES,
        }
    }
}
