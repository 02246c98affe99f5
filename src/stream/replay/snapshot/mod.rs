//! Snapshots: the state of a stream at one of its ids, read once for a crowd.

use std::time::Instant;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::sse::{State, StreamId};
use crate::stream::continuity::Continuity;

mod newest;
mod read;
mod snapshots;

pub(super) use read::Reading;
pub(super) use snapshots::{SnapshotKey, Snapshots};

/// The state of a stream, and where the stream goes on after it.
#[derive(Debug)]
pub struct Snapshot {
    /// Its events, each in a chunk of its own.
    pub events: Vec<Bytes>,
    /// What follows it.
    pub next: Continuity,
    /// The generation that the stream was in, as its topic's ring numbers them.
    pub generation: u64,
    /// When its reading began.
    began: Instant,
    /// Its share of the memory that all of them may have.
    _memory: OwnedSemaphorePermit,
}

impl Snapshot {
    /// The entry that it is level with.
    pub fn id(&self) -> StreamId {
        self.next.cursor()
    }
}

/// What a reading has found.
struct Found {
    state: State,
    next: Continuity,
}
