//! What the process takes from the operating system, and gives back to it: memory and descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets the allocator give back what held large entries as soon as it is free. By default glibc learns
/// from each large allocation to keep the next ones, and so held half as much again as was in use: 196
/// MiB instead of 136, with sixty streams of entries of a MiB in a release build.
pub fn give_back_large_allocations() {
    #[cfg(target_env = "gnu")]
    {
        // From this size on each is given back to the system by itself.
        const LARGE_BYTES: libc::c_int = 256 << 10;
        // SAFETY: mallopt takes no pointers and may be called at any time; it sets a number that malloc
        // reads (mallopt(3)). No other thread runs yet.
        #[expect(unsafe_code, reason = "a third of the peak memory (above); libc has no safe way")]
        let done = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) };
        debug_assert_eq!(done, 1, "the threshold is within what mallopt(3) allows");
    }
}

/// Gives back what is free inside the allocator's own memory: glibc does so at its end alone. Twice seven
/// thousand clients that came and went left up to 47 MiB behind them, of which 3 were in use.
pub fn give_back_free_memory() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim takes a number and may be called at any time, from any thread (malloc_trim(3)).
        #[expect(unsafe_code, reason = "what a crowd needed is given back (above); as before")]
        // Whether there was something to give back is no matter.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}

/// Raises the limit of open files as far as it may be raised; how many are allowed then.
pub fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where raising is forbidden the lower limit holds.
    let _ = setrlimit(Resource::Nofile, raised);
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}
