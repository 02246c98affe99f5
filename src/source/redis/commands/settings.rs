//! What `[source]` says, in fred's words.

use std::time::Duration;

use fred::types::RespVersion;
use fred::types::config::{
    ClusterDiscoveryPolicy, Config, ConnectionConfig, Options, ReconnectPolicy, Server,
    ServerConfig, TcpConfig, UnresponsiveConfig,
};
use socket2_of_fred::TcpKeepalive;
use tokio_rustls::TlsConnector;

use crate::config::{Address, Password, Source, SourceLocation};
use crate::net::dial::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL};

/// A command has this long to be answered. Then its outcome is not known.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that leaves a command unanswered for so long is closed, and opened again.
const UNRESPONSIVE: Duration = Duration::from_secs(3);
/// How often that is looked at.
const UNRESPONSIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Pauses between attempts to reconnect: the first, the longest, and what is added at random.
const RECONNECT_MS: (u32, u32, u32) = (100, 2_000, 200);
/// After so many, 12 s, the client is given up; the next command opens another, with the passwords of then.
const RECONNECT_ATTEMPTS: u32 = 10;
/// A command follows at most this many redirections in a cluster.
const MAX_REDIRECTIONS: u32 = 2;
/// More commands than this that wait for the network are refused: nobody waits for so many.
const MAX_WAITING: usize = 10_000;

/// The servers, and how to log in to them.
pub(super) struct Settings {
    source: Source,
}

impl Settings {
    pub(super) fn new(source: &Source) -> Self {
        Self { source: source.clone() }
    }

    /// Whether the server of the URL may turn out to be a replica; sentinels and clusters name primaries.
    pub(super) fn may_be_replica(&self) -> bool {
        matches!(self.source.location, SourceLocation::Server { .. })
    }

    /// With the passwords of this moment.
    pub(super) fn client(&self, resp2: bool) -> Config {
        let source = &self.source;
        let (server, database) = match &source.location {
            SourceLocation::Memory => unreachable!("Source::open opens no Redis for memory:"),
            SourceLocation::Server { address, database } => (one(address), Some(*database)),
            SourceLocation::Sentinel { sentinels, name, database } => {
                let server = ServerConfig::Sentinel {
                    hosts: sentinels.iter().filter_map(host).collect(),
                    service_name: name.clone(),
                    username: some(&source.sentinel_username),
                    password: current(source.sentinel_password.as_ref()),
                };
                (server, Some(*database))
            }
            SourceLocation::Cluster { nodes, database } => {
                let hosts = nodes.iter().filter_map(host).collect();
                let policy = ClusterDiscoveryPolicy::UseCache;
                (ServerConfig::Clustered { hosts, policy }, Some(*database))
            }
        };
        let tls = source.tls.as_ref().map(|tls| {
            let connector = TlsConnector::from(tls.0.clone());
            fred::types::config::TlsConnector::from(connector).into()
        });
        Config {
            // A failure to open is told at once.
            fail_fast: true,
            server,
            username: some(&source.username),
            password: current(source.password.as_ref()),
            version: if resp2 { RespVersion::RESP2 } else { RespVersion::RESP3 },
            database: database.and_then(|at| u8::try_from(at).ok()).filter(|at| *at != 0),
            tls,
            ..Config::default()
        }
    }

    /// Whether fred can select the database.
    pub(super) fn can_select(&self) -> bool {
        match self.source.location {
            SourceLocation::Memory => true,
            SourceLocation::Server { database, .. }
            | SourceLocation::Sentinel { database, .. }
            | SourceLocation::Cluster { database, .. } => database <= u8::MAX.into(),
        }
    }

    /// User name and password at the sentinels.
    pub(super) fn sentinel_login(&self) -> (Option<String>, Option<String>) {
        let source = &self.source;
        (some(&source.sentinel_username), current(source.sentinel_password.as_ref()))
    }

    /// Nodes of the cluster; none where it is no cluster.
    pub(super) fn cluster_nodes(&self) -> &[Address] {
        match &self.source.location {
            SourceLocation::Cluster { nodes, .. } => nodes,
            _ => &[],
        }
    }

    pub(super) fn connection() -> ConnectionConfig {
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        ConnectionConfig {
            connection_timeout: COMMAND_TIMEOUT,
            internal_command_timeout: COMMAND_TIMEOUT,
            max_command_buffer_len: MAX_WAITING,
            // A cluster that misses slots still has the others, and `CLUSTER INFO` may be denied.
            disable_cluster_health_check: true,
            tcp: TcpConfig {
                nodelay: Some(true),
                keepalive: Some(keepalive),
                ..TcpConfig::default()
            },
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(UNRESPONSIVE),
                interval: UNRESPONSIVE_INTERVAL,
            },
            ..ConnectionConfig::default()
        }
    }

    pub(super) fn reconnection() -> ReconnectPolicy {
        let (first, longest, jitter) = RECONNECT_MS;
        let mut policy = ReconnectPolicy::new_exponential(RECONNECT_ATTEMPTS, first, longest, 2);
        policy.set_jitter(jitter);
        policy
    }

    /// Whether it is a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.source.location, SourceLocation::Cluster { .. })
    }

    /// One attempt, whatever is answered.
    pub(super) fn options_once(&self) -> Options {
        Options { max_attempts: Some(1), ..self.options() }
    }

    /// One attempt: a command whose connection is lost is not sent again. In a cluster fred counts the node
    /// that answers `MOVED`, and does nothing, as an attempt.
    pub(super) fn options(&self) -> Options {
        Options {
            max_attempts: Some(if self.is_cluster() { 1 + MAX_REDIRECTIONS } else { 1 }),
            max_redirections: Some(MAX_REDIRECTIONS),
            timeout: Some(COMMAND_TIMEOUT),
            fail_fast: true,
            ..Options::default()
        }
    }
}

/// A server by itself.
pub(super) fn one(address: &Address) -> ServerConfig {
    match address {
        Address::Tcp(host, port) => ServerConfig::new_centralized(host, *port),
        Address::Unix(path) => ServerConfig::new_unix_socket(path),
    }
}

/// Sentinels and nodes of a cluster are at hosts; the configuration accepts nothing else.
fn host(address: &Address) -> Option<Server> {
    match address {
        Address::Tcp(host, port) => Some(Server::new(host, *port)),
        Address::Unix(_) => None,
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn current(password: Option<&Password>) -> Option<String> {
    password.map(|password| password.current().expose().to_owned())
}
