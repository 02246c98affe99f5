//! Settings of the process: what the allocator gives back, and how many files may be open.

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

/// Raises the limit of open files as far as the system allows, and returns it.
pub fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where the system forbids it, the lower limit holds.
    let _ = setrlimit(Resource::Nofile, raised);
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}
