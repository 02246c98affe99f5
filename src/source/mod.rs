//! Where entries come from: Redis, or streams in this process. Nothing here knows topics or subscribers.

use std::time::{Duration, Instant};

use crate::config::{Address, Config, SourceLocation};
use crate::sse::{Entry, State, StreamId};
use crate::telemetry::histogram::Histogram;

mod addition;
mod connection;
mod memory;
mod redis;
mod state;

#[cfg(test)]
pub(crate) use memory::Others;

pub use addition::{Addition, Fields, Once, WriteError};
pub use connection::Connection;
use redis::commands::CommandConnections;
pub use redis::commands::{Answer, Inspector, ServerKind};
#[cfg(any(test, fuzzing))]
pub use redis::fuzz_reply as fuzz_redis_reply;
use redis::tail::ReaderLink;
pub use redis::{COMMAND_CONNECTIONS, LARGE_REPLIES, LOOK_BACK_BYTES, SHARED_LINKS};
pub use state::{StateKind, StateSize};

/// What holds the streams. Cheap to clone.
#[derive(Clone)]
pub enum Source {
    /// The embedded source: this process.
    Memory(memory::Memory),
    /// Redis, one server or several.
    Redis(redis::Redis),
}

/// What one read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The entries after the id in the request, in order.
    pub entries: Vec<Entry>,
    /// The stream right after the read.
    pub seen: StreamState,
}

/// The state of a stream key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// There is no such key.
    Missing,
    /// The same, and there was one since the last look.
    Gone,
    /// The key holds this stream.
    Stream(StreamInfo),
    /// Nobody looked.
    Unseen,
}

/// What continuity needs of `XINFO STREAM`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StreamInfo {
    /// Entries in the stream.
    pub length: u64,
    /// The greatest id that it ever generated.
    pub last_generated: StreamId,
    /// The id of the first entry; `None`: the stream is empty.
    pub first: Option<StreamId>,
    /// The id of the last entry; `None`: the stream is empty.
    pub last: Option<StreamId>,
    /// The greatest id that `XDEL` deleted (zero before Redis 7).
    pub max_deleted: StreamId,
    /// The number of entries ever added (from Redis 7 on).
    pub entries_added: Option<u64>,
    /// Entries may have been trimmed from the middle, of which nothing else tells: `XTRIM … ACKED` and `XADD …
    /// ACKED` of Redis 8.2 remove what every consumer group has acknowledged, wherever it is.
    pub may_have_holes: bool,
}

/// What to read of a stream.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest<'a> {
    /// The stream key.
    pub key: &'a str,
    /// Read entries with greater ids than this.
    pub after: StreamId,
    /// At most so many entries.
    pub count: u64,
    /// A reply that takes more memory is abandoned ([`ErrorClass::TooLarge`]), unless it is about one entry.
    /// Only Redis has this limit.
    pub most_bytes: usize,
}

/// The first word of an error of Redis: here the stream key is at fault,
const KEY_CODES: [&str; 2] = ["WRONGTYPE", "NOPERM"];
/// here the login,
const LOGIN_CODES: [&str; 3] = ["NOAUTH", "WRONGPASS", "DENIED"];
/// and here only time or another server helps.
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
/// Codes of our own; the first one stands for any other word of Redis.
const OWN_CODES: [&str; 10] = [
    "ERR", "IO", "TIMEOUT", "TLS", "PROTOCOL", "TOOLARGE", "FAILOVER", "LAGGING", "SENTINEL",
    "FULL",
];

/// Every code that an [`Error`] may have, so that its metrics can start at zero.
pub fn codes() -> impl Iterator<Item = &'static str> {
    [&KEY_CODES[..], &LOGIN_CODES, &AWAY_CODES, &OWN_CODES].concat().into_iter()
}

/// The shared connections (links) to one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// The server's address.
    pub server: Address,
    /// Links that wait for an answer, or are being opened.
    pub in_use: usize,
    /// Open links that wait for the next command.
    pub idle: usize,
}

/// Why a request to the source failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// What the caller can do about it.
    pub class: ErrorClass,
    /// One of [`codes`].
    pub code: &'static str,
    /// For the operator.
    pub message: String,
}

impl Error {
    /// Whether Redis denies this user the command, and not the key.
    pub fn is_command_denied(&self) -> bool {
        self.code == "NOPERM" && redis::is_command_denied(&self.message)
    }
}

/// What to do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The source cannot be reached, or is busy: try again soon.
    Away,
    /// This key cannot be read: disconnect its subscribers, try again slowly.
    Key,
    /// Redis refuses the login or the connection: only the operator can help.
    Login,
    /// The reply was over its limit: ask for fewer entries.
    TooLarge,
}

/// The futures of Redis are large, and each subscriber may have one: they are boxed.
impl Source {
    /// Opens the source that the configuration names; does not connect yet.
    pub fn open(config: &Config) -> Self {
        match config.source.location {
            SourceLocation::Memory => Self::Memory(memory::Memory::new(&config.ring)),
            SourceLocation::Server { .. }
            | SourceLocation::Sentinel { .. }
            | SourceLocation::Cluster { .. } => Self::Redis(redis::Redis::new(config)),
        }
    }

    /// Before each command from now on, other clients leave the stream `key` as `others` returns it.
    #[cfg(test)]
    pub(crate) fn leave_to(&self, key: &str, others: Others) {
        let Self::Memory(memory) = self else {
            panic!("only the embedded source can be left to others")
        };
        memory.leave_to(key, others);
    }

    /// Opens a connection for the reader of `key`. `was_lost`: it had one before.
    pub async fn connect(&self, key: &str, was_lost: bool) -> Result<Connection, Error> {
        match self {
            Self::Memory(memory) => Ok(Connection::Memory(memory.clone())),
            Self::Redis(redis) => {
                let opening = redis::tail::connect(redis.tail.clone(), key, was_lost);
                Ok(match Box::pin(opening).await? {
                    ReaderLink::Own(reader) => Connection::Redis(reader),
                    ReaderLink::Shared(reader) => Connection::Shared(reader),
                })
            }
        }
    }

    /// Returns once another server is to be read from than before: what failed may work now.
    pub async fn server_changed(&self) {
        match self {
            Self::Memory(_) => std::future::pending().await,
            Self::Redis(redis) => redis.tail.server_changed().await,
        }
    }

    /// What the primary says of the stream, once the server that is read from has caught up with it; `None`:
    /// that server is the primary itself.
    ///
    /// A replica that lags looks like a stream that was recreated, so a reset is believed only after this. An
    /// error means that nothing is known: the replica did not catch up within `patience`, or the primary
    /// cannot be asked.
    pub async fn primary_snapshot(
        &self,
        key: &str,
        patience: Duration,
    ) -> Result<Option<StreamState>, Error> {
        match self {
            Self::Memory(_) => Ok(None),
            Self::Redis(redis) => Box::pin(redis.tail.primary_snapshot(key, patience)).await,
        }
    }

    /// Reads without blocking, over a shared connection.
    pub async fn read(&self, ask: ReadRequest<'_>) -> Result<Reply, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.read(ask)),
            Self::Redis(redis) => Box::pin(redis.tail.read(ask)).await,
        }
    }

    /// The state of the stream; `None`: there is no such key.
    pub async fn info(&self, key: &str) -> Result<Option<StreamInfo>, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.info(key)),
            Self::Redis(redis) => Box::pin(redis.tail.info(key)).await,
        }
    }

    /// Whether the stream holds an entry with this id or the next greater one.
    pub async fn holds(&self, key: &str, id: StreamId) -> Result<bool, Error> {
        let next = id.next().unwrap_or(id);
        match self {
            Self::Memory(memory) => Ok(memory.holds(key, id, next)),
            Self::Redis(redis) => Box::pin(redis.tail.holds(key, id, next)).await,
        }
    }

    /// Up to `count` entries before `before` (`None`: up to the newest), newest first.
    pub async fn newest(
        &self,
        key: &str,
        before: Option<StreamId>,
        count: u64,
    ) -> Result<Vec<Entry>, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.newest(key, before, count)),
            Self::Redis(redis) => Box::pin(redis.tail.newest(key, before, count)).await,
        }
    }

    /// How large the state in `key` is.
    pub async fn state_size(&self, key: &str) -> Result<StateSize, Error> {
        match self {
            Self::Memory(_) => {
                Ok(StateSize { kind: StateKind::Missing, text_bytes: 0, memory_bytes: 0 })
            }
            Self::Redis(redis) => Box::pin(redis.tail.state_size(key)).await,
        }
    }

    /// The state in `key`, which is of this kind, and the stream `stream` at the same moment (`None`: there is no such
    /// key). Fails with `TOOLARGE` if the two take more than `most_bytes` of memory, and with `WRONGTYPE` if the key
    /// is of another kind by now. The embedded source has no states.
    pub async fn state(
        &self,
        key: &str,
        kind: StateKind,
        stream: &str,
        most_bytes: usize,
    ) -> Result<(State, Option<StreamInfo>), Error> {
        match self {
            Self::Memory(memory) => Ok((State::Missing, memory.info(stream))),
            Self::Redis(redis) => Box::pin(redis.tail.state(key, kind, stream, most_bytes)).await,
        }
    }

    /// Adds entries, once at most; their ids.
    pub async fn publish(&self, addition: &Addition<'_>) -> Result<Vec<StreamId>, WriteError> {
        match self {
            Self::Memory(memory) => memory.publish(addition),
            Self::Redis(redis) => {
                let asked = Instant::now();
                let outcome = Box::pin(redis.publish(addition)).await;
                redis.tail.command_durations().observe(asked.elapsed(), 1);
                outcome
            }
        }
    }

    /// What became of the connections for commands: each event, and how often it happened.
    pub fn command_connections(&self) -> [(&'static str, u64); 3] {
        match self {
            Self::Memory(_) => CommandConnections::default().counts(),
            Self::Redis(redis) => redis.commands.connections().counts(),
        }
    }

    /// Open connections to Redis, by what they are used for. Those for publishing are not among them.
    pub fn connections(&self) -> [(&'static str, usize); 4] {
        match self {
            Self::Memory(_) => ["reader", "shared", "reading", "link"].map(|used| (used, 0)),
            Self::Redis(redis) => redis.tail.connections(),
        }
    }

    /// How often a connection that streams share had news of some.
    pub fn shared_reads(&self) -> u64 {
        match self {
            Self::Memory(_) => 0,
            Self::Redis(redis) => redis.tail.shared_reads(),
        }
    }

    /// How long Redis takes to answer; `None`: the source is embedded.
    pub fn command_durations(&self) -> Option<&Histogram> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(redis) => Some(redis.tail.command_durations()),
        }
    }

    /// The shared connections, by server.
    pub fn links(&self) -> Vec<PoolStatus> {
        match self {
            Self::Memory(_) => Vec::new(),
            Self::Redis(redis) => redis.tail.links(),
        }
    }

    /// Fails unless the source answers; and, unless that was shown (`is_shown`), does what readers need.
    pub async fn check(&self, is_shown: bool) -> Result<(), Error> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => Box::pin(redis.tail.check(is_shown)).await,
        }
    }
}
