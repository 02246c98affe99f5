//! The configuration: every value typed, every default filled in. `toml/` reads it from gateway.toml and
//! the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

mod auth;
mod cors;
pub mod diagnostics;
pub mod jwk;
mod limits;
mod loaded;
mod password;
pub mod print;
mod proxy;
pub mod publish;
mod restart_required;
mod risks;
mod route;
mod rows;
mod rules;
mod secret;
mod snapshot;
mod streams;
pub mod template;
#[cfg(test)]
mod tests;
mod toml;
mod units;

pub use auth::{Access, Jwt, KeyPlace, Keys, Match, TokenPlace};
pub use cors::{AllowedOrigin, Cors, Origins};
pub use diagnostics::{Fault, Faults};
pub use limits::Limits;
pub use loaded::{ConfigFile, Loaded, Setting};
pub use password::Password;
pub use proxy::{Proxy, Trusted};
pub use risks::{CHOICES, Risk};
pub use route::{Replay, Route};
pub use rows::{ClaimedColumn, Rows, is_last_event_id, is_own_parameter};
pub use rules::{Absent, Ended, OnGap, RouteStart, Signals, StreamRules};
pub use snapshot::{SnapshotRule, StateOf, StateQuery, StateTemplate};
pub use streams::{NamedKey, Streams, is_part_name};
pub use template::{KeyTemplate, PathTemplate};
pub use toml::{Identity, IdentityError, LoadedIdentity, environment, load, parse, without_file};

/// Everything the gateway needs to know to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The public listeners and how streams behave on them.
    pub server: Server,
    /// The operator's listener.
    pub admin: Admin,
    /// Where entries come from.
    pub source: Source,
    /// What the gateway keeps in memory for replay.
    pub ring: Ring,
    /// When clients are refused.
    pub limits: Limits,
    /// Which pages of other origins may read.
    pub cors: Cors,
    /// Which proxies may say who a client is.
    pub proxy: Proxy,
    /// What the log holds, and in which form.
    pub log: Log,
    /// Which tokens are accepted.
    pub jwt: Jwt,
    /// What clients may read.
    pub routes: Vec<Route>,
    /// Whether this is `--demo`: the embedded source fed by a sample, a page at `/`.
    pub demo: bool,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where clients connect.
    pub listen: Vec<Listen>,
    /// A stream silent for this long gets a comment.
    pub keepalive: Duration,
    /// Base of the reconnection time; each client gets 1-3 times this.
    pub retry: Duration,
    /// Each stream is closed after 80-100 % of this; zero: never.
    pub max_connection_age: Duration,
    /// Closes are spread over this on shutdown.
    pub drain: Duration,
    /// How overload, drain and start-up are answered.
    pub refuse: Refuse,
    /// Allowed Host names, lower case, without ports; empty: any.
    pub hosts: Vec<String>,
    /// Fan-out workers; never zero here.
    pub workers: usize,
    /// Whether the gateway hands many sends to the kernel in one call, if the kernel allows it.
    pub io_uring: bool,
    /// The certificate of the TCP listeners; `None`: they speak no TLS.
    pub tls: Option<Identity>,
}

/// One listening address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `HOST:PORT`, resolved; port 0 takes any.
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
    /// `systemd:NAME`: every inherited socket of this name.
    Systemd(String),
}

impl Listen {
    /// Whether other machines can connect, as far as the address shows.
    pub(crate) fn is_reachable(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().to_canonical().is_loopback())
    }
}

/// As in the configuration, but with host names resolved.
impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// How a client that cannot be served now is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuse {
    /// 200, a control event, a long `retry:`, close: an `EventSource` comes back.
    Retry,
    /// 503 with Retry-After.
    Status,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// `None`: off.
    pub listen: Option<Listen>,
    /// Bearer token for everything but probes and metrics.
    pub token: Option<Secret>,
    /// Whether `POST /publish/{key}` works.
    pub publish: bool,
}

/// `[source]`
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Where the entries are.
    pub location: SourceLocation,
    /// `AUTH` user name; empty: none.
    pub username: String,
    /// `AUTH` password.
    pub password: Option<Password>,
    /// `AUTH` user name at the sentinels; empty: none.
    pub sentinel_username: String,
    /// `AUTH` password at the sentinels.
    pub sentinel_password: Option<Password>,
    /// How to speak TLS; `None`: in plain.
    pub tls: Option<Tls>,
    /// The server to read from.
    pub read_from: ReadFrom,
    /// Connections of readers to each server; beyond it they share. 0: one for each stream key.
    pub connections: usize,
    /// Upper bound of `XREAD COUNT`.
    pub read_count: u64,
    /// `XREAD BLOCK`.
    pub block: Duration,
    /// Largest data sent, inclusive.
    pub max_entry_bytes: usize,
    /// How long a reader outlives its last subscriber.
    pub linger: Duration,
}

impl Source {
    /// The URL without user and password, for the log.
    pub fn place(&self) -> String {
        let place = self.location.to_string();
        match place.strip_prefix("redis") {
            Some(rest) if self.tls.is_some() => format!("rediss{rest}"),
            _ => place,
        }
    }

    /// Connections that so many readers may have to one server.
    pub fn reader_connections_to_each(&self, readers: usize) -> usize {
        if self.connections == 0 { readers } else { readers.min(self.connections) }
    }

    /// The same to all servers that the URL names.
    pub fn reader_connections(&self, readers: usize) -> usize {
        let servers = match &self.location {
            SourceLocation::Memory => 0,
            SourceLocation::Server { .. } | SourceLocation::Sentinel { .. } => 1,
            SourceLocation::Cluster { nodes, .. } => nodes.len(),
        };
        readers.min(self.reader_connections_to_each(readers).saturating_mul(servers))
    }
}

/// The server of a stream to read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// The primary.
    Primary,
    /// A replica, which may lag.
    Replica,
}

/// Where the entries are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceLocation {
    /// In this process (`memory:`).
    Memory,
    /// On one Redis server (`redis://host:port/database`, `redis+unix:///path?db=0`).
    Server {
        /// Where it is.
        address: Address,
        /// `SELECT`ed database.
        database: u32,
    },
    /// On the server that sentinels name (`redis-sentinel://host:port,host:port/name/database`).
    Sentinel {
        /// Where the sentinels are.
        sentinels: Vec<Address>,
        /// What they call the primary.
        name: String,
        /// `SELECT`ed database.
        database: u32,
    },
    /// On the servers of a cluster (`redis-cluster://host:port,host:port/database`).
    Cluster {
        /// Some of its nodes; they know the others.
        nodes: Vec<Address>,
        /// `SELECT`ed database. Clusters of Redis have none but 0; those of Valkey 9 may.
        database: u32,
    },
}

/// Where one server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// At a TCP port of a host name or address.
    Tcp(String, u16),
    /// Behind a unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Without user and password, for the log.
impl std::fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |addresses: &[Address]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Server { address: address @ Address::Unix(_), database } => {
                write!(f, "redis+unix://{address}?db={database}")
            }
            Self::Server { address, database } => write!(f, "redis://{address}/{database}"),
            Self::Sentinel { sentinels, name, database } => {
                write!(f, "redis-sentinel://{}/{name}/{database}", list(sentinels))
            }
            Self::Cluster { nodes, database: 0 } => write!(f, "redis-cluster://{}", list(nodes)),
            Self::Cluster { nodes, database } => {
                write!(f, "redis-cluster://{}/{database}", list(nodes))
            }
        }
    }
}

/// How to speak TLS to Redis: the trusted authorities, and the client certificate.
#[derive(Clone)]
pub struct Tls(pub Arc<rustls::ClientConfig>);

/// Each configuration reads its own: two are equal only if they were read together.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TLS")
    }
}

/// `[ring]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Entries per stream key.
    pub entries: usize,
    /// Bytes per stream key.
    pub bytes: usize,
    /// Bytes of all stream keys.
    pub total_bytes: usize,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// A tracing filter.
    pub level: String,
    /// Whether there is a line for each stream that ends and each request.
    pub access: bool,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Fields to journald under systemd, text on a terminal, else JSON.
    Auto,
    /// For people.
    Text,
    /// For log collectors.
    Json,
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MASKED")
    }
}

/// Reads a duration as the configuration writes it: `250ms`, `15s`, `5m`, `2h`, `1d`.
pub fn duration(text: &str) -> Option<Duration> {
    units::duration(&units::WrittenValue::from(text)).ok()
}
