//! Clients that are level with all of their streams, merged on one connection each.
//!
//! ```text
//!  one task for each worker: a hall
//!  +--------------------------------------------------------------+
//!  | feed: a topic ──┬──▶ crowd: follows a, b ──▶ its members' sockets |
//!  | feed: a topic ──┴──▶ crowd: follows b, c ──▶ its members' sockets |
//!  +--------------------------------------------------------------+
//! ```
//!
//! Clients that follow the same streams are a crowd: what is new is made once for all of them. Many crowds stand in a hall,
//! which has one position in each topic (a feed) for all of them, and wakes once for an entry, whoever gets it.
//!
//! A hall knows entries and keepalives, and nothing else. At whatever else happens (a gap, a source that is away, a
//! deadline, a drain, a client that takes too little) members go back to tasks of their own, which tell their clients
//! of it and come again once they are level.

mod feed;
mod hall;
mod members;
mod news;
mod rounds;
#[cfg(test)]
mod tests;
mod write;

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::merged::{LevelPart, LevelStream};
use super::shard::Probe;
use super::{Fanout, Socket};
use crate::config::Signals;
use crate::sse::Controls;

/// What the members of a crowd have in common: all of them get the same bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
struct CrowdKey {
    /// Topic, rendering and name of each part.
    parts: Vec<(u64, u16, Arc<str>)>,
    controls: Controls,
    framed: bool,
    signals: Signals,
}

/// What comes into a hall's loop from outside.
pub(super) enum HallMessage {
    /// A client that is to stay.
    Join(Box<(Socket, LevelStream)>),
    /// The question whether the loop goes round.
    Probe(Probe),
    /// Grants were revoked, perhaps some of its members'.
    RecheckGrants,
}

/// A hall, seen from outside.
pub(super) struct HallHandle(mpsc::UnboundedSender<HallMessage>);

impl HallHandle {
    /// Sends a message. While the handle can be reached its hall takes it.
    pub(super) fn deliver(&self, message: HallMessage) {
        // When the runtime itself ends the client ends with it.
        let _ = self.0.send(message);
    }
}

impl CrowdKey {
    fn of(stream: &LevelStream) -> Self {
        let part = |part: &LevelPart| {
            (part.subscriber.topic().id, part.subscriber.format.rendering, part.name.clone())
        };
        Self {
            parts: stream.parts.iter().map(part).collect(),
            controls: stream.format.controls,
            framed: stream.format.framed,
            signals: stream.rules.signals,
        }
    }

    /// The hall in which such a crowd stands, of so many.
    fn hall(&self, halls: usize) -> usize {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        usize::try_from(hasher.finish() % halls as u64).expect("less than halls")
    }
}

impl Fanout {
    /// Hands a client that is level with all of its streams to those that follow the same.
    pub(super) fn join_crowd(self: &Arc<Self>, socket: Socket, stream: LevelStream) {
        let hall = CrowdKey::of(&stream).hall(self.settings().workers);
        let open = || {
            let (sender, inbox) = mpsc::unbounded_channel();
            hall::spawn(self, hall, inbox);
            HallHandle(sender)
        };
        // Under the lock of the entry: a hall that is empty ends under the same.
        let handle = self.halls.entry(hall).or_insert_with(open);
        handle.deliver(HallMessage::Join(Box::new((socket, stream))));
    }
}
