//! Every command that no stream depends on, over fred: its routing, pipelines, types and TLS.
//!
//! - [`settings`]: the configuration in fred's words.
//! - [`client`]: an open client: connections that carry many commands at once.
//! - [`sending`]: an addition over one connection.
//! - [`nodes`]: connections to the nodes of a cluster.
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

use fred::interfaces::ClientLike as _;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::warn;

use self::client::{Client, OPENING_TIMEOUT, silent};
use self::nodes::Nodes;
use self::redirected::Cluster;
use self::settings::Settings;
use crate::config::{Address, Source};
use crate::source::{Addition, Error, ErrorClass, WriteError};
use crate::sse::StreamId;
use crate::telemetry::throttle::LogThrottle;

mod client;
mod events;
mod inspection;
mod nodes;
mod outcome;
mod redirected;
mod sending;
mod settings;

pub use client::COMMAND_CONNECTIONS;
pub(crate) use events::CommandConnections;
pub use inspection::{Answer, Inspector, ServerKind};

/// After a failure to open, the next attempt waits for so long: until then its error answers for it.
const OPENING_PAUSE: Duration = Duration::from_millis(100);

/// The client for commands, which opens when it is first needed.
pub(crate) struct Commands {
    settings: Settings,
    /// Held while a client is opened, so that a crowd opens one.
    opened: Mutex<Opened>,
    /// The server knows no `HELLO`.
    speaks_resp2: AtomicBool,
    /// Of a cluster.
    nodes: Nodes,
    told: LogThrottle,
    connections: Arc<CommandConnections>,
}

enum Opened {
    Nothing,
    Client(Arc<Client>),
    Failed(Instant, Error),
}

impl Commands {
    pub(crate) fn new(source: &Source) -> Self {
        Self {
            settings: Settings::new(source),
            opened: Mutex::new(Opened::Nothing),
            speaks_resp2: AtomicBool::new(false),
            nodes: Nodes::default(),
            told: LogThrottle::default(),
            connections: Arc::default(),
        }
    }

    /// What became of the connections.
    pub(crate) fn connections(&self) -> &CommandConnections {
        &self.connections
    }

    /// Adds entries, once at most. `primary` is the one that the sentinels name now: after a failover the old one
    /// takes writes for seconds, which are lost.
    pub(crate) async fn publish(
        &self,
        addition: &Addition<'_>,
        primary: Option<&Address>,
    ) -> Result<Vec<StreamId>, WriteError> {
        if !self.settings.can_select() {
            return Err(outcome::unreachable_database().into());
        }
        let client = self.client(primary).await?;
        if addition.once.is_some() && client.knows_no_idmp() {
            return Err(WriteError::NotOnce);
        }
        let ids = match self.add(&client, addition).await {
            Err(WriteError::NotWritten(error))
                if addition.once.is_some() && outcome::knows_no_idmp(&error) =>
            {
                client.learn_no_idmp();
                return Err(WriteError::NotOnce);
            }
            added => added?,
        };
        let parse =
            |id: &String| id.parse().map_err(|_| WriteError::Unknown(outcome::odd_answer(id)));
        ids.iter().map(parse).collect()
    }

    async fn add(
        &self,
        client: &Arc<Client>,
        addition: &Addition<'_>,
    ) -> Result<Vec<String>, WriteError> {
        let several = addition.entries.len() > 1;
        if several && self.settings.is_cluster() {
            return self.add_from_node_to_node(addition).await;
        }
        let added = if several {
            let (pool, options) = (client.pool(), self.settings.options_once());
            sending::all(pool.next_connected(), addition, &options, false).await
        } else {
            let pool = client.pool().with_options(&self.settings.options());
            match sending::one(&pool, addition).await {
                Ok(id) => Ok(vec![id]),
                Err(error) if outcome::is_redirected_too_often(&error) => {
                    return self.add_from_node_to_node(addition).await;
                }
                Err(error) => Err(outcome::write_error(&error)),
            }
        };
        match added {
            Ok(ids) => {
                let options = self.settings.options();
                let next = client.pool().next_connected();
                let renewed = sending::renew(next, addition, &options, false).await;
                self.tell_renewed(addition, renewed.map_err(|error| outcome::not_sent(&error)));
                Ok(ids)
            }
            Err(error) => {
                self.judge(client, &error).await;
                Err(error)
            }
        }
    }

    async fn add_from_node_to_node(
        &self,
        addition: &Addition<'_>,
    ) -> Result<Vec<String>, WriteError> {
        let cluster = Cluster {
            nodes: &self.nodes,
            settings: &self.settings,
            resp2: self.speaks_resp2.load(Ordering::Relaxed),
            connections: &self.connections,
        };
        let (ids, renewed) = redirected::add(addition, &cluster).await?;
        self.tell_renewed(addition, renewed);
        Ok(ids)
    }

    /// The entries are there, so it is no failure of the publisher's.
    fn tell_renewed(&self, addition: &Addition<'_>, renewed: Result<(), Error>) {
        if let Err(error) = renewed
            && self.told.allows("expire")
        {
            warn!(key = addition.key, %error, "entries were added, and their key's time to live could not be renewed: it may be gone too early, or never; allow +pexpire on it (docs/publishing.md)");
        }
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
            WriteError::NotOnce => return,
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
