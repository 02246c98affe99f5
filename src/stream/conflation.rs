//! Conflation: which items of a ring a client that is behind can be spared, because a newer one has the same value of
//! the field that its route names.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use crate::sse::Entry;

/// The value of an entry's field, in the form in which many are kept. Two values share one with a chance of 2^-64, and
/// nobody outside can make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldValue(u64);

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl FieldValue {
    /// That of `field`; `None`: the entry has no such field, and nothing supersedes it.
    pub fn of(entry: &Entry, field: &str) -> Option<Self> {
        entry.field(field).map(|value| Self(HASHER.hash_one(value)))
    }
}

/// An item that can be superseded: for which rendering, its number, and by which value.
pub(super) type ValuedItem = (usize, u64, FieldValue);

/// The newest item of each value that a ring holds, for each rendering that conflates.
#[derive(Debug, Default)]
pub struct NewestItems(HashMap<(usize, FieldValue), u64>);

impl NewestItems {
    /// The ring has these items now.
    pub(super) fn push(&mut self, items: impl Iterator<Item = ValuedItem>) {
        for (rendering, seq, value) in items {
            self.0.insert((rendering, value), seq);
        }
    }

    /// The ring has dropped these, its oldest.
    pub(super) fn drop_oldest(&mut self, items: impl Iterator<Item = ValuedItem>) {
        for (rendering, seq, value) in items {
            if self.0.get(&(rendering, value)) == Some(&seq) {
                self.0.remove(&(rendering, value));
            }
        }
    }

    /// Whether there is a newer item with this value.
    pub fn supersede(&self, rendering: usize, seq: u64, value: FieldValue) -> bool {
        self.0.get(&(rendering, value)).is_some_and(|newest| *newest > seq)
    }
}
