//! Redis, one server or several, in two halves (docs/decisions/0025-fred-for-commands.md).
//!
//! - [`tail`]: what streams depend on, over links of our own: bounded replies, two answers of one moment.
//! - [`commands`]: everything else, over fred.
//! - [`refusal`]: what Redis refuses, for both.

use std::sync::Arc;

use super::{Addition, WriteError};
use crate::config::Config;
use crate::sse::StreamId;

pub(super) mod commands;
mod refusal;
pub(super) mod tail;

pub use commands::COMMAND_CONNECTIONS;
pub(super) use refusal::is_command_denied;
#[cfg(any(test, fuzzing))]
pub use tail::fuzz_reply;
pub use tail::{LARGE_REPLIES, LOOK_BACK_BYTES, SHARED_LINKS};

/// A Redis server, or several. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    pub(super) tail: tail::Tail,
    pub(super) commands: Arc<commands::Commands>,
}

impl Redis {
    /// Adds entries, once at most.
    pub(super) async fn publish(
        &self,
        addition: &Addition<'_>,
    ) -> Result<Vec<StreamId>, WriteError> {
        let primary = self.tail.named_primary();
        self.commands.publish(addition, primary.as_ref()).await
    }

    /// Does not connect yet.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            tail: tail::Tail::new(config),
            commands: Arc::new(commands::Commands::new(&config.source)),
        }
    }
}
