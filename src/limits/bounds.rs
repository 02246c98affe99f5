//! What the configuration and the process' open files allow.

use crate::config;

/// Descriptors for listeners, logs, the runtime, publishing, and the operator's connections.
const OWN_DESCRIPTORS: usize = 128;
/// With room for fewer clients than this the gateway does not start.
const MIN_CLIENTS: usize = 16;
/// One in so many connections is kept for pending ones, however many clients there are.
const PENDING_PART: usize = 16;
/// Pending connections, where the configuration sets no limit: each may cost twice
/// `limits.header_bytes`.
const MAX_PENDING: usize = 1 << 14;

/// How much there may be of what is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub(super) max_clients: usize,
    /// Connections of clients, and pending ones.
    max_connections: usize,
    pub(super) config: config::Limits,
}

/// Too few open files are allowed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{descriptors} descriptors leave room for {clients} clients; raise the limit (LimitNOFILE=, ulimit -n) or lower limits.readers"
)]
pub struct TooFewDescriptors {
    descriptors: usize,
    clients: usize,
}

/// How open files are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// For listeners, logs and the runtime.
    pub own: usize,
    /// For readers and their shards.
    pub readers: usize,
    /// For connections: streams, and pending ones.
    pub connections: usize,
}

impl Division {
    /// Divides so many.
    pub fn of(config: &config::Limits, descriptors: usize) -> Self {
        // A stream key takes its reader's connection and its shard's epoll.
        let readers = config.readers.saturating_mul(2).min(descriptors / 4);
        let connections = descriptors.saturating_sub(OWN_DESCRIPTORS + readers);
        Self { own: OWN_DESCRIPTORS, readers, connections }
    }
}

impl Bounds {
    /// With `descriptors` open files allowed to the process.
    pub fn new(config: &config::Limits, descriptors: usize) -> Result<Self, TooFewDescriptors> {
        let Division { connections: max_connections, .. } = Division::of(config, descriptors);
        let room = max_connections - max_connections / PENDING_PART;
        if room < MIN_CLIENTS {
            return Err(TooFewDescriptors { descriptors, clients: room });
        }
        let max_clients = if config.clients == 0 { room } else { config.clients.min(room) };
        Ok(Self { max_clients, max_connections, config: config.clone() })
    }

    /// Streams in all.
    pub fn max_clients(&self) -> usize {
        self.max_clients
    }

    /// Pending connections beside so many streams.
    pub fn max_pending(&self, clients: usize) -> usize {
        let left = self.max_connections.saturating_sub(clients);
        let most = if self.config.pending == 0 { MAX_PENDING } else { self.config.pending };
        most.min(left)
    }

    /// Streams of one stream key; zero: no limit.
    pub fn max_clients_per_key(&self) -> usize {
        self.config.clients_per_key
    }

    /// Stream keys with a reader.
    pub fn max_readers(&self) -> usize {
        self.config.readers
    }
}
