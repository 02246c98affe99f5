//! How the streams of a route begin, speak and end.

use std::sync::Arc;
use std::time::Duration;

use super::SnapshotRule;
use crate::sse::{Controls, EndMarker, Rendering};

/// How the streams of a route speak and end. A stream keeps the rules that it began with.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamRules {
    /// How an entry becomes an event, in which form control events are sent, and which entry ends a stream.
    pub rendering: Arc<Rendering>,
    /// The same for a client that gets only some entries.
    pub selected: Arc<Rendering>,
    /// How clients learn of keepalives and of the loss of Redis.
    pub signals: Signals,
    /// A stream without a new entry for so long is ended; zero: never.
    pub stalled: Duration,
    /// What follows a gap, once it is told.
    pub on_gap: OnGap,
    /// The state that a client gets before its entries, and after a gap.
    pub snapshot: Option<SnapshotRule>,
    /// The data of a last event that is sent in place of the `end` control event.
    pub end_data: Option<String>,
    /// Whatever closes a stream but its end leaves the body incomplete, so that no client takes it for whole.
    pub cuts: bool,
    /// These are of one part of a merged stream. A key that cannot be read does not end it, and what the client is told
    /// besides events is not its to say.
    pub of_part: bool,
}

impl StreamRules {
    /// Whether and how control events are sent.
    pub fn controls(&self) -> Controls {
        self.rendering.controls
    }

    /// The same, for one part of a stream that is merged of several. It tells everything as events: the client is told
    /// as these rules have it.
    #[must_use]
    pub fn for_part(&self) -> Self {
        let of_part = |rendering: &Rendering| {
            Arc::new(Rendering { controls: Controls::Event, ..rendering.clone() })
        };
        let (rendering, selected) = (of_part(&self.rendering), of_part(&self.selected));
        Self { rendering, selected, signals: Signals::Comment, of_part: true, ..self.clone() }
    }

    /// What becomes of an entry, for a client that gets every entry or only a selection.
    pub fn rendering_for(&self, selects: bool) -> &Arc<Rendering> {
        if selects { &self.selected } else { &self.rendering }
    }

    /// The entry that ends a stream.
    pub fn end(&self) -> Option<&EndMarker> {
        self.rendering.end.as_ref()
    }
}

/// What follows a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// The entries after it.
    Tell,
    /// Nothing: it ends the stream.
    End,
    /// The state of now, and the entries after that.
    Heal,
}

/// How clients learn of keepalives and of the loss of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signals {
    /// As comments only.
    Comment,
    /// As control events as well, which JavaScript sees.
    Event,
}

/// Where a client begins that names no beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteStart {
    /// With what is new.
    Live,
    /// With everything that the stream still holds.
    Earliest,
    /// With the newest so many entries.
    Newest(u64),
    /// With what came since so long ago.
    Back(Duration),
}

/// What a client gets for a key that is not there when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// A stream that waits for the key.
    Wait,
    /// `204`, if the key does not come within this.
    NoContent(Duration),
}

/// What a client gets that comes back at or past the end of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `204`: an `EventSource` stays closed.
    NoContent,
    /// What is kept from the route's start, and the end again.
    Replay,
}
