//! What a reader tells the operator: where it reads, and why it waits.

use std::time::{Instant, SystemTime};

use crate::config::Address;
use crate::sse::StreamId;

/// What a reader tells the operator.
#[derive(Clone, Debug)]
pub struct ReaderStatus {
    /// Since when its state is what it is.
    pub since: SystemTime,
    /// The server that it reads from, or has read from last.
    pub server: Option<Address>,
    /// The end of the stream at the last answer.
    pub source_last_id: Option<StreamId>,
    /// Entries after what it had read then; `None` where Redis does not count.
    pub lag_entries: Option<u64>,
    /// Why it cannot read; `None` while it can.
    pub failure: Option<ReadFailure>,
}

/// Why a reader cannot read.
#[derive(Clone, Debug)]
pub struct ReadFailure {
    /// In Redis' words, or ours.
    pub message: String,
    /// When it tries again.
    pub retry_at: Instant,
}

impl Default for ReaderStatus {
    fn default() -> Self {
        Self {
            since: SystemTime::now(),
            server: None,
            source_last_id: None,
            lag_entries: None,
            failure: None,
        }
    }
}
