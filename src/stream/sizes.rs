//! How large the entries of a stream are, so that a reply gets neither too large nor too small.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::sse::Entry;

/// So many are asked for while nothing is known.
const FIRST_COUNT: u64 = 16;
/// At most so many times what the last read brought: of entries that grow all at once, Redis would make
/// a reply of any size.
const GROWTH: u64 = 8;
/// A reply that was too large is made so many times smaller.
const SHRINKING: u64 = 8;

/// What the largest recent entry takes in memory, and how many came last. Reads that go on at once may disagree a little: it is a guess
/// of what the next one brings.
#[derive(Debug, Default)]
pub struct Sizes {
    /// Zero: not known yet.
    largest_bytes: AtomicUsize,
    last_count: AtomicU64,
}

impl Sizes {
    /// Learns from what a read brought.
    pub fn observe(&self, entries: &[Entry]) {
        self.last_count.store(entries.len() as u64, Ordering::Relaxed);
        let Some(largest) = entries.iter().map(Entry::memory_bytes).max() else { return };
        let before = self.largest_bytes();
        // Forgets slowly, so that one small reply does not let the next one grow large.
        self.set(largest.max(before - before / 8));
    }

    /// A reply of `count` entries was too much: far fewer next time.
    pub fn were_too_many(&self, count: u64, reply_bytes: usize) {
        let fewer = usize::try_from(count / SHRINKING).unwrap_or(usize::MAX).max(1);
        self.set(self.largest_bytes().max(reply_bytes / fewer));
    }

    /// How many entries make a reply near `reply_bytes`.
    pub fn count(&self, reply_bytes: usize) -> u64 {
        let most = (GROWTH * self.last_count.load(Ordering::Relaxed)).max(FIRST_COUNT);
        match self.largest_bytes() {
            0 => FIRST_COUNT,
            largest => count_for(largest, reply_bytes).min(most),
        }
    }

    /// Bytes of the largest recent entry; zero where none was seen.
    fn largest_bytes(&self) -> usize {
        self.largest_bytes.load(Ordering::Relaxed)
    }

    fn set(&self, largest_bytes: usize) {
        self.largest_bytes.store(largest_bytes.max(1), Ordering::Relaxed);
    }
}

/// How many entries of up to `largest_bytes` make a reply near `reply_bytes`.
pub fn count_for(largest_bytes: usize, reply_bytes: usize) -> u64 {
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
    fn as_many_are_asked_for_as_make_a_reply() {
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
    fn of_many_small_fields_more_counts_than_their_bytes() {
        let sizes = Sizes::default();
        let entry = Entry { id: StreamId::ZERO, fields: vec![("f".into(), "x".into()); 700] };
        sizes.observe(&vec![entry; 16]);
        assert_eq!(sizes.count(2 << 20), 15);
    }

    #[test]
    fn what_was_too_much_is_made_less_down_to_one() {
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
