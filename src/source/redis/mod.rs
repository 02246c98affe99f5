//! Redis: what is asked of it, over a connection for each reader and a few for everything else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{Error, PoolStatus, ReadRequest, Reply, StreamInfo, StreamState};
use crate::config::{Config, ReadFrom, SourceLocation};
use crate::sse::{Entry, StreamId};
use crate::telemetry::histogram::{Histogram, WORK_SECONDS};

mod client;
mod pool;
mod reader;
mod replication;
mod topology;

pub use pool::SHARED_LINKS;
pub(super) use reader::ReaderConnection;

use client::replies::{answered, entries, sole, stream_id, stream_info};
use client::request::{Request, read_reply};
use client::resp::Value;
use client::{ANSWER_TIMEOUT, Login, READ_TIMEOUT, in_time};
use pool::Pool;
use replication::Orphans;
use topology::{Node, Purpose, Servers};

/// Large replies to readers that are in memory at once, each up to twice what a reader asks for.
pub const LARGE_REPLIES: usize = 4;
/// A look back at the newest entries may be answered with so much.
pub const LOOK_BACK_BYTES: usize = 4 << 20;
/// From one node of a cluster to the next, and no further.
const MOST_REDIRECTIONS: usize = 4;

/// A Redis server, or several. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    parts: Arc<Parts>,
}

struct Parts {
    servers: Servers,
    pool: Pool,
    read_from: ReadFrom,
    orphans: Orphans,
    /// `XADD … MAXLEN ~` of what we publish.
    publish_keep: usize,
    large_replies: Arc<Semaphore>,
    /// Of everything but readers.
    command_durations: Histogram,
}

impl Redis {
    pub(super) fn new(config: &Config) -> Self {
        let source = &config.source;
        let database = match source.location {
            SourceLocation::Server { database, .. } | SourceLocation::Sentinel { database, .. } => {
                database
            }
            SourceLocation::Memory | SourceLocation::Cluster { .. } => 0,
        };
        let is_cluster = matches!(source.location, SourceLocation::Cluster { .. });
        let login = Login {
            tls: source.tls.clone(),
            username: source.username.clone(),
            password: source.password.clone(),
            database,
            readonly: is_cluster && source.read_from == ReadFrom::Replica,
        };
        let parts = Parts {
            servers: Servers::new(source, &login),
            pool: Pool::new(login),
            read_from: source.read_from,
            orphans: Orphans::default(),
            publish_keep: config.ring.entries,
            large_replies: Arc::new(Semaphore::new(LARGE_REPLIES)),
            command_durations: Histogram::new(WORK_SECONDS),
        };
        Self { parts: Arc::new(parts) }
    }

    fn servers(&self) -> &Servers {
        &self.parts.servers
    }

    fn pool(&self) -> &Pool {
        &self.parts.pool
    }

    fn orphans(&self) -> &Orphans {
        &self.parts.orphans
    }

    fn read_from(&self) -> ReadFrom {
        self.parts.read_from
    }

    /// A connection of its own for a reader of `key`.
    pub(super) async fn connect(&self, key: &str) -> Result<ReaderConnection, Error> {
        ReaderConnection::open(self.clone(), key).await
    }

    /// Returns once another server is named than was before.
    pub(super) async fn moved(&self) {
        self.servers().moved().await;
    }

    pub(super) async fn read(&self, ask: ReadRequest<'_>) -> Result<Reply, Error> {
        let request = Request::read(ask, None);
        read_reply(ask, self.reading(ask.key, READ_TIMEOUT, "XREAD", &request).await?)
    }

    pub(super) async fn info(&self, key: &str) -> Result<Option<StreamInfo>, Error> {
        stream_info(self.command(key, ANSWER_TIMEOUT, &["XINFO", "STREAM", key]).await?)
    }

    pub(super) async fn holds(
        &self,
        key: &str,
        from: StreamId,
        to: StreamId,
    ) -> Result<bool, Error> {
        let (from, to) = (from.to_string(), to.to_string());
        let words = ["XRANGE", key, &from, &to, "COUNT", "1"];
        Ok(!entries(answered(self.command(key, READ_TIMEOUT, &words).await?)?)?.is_empty())
    }

    pub(super) async fn newest(
        &self,
        key: &str,
        before: Option<StreamId>,
        count: u64,
    ) -> Result<Vec<Entry>, Error> {
        let end = match before {
            Some(StreamId::ZERO) => return Ok(Vec::new()),
            Some(id) => id.prev().to_string(),
            None => "+".into(),
        };
        let count_word = count.to_string();
        let words = ["XREVRANGE", key, &end, "-", "COUNT", &count_word].map(str::as_bytes);
        let most_bytes = if count > 1 { LOOK_BACK_BYTES } else { usize::MAX };
        let request = Request::new(&words).with_answers_within(most_bytes);
        entries(answered(sole(self.reading(key, READ_TIMEOUT, "XREVRANGE", &request).await?)?)?)
    }

    /// What the primary says of the stream, where others are read from.
    pub(super) async fn primary_says_of(
        &self,
        key: &str,
        patience: Duration,
    ) -> Result<Option<StreamState>, Error> {
        let node = self.servers().find(key, Purpose::Reading).await?;
        self.primary_says(&node, key, patience).await
    }

    pub(super) async fn publish(&self, key: &str, payload: Bytes) -> Result<StreamId, Error> {
        let keep = self.parts.publish_keep.to_string();
        let words: [&[u8]; 8] =
            [b"XADD", key.as_bytes(), b"MAXLEN", b"~", keep.as_bytes(), b"*", b"payload", &payload];
        let add = Request::new(&words);
        let mut node = in_time(ANSWER_TIMEOUT, "ROLE", self.primary(key)).await?;
        let mut added = self.at(&node, ANSWER_TIMEOUT, "XADD", &add).await;
        if added.as_ref().is_err_and(|error| error.code == "READONLY") {
            // It has become a replica, and has added nothing.
            node = in_time(ANSWER_TIMEOUT, "ROLE", self.head_of_chain(node)).await?;
            added = self.at(&node, ANSWER_TIMEOUT, "XADD", &add).await;
        }
        stream_id(&answered(sole(added?)?)?)
    }

    pub(super) fn command_durations(&self) -> &Histogram {
        &self.parts.command_durations
    }

    pub(super) fn links(&self) -> Vec<PoolStatus> {
        self.pool().links()
    }

    pub(super) async fn ping(&self) -> Result<(), Error> {
        answered(self.command("", ANSWER_TIMEOUT, &["PING"]).await?).map(drop)
    }

    /// A command about `key`, to the server where it is read.
    async fn command(&self, key: &str, timeout: Duration, words: &[&str]) -> Result<Value, Error> {
        let bytes: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
        sole(self.reading(key, timeout, words[0], &Request::new(&bytes)).await?)
    }

    async fn reading(
        &self,
        key: &str,
        timeout: Duration,
        doing: &str,
        request: &Request,
    ) -> Result<Vec<Value>, Error> {
        let find = self.servers().find(key, Purpose::Reading);
        let node = in_time(timeout, "which server", find).await?;
        self.at(&node, timeout, doing, request).await
    }

    /// An exchange with this node, or with the one that it sends us to.
    async fn at(
        &self,
        node: &Node,
        timeout: Duration,
        doing: &str,
        request: &Request,
    ) -> Result<Vec<Value>, Error> {
        let mut node = node.clone();
        let mut redirections = 0;
        loop {
            let asked = Instant::now();
            let outcome = in_time(timeout, doing, self.pool().exchange(&node, request)).await;
            self.command_durations().observe(asked.elapsed(), 1);
            let error = match outcome {
                Ok(answers) => return Ok(answers),
                Err(error) => error,
            };
            if error.code == "TIMEOUT" {
                self.pool().forget_idle(&node);
            }
            match self.servers().failed(&node, &error) {
                Some(next) if redirections < MOST_REDIRECTIONS => node = next,
                _ => return Err(error),
            }
            redirections += 1;
        }
    }
}

/// See [`crate::fuzz`]: answers to a read in pieces of as many bytes as the first one says. In which pieces
/// they come makes no difference, and whatever they say is a reply or an error.
#[cfg(any(test, fuzzing))]
pub fn fuzz_reply(data: &[u8]) {
    let Some((size, data)) = data.split_first() else { return };
    let whole = client::resp::in_pieces(data, data.len().max(1)).ok();
    assert_eq!(whole, client::resp::in_pieces(data, usize::from(*size).max(1)).ok());
    let ask = ReadRequest { key: "k", after: StreamId::ZERO, count: 10, most_bytes: usize::MAX };
    if let Some(Ok(reply)) = whole.map(|answers| read_reply(ask, answers)) {
        assert!(reply.entries.is_sorted_by(|a, b| a.id < b.id));
    }
}
