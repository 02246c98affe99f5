//! Which server is asked about a stream key, and which one is written to.

use super::client::Login;
use crate::config::{self, Address, ReadFrom, SourceLocation};
use crate::source::Error;

mod cluster;
mod node;
mod sentinel;
mod slot;

pub(super) use node::{Node, Purpose};

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
            SourceLocation::Memory => unreachable!("Source::open chooses by place"),
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
            SourceLocation::Cluster { nodes } => {
                Self::Cluster(Box::new(Cluster::new(nodes.clone(), login.clone(), replica)))
            }
        }
    }

    /// The server for `key`.
    pub(super) async fn find(&self, key: &str, purpose: Purpose) -> Result<Node, Error> {
        match self {
            Self::One(address) => Ok(Node::at(address.clone())),
            Self::Sentinels(sentinels) => sentinels.find(purpose).await,
            Self::Cluster(cluster) => cluster.find(key, purpose).await,
        }
    }

    /// Learns from what went wrong at `node`; where to ask instead, if that is known by it.
    pub(super) fn failed(&self, node: &Node, error: &Error) -> Option<Node> {
        match self {
            Self::One(_) => None,
            Self::Sentinels(sentinels) => {
                sentinels.failed(node, error);
                None
            }
            Self::Cluster(cluster) => cluster.failed(node, error),
        }
    }

    /// Returns once `node` is no longer the server to read from, and may not say so itself.
    pub(super) async fn left(&self, node: &Node) {
        match self {
            Self::Sentinels(sentinels) => sentinels.left(node).await,
            Self::One(_) | Self::Cluster(_) => std::future::pending().await,
        }
    }

    /// Returns once another server is named than was before, without anybody's asking.
    pub(super) async fn moved(&self) {
        match self {
            Self::Sentinels(sentinels) => sentinels.moved().await,
            Self::One(_) | Self::Cluster(_) => std::future::pending().await,
        }
    }
}
