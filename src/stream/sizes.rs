//! How large the entries of a stream are, to ask for as many as make a reply of the right size.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::sse::Entry;

/// How many are asked for while nothing is known.
const FIRST_COUNT: u64 = 16;
/// At most this many times what the last read brought: if entries suddenly grow, Redis makes a reply of any
/// size.
const GROWTH: u64 = 8;
/// After a reply that was too large, this many times fewer.
const SHRINKING: u64 = 8;

/// What the largest recent entry takes in memory, and how many the last read brought. It guesses what the
/// next read brings, so reads at the same time may disagree a little.
#[derive(Debug, Default)]
pub struct Sizes {
    /// Zero: nothing is known yet.
    largest_bytes: AtomicUsize,
    last_count: AtomicU64,
}

impl Sizes {
    /// Learns from what a read brought.
    pub fn observe(&self, entries: &[Entry]) {
        self.last_count.store(entries.len() as u64, Ordering::Relaxed);
        let Some(largest) = entries.iter().map(Entry::memory_bytes).max() else { return };
        let before = self.largest_bytes();
        // Forgets slowly: one reply of small entries says little about the next.
        self.set(largest.max(before - before / 8));
    }

    /// A reply of `count` entries was too large: asks for far fewer next time.
    pub fn were_too_many(&self, count: u64, reply_bytes: usize) {
        let fewer = usize::try_from(count / SHRINKING).unwrap_or(usize::MAX).max(1);
        self.set(self.largest_bytes().max(reply_bytes / fewer));
    }

    /// How many entries to ask for, for a reply near `reply_bytes`.
    pub fn count(&self, reply_bytes: usize) -> u64 {
        let most = (GROWTH * self.last_count.load(Ordering::Relaxed)).max(FIRST_COUNT);
        match self.largest_bytes() {
            0 => FIRST_COUNT,
            largest => count_for(largest, reply_bytes).min(most),
        }
    }

    fn largest_bytes(&self) -> usize {
        self.largest_bytes.load(Ordering::Relaxed)
    }

    fn set(&self, largest_bytes: usize) {
        self.largest_bytes.store(largest_bytes.max(1), Ordering::Relaxed);
    }
}

/// How many entries of up to `largest_bytes` make a reply near `reply_bytes`.
pub(super) fn count_for(largest_bytes: usize, reply_bytes: usize) -> u64 {
    (reply_bytes / largest_bytes.max(1)).max(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::StreamId;

    fn entry(len_bytes: usize) -> Entry {
        Entry { id: StreamId::ZERO, fields: vec![("f".into(), vec![0; len_bytes].into())] }
    }

    #[test]
    fn it_asks_for_as_many_as_make_a_reply() {
        let sizes = Sizes::default();
        assert_eq!(sizes.count(1 << 20), FIRST_COUNT);
        sizes.observe(&[]);
        assert_eq!(sizes.count(1 << 20), FIRST_COUNT);
        sizes.observe(&[entry(10), entry((1 << 16) - 1)]);
        let after_large = sizes.count(1 << 20);
        assert!((15..=16).contains(&after_large), "{after_large}");
        let small = |count| (0..count).map(|_| entry(10)).collect::<Vec<_>>();
        sizes.observe(&small(16));
        let a_little_later = sizes.count(1 << 20);
        assert!((17..=19).contains(&a_little_later), "{a_little_later}");
        for _ in 0..200 {
            sizes.observe(&small(100));
        }
        assert_eq!(sizes.count(1 << 20), 100 * GROWTH);
        sizes.observe(&small(1));
        assert_eq!(sizes.count(1 << 20), FIRST_COUNT);
    }

    #[test]
    fn an_entry_of_many_small_fields_counts_for_more_than_its_bytes() {
        let sizes = Sizes::default();
        let entry = Entry { id: StreamId::ZERO, fields: vec![("f".into(), "x".into()); 700] };
        sizes.observe(&vec![entry; 16]);
        assert_eq!(sizes.count(2 << 20), 15);
    }

    #[test]
    fn after_too_large_a_reply_fewer_are_asked_for_down_to_one() {
        let sizes = Sizes::default();
        let mut count = sizes.count(4096);
        while count > 1 {
            sizes.were_too_many(count, 4096);
            assert_eq!(sizes.count(4096), (count / SHRINKING).max(1));
            count /= SHRINKING;
        }
        sizes.were_too_many(1, 4096);
        assert_eq!(sizes.count(4096), 1);
    }
}
