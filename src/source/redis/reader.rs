//! The connection of one reader, which follows its key from server to server.

use std::time::Duration;

use super::link::Link;
use super::servers::{Node, Wanted};
use super::{MOST_REDIRECTIONS, Redis};
use crate::config::Address;
use crate::source::{Ask, Class, Error, Info, Reply, Seen};

async fn connect(redis: &Redis, node: &Node) -> Result<Link, Error> {
    let mut link = redis.pool().connect(node).await?;
    link.take_turns(redis.parts.large_replies.clone());
    Ok(link)
}

/// The connection of one reader.
pub struct Reader {
    redis: Redis,
    node: Node,
    link: Link,
}

impl Reader {
    /// To the server where `key` is read.
    pub(super) async fn open(redis: Redis, key: &str) -> Result<Self, Error> {
        let node = redis.servers().find(key, Wanted::Reading).await?;
        match connect(&redis, &node).await {
            Ok(link) => Ok(Self { redis, node, link }),
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
        ask: Ask<'_>,
        block: Duration,
    ) -> Result<Reply, Error> {
        for _ in 0..MOST_REDIRECTIONS {
            match self.read_here(ask, block).await {
                Err(error) => self.follow(error).await?,
                reply => return reply,
            }
        }
        self.read_here(ask, block).await
    }

    async fn read_here(&mut self, ask: Ask<'_>, block: Duration) -> Result<Reply, Error> {
        tokio::select! {
            reply = self.link.read(ask, block) => reply,
            () = self.redis.servers().left(&self.node) => {
                let message = format!("{} is no longer the server to read from", self.node.address);
                Err(Error { class: Class::Away, code: "FAILOVER", message })
            }
        }
    }

    pub(in crate::source) async fn info(&mut self, key: &str) -> Result<Option<Info>, Error> {
        loop {
            match self.link.info(key).await {
                Err(error) => self.follow(error).await?,
                info => return info,
            }
        }
    }

    /// What the primary says of the stream, where this reads from another server.
    pub(in crate::source) async fn primary_says(
        &self,
        key: &str,
        patience: Duration,
    ) -> Result<Option<Seen>, Error> {
        self.redis.primary_says(&self.node, key, patience).await
    }

    /// Goes where an error leads; it comes back where it leads nowhere.
    async fn follow(&mut self, error: Error) -> Result<(), Error> {
        if error.code == "TIMEOUT" {
            // Else whoever replays finds out once more.
            self.redis.pool().forget_idle(&self.node);
        }
        let node = self.redis.servers().failed(&self.node, &error).ok_or(error)?;
        self.link = connect(&self.redis, &node).await?;
        self.node = node;
        Ok(())
    }
}
