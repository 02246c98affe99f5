//! How stream keys will be waited for that share a connection, and which right would make it better.

use super::finding::{Judgement, Level};
use crate::config::{Config, SourceLocation};
use crate::source::{Error, Inspector};

const CODE: &str = "shared-reads";

/// How keys are waited for that share a connection; `None`: none will.
pub(super) async fn shared_reads(server: &Inspector, config: &Config) -> Option<Judgement> {
    if !may_share(config) {
        return None;
    }
    let Err(untold) = may_track(server).await else {
        let text = "Redis will tell which of their keys have changed (CLIENT TRACKING)";
        return Some((Level::Fine, CODE, text.into()));
    };
    let together = match config.source.location {
        SourceLocation::Cluster { .. } => "keys of one slot are read together, slots in turn",
        _ => "keys are read together",
    };
    let text = format!(
        "Redis will not tell which of their keys have changed ({}): {together}, so that an entry costs Redis work for every key of its connection, and many come late; allow +hello +client|tracking",
        untold.message
    );
    let text = match may_end_reads(server).await {
        Ok(()) => text,
        Err(denied) => format!(
            "{text}. Nor may such reads be ended ({}): they last 100 ms at most, and a new stream key may wait so long; else allow +client|id +client|unblock",
            denied.message
        ),
    };
    Some((Level::Note, CODE, text))
}

/// Whether Redis may be asked to tell of keys: both commands leave this connection as it is.
async fn may_track(server: &Inspector) -> Result<(), Error> {
    server.ask(&["HELLO", "2"]).await?;
    server.ask(&["CLIENT", "TRACKING", "OFF"]).await.map(drop)
}

/// Whether a read can be ended, as the gateway does it for a new stream key.
async fn may_end_reads(server: &Inspector) -> Result<(), Error> {
    let id = server.ask(&["CLIENT", "ID"]).await?;
    // It is no read that waits, so nothing is ended.
    server.ask(&["CLIENT", "UNBLOCK", id.text()]).await.map(drop)
}

/// Whether there may be more stream keys than connections for them.
fn may_share(config: &Config) -> bool {
    let templates = || config.routes.iter().flat_map(|route| route.streams.templates());
    let keys = if templates().any(|key| key.variables().next().is_some()) {
        config.limits.readers
    } else {
        templates().count().min(config.limits.readers)
    };
    config.source.reader_connections_to_each(keys) < keys
}
