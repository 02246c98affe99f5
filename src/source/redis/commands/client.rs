//! An open client: a few connections to the primary, or to each primary of a cluster, that carry many commands
//! at once.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use fred::clients::Pool;
use fred::interfaces::ClientLike as _;
use fred::types::config::{Config, ServerConfig};
use fred::types::{ClusterHash, CustomCommand, Value};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::events::{self, CommandConnections};
use super::outcome;
use super::settings::{Settings, one};
use crate::config::Address;
use crate::source::{Error, ErrorClass};

/// Connections for commands to the primary; in a cluster there is one to each.
pub const COMMAND_CONNECTIONS: usize = 2;
/// Opening a client takes no longer than this.
pub(super) const OPENING_TIMEOUT: Duration = Duration::from_secs(2);
/// A replica may follow a replica, in a chain of at most this many servers.
const MAX_CHAIN: usize = 4;

/// Closed on drop: fred's tasks end with their handles.
pub(super) struct Client {
    pool: Pool,
    /// The server has refused `XADD … IDMP` as unknown.
    knows_no_idmp: AtomicBool,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Client {
    /// Connects to the primary: the server of the URL may follow it.
    pub(super) async fn open(
        settings: &Settings,
        resp2: bool,
        connections: &Arc<CommandConnections>,
    ) -> Result<Self, Error> {
        let mut config = settings.client(resp2);
        for _ in 0..MAX_CHAIN {
            // fred connects to each node of a cluster by itself.
            let is_cluster = matches!(config.server, ServerConfig::Clustered { .. });
            let size = if is_cluster { 1 } else { COMMAND_CONNECTIONS };
            let client = Self::connect(config.clone(), size, connections).await?;
            if !settings.may_be_replica() {
                return Ok(client);
            }
            match client.primary().await? {
                Some(primary) => config.server = one(&primary),
                None => return Ok(client),
            }
        }
        let message = "the server follows another one, and the primary is not known yet".to_owned();
        Err(Error { class: ErrorClass::Away, code: "FAILOVER", message })
    }

    /// Connects `size` times to the servers that `config` names, within [`OPENING_TIMEOUT`].
    pub(super) async fn connect(
        config: Config,
        size: usize,
        connections: &Arc<CommandConnections>,
    ) -> Result<Self, Error> {
        let opening = Self::connect_all(config, size, connections);
        timeout(OPENING_TIMEOUT, opening).await.unwrap_or_else(|_| Err(silent()))
    }

    async fn connect_all(
        config: Config,
        size: usize,
        connections: &Arc<CommandConnections>,
    ) -> Result<Self, Error> {
        let (connection, policy) = (Settings::connection(), Settings::reconnection());
        let pool = Pool::new(config, None, Some(connection), Some(policy), size);
        let pool = pool.map_err(|error| outcome::not_sent(&error))?;
        let mut tasks = Vec::with_capacity(2 * size);
        for client in pool.clients() {
            tasks.push(connected(client).await?);
            tasks.push(events::watch(client, connections.clone()));
        }
        Ok(Self { pool, knows_no_idmp: AtomicBool::new(false), _tasks: tasks })
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether it is known that the server does not tell entries apart.
    pub(super) fn knows_no_idmp(&self) -> bool {
        self.knows_no_idmp.load(Ordering::Relaxed)
    }

    /// The server has refused to: it is not asked again while this client lasts.
    pub(super) fn learn_no_idmp(&self) {
        self.knows_no_idmp.store(true, Ordering::Relaxed);
    }

    /// Whether a connection is open, and all of them to `primary` where that is known.
    pub(super) fn leads_to(&self, primary: Option<&Address>) -> bool {
        let is_open = self.pool.clients().iter().any(fred::clients::Client::is_connected);
        let Some(Address::Tcp(host, port)) = primary else { return is_open };
        let servers = self.pool.active_connections();
        is_open && servers.iter().all(|server| *server.host == **host && server.port == *port)
    }

    /// The servers that it leads to, for the operator.
    pub(super) fn servers(&self) -> String {
        let mut servers: Vec<_> =
            self.pool.active_connections().iter().map(ToString::to_string).collect();
        servers.dedup();
        servers.join(", ")
    }

    /// The server that this one follows; `None`: it is a primary, or the user may not ask.
    async fn primary(&self) -> Result<Option<Address>, Error> {
        let role = CustomCommand::new_static("ROLE", ClusterHash::FirstKey, false);
        let role: Result<Value, _> = self.pool.custom(role, Vec::<String>::new()).await;
        match role {
            Ok(role) => Ok(followed(&role)),
            Err(error) => match outcome::not_sent(&error) {
                error if error.class == ErrorClass::Away && error.code != "ERR" => Err(error),
                _ => Ok(None),
            },
        }
    }
}

/// The server did not let us in in time.
pub(super) fn silent() -> Error {
    let message = format!(
        "no connection for commands to Redis within {} s; nothing was sent",
        OPENING_TIMEOUT.as_secs()
    );
    Error { class: ErrorClass::Away, code: "TIMEOUT", message }
}

/// The host and port in `["slave", host, port, …]`. A role of another form names nobody.
fn followed(role: &Value) -> Option<Address> {
    let Value::Array(parts) = role else { return None };
    let [kind, host, port, ..] = &parts[..] else { return None };
    let is_replica = kind.as_str().is_some_and(|kind| kind == "slave" || kind == "replica");
    let port = u16::try_from(port.as_u64()?).ok()?;
    is_replica.then(|| Some(Address::Tcp(host.as_str()?.into_owned(), port))).flatten()
}

/// Connects, and leaves the task that keeps the connection.
async fn connected(client: &fred::clients::Client) -> Result<AbortOnDropHandle<()>, Error> {
    let mut waiting = pin!(client.wait_for_connect());
    // Polled once before it connects: otherwise it could miss the news.
    let news = std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await;
    debug_assert!(news.is_pending(), "a new client is not connected");
    let (told, failure) = tokio::sync::oneshot::channel();
    let connecting = AbortOnDropHandle::new(client.connect());
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let ended = connecting.await;
        // The task's own result: what fred tells its subscribers may be lost.
        let _ = told.send(ended.ok().and_then(Result::err));
    }));
    tokio::select! {
        biased;
        failure = failure => {
            let failure = failure.ok().flatten();
            Err(failure.map_or_else(outcome::closed, |error| outcome::not_sent(&error)))
        }
        connected = waiting => {
            connected.map_err(|error| outcome::not_sent(&error))?;
            Ok(task)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_replica_names_a_server_to_follow() {
        let role = |parts: &[Value]| followed(&Value::Array(parts.to_vec()));
        let text = |text: &str| Value::from(text);
        let at = Some(Address::Tcp("10.0.0.7".into(), 6380));
        let port = Value::from(6380);
        assert_eq!(role(&[text("slave"), text("10.0.0.7"), port.clone()]), at);
        assert_eq!(role(&[text("master"), text("10.0.0.7"), port.clone()]), None);
        assert_eq!(role(&[text("master"), Value::Array(Vec::new())]), None);
        assert_eq!(role(&[text("slave"), text("h"), Value::from(70_000)]), None);
        assert_eq!(role(&[text("slave"), Value::Null, port]), None);
        assert_eq!(role(&[]), None);
        assert_eq!(followed(&text("slave")), None);
    }
}
