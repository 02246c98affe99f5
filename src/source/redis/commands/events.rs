//! What fred tells of its connections, in the words of our log and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fred::clients::Client;
use fred::interfaces::EventInterface as _;
use fred::types::config::Server;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;
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

/// What fred tells of a connection.
enum Event {
    Failed(fred::error::Error),
    IsBack(Server),
    IsSilent(Server),
}

/// Reports what becomes of this client's connections, until the handle is dropped.
pub(super) fn watch(
    client: &Client,
    connections: Arc<CommandConnections>,
) -> AbortOnDropHandle<()> {
    // News that was missed is an error of the stream: there was more of it than anybody counts.
    let failed = BroadcastStream::new(client.error_rx()).filter_map(Result::ok);
    let is_back = BroadcastStream::new(client.reconnect_rx()).filter_map(Result::ok);
    let is_silent = BroadcastStream::new(client.unresponsive_rx()).filter_map(Result::ok);
    let mut events = failed
        .map(|(error, _)| Event::Failed(error))
        .merge(is_back.map(Event::IsBack))
        .merge(is_silent.map(Event::IsSilent));
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(event) = events.next().await {
            connections.tell(&event);
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

    /// A command was not answered in time.
    pub(super) fn unanswered(&self, server: &str) {
        self.unresponsive.fetch_add(1, Ordering::Relaxed);
        if self.told.allows("silent") {
            warn!(
                server,
                "Redis left a command unanswered; the gateway closes that connection for commands and opens another"
            );
        }
    }

    fn tell(&self, event: &Event) {
        match event {
            Event::Failed(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                if self.told.allows("failed") {
                    let error = outcome::not_sent(error);
                    warn!(%error, "a connection for commands to Redis was lost; what was published over it and not answered may have been added, and the gateway reconnects");
                }
            }
            Event::IsBack(server) => {
                self.reconnects.fetch_add(1, Ordering::Relaxed);
                if self.told.allows("back") {
                    info!(%server, "a connection for commands to Redis is back");
                }
            }
            Event::IsSilent(server) => self.unanswered(&server.to_string()),
        }
    }
}
