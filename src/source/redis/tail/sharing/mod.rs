//! Readers that share connections, where there are more stream keys than `source.connections`.
//!
//! The task of a group ([`carrier`]) is told by Redis which of its keys have changed ([`tracking`]), or else waits for
//! entries of all of them in one `XREAD` ([`watch`]). It looks at each stream once in a while. It passes no entries on: a reader that is told of some ([`SharedReader`]) reads them itself, with its look,
//! over one of a few links ([`reading_links`](super::seats::reading_links)). So everything that concerns one key,
//! its errors, the size of its replies and its backpressure, stays with its reader.

mod carrier;
mod group_read;
mod shared_reader;
mod tracking;
mod watch;

pub(in crate::source) use shared_reader::SharedReader;

use super::reading::ReaderConnection;
use super::routing::Tail;
use super::seats::SeatKind;
use super::topology::Purpose;
use crate::source::Error;

/// What a reader reads over.
pub(in crate::source) enum ReaderLink {
    /// A connection of its own.
    Own(Box<ReaderConnection>),
    /// A place among those that share one.
    Shared(Box<SharedReader>),
}

/// Connects a reader to the server where `key` is read. `was_lost`: it was connected before.
pub(in crate::source) async fn connect(
    tail: Tail,
    key: &str,
    was_lost: bool,
) -> Result<ReaderLink, Error> {
    let node = tail.servers().find(key, Purpose::Reading).await?;
    let (seat, new_group) = tail.seats().take(&node.address, key);
    if let Some(group) = new_group {
        let (tail, node) = (tail.clone(), node.clone());
        let carrier = carrier::run(tail, node, seat.server.clone(), group, was_lost);
        tokio::spawn(carrier);
    }
    if let SeatKind::Own { .. } = seat.kind {
        let connection = ReaderConnection::open(tail, node, Some(seat), was_lost).await?;
        return Ok(ReaderLink::Own(Box::new(connection)));
    }
    Ok(ReaderLink::Shared(Box::new(SharedReader::new(tail, node, seat))))
}
