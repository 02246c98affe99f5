//! The connection of a reader: its own, one that it shares, or none where the source is embedded.

use std::time::Duration;

use super::memory::Memory;
use super::redis::tail::{ReaderConnection, SharedReader};
use super::{Error, ReadRequest, Reply, StreamInfo, StreamState};
use crate::config::Address;

/// The connection of one reader; dropping it closes it.
pub enum Connection {
    /// The embedded source.
    Memory(Memory),
    /// A connection to a Redis server.
    Redis(Box<ReaderConnection>),
    /// One that it shares with other readers: before it reads, it waits for news, for which a read takes too much memory.
    Shared(Box<SharedReader>),
}

impl Connection {
    /// Reads, and waits up to `block` for an entry. After `None` another connection is to be opened in its place;
    /// after an error this one cannot be used any more.
    pub async fn read(
        &mut self,
        ask: ReadRequest<'_>,
        block: Duration,
    ) -> Result<Option<Reply>, Error> {
        match self {
            // Boxed: a reader that shares a connection would else have the room for it while it waits.
            Self::Memory(memory) => Ok(Some(Box::pin(memory.read_blocking(ask, block)).await)),
            Self::Shared(reader) => Box::pin(reader.read(ask, block)).await,
            Self::Redis(reader) => Box::pin(reader.read(ask, block)).await,
        }
    }

    /// The state of the stream; `None`: there is no such key.
    pub async fn info(&mut self, key: &str) -> Result<Option<StreamInfo>, Error> {
        match self {
            Self::Memory(memory) => Ok(memory.info(key)),
            Self::Redis(reader) => Box::pin(reader.info(key)).await,
            Self::Shared(reader) => Box::pin(reader.info(key)).await,
        }
    }

    /// The last reply is no longer in memory. A reader calls this before it waits for anything but the next
    /// reply: other readers may be waiting for the permit of a large one.
    pub fn release_permit(&mut self) {
        match self {
            Self::Memory(_) => {}
            Self::Redis(reader) => reader.release_permit(),
            Self::Shared(reader) => reader.release_permit(),
        }
    }

    /// The server that it leads to; `None`: the source is embedded.
    pub fn server(&self) -> Option<&Address> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(reader) => Some(reader.server()),
            Self::Shared(reader) => Some(reader.server()),
        }
    }

    /// The number of the connection among those to its server; `None`: the source is embedded.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Memory(_) => None,
            Self::Redis(reader) => reader.number(),
            Self::Shared(reader) => Some(reader.group()),
        }
    }

    /// Whether other readers wait for entries over the same connection.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// Whether another connection should be opened in its place: the server's name may lead to another one now, or
    /// the reader is to share a connection, or to have its own.
    pub fn is_to_be_redialed(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(reader) => reader.is_to_be_redialed(),
            Self::Shared(reader) => reader.is_to_be_redialed(),
        }
    }

    /// Fails if the server is an orphaned replica: one that has lost its primary and still answers, but with
    /// nothing new. To be called after a read that found nothing.
    pub async fn check_orphaned(&mut self) -> Result<(), Error> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Shared(reader) => Box::pin(reader.check_orphaned()).await,
            Self::Redis(reader) => Box::pin(reader.check_orphaned()).await,
        }
    }

    /// Reports a lag that a reader found in the server's replies: another server is read from, if there is one.
    pub fn report_lagging(&self, error: &Error) {
        match self {
            Self::Memory(_) => {}
            Self::Redis(reader) => reader.report_lagging(error),
            Self::Shared(reader) => reader.report_lagging(error),
        }
    }

    /// As [`super::Source::primary_snapshot`], for the server that this connection leads to.
    pub async fn primary_snapshot(
        &self,
        key: &str,
        patience: Duration,
    ) -> Result<Option<StreamState>, Error> {
        match self {
            Self::Memory(_) => Ok(None),
            Self::Redis(reader) => Box::pin(reader.primary_snapshot(key, patience)).await,
            Self::Shared(reader) => Box::pin(reader.primary_snapshot(key, patience)).await,
        }
    }
}
