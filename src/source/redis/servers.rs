//! Which server is asked about a stream key, and which one is written to.

use std::time::Duration;

use super::cluster::Cluster;
use super::link::{Link, Login};
use super::role::Role;
use super::sentinel::Sentinels;
use crate::config::{self, Address, Place, ReadFrom};
use crate::source::{Class, Error};

/// A server that failed is asked last for this long, and not read from if there is another.
const SUSPECTED: Duration = Duration::from_secs(5);
/// One that lags answers on: whoever comes back too soon waits for it once more.
const SUSPECTED_OF_LAG: Duration = Duration::from_secs(30);

/// The servers, as the configuration names them.
pub(super) enum Servers {
    One(Address),
    Sentinels(Sentinels),
    Cluster(Box<Cluster>),
}

/// What a server is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// To read from, as `read_from` says.
    Reading,
    /// To write to, or to have the last word.
    Primary,
}

/// A server, and how to speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) address: Address,
    /// Each command is announced with ASKING.
    pub(super) asking: bool,
    /// It is believed to be a primary, and of no use if it is none.
    pub(super) primary: bool,
}

impl Node {
    pub(super) fn at(address: Address) -> Self {
        Self { address, asking: false, primary: false }
    }

    /// Whether the server is what it is taken for, as far as we may know.
    pub(super) async fn verify(&self, link: &mut Link) -> Result<(), Error> {
        if self.primary && matches!(link.role().await?, Some(Role::Replica { .. })) {
            let message = format!("{} is no longer the primary, or not yet", self.address);
            return Err(Error { class: Class::Away, code: "FAILOVER", message });
        }
        Ok(())
    }
}

impl Servers {
    pub(super) fn new(source: &config::Source, login: &Login) -> Self {
        let replica = source.read_from == ReadFrom::Replica;
        match &source.place {
            Place::Memory => unreachable!("Source::open chooses by place"),
            Place::Server { address, .. } => Self::One(address.clone()),
            Place::Sentinel { sentinels, name, .. } => {
                let login = Login {
                    tls: source.tls.clone(),
                    username: source.sentinel_username.clone(),
                    password: source.sentinel_password.clone(),
                    ..Login::default()
                };
                Self::Sentinels(Sentinels::new(sentinels.clone(), name, login, replica))
            }
            Place::Cluster { nodes } => {
                Self::Cluster(Box::new(Cluster::new(nodes.clone(), login.clone(), replica)))
            }
        }
    }

    /// The server for `key`.
    pub(super) async fn find(&self, key: &str, wanted: Wanted) -> Result<Node, Error> {
        match self {
            Self::One(address) => Ok(Node::at(address.clone())),
            Self::Sentinels(sentinels) => sentinels.find(wanted).await,
            Self::Cluster(cluster) => cluster.find(key, wanted).await,
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

/// How long the server where this happened is suspected.
pub(super) fn suspicion(error: &Error) -> Duration {
    if error.code == "LAGGING" { SUSPECTED_OF_LAG } else { SUSPECTED }
}

/// A refusal that has nothing to do with any key, which only the operator can mend.
pub(super) fn about_no_key(error: Error) -> Error {
    let class = if error.class == Class::Key { Class::Login } else { error.class };
    Error { class, ..error }
}
