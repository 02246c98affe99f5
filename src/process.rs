//! What the operating system and the service manager say: signals, limits.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Catches them from now on.
    pub fn catch() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the next one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A signal that asks for something each time it comes.
pub struct Request(Signal);

impl Request {
    /// SIGHUP, caught from now on.
    pub fn hangup() -> std::io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// SIGUSR1, caught from now on.
    pub fn user() -> std::io::Result<Self> {
        signal(SignalKind::user_defined1()).map(Self)
    }

    /// The next one; several at once are one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// Whether standard error goes to journald: the variable says which file that is, and is inherited by
/// many a process that writes elsewhere (systemd.exec(5)).
pub fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let Some((device, inode)) = named.as_deref().and_then(|named| named.split_once(':')) else {
        return false;
    };
    let is = |number: u64, text: &str| text.parse() == Ok(number);
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stderr| is(stderr.st_dev, device) && is(stderr.st_ino, inode))
}

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
