//! How large the entries of a stream are, so that a reply gets neither too large nor too small.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::event::Entry;

/// So many are asked for while nothing is known.
const FIRST_COUNT: u64 = 16;

/// The size of the largest recent entry. Reads that go on at once may disagree a little: it is a guess
/// of what the next one brings.
#[derive(Debug, Default)]
pub struct Sizes {
    /// Zero: not known yet.
    largest_bytes: AtomicUsize,
}

impl Sizes {
    /// Learns from what a read brought.
    pub fn observe(&self, entries: &[Entry]) {
        let Some(largest) = entries.iter().map(Entry::size_bytes).max() else { return };
        let before = self.largest_bytes();
        // Forgets slowly, so that one small reply does not let the next one grow large.
        self.set(largest.max(before - before / 8));
    }

    /// A reply of `count` entries was too much: half as many next time.
    pub fn were_too_many(&self, count: u64, reply_bytes: usize) {
        let fewer = usize::try_from(count / 2).unwrap_or(usize::MAX).max(1);
        self.set(self.largest_bytes().max(reply_bytes / fewer));
    }

    /// How many entries make a reply near `reply_bytes`.
    pub fn count(&self, reply_bytes: usize) -> u64 {
        match self.largest_bytes() {
            0 => FIRST_COUNT,
            largest => count_for(largest, reply_bytes),
        }
    }

    /// Bytes of the largest recent entry; zero where none was seen.
    pub fn largest_bytes(&self) -> usize {
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
    use crate::event::StreamId;

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
        sizes.observe(&[entry(10)]);
        let a_little_later = sizes.count(1 << 20);
        assert!((17..=19).contains(&a_little_later), "{a_little_later}");
        for _ in 0..200 {
            sizes.observe(&[entry(100)]);
        }
        assert!(sizes.count(1 << 20) > 5_000);
    }

    #[test]
    fn what_was_too_much_is_halved_down_to_one() {
        let sizes = Sizes::default();
        let mut count = sizes.count(4096);
        while count > 1 {
            sizes.were_too_many(count, 4096);
            assert_eq!(sizes.count(4096), count / 2);
            count /= 2;
        }
        sizes.were_too_many(1, 4096);
        assert_eq!(sizes.count(4096), 1);
    }
}
