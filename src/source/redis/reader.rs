//! The connection of one reader, which follows its key from server to server.

use std::time::{Duration, Instant};

use super::client::role::Role;
use super::client::{ANSWER_TIMEOUT, Link, in_time};
use super::replication::PATIENCE;
use super::topology::{Node, Purpose};
use super::{MOST_REDIRECTIONS, Redis};
use crate::config::{Address, ReadFrom};
use crate::source::{Error, ErrorClass, ReadRequest, Reply, StreamInfo, StreamState};

async fn connect(redis: &Redis, node: &Node) -> Result<Link, Error> {
    let mut link = unless_left(redis, node, redis.pool().connect(node)).await?;
    link.share_permits(redis.parts.large_replies.clone());
    Ok(link)
}

/// Gives the work up once `node` is no longer the server to read from: it may be frozen, and its kernel
/// accepts connections all the same.
async fn unless_left<T>(
    redis: &Redis,
    node: &Node,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        outcome = work => outcome,
        () = redis.servers().left(node) => {
            let message = format!("{} is no longer the server to read from", node.address);
            Err(Error { class: ErrorClass::Away, code: "FAILOVER", message })
        }
    }
}

/// The connection of one reader.
pub struct ReaderConnection {
    redis: Redis,
    node: Node,
    link: Link,
    /// We may not ask the server for its role.
    no_role: bool,
    /// Since when the server was seen without its primary.
    orphaned_since: Option<Instant>,
}

impl ReaderConnection {
    /// To the server where `key` is read.
    pub(super) async fn open(redis: Redis, key: &str) -> Result<Self, Error> {
        let node = redis.servers().find(key, Purpose::Reading).await?;
        match connect(&redis, &node).await {
            Ok(link) => Ok(Self { redis, node, link, no_role: false, orphaned_since: None }),
            Err(error) => {
                redis.servers().failed(&node, &error);
                Err(error)
            }
        }
    }

    /// Where it reads.
    pub(in crate::source) fn server(&self) -> &Address {
        &self.node.address
    }

    /// Waits up to `block` for entries; after an error it is of no more use.
    pub(in crate::source) async fn read(
        &mut self,
        ask: ReadRequest<'_>,
        block: Duration,
    ) -> Result<Reply, Error> {
        // Not longer than it is given to find its primary again.
        let left = |since: Instant| PATIENCE.saturating_sub(since.elapsed());
        let block = self.orphaned_since.map_or(block, |since| block.min(left(since)));
        // None at all would be for ever.
        let block = block.max(Duration::from_millis(1));
        for _ in 0..MOST_REDIRECTIONS {
            match self.read_here(ask, block).await {
                Err(error) => self.follow(error).await?,
                reply => return reply,
            }
        }
        self.read_here(ask, block).await
    }

    async fn read_here(&mut self, ask: ReadRequest<'_>, block: Duration) -> Result<Reply, Error> {
        unless_left(&self.redis, &self.node, self.link.read(ask, block)).await
    }

    pub(in crate::source) async fn info(&mut self, key: &str) -> Result<Option<StreamInfo>, Error> {
        for _ in 0..MOST_REDIRECTIONS {
            match unless_left(&self.redis, &self.node, self.link.info(key)).await {
                Err(error) => self.follow(error).await?,
                info => return info,
            }
        }
        unless_left(&self.redis, &self.node, self.link.info(key)).await
    }

    /// The last reply is no longer in memory: others that are large may have its turn.
    pub(in crate::source) fn release_permit(&mut self) {
        self.link.release_permit();
    }

    /// What the primary says of the stream, where this reads from another server.
    pub(in crate::source) async fn primary_says(
        &self,
        key: &str,
        patience: Duration,
    ) -> Result<Option<StreamState>, Error> {
        self.redis.primary_says(&self.node, key, patience).await
    }

    /// After a read that found nothing new: whether the server, where it is read from as a replica, is
    /// not without its primary for too long.
    pub(in crate::source) async fn hears_primary(&mut self) -> Result<(), Error> {
        let may_be_replica = self.redis.read_from() == ReadFrom::Replica && !self.node.primary;
        if !may_be_replica || self.no_role {
            return Ok(());
        }
        let heard = self.ask_for_primary().await;
        heard.inspect_err(|error| drop(self.redis.servers().failed(&self.node, error)))
    }

    async fn ask_for_primary(&mut self) -> Result<(), Error> {
        let asked = in_time(ANSWER_TIMEOUT, "ROLE", self.link.role());
        let role = unless_left(&self.redis, &self.node, asked).await?;
        self.no_role = role.is_none();
        let hears = !matches!(role, Some(Role::Replica { hears: false, .. }));
        self.orphaned_since = self.redis.orphans().note(&self.node.address, hears);
        let too_long = self.orphaned_since.is_some_and(|since| since.elapsed() >= PATIENCE);
        if !too_long {
            return Ok(());
        }
        let message = format!(
            "{} is a replica without its primary: nothing new comes to it (see INFO replication there)",
            self.node.address
        );
        Err(Error { class: ErrorClass::Away, code: "LAGGING", message })
    }

    /// Holds an error against the server that may be found in the midst of good answers.
    pub(in crate::source) fn report_lagging(&self, error: &Error) {
        if error.code == "LAGGING" {
            self.redis.servers().failed(&self.node, error);
        }
    }

    /// Goes where an error leads; it comes back where it leads nowhere.
    async fn follow(&mut self, error: Error) -> Result<(), Error> {
        if error.code == "TIMEOUT" {
            // Else whoever replays finds out once more.
            self.redis.pool().forget_idle(&self.node);
        }
        let node = self.redis.servers().failed(&self.node, &error).ok_or(error)?;
        self.link = connect(&self.redis, &node).await?;
        (self.node, self.no_role, self.orphaned_since) = (node, false, None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::topology::Servers;
    use super::*;
    use crate::config;

    #[tokio::test]
    async fn a_connect_to_a_frozen_server_is_given_up_once_another_one_is_named() {
        // Their kernel accepts, and nobody answers.
        let [sentinel, frozen] =
            [TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0")];
        let (sentinel, frozen) = (sentinel.await.unwrap(), frozen.await.unwrap());
        let text = format!(
            "[source]\nurl = \"redis-sentinel://{}/mine\"\n[[route]]\npath = \"/a\"\nkey = \"a\"\naccess = \"public\"\n",
            sentinel.local_addr().unwrap()
        );
        let config = config::parse(&text, "gateway.toml", &[], false).unwrap().config;
        let redis = Redis::new(&config);
        let Servers::Sentinels(sentinels) = redis.servers() else { panic!("the url names one") };
        let address = frozen.local_addr().unwrap();
        sentinels.hear_of(1, Address::Tcp(address.ip().to_string(), address.port()));
        let opening = redis.clone();
        let opening = tokio::spawn(async move { opening.connect("a").await.err() });
        let _accepted = frozen.accept().await.unwrap();
        sentinels.hear_of(2, Address::Tcp("other".into(), 6379));
        let error = opening.await.unwrap().expect("nobody answered");
        assert_eq!(error.code, "FAILOVER", "{error}");
    }
}
