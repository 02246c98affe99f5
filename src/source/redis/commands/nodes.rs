//! Nodes of a cluster, each with a connection of its own: for what fred cannot send to the right one by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use fred::types::cluster::ClusterRouting;

use super::client::Client;
use super::events::CommandConnections;
use super::outcome;
use super::settings::{Settings, one};
use crate::config::Address;
use crate::source::Error;

/// The nodes that were asked, and which slot was found where.
#[derive(Default)]
pub(super) struct Nodes {
    /// Locked for one look at a time, never across an await.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    clients: HashMap<Address, Arc<Client>>,
    /// By slot; there are 16,384 at most.
    owners: HashMap<u16, Address>,
}

/// A node, and a connection to it.
pub(super) struct Node {
    pub(super) address: Address,
    pub(super) client: Arc<Client>,
}

impl Nodes {
    /// The node that had the key last, or else any that can be reached.
    pub(super) async fn for_key(
        &self,
        key: &str,
        settings: &Settings,
        resp2: bool,
        connections: &Arc<CommandConnections>,
    ) -> Result<Node, Error> {
        let owner = self.known().owners.get(&slot(key)).cloned();
        let mut failure = outcome::closed();
        for node in owner.iter().chain(settings.cluster_nodes()) {
            match self.at(node, settings, resp2, connections).await {
                Ok(node) => return Ok(node),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    pub(super) async fn at(
        &self,
        address: &Address,
        settings: &Settings,
        resp2: bool,
        connections: &Arc<CommandConnections>,
    ) -> Result<Node, Error> {
        let known = self.known().clients.get(address).cloned();
        if let Some(client) = known.filter(|client| client.leads_to(None)) {
            return Ok(Node { address: address.clone(), client });
        }
        let mut config = settings.client(resp2);
        config.server = one(address);
        let client = Arc::new(Client::connect(config, 1, connections).await?);
        self.known().clients.insert(address.clone(), client.clone());
        Ok(Node { address: address.clone(), client })
    }

    /// The key was found at this node.
    pub(super) fn found(&self, key: &str, node: &Node) {
        self.known().owners.insert(slot(key), node.address.clone());
    }

    /// The connection may lead nowhere.
    pub(super) fn drop_client(&self, node: &Node) {
        self.known().clients.remove(&node.address);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder of the lock panics")
    }
}

fn slot(key: &str) -> u16 {
    ClusterRouting::hash_key(key.as_bytes())
}
