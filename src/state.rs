//! What every connection may use: the parts of the gateway, joined once.

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
use crate::stream::{Hub, Lease, ReaderState, TooManyReaders};
use crate::telemetry::metrics::{Gauges, Metrics};
use crate::telemetry::throttle::LogThrottle;

/// What one configuration comes to. A reload exchanges all of it at once, and a request is decided by
/// one from its beginning to its end.
pub struct Serving {
    /// The configuration itself.
    pub config: Arc<Config>,
    /// The numbers that its routes are counted by, in its order.
    pub routes: Vec<u16>,
    /// Who may read what.
    pub gate: Gate,
    /// What clients are shown where TLS is spoken.
    pub certificates: Option<Certificates>,
    /// How much there may be of what is limited.
    pub bounds: Arc<Bounds>,
    /// How packs and catch-up subscribers behave.
    pub settings: Arc<Settings>,
}

/// The parts of the gateway.
pub struct State {
    pub(crate) serving: ArcSwap<Serving>,
    /// From topics to clients.
    pub fanout: Arc<Fanout>,
    /// All topics.
    pub hub: Arc<Hub>,
    /// What each stream was let in by.
    pub grants: Arc<Grants>,
    /// Permits.
    pub limits: Arc<Limits>,
    /// Public connections that are no streams.
    pub pending: Arc<Pending>,
    /// Told when the operator's token is another one.
    pub admin_recheck: Notify,
    /// The operator's connections.
    pub admin_pending: Arc<Pending>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Starts readers.
    pub readers: Arc<Readers>,
    /// Connections that hyper keeps while they have streams.
    pub hosted: TaskTracker,
    /// Whether the source answered when last asked.
    pub source_up: AtomicBool,
    /// Whether the source has ever answered.
    pub source_seen: AtomicBool,
    /// Whether the configuration was refused when it was last read: a restart would fail.
    pub reload_refused: AtomicBool,
    /// Which refusals the log has told of, by reason.
    pub refusals_told: LogThrottle,
    /// So many came so far.
    pub(crate) connections: AtomicU64,
}

impl State {
    /// What requests are decided by now.
    pub fn serving(&self) -> Arc<Serving> {
        self.serving.load_full()
    }

    /// The configuration that holds now.
    pub fn config(&self) -> Arc<Config> {
        self.serving.load().config.clone()
    }

    /// Holds the topic of `key` open, with a reader if it is new.
    pub fn topic(
        &self,
        bounds: &Bounds,
        key: &str,
        identity: &ClientIdentity,
    ) -> Result<Lease, LimitExceeded> {
        // Asked for in any case, given back at once where the topic is there already.
        let permit = self.limits.admit_reader(bounds, identity);
        let known = self.hub.open_known(key);
        if let Some(lease) = known {
            return Ok(lease);
        }
        let all_taken = self.hub.readers() >= bounds.max_readers();
        let permit = if all_taken { Err(LimitExceeded("readers")) } else { permit }?;
        let start = |topic: &Arc<crate::stream::Topic>| {
            let (readers, topic) = (self.readers.clone(), topic.clone());
            tokio::spawn(async move { readers.run(topic, permit).await });
        };
        self.hub.open(key, start).map_err(|TooManyReaders| LimitExceeded("readers"))
    }

    /// Names a connection in the log.
    pub fn next_connection(&self) -> LogId {
        LogId { connection: self.connections.fetch_add(1, Ordering::Relaxed) + 1, stream: None }
    }

    /// Gauges and the like, read off now.
    pub fn now(&self) -> Gauges<'_> {
        let (mut last_poll, mut lag_entries) = (SystemTime::now(), 0);
        for topic in self.hub.all() {
            let state = topic.state();
            // Whoever waits for a key that cannot be read was sent away; that is told as an error.
            if !matches!(state.reader, ReaderState::Refused(_)) {
                last_poll = last_poll.min(state.polled);
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
        }
    }
}
