//! The entry that ends a stream, as a route names it.

use super::Entry;

/// The entry that ends a stream: one in which a field has one of these values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndMarker {
    /// The field.
    pub field: String,
    /// Its values, any of which ends the stream.
    pub equals: Vec<String>,
}

impl EndMarker {
    /// Whether `entry` ends its stream.
    pub fn is(&self, entry: &Entry) -> bool {
        let value = entry.field(&self.field);
        value.is_some_and(|value| self.equals.iter().any(|end| end.as_bytes() == &**value))
    }
}

/// Why a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Its last entry is the one that ends it.
    Marker,
    /// No entry came for the route's `stalled`.
    Stalled,
    /// Entries are missing, and the route's `on_gap` ends it there.
    Gap,
}

impl EndReason {
    /// Every reason: a metric for each starts at zero.
    pub const ALL: [Self; 3] = [Self::Marker, Self::Stalled, Self::Gap];

    /// Its name on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Marker => "marker",
            Self::Stalled => "stalled",
            Self::Gap => "gap",
        }
    }
}
