//! What every connection may use: the parts of the gateway, joined once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::fanout::{Fanout, Id};
use crate::http::tls::Certificates;
use crate::limits::{Limits, Pending, Reached, Whom};
use crate::metrics::{Metrics, Now};
use crate::reader::Readers;
use crate::sparingly::Sparingly;
use crate::topic::{Hub, Lease, Reader, TooManyReaders};

/// The parts of the gateway.
pub struct State {
    /// The configuration.
    pub config: Config,
    /// From topics to clients.
    pub fanout: Arc<Fanout>,
    /// All topics.
    pub hub: Arc<Hub>,
    /// Permits.
    pub limits: Arc<Limits>,
    /// Public connections that are no streams.
    pub pending: Arc<Pending>,
    /// The operator's connections.
    pub admin_pending: Arc<Pending>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Starts readers.
    pub readers: Arc<Readers>,
    /// What clients are shown where TLS is spoken.
    pub certificates: Option<Certificates>,
    /// Connections that hyper keeps while they have streams.
    pub hosted: TaskTracker,
    /// Whether the source answered when last asked.
    pub source_up: AtomicBool,
    /// Whether the source has ever answered.
    pub source_seen: AtomicBool,
    /// Which refusals the log has told of, by reason.
    pub refusals_told: Sparingly,
    /// So many came so far.
    pub(crate) connections: AtomicU64,
}

impl State {
    /// Holds the topic of `key` open, with a reader if it is new.
    pub fn topic(&self, key: &str, whom: &Whom) -> Result<Lease, Reached> {
        // Asked for in any case, given back at once where the topic is there already.
        let bounds = self.limits.bounds();
        let permit = self.limits.admit_reader(&bounds, whom);
        let known = self.hub.open_known(key);
        if let Some(lease) = known {
            return Ok(lease);
        }
        let all_taken = self.hub.readers() >= bounds.max_readers();
        let permit = if all_taken { Err(Reached("readers")) } else { permit }?;
        let start = |topic: &Arc<crate::topic::Topic>| {
            let (readers, topic) = (self.readers.clone(), topic.clone());
            tokio::spawn(async move { readers.run(topic, permit).await });
        };
        self.hub.open(key, start).map_err(|TooManyReaders| Reached("readers"))
    }

    /// Names a connection in the log.
    pub fn next_connection(&self) -> Id {
        Id { connection: self.connections.fetch_add(1, Ordering::Relaxed) + 1, stream: None }
    }

    /// Gauges and the like, read off now.
    pub fn now(&self) -> Now<'_> {
        let (mut last_poll, mut lag_entries) = (SystemTime::now(), 0);
        for topic in self.hub.all() {
            let state = topic.state();
            // Whoever waits for a key that cannot be read was sent away; that is told as an error.
            if !matches!(state.reader, Reader::Refused(_)) {
                last_poll = last_poll.min(state.polled);
                lag_entries = lag_entries.max(state.account.lag_entries.unwrap_or(0));
            }
        }
        Now {
            clients: self.limits.clients(),
            clients_limit: self.limits.bounds().max_clients(),
            pending: self.pending.count(),
            readers: self.hub.readers(),
            readers_limit: self.config.limits.readers,
            last_poll,
            lag_entries,
            buffered_bytes: self.hub.rings_bytes(),
            buffered_limit_bytes: self.config.ring.total_bytes,
            redis_connected: self.source_up.load(Ordering::Relaxed),
            redis_commands: self.readers.source.command_durations(),
        }
    }
}
