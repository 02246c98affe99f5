//! Every command that no stream depends on, over fred: its routing, pipelines, types and TLS.
//!
//! - [`settings`]: the configuration in fred's words.
//! - [`client`]: an open client: connections that carry many commands at once.
//! - [`redirected`]: following a slot that is on its way from node to node.
//! - [`inspection`]: single questions to one server, for `ssegate check --connect`.
//! - [`outcome`]: what became of a command, told from fred's errors.
//! - [`events`]: fred's events, for the log and the metrics.
//!
//! Nothing is opened before the first command, and nothing is ever sent twice: what was sent and not answered
//! is told as not known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::error::Error as FredError;
use fred::interfaces::{ClientLike as _, StreamsInterface};
use fred::types::FromValue;
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::client::{Client, OPENING_TIMEOUT, silent};
use self::settings::Settings;
use crate::config::{Address, Source};
use crate::source::{Error, ErrorClass, WriteError};
use crate::sse::StreamId;

mod client;
mod events;
mod inspection;
mod outcome;
mod redirected;
mod settings;

pub use client::COMMAND_CONNECTIONS;
pub(crate) use events::CommandConnections;
pub use inspection::{Answer, Inspector, ServerKind};

/// After a failure to open, the next attempt waits for so long: until then its error answers for it.
const OPENING_PAUSE: Duration = Duration::from_millis(100);

/// The client for commands, which opens when it is first needed.
pub(crate) struct Commands {
    settings: Settings,
    /// What a published stream is trimmed to: `XADD … MAXLEN ~`.
    publish_keep: usize,
    /// Held while a client is opened, so that a crowd opens one.
    opened: Mutex<Opened>,
    /// The server knows no `HELLO`.
    speaks_resp2: AtomicBool,
    connections: Arc<CommandConnections>,
}

enum Opened {
    Nothing,
    Client(Arc<Client>),
    Failed(Instant, Error),
}

/// An entry to add.
struct NewEntry<'a> {
    key: &'a str,
    payload: Bytes,
    /// What the stream is trimmed to: `MAXLEN ~`.
    keep: usize,
}

impl NewEntry<'_> {
    /// Sends the `XADD`; its answer is the id.
    async fn add_with<R: FromValue>(&self, client: &impl StreamsInterface) -> Result<R, FredError> {
        let trim = ("MAXLEN", "~", i64::try_from(self.keep).unwrap_or(i64::MAX));
        client.xadd(self.key, false, trim, "*", ("payload", self.payload.clone())).await
    }
}

impl Commands {
    pub(crate) fn new(source: &Source, publish_keep: usize) -> Self {
        Self {
            settings: Settings::new(source),
            publish_keep,
            opened: Mutex::new(Opened::Nothing),
            speaks_resp2: AtomicBool::new(false),
            connections: Arc::default(),
        }
    }

    /// What became of the connections.
    pub(crate) fn connections(&self) -> &CommandConnections {
        &self.connections
    }

    /// Adds an entry with one field, `payload`, once at most. `primary` is the one that the sentinels name now:
    /// after a failover the old one takes writes for seconds, which are lost.
    pub(crate) async fn publish(
        &self,
        key: &str,
        payload: Bytes,
        primary: Option<&Address>,
    ) -> Result<StreamId, WriteError> {
        if !self.settings.can_select() {
            return Err(outcome::unreachable_database().into());
        }
        let client = self.client(primary).await?;
        let entry = NewEntry { key, payload, keep: self.publish_keep };
        let added = entry.add_with(&client.pool().with_options(&self.settings.options())).await;
        let id = match added {
            Err(error) if outcome::is_redirected_too_often(&error) => {
                let resp2 = self.speaks_resp2.load(Ordering::Relaxed);
                redirected::add(&entry, &self.settings, resp2, &self.connections).await?
            }
            added => {
                let added = added.map_err(|error| outcome::write_error(&error));
                if let Err(error) = &added {
                    self.judge(&client, error).await;
                }
                added?
            }
        };
        id.parse().map_err(|_| WriteError::Unknown(outcome::odd_answer(&id)))
    }

    /// The open client; one that has no connection, or one to another server than `primary`, is replaced.
    async fn client(&self, primary: Option<&Address>) -> Result<Arc<Client>, Error> {
        let opening = async {
            let mut opened = self.opened.lock().await;
            match &*opened {
                Opened::Client(client) if client.leads_to(primary) => return Ok(client.clone()),
                Opened::Failed(at, error) if at.elapsed() < OPENING_PAUSE => {
                    return Err(error.clone());
                }
                _ => {}
            }
            // The old one is closed first.
            *opened = Opened::Nothing;
            let opened_now = self.open().await;
            // fred believes the first sentinel that answers, which may not have heard of a failover.
            let client = opened_now.and_then(|client| match primary {
                Some(primary) if !client.leads_to(Some(primary)) => Err(disputed(primary)),
                _ => Ok(Arc::new(client)),
            });
            *opened = match &client {
                Ok(client) => Opened::Client(client.clone()),
                Err(error) => Opened::Failed(Instant::now(), error.clone()),
            };
            client
        };
        timeout(OPENING_TIMEOUT, opening).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Opens a client that speaks RESP3 where the server knows it.
    async fn open(&self) -> Result<Client, Error> {
        let resp2 = self.speaks_resp2.load(Ordering::Relaxed);
        match Client::open(&self.settings, resp2, &self.connections).await {
            Err(error) if !resp2 && outcome::knows_no_hello(&error) => {
                self.speaks_resp2.store(true, Ordering::Relaxed);
                Client::open(&self.settings, true, &self.connections).await
            }
            outcome => outcome,
        }
    }

    /// Closes the client for the next command where the last one shows that it leads nowhere: its server is
    /// no primary any more, or its connection may be dead.
    async fn judge(&self, client: &Arc<Client>, error: &WriteError) {
        match error {
            WriteError::NotWritten(refusal) if refusal.code != "READONLY" => return,
            WriteError::Unknown(failure) if failure.code == "TIMEOUT" => {
                self.connections.unanswered(&client.servers());
            }
            WriteError::NotWritten(_) | WriteError::Unknown(_) => {}
        }
        let mut opened = self.opened.lock().await;
        if matches!(&*opened, Opened::Client(open) if Arc::ptr_eq(open, client)) {
            *opened = Opened::Nothing;
        }
    }
}

fn disputed(primary: &Address) -> Error {
    let message = format!(
        "the sentinels do not agree yet that {primary} is the primary; nothing was sent, try again"
    );
    Error { class: ErrorClass::Away, code: "FAILOVER", message }
}
