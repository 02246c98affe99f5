//! Settings of the process: what the allocator gives back, and how many files may be open.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Makes the allocator return large entries to the system as soon as they are freed. By default glibc
/// raises its threshold with each large allocation, and keeps the next ones: with sixty streams of
/// entries of a MiB, a release build held 196 MiB instead of 136.
pub fn give_back_large_allocations() {
    #[cfg(target_env = "gnu")]
    {
        // From this size on, each allocation is a mapping of its own.
        const LARGE_BYTES: libc::c_int = 256 << 10;
        // SAFETY: mallopt takes no pointers and may be called at any time; it sets a number that malloc
        // reads (mallopt(3)). No other thread runs yet.
        #[expect(unsafe_code, reason = "a third of the peak memory (above); libc has no safe way")]
        let done = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) };
        debug_assert_eq!(done, 1, "the threshold is within what mallopt(3) allows");
    }
}

/// Returns free memory in the midst of the allocator's heap to the system, which glibc does only at the
/// heap's end. After seven thousand clients had come and gone twice, it held up to 47 MiB, 3 of them in
/// use.
pub fn give_back_free_memory() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim takes a number and may be called at any time, from any thread (malloc_trim(3)).
        #[expect(unsafe_code, reason = "a crowd's memory goes back (above); libc has no safe way")]
        // Whether there was something to return does not matter.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}

/// Says when it is time to give free memory back.
#[derive(Default)]
pub struct GivingBack {
    last: Option<(Instant, MemoryUse)>,
    /// Nothing has changed between the last two times.
    settled: bool,
}

/// What holds memory. Where it is as before, nothing was freed since, or it was just being freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Connections so far.
    pub connections: u64,
    /// Clients now.
    pub clients: usize,
    /// Stream keys that are read.
    pub readers: usize,
    /// Bytes of rings and pages.
    pub bytes: usize,
}

impl GivingBack {
    /// Looking for free memory takes milliseconds of a core.
    const INTERVAL: Duration = Duration::from_secs(5);

    /// Whether something may have been freed since the last time, and that is long enough ago.
    pub fn is_due(&mut self, now: Instant, uses: MemoryUse) -> bool {
        let unchanged = self.last.is_some_and(|(_, before)| before == uses);
        let too_early = self.last.is_some_and(|(last, _)| now - last < Self::INTERVAL);
        if too_early || unchanged && self.settled {
            return false;
        }
        (self.last, self.settled) = (Some((now, uses)), unchanged);
        true
    }
}

/// Raises the limit of open files as far as the system allows, and returns it.
pub fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where the system forbids it, the lower limit holds.
    let _ = setrlimit(Resource::Nofile, raised);
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_after_a_change_and_not_too_often() {
        let (mut giving_back, start) = (GivingBack::default(), Instant::now());
        let of = |clients| MemoryUse { connections: 9, clients, readers: 1, bytes: 0 };
        let mut is_due = |ms, clients| {
            let now = start + Duration::from_millis(ms);
            giving_back.is_due(now, of(clients))
        };
        assert!(is_due(0, 9));
        // As in an outage: the source is asked twice a second.
        assert!(!is_due(500, 8) && !is_due(4_500, 7));
        assert!(is_due(5_000, 7));
        assert!(is_due(10_000, 7), "the last of it may have been freed after that");
        assert!(!is_due(15_000, 7) && !is_due(60_000, 7), "nothing was freed");
        assert!(is_due(60_500, 6));
    }
}
