//! What a reader says of itself, for the operator who asks why it waits.

use std::time::{Instant, SystemTime};

use crate::config::Address;
use crate::sse::StreamId;

/// What a reader says of itself.
#[derive(Clone, Debug)]
pub struct ReaderStatus {
    /// Since when it fares as it does.
    pub since: SystemTime,
    /// Which server it reads from, or has last read from.
    pub server: Option<Address>,
    /// The end of the stream as of the last answer.
    pub source_last_id: Option<StreamId>,
    /// Entries that were there to read then; `None` where Redis does not count.
    pub lag_entries: Option<u64>,
    /// Why it does not read, where it does not.
    pub failure: Option<ReadFailure>,
}

/// Why a reader does not read.
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
