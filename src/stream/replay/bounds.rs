//! How many reads of the past run at once, and how much memory their pages have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// What all pages in memory may have, however many subscribers read the past.
pub const PAGES_BYTES: usize = 16 << 20;
/// It is given out in parts of this.
const PART_BYTES: usize = 64 << 10;
const PARTS: usize = PAGES_BYTES / PART_BYTES;

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

/// Memory for pages.
pub(super) struct PageMemory {
    free: Arc<Semaphore>,
    full: Notify,
}

impl PageMemory {
    pub(super) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(PARTS)), full: Notify::new() }
    }

    /// Waits for memory for a page of this size; if there is none, `make_room` is called and subscribers
    /// are asked for the pages that they hold.
    pub(super) async fn acquire(
        &self,
        page_bytes: usize,
        make_room: impl FnOnce(),
    ) -> OwnedSemaphorePermit {
        let parts = page_bytes.div_ceil(PART_BYTES).clamp(1, PARTS);
        let parts = u32::try_from(parts).expect("there are not that many");
        if let Ok(memory) = self.free.clone().try_acquire_many_owned(parts) {
            return memory;
        }
        make_room();
        self.full.notify_waiters();
        self.free.clone().acquire_many_owned(parts).await.expect("the semaphore is never closed")
    }

    /// Returns when a page is wanted that there is no memory for.
    pub(super) async fn wanted(&self) {
        self.full.notified().await;
    }

    /// Bytes that pages hold, in whole parts.
    pub(super) fn in_use_bytes(&self) -> usize {
        PAGES_BYTES - self.free.available_permits() * PART_BYTES
    }
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
