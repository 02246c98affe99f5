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
    /// The connection over which it waits for entries.
    pub connection: Option<ConnectionStatus>,
    /// The end of the stream at the last answer.
    pub source_last_id: Option<StreamId>,
    /// Entries after what it had read then; `None` where Redis does not count.
    pub lag_entries: Option<u64>,
    /// Why it cannot read; `None` while it can.
    pub failure: Option<ReadFailure>,
}

/// A connection of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// Its number among those to its server.
    pub number: u64,
    /// Whether other readers share it.
    pub is_shared: bool,
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
            connection: None,
            source_last_id: None,
            lag_entries: None,
            failure: None,
        }
    }
}
