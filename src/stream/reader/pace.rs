//! How often a stream is read that never rests.

use std::time::{Duration, Instant};

/// A stream whose entries come faster than this is read so often: each read then brings several, and a read costs the
/// gateway and Redis as much as many entries do.
const READ_INTERVAL: Duration = Duration::from_millis(2);
/// So many reads come as fast as entries do, before the reader rests. A burst is no busy stream.
const FREE_READS: u32 = 16;

/// The pace of one reader.
pub(super) struct Pace {
    /// Then it will have rested for all of its reads.
    rested_at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { rested_at: now }
    }

    /// A read has brought less than it had asked for; how long the next one waits.
    pub(super) fn rest(&mut self, now: Instant) -> Duration {
        self.rested_at = self.rested_at.max(now) + READ_INTERVAL;
        self.rested_at.duration_since(now).saturating_sub(READ_INTERVAL * FREE_READS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// How long it rests after so many reads, each of which waits so long for an entry.
    fn rests(pace: &mut Pace, now: &mut Instant, reads: u32, wait: Duration) -> Duration {
        let mut rested = Duration::ZERO;
        for _ in 0..reads {
            *now += wait;
            let rest = pace.rest(*now);
            *now += rest;
            rested += rest;
        }
        rested
    }

    #[test]
    fn a_burst_is_read_as_it_comes_and_a_busy_stream_at_its_pace() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut rests = |reads, wait| rests(&mut pace, &mut now, reads, wait);
        assert_eq!(rests(FREE_READS, Duration::ZERO), Duration::ZERO);
        assert_eq!(rests(100, Duration::ZERO), READ_INTERVAL * 100);
        // An entry each millisecond: half of the time it rests.
        assert_eq!(rests(100, MS), MS * 100);
        // It has to rest before it reads a burst at once again.
        assert_eq!(rests(1, READ_INTERVAL * FREE_READS), Duration::ZERO);
        assert_eq!(rests(FREE_READS - 1, Duration::ZERO), Duration::ZERO);
        assert_eq!(rests(1_000, READ_INTERVAL), Duration::ZERO);
    }
}
