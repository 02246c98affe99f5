//! The snapshots that were read just now: a crowd shares one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::Snapshot;
use crate::config::StateQuery;
use crate::source::{Error, ErrorClass};
use crate::sse::{Selection, StreamId};
use crate::stream::replay::bounds::SharedMemory;
use crate::stream::replay::single_flight::SingleFlight;

/// What a snapshot is read for: two with the same key are alike.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(in crate::stream::replay) struct SnapshotKey {
    /// The topic's id, and the number that its ring gives the generation.
    pub(in crate::stream::replay) generation: (u64, u64),
    pub(in crate::stream::replay) rendering: usize,
    pub(in crate::stream::replay) query: Arc<StateQuery>,
    /// Of which entries; `None`: of all.
    pub(in crate::stream::replay) selection: Option<Selection>,
}

/// All that were read just now or are being read.
pub(in crate::stream::replay) struct Snapshots {
    shared: SingleFlight<SnapshotKey, Arc<Snapshot>>,
    memory: SharedMemory,
}

impl Snapshots {
    pub(in crate::stream::replay) fn new(memory: SharedMemory) -> Self {
        // Each route says how old its own may be.
        Self { shared: SingleFlight::keeping(Duration::MAX), memory }
    }

    /// The snapshot for `key`, from `read` unless there is one that is young enough and level with `least`. Fails with
    /// `LAGGING` if one that is read now is not level with it.
    pub(in crate::stream::replay) async fn get<F>(
        &self,
        key: &SnapshotKey,
        least: StreamId,
        read: impl Fn() -> F,
    ) -> Result<Arc<Snapshot>, Error>
    where
        F: Future<Output = Result<Arc<Snapshot>, Error>>,
    {
        let asked = Instant::now();
        let is_new = |snapshot: &Snapshot| {
            snapshot.began >= asked || snapshot.began.elapsed() <= key.query.max_age
        };
        let is_useless = |snapshot: &Arc<Snapshot>| !is_new(snapshot) || snapshot.id() < least;
        loop {
            let flight = self.shared.get_unless(key.clone(), is_useless, &read, |_| true);
            let snapshot = flight.await?;
            if !is_useless(&snapshot) {
                return Ok(snapshot);
            }
            if snapshot.began >= asked {
                let message = "the state is older than what the client was told".to_owned();
                return Err(Error { class: ErrorClass::Away, code: "LAGGING", message });
            }
        }
    }

    /// Waits for memory for one of this size. What no client has is dropped for it.
    pub(super) async fn memory(&self, bytes: usize) -> OwnedSemaphorePermit {
        self.memory.acquire(bytes, || self.shared.retain(|_, _| false)).await
    }

    /// Returns when one is wanted that there is no memory for.
    pub(in crate::stream::replay) async fn wanted(&self) {
        self.memory.wanted().await;
    }

    /// Bytes that they hold, and that are kept for those that are read.
    pub(in crate::stream::replay) fn in_use_bytes(&self) -> usize {
        self.memory.in_use_bytes()
    }

    /// Drops what no further client will be given.
    pub(in crate::stream::replay) fn forget_old(&self) {
        self.shared.retain(|key, snapshot| snapshot.began.elapsed() <= key.query.max_age);
    }
}
