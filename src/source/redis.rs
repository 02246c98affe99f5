//! Redis through fred: the only place that names it.
//!
//! fred's own reconnection is off. It would resend a read that was under way and exempts blocked
//! reads from its check for silent connections; a link here lives until its first failure, and
//! whoever holds it opens the next one from its own cursor.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::prelude::{Builder, Client, ClientLike, EventInterface, Value};
use fred::types::config::{Config as FredConfig, Options, Server, ServerConfig};
use fred::types::{ClusterHash, ConnectHandle, CustomCommand};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Ask, Class, Error, Info, Reply, Seen};
use crate::config::{Config, Place};
use crate::event::{Entry, StreamId};

mod reply;

use reply::{classify, entries, garbled, stream_id, stream_info, streams};

/// Connecting, and any command with a small answer, takes no longer than this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Reading entries without blocking: a reply of the largest ones may have a slow way to go.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// A blocked read may answer this much later than asked before the connection counts as dead.
const BLOCK_GRACE: Duration = Duration::from_secs(3);
/// After a failed connect the shared connection is not tried again for this long.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A Redis server. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    config: FredConfig,
    /// `XADD … MAXLEN ~` of what we publish.
    publish_keep: i64,
    shared: Arc<Mutex<SharedLink>>,
}

/// The connection of everything that does not block.
#[derive(Default)]
struct SharedLink {
    link: Option<Link>,
    failed: Option<(Instant, Error)>,
}

/// One connection; dropping its last handle closes it.
#[derive(Clone)]
pub struct Link {
    client: Client,
    /// Ends fred's connection task with the last handle.
    task: Arc<Task>,
}

struct Task {
    _connection: Connection,
    /// Set once the connection has failed: fred lets the commands under way run into their timeouts.
    lost: CancellationToken,
    watch: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// fred's connection task, which would live on without us, and its socket with it.
struct Connection(ConnectHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Redis {
    pub(super) fn new(config: &Config) -> Self {
        let (server, database) = match &config.source.place {
            Place::Unix { path, database } => {
                (ServerConfig::Unix { path: path.clone() }, *database)
            }
            Place::Tcp { host, port, database } => {
                (ServerConfig::Centralized { server: Server::new(host.as_str(), *port) }, *database)
            }
            Place::Memory => unreachable!("Source::open chooses by place"),
        };
        let username = &config.source.username;
        let fred = FredConfig {
            server,
            database: (database != 0).then_some(database),
            username: (!username.is_empty()).then(|| username.clone()),
            password: config.source.password.as_ref().map(|secret| secret.expose().to_owned()),
            fail_fast: true,
            ..FredConfig::default()
        };
        let publish_keep = i64::try_from(config.ring.entries).unwrap_or(i64::MAX);
        Self { config: fred, publish_keep, shared: Arc::default() }
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> Result<Link, Error> {
        let mut builder = Builder::from_config(self.config.clone());
        builder.with_connection_config(|connection| {
            connection.connection_timeout = ANSWER_TIMEOUT;
            connection.internal_command_timeout = ANSWER_TIMEOUT;
            connection.max_command_attempts = 1;
            connection.tcp.nodelay = Some(true);
        });
        let client = builder.build().map_err(|error| classify(&error))?;
        let mut outcome = Box::pin(client.wait_for_connect());
        // Listening before there is something to hear.
        let early = poll_fn(|context| Poll::Ready(outcome.as_mut().poll(context))).await;
        let connection = Connection(client.connect());
        let outcome = match early {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => match tokio::time::timeout(ANSWER_TIMEOUT, outcome).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(silent("connecting")),
            },
        };
        outcome.map_err(|error| classify(&error))?;
        Ok(Link::new(client.clone(), connection))
    }

    pub(super) async fn read(&self, ask: Ask<'_>) -> Result<Reply, Error> {
        let link = self.link().await?;
        let answer = link.read(ask, None).await;
        self.settle(&link, answer).await
    }

    pub(super) async fn info(&self, key: &str) -> Result<Option<Info>, Error> {
        let link = self.link().await?;
        let answer = link.info(key).await;
        self.settle(&link, answer).await
    }

    pub(super) async fn holds(
        &self,
        key: &str,
        from: StreamId,
        to: StreamId,
    ) -> Result<bool, Error> {
        let args = [key.into(), from.to_string(), to.to_string(), "COUNT".into(), "1".into()];
        let value = self.command("XRANGE", args.map(Value::from).into(), READ_TIMEOUT).await?;
        Ok(!entries(value)?.is_empty())
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
        let args = [key.into(), end, "-".into(), "COUNT".into(), count.to_string()];
        let value = self.command("XREVRANGE", args.map(Value::from).into(), READ_TIMEOUT).await?;
        entries(value)
    }

    pub(super) async fn publish(&self, key: &str, payload: Bytes) -> Result<StreamId, Error> {
        let args = vec![
            Value::from(key),
            "MAXLEN".into(),
            "~".into(),
            self.publish_keep.into(),
            "*".into(),
            "payload".into(),
            Value::Bytes(payload),
        ];
        let value = self.command("XADD", args, ANSWER_TIMEOUT).await?;
        stream_id(&value)
    }

    pub(super) async fn ping(&self) -> Result<(), Error> {
        self.command("PING", Vec::new(), ANSWER_TIMEOUT).await.map(drop)
    }

    async fn command(
        &self,
        name: &'static str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Value, Error> {
        let link = self.link().await?;
        let answer = link.command(name, args, timeout).await;
        self.settle(&link, answer).await
    }

    /// The shared connection, opened where there is none.
    async fn link(&self) -> Result<Link, Error> {
        let mut shared = self.shared.lock().await;
        if let Some(link) = &shared.link {
            return Ok(link.clone());
        }
        if let Some((when, error)) = &shared.failed
            && when.elapsed() < CONNECT_PAUSE
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(link) => {
                shared.link = Some(link.clone());
                shared.failed = None;
                Ok(link)
            }
            Err(error) => {
                shared.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Forgets the shared connection where the answer shows that it is of no more use.
    async fn settle<T>(&self, link: &Link, answer: Result<T, Error>) -> Result<T, Error> {
        if answer.as_ref().is_err_and(|error| error.class != Class::Key) {
            let mut shared = self.shared.lock().await;
            if shared.link.as_ref().is_some_and(|held| Arc::ptr_eq(&held.task, &link.task)) {
                shared.link = None;
            }
        }
        answer
    }
}

impl Link {
    fn new(client: Client, connection: Connection) -> Self {
        let lost = CancellationToken::new();
        let (mut errors, found) = (client.error_rx(), lost.clone());
        let watch = tokio::spawn(async move {
            // The first error is the last: a link does not outlive it. So is the end of the news.
            let _ = errors.recv().await;
            found.cancel();
        });
        Self { client, task: Arc::new(Task { _connection: connection, lost, watch }) }
    }

    /// An answer, unless the connection is lost first or nothing comes in time.
    async fn answered<T>(
        &self,
        timeout: Duration,
        doing: &str,
        answer: impl Future<Output = T>,
    ) -> Result<T, Error> {
        tokio::select! {
            answer = answer => Ok(answer),
            () = self.task.lost.cancelled() => Err(lost(doing)),
            () = tokio::time::sleep(timeout) => Err(silent(doing)),
        }
    }

    /// `XREAD` and, behind it on the wire, `XINFO STREAM`: one round trip, and Redis looks at the
    /// stream right after it has answered the read.
    pub(super) async fn read(&self, ask: Ask<'_>, block: Option<Duration>) -> Result<Reply, Error> {
        let timeout = block.map_or(READ_TIMEOUT, |block| block + BLOCK_GRACE);
        let pipeline = self.client.pipeline().with_options(&options(timeout));
        let mut args: Vec<Value> = vec!["COUNT".into(), ask.count.to_string().into()];
        if let Some(block) = block {
            args.extend(["BLOCK".into(), block.as_millis().to_string().into()]);
        }
        args.extend(["STREAMS".into(), ask.key.into(), ask.after.to_string().into()]);
        queue(&pipeline, "XREAD", args).await?;
        if ask.info {
            queue(&pipeline, "XINFO", vec!["STREAM".into(), ask.key.into()]).await?;
        }
        let answers = self.answered(timeout, "XREAD", pipeline.try_all::<Value>()).await?;
        let mut answers = answers.into_iter();
        let read = answers.next().ok_or_else(|| garbled("no answer to XREAD"))?;
        let entries = streams(read.map_err(|error| classify(&error))?, ask.key)?;
        let seen = match answers.next() {
            None => Seen::Unasked,
            Some(answer) => stream_info(answer)?.map_or(Seen::Missing, Seen::Stream),
        };
        Ok(Reply { entries, seen })
    }

    pub(super) async fn info(&self, key: &str) -> Result<Option<Info>, Error> {
        let args: Vec<Value> = vec!["STREAM".into(), key.into()];
        let client = self.client.with_options(&options(ANSWER_TIMEOUT));
        let answer = client.custom::<Value, Value>(plain("XINFO"), args);
        stream_info(self.answered(ANSWER_TIMEOUT, "XINFO", answer).await?)
    }

    async fn command(
        &self,
        name: &'static str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Value, Error> {
        let client = self.client.with_options(&options(timeout));
        let answer = client.custom::<Value, Value>(plain(name), args);
        let answer = self.answered(timeout, name, answer).await?;
        answer.map_err(|error| classify(&error))
    }
}

async fn queue(
    pipeline: &impl ClientLike,
    name: &'static str,
    args: Vec<Value>,
) -> Result<(), Error> {
    let queued = pipeline.custom::<Value, Value>(plain(name), args).await;
    queued.map(drop).map_err(|error| classify(&error))
}

/// A command that fred may pipeline, a blocking read too: nothing else shares its connection.
fn plain(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

fn options(timeout: Duration) -> Options {
    Options { timeout: Some(timeout), max_attempts: Some(1), ..Options::default() }
}

fn lost(doing: &str) -> Error {
    let message = format!("the connection was lost ({doing})");
    Error { class: Class::Away, code: "IO", message }
}

fn silent(doing: &str) -> Error {
    let message = format!("no answer from Redis in time ({doing}): the connection counts as dead");
    Error { class: Class::Away, code: "TIMEOUT", message }
}
