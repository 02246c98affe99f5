//! Adding an entry whose slot is on its way from node to node. fred 10.1 follows `MOVED`, but after `ASK` it
//! sends the command to the old node again. So once it has given up, which means that no node did anything, we
//! go from node to node, each by itself.

use std::sync::Arc;

use fred::interfaces::ClientLike as _;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::client::Client;
use super::events::CommandConnections;
use super::settings::{Settings, one};
use super::{NewEntry, outcome};
use crate::config::Address;
use crate::source::{Error, ErrorClass, WriteError};

/// From any node to the slot's owner, to the node that the slot moves to, and once more.
const MAX_NODES: usize = 4;

/// Where the command is to be sent, and whether the node has to be told that it was named by another.
struct Hop {
    node: Address,
    asking: bool,
}

/// Adds the entry once at most; its id.
pub(super) async fn add(
    entry: &NewEntry<'_>,
    settings: &Settings,
    resp2: bool,
    connections: &Arc<CommandConnections>,
) -> Result<String, WriteError> {
    let (mut client, node) = any_node(settings, resp2, connections).await?;
    let mut hop = Hop { node, asking: false };
    for _ in 0..MAX_NODES {
        let refusal = match add_at(entry, &client, settings, hop.asking).await {
            Err(WriteError::NotWritten(refusal)) => refusal,
            outcome => return outcome,
        };
        hop = next_hop(&refusal, &hop.node).ok_or(refusal)?;
        client = at(&hop.node, settings, resp2, connections).await?;
    }
    let message =
        format!("the slot of {:?} is on its way; nothing was added, try again", entry.key);
    Err(Error { class: ErrorClass::Away, code: "ASK", message }.into())
}

async fn add_at(
    entry: &NewEntry<'_>,
    client: &Client,
    settings: &Settings,
    asking: bool,
) -> Result<String, WriteError> {
    let client = client.pool().next().with_options(&settings.options());
    if !asking {
        return entry.add_with(&client).await.map_err(|error| outcome::write_error(&error));
    }
    // Both at once, so that no other command takes the permission.
    let pipeline = client.pipeline();
    let ask = CustomCommand::new_static("ASKING", ClusterHash::FirstKey, false);
    let queued = async {
        let _: Value = pipeline.custom(ask, Vec::<String>::new()).await?;
        entry.add_with::<Value>(&pipeline).await
    };
    queued.await.map_err(|error| outcome::not_sent(&error))?;
    let mut answers = pipeline.try_all::<Value>().await;
    let added = answers.pop().ok_or_else(|| WriteError::Unknown(outcome::closed()))?;
    let id = added.and_then(Value::convert);
    id.map_err(|error| outcome::write_error(&error))
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

/// The first node that can be reached.
async fn any_node(
    settings: &Settings,
    resp2: bool,
    connections: &Arc<CommandConnections>,
) -> Result<(Client, Address), Error> {
    let mut failure = outcome::closed();
    for node in settings.cluster_nodes() {
        match at(node, settings, resp2, connections).await {
            Ok(client) => return Ok((client, node.clone())),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn at(
    node: &Address,
    settings: &Settings,
    resp2: bool,
    connections: &Arc<CommandConnections>,
) -> Result<Client, Error> {
    let mut config = settings.client(resp2);
    config.server = one(node);
    Client::connect(config, 1, connections).await
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
