//! Lag or loss: a replica that lags looks like a stream that was recreated.
//!
//! Only the primary can tell. A [`PrimarySnapshot`] is what it says of a stream, and its replication offset
//! then. What a replica says is believed once the replica has reached that offset.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::ANSWER_TIMEOUT;
use super::client::replies::{sole, stream_info};
use super::client::request::Request;
use super::client::role::{Role, role};
use super::routing::Tail;
use super::topology::{Node, Purpose, Servers};
use crate::config::ReadFrom;
use crate::source::{Error, ErrorClass, StreamState};

/// A replica that lags is checked again after this.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// A replica may follow a replica, in a chain of at most this many servers.
const MAX_CHAIN: usize = 4;

/// What a primary says of a stream, and its replication offset then, if it may be asked.
struct PrimarySnapshot {
    seen: StreamState,
    offset: Option<u64>,
}

impl Tail {
    /// As [`Self::primary_snapshot_for`], for the server where `key` is read.
    pub(in crate::source) async fn primary_snapshot(
        &self,
        key: &str,
        patience: Duration,
    ) -> Result<Option<StreamState>, Error> {
        let node = self.servers().find(key, Purpose::Reading).await?;
        self.primary_snapshot_for(&node, key, patience).await
    }

    /// What the primary says of the stream `key`, once `node` has caught up with it; `None`: `node` is the
    /// primary itself.
    ///
    /// An error means that nothing is known: the primary cannot be asked, or `node` did not catch up within
    /// `patience`.
    pub(super) async fn primary_snapshot_for(
        &self,
        node: &Node,
        key: &str,
        patience: Duration,
    ) -> Result<Option<StreamState>, Error> {
        let role = self.role(node).await?;
        let knows_primary = !matches!(self.servers(), Servers::One(_));
        let snapshot = match role {
            Some(Role::Primary { .. }) => return self.confirmed(node).await,
            None if self.read_from() == ReadFrom::Primary => return self.confirmed(node).await,
            _ if knows_primary => {
                let primary = self.servers().find(key, Purpose::Primary).await?;
                if primary.address == node.address {
                    return if role.is_none() {
                        self.confirmed(node).await
                    } else {
                        Err(unknown_primary(node))
                    };
                }
                self.snapshot(&primary, key).await?
            }
            Some(Role::Replica { primary: Some(primary), .. }) => {
                self.snapshot(&self.head_of_chain(Node::at(primary)).await?, key).await?
            }
            Some(Role::Replica { primary: None, .. }) => return Err(unknown_primary(node)),
            None => return Err(unknown_role(node)),
        };
        self.wait_until_caught_up(node, key, &snapshot, patience).await?;
        Ok(Some(snapshot.seen))
    }

    /// `node` says that it is the primary, or is taken for it: so say its sentinels.
    async fn confirmed(&self, node: &Node) -> Result<Option<StreamState>, Error> {
        self.servers().confirm(node).await?;
        Ok(None)
    }

    /// The primary that `node` follows, perhaps through other replicas; `node` itself if it may not be asked.
    async fn head_of_chain(&self, mut node: Node) -> Result<Node, Error> {
        for _ in 0..MAX_CHAIN {
            match self.role(&node).await? {
                Some(Role::Replica { primary: Some(primary), .. }) => node = Node::at(primary),
                Some(Role::Replica { primary: None, .. }) => break,
                Some(Role::Primary { .. }) | None => return Ok(node),
            }
        }
        Err(unknown_primary(&node))
    }

    /// `None`: this user may not ask.
    async fn role(&self, node: &Node) -> Result<Option<Role>, Error> {
        let request = Request::new(&[b"ROLE"]);
        match self.request_at(node, ANSWER_TIMEOUT, "ROLE", &request).await {
            Ok(answers) => role(sole(answers)?),
            Err(error) if error.code == "NOPERM" => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn stream_state(&self, node: &Node, key: &str) -> Result<StreamState, Error> {
        let request = Request::new(&[b"XINFO", b"STREAM", key.as_bytes()]);
        let answers = self.request_at(node, ANSWER_TIMEOUT, "XINFO", &request).await?;
        let Some(info) = stream_info(sole(answers)?)? else { return Ok(StreamState::Missing) };
        Ok(StreamState::Stream(self.without_impossible_holes(node, info).await))
    }

    async fn snapshot(&self, primary: &Node, key: &str) -> Result<PrimarySnapshot, Error> {
        let seen = self.stream_state(primary, key).await?;
        // Asked second, so that the offset covers what was seen.
        match self.role(primary).await? {
            Some(Role::Replica { .. }) => Err(unknown_primary(primary)),
            Some(Role::Primary { offset }) => Ok(PrimarySnapshot { seen, offset }),
            None => Ok(PrimarySnapshot { seen, offset: None }),
        }
    }

    async fn wait_until_caught_up(
        &self,
        node: &Node,
        key: &str,
        snapshot: &PrimarySnapshot,
        patience: Duration,
    ) -> Result<(), Error> {
        let end = Instant::now() + patience;
        while !self.has_caught_up(node, key, snapshot).await? {
            if Instant::now() >= end {
                let message = format!("{} lags behind its primary", node.address);
                return Err(Error { class: ErrorClass::Away, code: "LAGGING", message });
            }
            sleep(CHECK_INTERVAL).await;
        }
        Ok(())
    }

    async fn has_caught_up(
        &self,
        node: &Node,
        key: &str,
        snapshot: &PrimarySnapshot,
    ) -> Result<bool, Error> {
        let role = self.role(node).await?;
        match (&role, snapshot.offset) {
            (Some(Role::Primary { .. }), _) => return Ok(true),
            (Some(Role::Replica { offset: Some(reached), .. }), Some(offset))
                if *reached >= offset =>
            {
                return Ok(true);
            }
            _ => {}
        }
        // Some servers count offsets otherwise, and some may not be asked. Then compare the streams: they are
        // the same once a quiet stream has been copied.
        let ours = self.stream_state(node, key).await?;
        let has_offsets = role.is_some() && snapshot.offset.is_some();
        Ok(ours == snapshot.seen || !has_offsets && !is_behind(ours, snapshot.seen))
    }
}

/// Whether the replica's stream is certainly older than the primary's.
fn is_behind(replica: StreamState, primary: StreamState) -> bool {
    match (replica, primary) {
        (StreamState::Stream(replica), StreamState::Stream(primary)) => {
            replica.last_generated < primary.last_generated
                || replica.entries_added < primary.entries_added
        }
        _ => true,
    }
}

fn unknown_role(node: &Node) -> Error {
    let message = format!(
        "{} is read from as a replica, and its lag looks like a recreated stream; allow the user ROLE, which names the primary to ask",
        node.address
    );
    Error { class: ErrorClass::Away, code: "NOPERM", message }
}

fn unknown_primary(node: &Node) -> Error {
    let message =
        format!("{} follows another server now, and the primary is not known yet", node.address);
    Error { class: ErrorClass::Away, code: "FAILOVER", message }
}
