//! Redis: what is asked of it, over a connection for each reader and a few for everything else.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{Ask, Class, Error, Info, Reply, Seen};
use crate::config::{self, Config};
use crate::event::{Entry, StreamId};

mod link;
mod reply;
mod resp;

pub(super) use link::Link;

use reply::{answered, entries, stream_id, stream_info, streams};
use resp::Value;

/// Connecting, and any command with a small answer, takes no longer than this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Reading entries without blocking: a reply of the largest ones may have a slow way to go.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A blocked read may answer this much later than asked before the connection counts as dead.
const BLOCK_GRACE: Duration = Duration::from_secs(3);
/// After a failed connect no shared connection is tried for this long.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Connections for everything but readers, at most; opened as they are needed.
const SHARED_LINKS: usize = 4;

/// A Redis server. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    config: Arc<config::Source>,
    /// `XADD … MAXLEN ~` of what we publish.
    publish_keep: usize,
    shared: Arc<Shared>,
}

/// The connections of everything that does not block.
struct Shared {
    turns: Semaphore,
    state: Mutex<SharedState>,
}

#[derive(Default)]
struct SharedState {
    idle: Vec<Link>,
    failed: Option<(Instant, Error)>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, SharedState> {
        self.state.lock().expect("no holder of the lock panics")
    }
}

impl Redis {
    pub(super) fn new(config: &Config) -> Self {
        let shared = Shared { turns: Semaphore::new(SHARED_LINKS), state: Mutex::default() };
        Self {
            config: Arc::new(config.source.clone()),
            publish_keep: config.ring.entries,
            shared: Arc::new(shared),
        }
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> Result<Link, Error> {
        in_time(ANSWER_TIMEOUT, "connecting", Link::open(&self.config)).await
    }

    pub(super) async fn read(&self, ask: Ask<'_>) -> Result<Reply, Error> {
        self.shared(READ_TIMEOUT, "XREAD", async |link| link.exchange(ask, None).await).await
    }

    pub(super) async fn info(&self, key: &str) -> Result<Option<Info>, Error> {
        stream_info(self.command(ANSWER_TIMEOUT, &["XINFO", "STREAM", key]).await?)
    }

    pub(super) async fn holds(
        &self,
        key: &str,
        from: StreamId,
        to: StreamId,
    ) -> Result<bool, Error> {
        let (from, to) = (from.to_string(), to.to_string());
        let words = ["XRANGE", key, &from, &to, "COUNT", "1"];
        Ok(!entries(answered(self.command(READ_TIMEOUT, &words).await?)?)?.is_empty())
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
        let words = ["XREVRANGE", key, &end, "-", "COUNT", &count.to_string()];
        entries(answered(self.command(READ_TIMEOUT, &words).await?)?)
    }

    pub(super) async fn publish(&self, key: &str, payload: Bytes) -> Result<StreamId, Error> {
        let keep = self.publish_keep.to_string();
        let words: [&[u8]; 8] =
            [b"XADD", key.as_bytes(), b"MAXLEN", b"~", keep.as_bytes(), b"*", b"payload", &payload];
        let answer = self.shared(ANSWER_TIMEOUT, "XADD", async |link| link.ask(&words).await);
        stream_id(&answered(answer.await?)?)
    }

    pub(super) async fn ping(&self) -> Result<(), Error> {
        answered(self.command(ANSWER_TIMEOUT, &["PING"]).await?).map(drop)
    }

    async fn command(&self, timeout: Duration, words: &[&str]) -> Result<Value, Error> {
        let bytes: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
        self.shared(timeout, words[0], async |link| link.ask(&bytes).await).await
    }

    /// An exchange over one of the shared connections, opened where there is none. One that failed, or
    /// was given up, is closed by that.
    async fn shared<T>(
        &self,
        timeout: Duration,
        doing: &str,
        exchange: impl AsyncFnOnce(&mut Link) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let exchange = async {
            let _turn = self.shared.turns.acquire().await.expect("it is never closed");
            let mut link = self.link().await?;
            let answer = exchange(&mut link).await;
            if answer.as_ref().err().is_none_or(|error| error.class == Class::Key) {
                self.shared.state().idle.push(link);
            }
            answer
        };
        in_time(timeout, doing, exchange).await
    }

    async fn link(&self) -> Result<Link, Error> {
        loop {
            let idle = self.shared.state().idle.pop();
            let Some(mut link) = idle else { break };
            if link.is_open().await {
                return Ok(link);
            }
        }
        let failed = self.shared.state().failed.clone();
        if let Some((_, error)) = failed.filter(|(when, _)| when.elapsed() < CONNECT_PAUSE) {
            return Err(error);
        }
        let outcome = self.connect().await;
        self.shared.state().failed = match &outcome {
            Ok(_) => None,
            Err(error) => Some((Instant::now(), error.clone())),
        };
        outcome
    }
}

/// What a reader does with the connection that is its own.
impl Link {
    /// Waits up to `block` for entries.
    pub(super) async fn read(&mut self, ask: Ask<'_>, block: Duration) -> Result<Reply, Error> {
        in_time(block + BLOCK_GRACE, "XREAD", self.exchange(ask, Some(block))).await
    }

    pub(super) async fn info(&mut self, key: &str) -> Result<Option<Info>, Error> {
        let words = [b"XINFO", b"STREAM".as_slice(), key.as_bytes()];
        stream_info(in_time(ANSWER_TIMEOUT, "XINFO", self.ask(&words)).await?)
    }

    /// `XREAD` and, behind it on the wire, `XINFO STREAM`: one round trip, and Redis looks at the
    /// stream right after it has answered the read.
    async fn exchange(&mut self, ask: Ask<'_>, block: Option<Duration>) -> Result<Reply, Error> {
        let (count, after) = (ask.count.to_string(), ask.after.to_string());
        let block = block.map(|block| block.as_millis().to_string());
        let mut words: Vec<&[u8]> = vec![b"XREAD", b"COUNT", count.as_bytes()];
        if let Some(block) = &block {
            words.extend([b"BLOCK", block.as_bytes()]);
        }
        words.extend([b"STREAMS", ask.key.as_bytes(), after.as_bytes()]);
        self.queue(&words);
        if ask.info {
            self.queue(&[b"XINFO", b"STREAM", ask.key.as_bytes()]);
        }
        self.send().await?;
        let read = self.answer().await?;
        let info = if ask.info { Some(self.answer().await?) } else { None };
        // Not before both answers are there: else the connection is in the midst of an exchange.
        let entries = streams(read, ask.key)?;
        let seen = match info {
            None => Seen::Unasked,
            Some(answer) => stream_info(answer)?.map_or(Seen::Missing, Seen::Stream),
        };
        Ok(Reply { entries, seen })
    }
}

async fn in_time<T>(
    timeout: Duration,
    doing: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
        let message =
            format!("no answer from Redis in time ({doing}): the connection counts as dead");
        Err(Error { class: Class::Away, code: "TIMEOUT", message })
    })
}
