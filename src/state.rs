//! The parts of the gateway, joined once: every connection shares them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::auth::Gate;
use crate::auth::grant::Grants;
use crate::config::Config;
use crate::fanout::{Fanout, LogId, Settings};
use crate::limits::{Bounds, ClientIdentity, LimitExceeded, Limits, Pending};
use crate::net::certificates::Certificates;
use crate::stream::reader::Readers;
use crate::stream::{Hub, Lease, ReaderState, TooManyReaders, Topic};
use crate::telemetry::metrics::{Gauges, Metrics};
use crate::telemetry::throttle::LogThrottle;

/// One configuration, ready to serve requests. A reload replaces all of it at once, and each request is
/// decided by one from its beginning to its end.
pub struct Serving {
    /// The configuration itself.
    pub config: Arc<Config>,
    /// The number of each of its routes in the metrics, in its order.
    pub routes: Vec<u16>,
    /// Who may read what.
    pub gate: Gate,
    /// What clients are shown where TLS is spoken.
    pub certificates: Option<Certificates>,
    /// The limits, as this machine allows them.
    pub bounds: Arc<Bounds>,
    /// How shards and catch-up subscribers behave.
    pub settings: Arc<Settings>,
}

/// The parts of the gateway.
pub struct State {
    pub(crate) serving: ArcSwap<Serving>,
    /// From topics to subscribers.
    pub fanout: Arc<Fanout>,
    /// All topics.
    pub hub: Arc<Hub>,
    /// What each stream was admitted by.
    pub grants: Arc<Grants>,
    /// Counts what is limited.
    pub limits: Arc<Limits>,
    /// Public connections that are no streams yet.
    pub pending: Arc<Pending>,
    /// Notified when a reload changes the operator's token.
    pub admin_recheck: Notify,
    /// The operator's connections.
    pub admin_pending: Arc<Pending>,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Starts readers.
    pub readers: Arc<Readers>,
    /// Connections that hyper keeps because they have, or had, streams.
    pub hosted: TaskTracker,
    /// Whether the source answered the last probe.
    pub source_up: AtomicBool,
    /// Whether the source has ever answered.
    pub source_seen: AtomicBool,
    /// Whether the last reload was rejected: a restart would fail.
    pub reload_rejected: AtomicBool,
    /// Limits the log lines about refused clients.
    pub refusals_told: LogThrottle,
    /// Connections so far.
    pub(crate) connections: AtomicU64,
}

impl State {
    /// What new requests are decided by.
    pub fn serving(&self) -> Arc<Serving> {
        self.serving.load_full()
    }

    /// The configuration in use.
    pub fn config(&self) -> Arc<Config> {
        self.serving.load().config.clone()
    }

    /// Opens the topic of `key`; a new one gets a reader.
    pub fn topic(
        &self,
        bounds: &Bounds,
        key: &str,
        identity: &ClientIdentity,
    ) -> Result<Lease, LimitExceeded> {
        // Taken before the look, and given back at once if the topic is open already.
        let permit = self.limits.admit_reader(bounds, identity);
        if let Some(lease) = self.hub.open_known(key) {
            return Ok(lease);
        }
        // The limit of all readers is named first: the client's own would mislead the operator.
        if self.hub.readers() >= bounds.max_readers() {
            return Err(LimitExceeded("readers"));
        }
        let permit = permit?;
        let start = |topic: &Arc<Topic>| {
            let (readers, topic) = (self.readers.clone(), topic.clone());
            tokio::spawn(async move {
                readers.run(&topic).await;
                drop(permit);
            });
        };
        self.hub.open(key, start).map_err(|TooManyReaders| LimitExceeded("readers"))
    }

    /// The log's number for the next connection.
    pub fn next_connection(&self) -> LogId {
        LogId { connection: self.connections.fetch_add(1, Ordering::Relaxed) + 1, stream: None }
    }

    /// The gauges, read now.
    pub fn gauges(&self) -> Gauges<'_> {
        let (mut last_poll, mut lag_entries) = (SystemTime::now(), 0);
        for topic in self.hub.all() {
            let state = topic.state();
            // A key that cannot be read has no clients left; `ssegate_reader_errors_total` counts it.
            if !matches!(state.reader, ReaderState::Refused(_)) {
                last_poll = last_poll.min(state.last_answer);
                lag_entries = lag_entries.max(state.status.lag_entries.unwrap_or(0));
            }
        }
        let Serving { config, bounds, .. } = &**self.serving.load();
        Gauges {
            clients: self.limits.clients(),
            clients_limit: bounds.max_clients(),
            pending: self.pending.count(),
            readers: self.hub.readers(),
            readers_limit: bounds.max_readers(),
            last_poll,
            lag_entries,
            buffered_bytes: self.hub.rings_bytes(),
            buffered_limit_bytes: config.ring.total_bytes,
            redis_connected: self.source_up.load(Ordering::Relaxed),
            redis_commands: self.readers.source.command_durations(),
            redis_connections: self.readers.source.connections(),
            shared_reads: self.readers.source.shared_reads(),
            command_connections: self.readers.source.command_connections(),
        }
    }
}
