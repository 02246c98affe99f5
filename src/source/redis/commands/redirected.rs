//! Adding entries from node to node, each by itself.
//!
//! fred 10.1 follows `MOVED`, but after `ASK` it sends the command to the old node again: once it has given up,
//! which means that no node did anything, we go on here. Several entries begin here: of a transaction
//! fred would send each command by itself to where a node redirects it.

use std::sync::Arc;

use super::events::CommandConnections;
use super::nodes::{Node, Nodes};
use super::outcome;
use super::sending;
use super::settings::Settings;
use crate::config::Address;
use crate::source::{Addition, Error, ErrorClass, WriteError};

/// From any node to the slot's owner, to the node that the slot moves to, and once more.
const MAX_NODES: usize = 4;

/// Where the command is to be sent, and whether the node has to be told that it was named by another.
struct Hop {
    node: Address,
    asking: bool,
}

/// The cluster, as commands need it.
pub(super) struct Cluster<'a> {
    pub(super) nodes: &'a Nodes,
    pub(super) settings: &'a Settings,
    pub(super) resp2: bool,
    pub(super) connections: &'a Arc<CommandConnections>,
}

/// Adds the entries once at most; their ids, and whether the key's time to live was renewed.
pub(super) async fn add(
    addition: &Addition<'_>,
    cluster: &Cluster<'_>,
) -> Result<(Vec<String>, Result<(), Error>), WriteError> {
    let Cluster { nodes, settings, resp2, connections } = *cluster;
    let options = settings.options_once();
    let mut node = nodes.for_key(addition.key, settings, resp2, connections).await?;
    let mut asking = false;
    for _ in 0..MAX_NODES {
        let client = node.client.pool().next();
        let refusal = match sending::all(client, addition, &options, asking).await {
            Ok(ids) => {
                if !asking {
                    nodes.found(addition.key, &node);
                }
                let renewed = sending::renew(client, addition, &options, asking).await;
                return Ok((ids, renewed.map_err(|error| outcome::not_sent(&error))));
            }
            Err(WriteError::NotWritten(refusal)) => refusal,
            Err(error) => {
                nodes.drop_client(&node);
                return Err(error);
            }
        };
        let Some(hop) = next_hop(&refusal, &node.address) else {
            return Err(refused(nodes, &node, refusal));
        };
        asking = hop.asking;
        node = nodes.at(&hop.node, settings, resp2, connections).await?;
    }
    let message =
        format!("the slot of {:?} is on its way; nothing was added, try again", addition.key);
    Err(Error { class: ErrorClass::Away, code: "ASK", message }.into())
}

/// The refusal of a node; one that is no primary any more is left.
fn refused(nodes: &Nodes, node: &Node, refusal: Error) -> WriteError {
    if refusal.code == "READONLY" {
        nodes.drop_client(node);
    }
    refusal.into()
}

/// Where the node that refused sends us.
fn next_hop(refusal: &Error, asked: &Address) -> Option<Hop> {
    if !matches!(refusal.code, "ASK" | "MOVED") {
        return None;
    }
    // "ASK 3999 127.0.0.1:6381"; a node that does not know its own host leaves it out.
    let (host, port) = refusal.message.split_whitespace().nth(2)?.rsplit_once(':')?;
    let host = match (host, asked) {
        ("" | "?", Address::Tcp(host, _)) => host,
        (host, _) => host,
    };
    let node = Address::Tcp(host.to_owned(), port.parse().ok()?);
    Some(Hop { node, asking: refusal.code == "ASK" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirection_names_the_next_node_and_whether_to_ask_it() {
        let asked = Address::Tcp("a".into(), 1);
        let hop = |code, words: &str| {
            let refusal = Error { class: ErrorClass::Away, code, message: words.to_owned() };
            next_hop(&refusal, &asked).map(|hop| (hop.node.to_string(), hop.asking))
        };
        assert_eq!(hop("ASK", "ASK 1 b:2"), Some(("b:2".into(), true)));
        assert_eq!(hop("MOVED", "MOVED 1 b:2"), Some(("b:2".into(), false)));
        assert_eq!(hop("MOVED", "MOVED 1 :2"), Some(("a:2".into(), false)));
        assert_eq!(hop("MOVED", "MOVED 1 ?:2"), Some(("a:2".into(), false)));
        assert_eq!(hop("MOVED", "MOVED 1 ::1:7"), Some(("[::1]:7".into(), false)));
        for (code, words) in
            [("ASK", "ASK 1"), ("ASK", "ASK 1 b:x"), ("ASK", ""), ("OOM", "OOM 1 b:2")]
        {
            assert_eq!(hop(code, words), None, "{words}");
        }
    }
}
