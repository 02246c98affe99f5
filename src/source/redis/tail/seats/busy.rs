//! How busy readers are.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::sse::Entry;

/// A reader that reads so much in a second, for some seconds, is busy, and wants a connection of its own,
const BUSY: u64 = 5;
/// which it keeps while it reads at least this.
const STILL_BUSY: u64 = 2;
/// An entry of this size counts twice, and a larger one more.
const ENTRY_BYTES: usize = 4 << 10;

/// How much a reader has read, and whether it is to move.
#[derive(Default)]
pub(crate) struct Tally {
    read: AtomicU64,
    is_to_move: AtomicBool,
    moving: Notify,
}

impl Tally {
    /// The reader has read these entries.
    pub(crate) fn add(&self, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        let bytes: usize = entries.iter().map(Entry::size_bytes).sum();
        self.add_weight((entries.len() + bytes / ENTRY_BYTES) as u64);
    }

    pub(super) fn add_weight(&self, weight: u64) {
        self.read.fetch_add(weight, Ordering::Relaxed);
    }

    pub(super) fn set_to_move(&self) {
        self.is_to_move.store(true, Ordering::Relaxed);
        self.moving.notify_one();
    }

    pub(crate) fn is_to_move(&self) -> bool {
        self.is_to_move.load(Ordering::Relaxed)
    }

    /// Returns once the reader is to move.
    pub(crate) async fn to_move(&self) {
        while !self.is_to_move() {
            self.moving.notified().await;
        }
    }
}

/// What a reader reads in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pace {
    per_second: u64,
    /// All that it had read when it was judged last.
    read_before: u64,
}

impl Pace {
    /// Of a reader that is new; where its key was busy before, it is taken for busy.
    pub(super) fn of_newcomer(was_busy: bool) -> Self {
        Self { per_second: if was_busy { BUSY } else { 0 }, read_before: 0 }
    }

    /// Learns what the reader has read since it was judged last. Half of what was before counts on: a burst makes nobody
    /// busy.
    pub(super) fn learn(&mut self, tally: &Tally, since: Duration) {
        let read = tally.read.load(Ordering::Relaxed);
        let milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
        let now = ((read - self.read_before) * 1000).div_ceil(milliseconds);
        self.per_second = u64::midpoint(self.per_second, now);
        self.read_before = read;
    }

    pub(super) fn is_busy(self, was_busy: bool) -> bool {
        self.per_second >= if was_busy { STILL_BUSY } else { BUSY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_entry_counts_for_many() {
        let tally = Tally::default();
        let entry = |bytes| Entry {
            id: crate::sse::StreamId::ZERO,
            fields: vec![("f".into(), vec![b'x'; bytes].into())],
        };
        tally.add(&[entry(10)]);
        assert_eq!(tally.read.load(Ordering::Relaxed), 1);
        tally.add(&[entry(10 * ENTRY_BYTES)]);
        assert_eq!(tally.read.load(Ordering::Relaxed), 12);
    }

    #[test]
    fn a_burst_makes_nobody_busy_and_a_short_pause_nobody_quiet() {
        let (tally, second) = (Tally::default(), Duration::from_secs(1));
        let mut pace = Pace::of_newcomer(false);
        let mut reads = |weight| {
            tally.add_weight(weight);
            pace.learn(&tally, second);
            (pace.is_busy(false), pace.is_busy(true))
        };
        assert_eq!(reads(8), (false, true));
        assert_eq!(reads(0), (false, true));
        assert_eq!(reads(0), (false, false));
        assert!((0..5).map(|_| reads(8)).last().expect("five").0);
        assert_eq!(reads(0), (false, true));
        assert!(Pace::of_newcomer(true).is_busy(true));
    }
}
