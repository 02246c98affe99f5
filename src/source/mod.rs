//! Where entries come from: Redis, or this process itself. Nothing here knows topics or clients.

use std::time::Duration;

use bytes::Bytes;

use crate::config::{Address, Config, SourceLocation};
use crate::sse::{Entry, StreamId};
use crate::telemetry::histogram::Histogram;

mod memory;
mod redis;

#[cfg(test)]
pub(crate) use memory::Others;

#[cfg(any(test, fuzzing))]
pub use redis::fuzz_reply as fuzz_redis_reply;
pub use redis::{LARGE_REPLIES, LOOK_BACK_BYTES, SHARED_LINKS};

/// A place that holds streams. Cheap to clone.
#[derive(Clone)]
pub enum Source {
    /// The embedded source.
    Memory(memory::Memory),
    /// Redis, one server or several.
    Redis(redis::Redis),
}

/// What one read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Entries after the asked id, in order.
    pub entries: Vec<Entry>,
    /// The stream as it was right after the read.
    pub seen: StreamState,
}

/// What is known of the stream right after a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// There is no such key.
    Missing,
    /// It is there.
    Stream(StreamInfo),
}

/// `XINFO STREAM`, as far as continuity needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StreamInfo {
    /// Entries in the stream.
    pub length: u64,
    /// The greatest id it ever gave.
    pub last_generated: StreamId,
    /// The first entry; `None` in an empty stream.
    pub first: Option<StreamId>,
    /// The last entry; `None` in an empty stream.
    pub last: Option<StreamId>,
    /// The greatest id deleted by `XDEL` (Redis 7; zero before).
    pub max_deleted: StreamId,
    /// Entries ever added (Redis 7).
    pub entries_added: Option<u64>,
}

/// One read: what is asked of a stream.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest<'a> {
    /// The stream key.
    pub key: &'a str,
    /// Only entries with greater ids.
    pub after: StreamId,
    /// At most so many.
    pub count: u64,
    /// A larger reply is given up ([`ErrorClass::TooLarge`]), unless it is about one entry. Redis alone.
    pub most_bytes: usize,
}

/// What Redis says in its first word where a stream key is at fault,
const KEY_CODES: [&str; 2] = ["WRONGTYPE", "NOPERM"];
/// where the login is,
const LOGIN_CODES: [&str; 3] = ["NOAUTH", "WRONGPASS", "DENIED"];
/// and where only time or another server helps.
const AWAY_CODES: [&str; 11] = [
    "MOVED",
    "ASK",
    "LOADING",
    "BUSY",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "UNBLOCKED",
    "READONLY",
    "MISCONF",
    "OOM",
];
/// Ours; the first stands for any other word of Redis'.
const OWN_CODES: [&str; 10] = [
    "ERR", "IO", "TIMEOUT", "TLS", "PROTOCOL", "TOOLARGE", "FAILOVER", "LAGGING", "SENTINEL",
    "FULL",
];

/// Every code of an [`Error`], for metrics that start at zero.
pub fn codes() -> impl Iterator<Item = &'static str> {
    [&KEY_CODES[..], &LOGIN_CODES, &AWAY_CODES, &OWN_CODES].concat().into_iter()
}

/// Connections to one server that take turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Where they lead.
    pub server: Address,
    /// Those that wait for an answer, or are being opened.
    pub in_use: usize,
    /// Those that do not.
    pub idle: usize,
}

/// Why the source did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// What to do about it.
    pub class: ErrorClass,
    /// One of [`codes`].
    pub code: &'static str,
    /// For the operator.
    pub message: String,
}

/// What to do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The source is away or busy: try again soon.
    Away,
    /// This key cannot be read: close its clients, look again slowly.
    Key,
    /// We are not let in: nothing helps but the operator.
    Login,
    /// The reply would have been larger than it may be: ask for fewer entries.
    TooLarge,
}

/// What goes to Redis is boxed: its futures are large, and there may be one per client.
impl Source {
    /// Opens what the configuration names; does not connect yet.
    pub fn open(config: &Config) -> Self {
        match config.source.location {
            SourceLocation::Memory => Self::Memory(memory::Memory::new(&config.ring)),
            SourceLocation::Server { .. }
            | SourceLocation::Sentinel { .. }
            | SourceLocation::Cluster { .. } => Self::Redis(redis::Redis::new(config)),
        }
    }

    /// Others have `key` from now on, and leave it so before each command.
    #[cfg(test)]
    pub(crate) fn leave_to(&self, key: &str, others: Others) {
        let Self::Memory(memory) = self else { panic!("the embedded source alone can be left") };
        memory.leave_to(key, others);
    }

    /// A connection for one reader of `key` alone.
    pub async fn connect(&self, key: &str) -> Result<Connection, Error> {
        match self {
            Self::Memory(memory) => Ok(Connection::Memory(memory.clone())),
            Self::Redis(redis) => {
                Ok(Connection::Redis(Box::new(Box::pin(redis.connect(key)).await?)))
            }
        }
    }

    /// Returns once another server is to be read from than was before: what failed may work now.
    pub async fn moved(&self) {
        match self {
            Self::Memory(_) => std::future::pending().await,
            Self::Redis(redis) => redis.moved().await,
        }
    }

    /// What the primary says of the stream, once the server that is read from has caught up with that;
    /// `None`: that server is the primary.
    ///
    /// A replica that lags looks like a stream that began anew. What it says is believed only after
    /// this. An error (it does not catch up within `patience`, or nobody can ask the primary): nothing
    /// is known, ask again.
    pub async fn primary_says(
        &self,
        key: &str,
        patience: Duration,
    ) -> Result<Option<StreamState>, Error> {
        match self {
            Self::Memory(_) => Ok(None),
            Self::Redis(redis) => Box::pin(redis.primary_says_of(key, patience)).await,
        }
    }

    /// Reads without waiting, over the shared connection.
    pub async fn read(&self, ask: ReadRequest<'_>) -> Result<Reply, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.read(ask)),
            Self::Redis(redis) => Box::pin(redis.read(ask)).await,
        }
    }

    /// The stream itself; `None`: there is no such key.
    pub async fn info(&self, key: &str) -> Result<Option<StreamInfo>, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.info(key)),
            Self::Redis(redis) => Box::pin(redis.info(key)).await,
        }
    }

    /// Whether there is an entry with this id, or with the next greater one.
    pub async fn holds(&self, key: &str, id: StreamId) -> Result<bool, Error> {
        let next = id.next().unwrap_or(id);
        match self {
            Self::Memory(memory) => Ok(memory.holds(key, id, next)),
            Self::Redis(redis) => Box::pin(redis.holds(key, id, next)).await,
        }
    }

    /// Up to `count` entries before `before`, newest first; `None`: from the newest on.
    pub async fn newest(
        &self,
        key: &str,
        before: Option<StreamId>,
        count: u64,
    ) -> Result<Vec<Entry>, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.newest(key, before, count)),
            Self::Redis(redis) => Box::pin(redis.newest(key, before, count)).await,
        }
    }

    /// Adds an entry with one field, `payload`.
    pub async fn publish(&self, key: &str, payload: Bytes) -> Result<StreamId, Error> {
        match self {
            Self::Memory(memory) => memory.publish(key, payload),
            Self::Redis(redis) => Box::pin(redis.publish(key, payload)).await,
        }
    }

    /// How long Redis takes to answer; `None`: there is no Redis.
    pub fn command_durations(&self) -> Option<&Histogram> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(redis) => Some(redis.command_durations()),
        }
    }

    /// Connections for everything but readers, by server.
    pub fn links(&self) -> Vec<PoolStatus> {
        match self {
            Self::Memory(_) => Vec::new(),
            Self::Redis(redis) => redis.links(),
        }
    }

    /// Whether the source answers.
    pub async fn ping(&self) -> Result<(), Error> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => Box::pin(redis.ping()).await,
        }
    }
}

/// A connection for one reader alone; dropping it closes it.
pub enum Connection {
    /// The embedded source.
    Memory(memory::Memory),
    /// A Redis server.
    Redis(Box<redis::ReaderConnection>),
}

impl Connection {
    /// Reads, waiting up to `block` for an entry. Silence well past `block` is an error, and the
    /// connection is then dead: drop it.
    pub async fn read(&mut self, ask: ReadRequest<'_>, block: Duration) -> Result<Reply, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.read_blocking(ask, block).await),
            Self::Redis(reader) => reader.read(ask, block).await,
        }
    }

    /// The stream itself; `None`: there is no such key.
    pub async fn info(&mut self, key: &str) -> Result<Option<StreamInfo>, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.info(key)),
            Self::Redis(reader) => reader.info(key).await,
        }
    }

    /// The last reply is no longer in memory. Whoever waits for anything but the next reply says so
    /// before: others that have large ones may wait for that.
    pub fn release_permit(&mut self) {
        match self {
            Self::Memory(_) => {}
            Self::Redis(reader) => reader.release_permit(),
        }
    }

    /// Where it leads; `None`: nowhere, the source is in this process.
    pub fn server(&self) -> Option<&Address> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(reader) => Some(reader.server()),
        }
    }

    /// Whether what is read here still comes from a primary; to be asked where a read found nothing new.
    /// A replica that has lost its own answers on as if all were well.
    pub async fn hears_primary(&mut self) -> Result<(), Error> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(reader) => Box::pin(reader.hears_primary()).await,
        }
    }

    /// Holds against the server what was found about its answers: another one is read from, if there is.
    pub fn report_lagging(&self, error: &Error) {
        if let Self::Redis(reader) = self {
            reader.report_lagging(error);
        }
    }

    /// As [`Source::primary_says`], for the server that this connection is to.
    pub async fn primary_says(
        &self,
        key: &str,
        patience: Duration,
    ) -> Result<Option<StreamState>, Error> {
        match self {
            Self::Memory(_) => Ok(None),
            Self::Redis(reader) => Box::pin(reader.primary_says(key, patience)).await,
        }
    }
}
