//! A topic's catch-up subscribers and where each is, for the operator: how many, and how far behind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use slab::Slab;

/// It reads from the source: how far behind that is, no number of the ring tells.
const IN_SOURCE: u64 = u64::MAX;

type Positions = Mutex<Slab<Arc<AtomicU64>>>;

/// Where each catch-up subscriber of a topic is.
#[derive(Default)]
pub struct CatchUpRegistry(Arc<Positions>);

/// Where one of them is; removed on drop.
pub struct CatchUpPosition {
    all: Arc<Positions>,
    index: usize,
    seq: Arc<AtomicU64>,
}

impl CatchUpRegistry {
    /// Adds a subscriber, which begins in the source.
    pub fn register(&self) -> CatchUpPosition {
        let seq = Arc::new(AtomicU64::new(IN_SOURCE));
        let index = locked(&self.0).insert(seq.clone());
        CatchUpPosition { all: self.0.clone(), index, seq }
    }

    /// The item of the ring that each is at; `None`: it reads from the source.
    pub fn positions(&self) -> Vec<Option<u64>> {
        let in_ring = |seq: u64| (seq != IN_SOURCE).then_some(seq);
        locked(&self.0).iter().map(|(_, seq)| in_ring(seq.load(Ordering::Relaxed))).collect()
    }
}

impl CatchUpPosition {
    /// The subscriber is now at this item of the ring; `None`: it reads from the source.
    pub fn set(&self, seq: Option<u64>) {
        self.seq.store(seq.unwrap_or(IN_SOURCE), Ordering::Relaxed);
    }
}

impl Drop for CatchUpPosition {
    fn drop(&mut self) {
        locked(&self.all).remove(self.index);
    }
}

/// Locked for one look or change at a time.
fn locked(positions: &Positions) -> MutexGuard<'_, Slab<Arc<AtomicU64>>> {
    positions.lock().expect("no holder of the lock panics")
}
