//! A topic's clients that go at their own pace, for whoever asks how many there are and how far behind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use slab::Slab;

use super::Topic;

/// It reads from the source: how far behind that is, no number of the ring tells.
const PAST: u64 = u64::MAX;

/// Where each of them is.
#[derive(Default)]
pub struct CatchUpRegistry(Mutex<Slab<Arc<AtomicU64>>>);

/// One of them; forgotten on drop.
pub struct CatchUpPosition {
    topic: Arc<Topic>,
    slot: usize,
    at: Arc<AtomicU64>,
}

impl CatchUpRegistry {
    /// The number in the ring that each is at; `None`: it is in the past.
    pub fn places(&self) -> Vec<Option<u64>> {
        let at = |at: &AtomicU64| Some(at.load(Ordering::Relaxed)).filter(|at| *at != PAST);
        self.all().iter().map(|(_, follower)| at(follower)).collect()
    }

    /// Held for one look or change at a time.
    fn all(&self) -> MutexGuard<'_, Slab<Arc<AtomicU64>>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

impl CatchUpPosition {
    /// One more of `topic`.
    pub fn of(topic: &Arc<Topic>) -> Self {
        let at = Arc::new(AtomicU64::new(PAST));
        let slot = topic.catch_ups.all().insert(at.clone());
        Self { topic: topic.clone(), slot, at }
    }

    /// It is at this number of the ring; `None`: in the past.
    pub fn is_at(&self, seq: Option<u64>) {
        self.at.store(seq.unwrap_or(PAST), Ordering::Relaxed);
    }
}

impl Drop for CatchUpPosition {
    fn drop(&mut self) {
        self.topic.catch_ups.all().remove(self.slot);
    }
}
