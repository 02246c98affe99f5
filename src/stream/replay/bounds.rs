//! How many reads of the past run at once, and how much memory their pages have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// What all pages in memory may have, however many subscribers read the past.
pub const PAGES_BYTES: usize = 16 << 20;
/// What all states in memory may have, while they are read and while clients get them.
pub const STATES_BYTES: usize = 64 << 20;
/// Either is given out in parts of this.
const PART_BYTES: usize = 64 << 10;

/// Permits to read from the source, as many as `limits.replays`.
pub(super) struct ReadPermits {
    most: AtomicUsize,
    free: Arc<Semaphore>,
}

impl ReadPermits {
    pub(super) fn new(most: usize) -> Self {
        Self { most: AtomicUsize::new(most), free: Arc::new(Semaphore::new(most)) }
    }

    /// Waits for a permit.
    pub(super) async fn acquire(&self) -> SemaphorePermit<'_> {
        self.free.acquire().await.expect("the semaphore is never closed")
    }

    /// Permits that are taken.
    pub(super) fn in_use(&self) -> usize {
        self.most.load(Ordering::Relaxed).saturating_sub(self.free.available_permits())
    }

    /// Changes how many there are; those that are taken are not revoked.
    pub(super) fn set_most(&self, most: usize) {
        let before = self.most.swap(most, Ordering::Relaxed);
        if most >= before {
            return self.free.add_permits(most - before);
        }
        let fewer = u32::try_from(before - most).expect("there are not that many");
        let free = self.free.clone();
        // Takes permits out of use as they are given back.
        tokio::spawn(async move {
            if let Ok(permits) = free.acquire_many_owned(fewer).await {
                permits.forget();
            }
        });
    }
}

/// Memory for what subscribers share: pages, or states.
pub(super) struct SharedMemory {
    most_bytes: usize,
    free: Arc<Semaphore>,
    full: Notify,
}

impl SharedMemory {
    pub(super) fn new(most_bytes: usize) -> Self {
        let free = Arc::new(Semaphore::new(most_bytes / PART_BYTES));
        Self { most_bytes, free, full: Notify::new() }
    }

    /// Waits for memory for something of this size, or for all of it; if there is too little, `make_room` is called
    /// and subscribers are asked for what they hold.
    pub(super) async fn acquire(
        &self,
        bytes: usize,
        make_room: impl FnOnce(),
    ) -> OwnedSemaphorePermit {
        let parts = parts(bytes.min(self.most_bytes));
        if let Ok(memory) = self.free.clone().try_acquire_many_owned(parts) {
            return memory;
        }
        make_room();
        self.full.notify_waiters();
        self.free.clone().acquire_many_owned(parts).await.expect("the semaphore is never closed")
    }

    /// Returns when something is wanted that there is no memory for.
    pub(super) async fn wanted(&self) {
        self.full.notified().await;
    }

    /// Bytes that are held, in whole parts.
    pub(super) fn in_use_bytes(&self) -> usize {
        self.most_bytes - self.free.available_permits() * PART_BYTES
    }
}

/// Gives back what is more than these bytes need.
pub(super) fn shrink(memory: &mut OwnedSemaphorePermit, bytes: usize) {
    let spare = memory.num_permits().saturating_sub(parts(bytes) as usize);
    drop(memory.split(spare));
}

fn parts(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PART_BYTES).max(1)).expect("there are not that many")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn there_may_be_fewer_reads_as_soon_as_there_are_and_more_at_once() {
        let permits = ReadPermits::new(3);
        let held = [permits.acquire().await, permits.acquire().await];
        permits.set_most(1);
        tokio::task::yield_now().await;
        assert_eq!(permits.free.available_permits(), 0);
        drop(held);
        let one = tokio::time::timeout(Duration::from_secs(20), permits.acquire()).await.unwrap();
        assert_eq!((permits.free.available_permits(), permits.in_use()), (0, 1));
        permits.set_most(2);
        assert_eq!((permits.free.available_permits(), permits.in_use()), (1, 1));
        drop(one);
        assert_eq!(permits.in_use(), 0);
    }
}
