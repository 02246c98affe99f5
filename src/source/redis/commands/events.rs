//! What fred tells of its connections, in the words of our log and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fred::clients::Client;
use fred::interfaces::EventInterface as _;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::outcome;
use crate::telemetry::throttle::LogThrottle;

/// How often the connections for commands were lost and opened again, all of them together.
#[derive(Default)]
pub(crate) struct CommandConnections {
    /// Connections that ended, or could not be opened again.
    errors: AtomicU64,
    reconnects: AtomicU64,
    /// Connections that were closed because the server left a command unanswered.
    unresponsive: AtomicU64,
    told: LogThrottle,
}

/// Reports what becomes of this client's connections, until the handle is dropped.
pub(super) fn watch(
    client: &Client,
    connections: Arc<CommandConnections>,
) -> AbortOnDropHandle<()> {
    let mut errors = client.error_rx();
    let mut reconnects = client.reconnect_rx();
    let mut unresponsive = client.unresponsive_rx();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::select! {
                error = errors.recv() => match error {
                    Ok((error, _)) => connections.failed(&error),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                server = reconnects.recv() => match server {
                    Ok(server) => connections.is_back(&server.to_string()),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                server = unresponsive.recv() => match server {
                    Ok(server) => connections.is_silent(&server.to_string()),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }))
}

impl CommandConnections {
    /// Each event, and how often it happened.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 3] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("error", count(&self.errors)),
            ("reconnect", count(&self.reconnects)),
            ("unresponsive", count(&self.unresponsive)),
        ]
    }

    fn failed(&self, error: &fred::error::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        if self.told.allows("failed") {
            let error = outcome::not_sent(error);
            warn!(%error, "a connection for commands to Redis was lost; what was published over it and not answered may have been added, and the gateway reconnects");
        }
    }

    fn is_back(&self, server: &str) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
        if self.told.allows("back") {
            info!(server, "a connection for commands to Redis is back");
        }
    }

    fn is_silent(&self, server: &str) {
        self.unresponsive.fetch_add(1, Ordering::Relaxed);
        if self.told.allows("silent") {
            warn!(
                server,
                "Redis left a command unanswered; the gateway closes that connection for commands and opens another"
            );
        }
    }
}
