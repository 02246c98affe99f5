//! What the configuration and the process' open files allow.

use crate::config::{self, Config};

/// Descriptors for listeners, logs, the runtime, publishing, and the operator's connections;
const OWN_DESCRIPTORS: usize = 128;
/// for this many workers as well,
const OWN_WORKERS: usize = 8;
/// and for each further one: its `io_uring`, and the epoll of its clients of several streams.
const WORKER_DESCRIPTORS: usize = 2;
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
    /// For readers' connections, and for epolls.
    pub readers: usize,
    /// Connections that the readers may want.
    pub reader_connections: usize,
    /// Epolls that shards may want.
    epolls_wanted: usize,
    /// For connections: streams, and pending ones.
    pub connections: usize,
}

impl Division {
    /// Divides so many.
    pub fn of(config: &Config, descriptors: usize) -> Self {
        let reader_connections = config.source.reader_connections(config.limits.readers);
        let epolls_wanted = most_epolls(config);
        let readers = reader_connections.saturating_add(epolls_wanted).min(descriptors / 4);
        let further_workers = config.server.workers.saturating_sub(OWN_WORKERS);
        let own = OWN_DESCRIPTORS + WORKER_DESCRIPTORS * further_workers;
        let connections = descriptors.saturating_sub(own + readers);
        Self { own, readers, reader_connections, epolls_wanted, connections }
    }

    /// Connections for which the readers' part is too small, so few are there.
    pub fn too_few_connections(&self) -> Option<usize> {
        (self.reader_connections > self.readers).then_some(self.readers)
    }

    /// Epolls for which there is room.
    pub fn epolls(&self) -> usize {
        self.readers.saturating_sub(self.reader_connections)
    }

    /// Epolls for which there is room, where more may be wanted.
    pub fn too_few_epolls(&self) -> Option<usize> {
        (self.epolls_wanted > self.epolls()).then_some(self.epolls())
    }
}

/// Epolls that there may be at once. A shard has one from its second client on, until its last one leaves: no more than
/// there are clients, nor than there are shards. A key has a shard for those that get everything, and one for those that
/// get only some entries. Further shards of a key have 256 clients each: they fit into what is kept for pending
/// connections. Those of clients of several streams are the gateway's own, for each worker has one.
fn most_epolls(config: &Config) -> usize {
    let config::Limits { clients, readers, .. } = config.limits;
    let selects = config.routes.iter().any(|route| !route.rows.columns.is_empty());
    let shards = readers.saturating_mul(1 + usize::from(selects));
    if clients == 0 { shards } else { shards.min(clients) }
}

impl Bounds {
    /// With `descriptors` open files allowed to the process.
    pub fn new(config: &Config, descriptors: usize) -> Result<Self, TooFewDescriptors> {
        let Division { connections: max_connections, .. } = Division::of(config, descriptors);
        let room = max_connections - max_connections / PENDING_PART;
        if room < MIN_CLIENTS {
            return Err(TooFewDescriptors { descriptors, clients: room });
        }
        let config = config.limits.clone();
        let max_clients = if config.clients == 0 { room } else { config.clients.min(room) };
        Ok(Self { max_clients, max_connections, config })
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

    /// Distinct selections of entries that the clients of one stream key have.
    pub fn max_selections_per_key(&self) -> usize {
        self.config.selections_per_key
    }

    /// Stream keys with a reader.
    pub fn max_readers(&self) -> usize {
        self.config.readers
    }
}
