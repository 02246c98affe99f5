//! Redis through fred: the only file that names it.
//!
//! fred's own reconnection is off. It would resend a read that was under way and exempts blocked
//! reads from its check for silent connections; a link here lives until its first failure, and
//! whoever holds it opens the next one from its own cursor.

use std::sync::Arc;
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

/// Connecting, and any command that does not block, takes no longer than this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
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
    connection: ConnectHandle,
    /// Set once the connection has failed: fred lets the commands under way run into their timeouts.
    lost: CancellationToken,
    watch: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.connection.abort();
        self.watch.abort();
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
        match tokio::time::timeout(ANSWER_TIMEOUT, client.init()).await {
            Ok(Ok(connection)) => Ok(Link::new(client, connection)),
            Ok(Err(error)) => Err(classify(&error)),
            Err(_) => Err(silent("connecting")),
        }
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
        let value = self.command("XRANGE", args.map(Value::from).into()).await?;
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
        let value = self.command("XREVRANGE", args.map(Value::from).into()).await?;
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
        let value = self.command("XADD", args).await?;
        stream_id(&value)
    }

    pub(super) async fn ping(&self) -> Result<(), Error> {
        self.command("PING", Vec::new()).await.map(drop)
    }

    async fn command(&self, name: &'static str, args: Vec<Value>) -> Result<Value, Error> {
        let link = self.link().await?;
        let answer = link.command(name, args).await;
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
    fn new(client: Client, connection: ConnectHandle) -> Self {
        let lost = CancellationToken::new();
        let (mut errors, found) = (client.error_rx(), lost.clone());
        let watch = tokio::spawn(async move {
            // The first error is the last: a link does not outlive it. So is the end of the news.
            let _ = errors.recv().await;
            found.cancel();
        });
        Self { client, task: Arc::new(Task { connection, lost, watch }) }
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
        let timeout = block.map_or(ANSWER_TIMEOUT, |block| block + BLOCK_GRACE);
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
        let entries = streams(read.map_err(|error| classify(&error))?)?;
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

    async fn command(&self, name: &'static str, args: Vec<Value>) -> Result<Value, Error> {
        let client = self.client.with_options(&options(ANSWER_TIMEOUT));
        let answer = client.custom::<Value, Value>(plain(name), args);
        let answer = self.answered(ANSWER_TIMEOUT, name, answer).await?;
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

/// The entries of an `XREAD` reply about one stream; none where it timed out.
fn streams(value: Value) -> Result<Vec<Entry>, Error> {
    let mut pair = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(mut streams) if streams.len() == 1 => array(streams.remove(0))?,
        _ => return Err(garbled("XREAD about one key answered about none or several")),
    };
    pair.pop().map_or_else(|| Err(garbled("XREAD answered without entries")), entries)
}

fn entries(value: Value) -> Result<Vec<Entry>, Error> {
    array(value)?.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Result<Entry, Error> {
    let mut parts = array(value)?.into_iter();
    let (Some(id), Some(fields), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(garbled("an entry that is no pair of id and fields"));
    };
    let mut fields_left = array(fields)?.into_iter();
    let mut fields = Vec::with_capacity(fields_left.len() / 2);
    while let Some(name) = fields_left.next() {
        let value = fields_left.next().ok_or_else(|| garbled("a field without a value"))?;
        fields.push((bytes(name)?, bytes(value)?));
    }
    Ok(Entry { id: stream_id(&id)?, fields })
}

fn stream_info(answer: Result<Value, fred::error::Error>) -> Result<Option<Info>, Error> {
    let value = match answer {
        Ok(value) => value,
        Err(error) if error.details().contains("no such key") => return Ok(None),
        Err(error) => return Err(classify(&error)),
    };
    let mut info = Info::default();
    let mut parts = array(value)?.into_iter();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        match name.as_str().as_deref() {
            Some("length") => info.length = number(&value)?,
            Some("last-generated-id") => info.last_generated = stream_id(&value)?,
            Some("max-deleted-entry-id") => info.max_deleted = stream_id(&value)?,
            Some("entries-added") => info.entries_added = Some(number(&value)?),
            Some("first-entry") if !value.is_null() => info.first = Some(entry(value)?.id),
            _ => {}
        }
    }
    Ok(Some(info))
}

fn array(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(garbled("not the list that was expected")),
    }
}

fn bytes(value: Value) -> Result<Bytes, Error> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::String(text) => Ok(text.into_inner()),
        Value::Integer(number) => Ok(Bytes::from(number.to_string())),
        _ => Err(garbled("not the string that was expected")),
    }
}

fn number(value: &Value) -> Result<u64, Error> {
    value.as_u64().ok_or_else(|| garbled("not the number that was expected"))
}

fn stream_id(value: &Value) -> Result<StreamId, Error> {
    let id = value.as_str().and_then(|text| text.parse().ok());
    id.ok_or_else(|| garbled("not the stream id that was expected"))
}

fn garbled(what: &str) -> Error {
    let message = format!("Redis answered what we do not understand: {what}");
    Error { class: Class::Away, code: "PROTOCOL", message }
}

fn lost(doing: &str) -> Error {
    let message = format!("the connection was lost ({doing})");
    Error { class: Class::Away, code: "IO", message }
}

fn silent(doing: &str) -> Error {
    let message = format!("no answer from Redis in time ({doing}): the connection counts as dead");
    Error { class: Class::Away, code: "TIMEOUT", message }
}

/// Sorts a failure by what helps against it, from the first word of what Redis says.
fn classify(error: &fred::error::Error) -> Error {
    use fred::error::ErrorKind;
    const KEY: [&str; 2] = ["WRONGTYPE", "NOPERM"];
    const LOGIN: [&str; 3] = ["NOAUTH", "WRONGPASS", "DENIED"];
    const AWAY: [&str; 9] = [
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
    let details = error.details();
    let word = details.split_whitespace().next().unwrap_or_default().trim_start_matches('-');
    let known = |codes: &[&'static str]| codes.iter().find(|code| **code == word).copied();
    let (class, code) = if let Some(code) = known(&KEY) {
        (Class::Key, code)
    } else if let Some(code) = known(&LOGIN) {
        (Class::Login, code)
    } else if let Some(code) = known(&AWAY) {
        (Class::Away, code)
    } else {
        match error.kind() {
            ErrorKind::Auth => (Class::Login, "NOAUTH"),
            ErrorKind::Timeout => (Class::Away, "TIMEOUT"),
            ErrorKind::IO | ErrorKind::Canceled => (Class::Away, "IO"),
            ErrorKind::Protocol | ErrorKind::Parse => (Class::Away, "PROTOCOL"),
            _ => (Class::Away, "ERR"),
        }
    };
    Error { class, code, message: details.to_owned() }
}
