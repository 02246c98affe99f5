//! Lag or loss: a replica that is behind looks like a stream that began anew.
//!
//! Only the primary can tell. What a replica says is believed once it has come as far in the history
//! of its primary as that was when it was asked: the two count it in the same bytes.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::config::ReadFrom;
use crate::source::redis::Redis;
use crate::source::redis::client::ANSWER_TIMEOUT;
use crate::source::redis::client::replies::{sole, stream_info};
use crate::source::redis::client::request::Request;
use crate::source::redis::client::role::{Role, role};
use crate::source::redis::topology::{Node, Purpose, Servers};
use crate::source::{Error, ErrorClass, StreamState};

/// A replica is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A replica of a replica of a replica is as far as anybody goes.
const LONGEST_CHAIN: usize = 4;

/// What a primary says of a stream, and how far its own history went then, where it tells.
struct PrimarySnapshot {
    seen: StreamState,
    offset: Option<u64>,
}

impl Redis {
    /// What the primary says of the stream `key`, once `node` has caught up with that; `None`: `node`
    /// is the primary, and what it says itself counts.
    ///
    /// An error where the primary cannot be asked, or `node` does not catch up within `patience`:
    /// then nothing is known.
    pub(in crate::source::redis) async fn primary_says(
        &self,
        node: &Node,
        key: &str,
        patience: Duration,
    ) -> Result<Option<StreamState>, Error> {
        let role = self.role(node).await?;
        let knows_primary = !matches!(self.servers(), Servers::One(_));
        let snapshot = match role {
            Some(Role::Primary(_)) => return Ok(None),
            None if self.read_from() == ReadFrom::Primary => return Ok(None),
            _ if knows_primary => {
                let primary = self.servers().find(key, Purpose::Primary).await?;
                if primary.address == node.address {
                    return if role.is_none() { Ok(None) } else { Err(unknown_primary(node)) };
                }
                self.snapshot(&primary, key).await?
            }
            Some(Role::Replica { of, .. }) => {
                self.snapshot(&self.head_of_chain(Node::at(of)).await?, key).await?
            }
            None => return Err(unknown_role(node)),
        };
        self.catch_up(node, key, &snapshot, patience).await?;
        Ok(Some(snapshot.seen))
    }

    /// Where to write: the server of the url, or the primary that it follows.
    pub(in crate::source::redis) async fn primary(&self, key: &str) -> Result<Node, Error> {
        let node = self.servers().find(key, Purpose::Primary).await?;
        match self.servers() {
            Servers::One(_) if self.read_from() == ReadFrom::Replica => {
                self.head_of_chain(node).await
            }
            _ => Ok(node),
        }
    }

    /// The primary that `node` follows, perhaps over other replicas; itself where it may not be asked.
    pub(in crate::source::redis) async fn head_of_chain(
        &self,
        mut node: Node,
    ) -> Result<Node, Error> {
        for _ in 0..LONGEST_CHAIN {
            match self.role(&node).await? {
                Some(Role::Replica { of, .. }) => node = Node::at(of),
                Some(Role::Primary(_)) | None => return Ok(node),
            }
        }
        Err(unknown_primary(&node))
    }

    /// `None`: we may not know.
    async fn role(&self, node: &Node) -> Result<Option<Role>, Error> {
        match self.at(node, ANSWER_TIMEOUT, "ROLE", &Request::new(&[b"ROLE"])).await {
            Ok(answers) => role(sole(answers)?),
            Err(error) if error.code == "NOPERM" => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn info_at(&self, node: &Node, key: &str) -> Result<StreamState, Error> {
        let request = Request::new(&[b"XINFO", b"STREAM", key.as_bytes()]);
        let answers = self.at(node, ANSWER_TIMEOUT, "XINFO", &request).await?;
        Ok(stream_info(sole(answers)?)?.map_or(StreamState::Missing, StreamState::Stream))
    }

    async fn snapshot(&self, primary: &Node, key: &str) -> Result<PrimarySnapshot, Error> {
        let seen = self.info_at(primary, key).await?;
        // Asked second: what it said before is within this.
        match self.role(primary).await? {
            Some(Role::Replica { .. }) => Err(unknown_primary(primary)),
            Some(Role::Primary(offset)) => Ok(PrimarySnapshot { seen, offset: Some(offset) }),
            None => Ok(PrimarySnapshot { seen, offset: None }),
        }
    }

    async fn catch_up(
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
            sleep(LOOK_AGAIN).await;
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
            (Some(Role::Primary(_)), _) => return Ok(true),
            (Some(Role::Replica { reached: Some(reached), .. }), Some(offset))
                if *reached >= offset =>
            {
                return Ok(true);
            }
            _ => {}
        }
        // Some count otherwise, and some may not be asked: the stream itself tells, if it is quiet.
        let ours = self.info_at(node, key).await?;
        let told = role.is_some() && snapshot.offset.is_some();
        Ok(ours == snapshot.seen || !told && !is_behind(ours, snapshot.seen))
    }
}

/// Whether `ours` is certainly older than `primary`.
fn is_behind(ours: StreamState, primary: StreamState) -> bool {
    match (ours, primary) {
        (StreamState::Stream(ours), StreamState::Stream(primary)) => {
            ours.last_generated < primary.last_generated
                || ours.entries_added < primary.entries_added
        }
        _ => true,
    }
}

fn unknown_role(node: &Node) -> Error {
    let message = format!(
        "{} is read from as a replica, and a replica's lag looks like a stream that began anew: allow ROLE to the user, which names the primary to ask",
        node.address
    );
    Error { class: ErrorClass::Away, code: "NOPERM", message }
}

fn unknown_primary(node: &Node) -> Error {
    let message =
        format!("{} follows another server now; nobody knows the primary yet", node.address);
    Error { class: ErrorClass::Away, code: "FAILOVER", message }
}
