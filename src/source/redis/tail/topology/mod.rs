//! Which server to ask about a stream key, and which one to write to.

use super::client::Login;
use crate::config::{self, Address, ReadFrom, SourceLocation};
use crate::source::Error;

mod cluster;
mod node;
mod sentinel;
mod slot;

pub(super) use node::{Node, Purpose};
pub(super) use slot::slot;

use cluster::Cluster;
use sentinel::Sentinels;

/// The servers, as the configuration names them.
pub(super) enum Servers {
    One(Address),
    Sentinels(Sentinels),
    Cluster(Box<Cluster>),
}

impl Servers {
    pub(super) fn new(source: &config::Source, login: &Login) -> Self {
        let replica = source.read_from == ReadFrom::Replica;
        match &source.location {
            SourceLocation::Memory => unreachable!("Source::open opens no Redis for memory:"),
            SourceLocation::Server { address, .. } => Self::One(address.clone()),
            SourceLocation::Sentinel { sentinels, name, .. } => {
                let login = Login {
                    tls: source.tls.clone(),
                    username: source.sentinel_username.clone(),
                    password: source.sentinel_password.clone(),
                    ..Login::default()
                };
                Self::Sentinels(Sentinels::new(sentinels.clone(), name, login, replica))
            }
            SourceLocation::Cluster { nodes, .. } => {
                Self::Cluster(Box::new(Cluster::new(nodes.clone(), login.clone(), replica)))
            }
        }
    }

    /// Finds the server for `key`.
    pub(super) async fn find(&self, key: &str, purpose: Purpose) -> Result<Node, Error> {
        match self {
            Self::One(address) => Ok(Node::at(address.clone())),
            Self::Sentinels(sentinels) => sentinels.find(purpose).await,
            Self::Cluster(cluster) => cluster.find(key, purpose).await,
        }
    }

    /// The servers of which one has to answer.
    pub(super) async fn to_ask(&self) -> Result<Vec<Node>, Error> {
        match self {
            Self::Cluster(cluster) => cluster.nodes().await,
            Self::One(_) | Self::Sentinels(_) => Ok(vec![self.find("", Purpose::Reading).await?]),
        }
    }

    /// The error, with what helps against it.
    pub(super) fn explained(&self, mut error: Error) -> Error {
        if matches!(self, Self::One(_)) && matches!(error.code, "MOVED" | "ASK") {
            let hint = "; this server is a node of a cluster: write redis-cluster:// in source.url";
            error.message.push_str(hint);
        }
        error
    }

    /// Learns from a failure at `node`; returns the node to ask instead, if the error names one.
    pub(super) fn report_failure(&self, node: &Node, error: &Error) -> Option<Node> {
        match self {
            Self::One(_) => None,
            Self::Sentinels(sentinels) => {
                sentinels.report_failure(node, error);
                None
            }
            Self::Cluster(cluster) => cluster.report_failure(node, error),
        }
    }

    /// The primary that sentinels name now, as far as they were asked.
    pub(super) fn named_primary(&self) -> Option<Address> {
        match self {
            Self::Sentinels(sentinels) => sentinels.primary(),
            Self::One(_) | Self::Cluster(_) => None,
        }
    }

    /// Fails if sentinels, asked anew, name another server than `node`, which says that it is the primary.
    pub(super) async fn confirm(&self, node: &Node) -> Result<(), Error> {
        match self {
            Self::Sentinels(sentinels) => sentinels.confirm(node).await,
            Self::One(_) | Self::Cluster(_) => Ok(()),
        }
    }

    /// Returns once the sentinels name another server than `node` to read from: a frozen server does not say
    /// so itself.
    pub(super) async fn replaced(&self, node: &Node) {
        match self {
            Self::Sentinels(sentinels) => sentinels.replaced(node).await,
            Self::One(_) | Self::Cluster(_) => std::future::pending().await,
        }
    }

    /// Returns once the sentinels name another server than before.
    pub(super) async fn changed(&self) {
        match self {
            Self::Sentinels(sentinels) => sentinels.changed().await,
            Self::One(_) | Self::Cluster(_) => std::future::pending().await,
        }
    }
}
