//! Clients that are level with the same streams, merged on one connection each: one task, one loop, one write for all.
//!
//! A crowd knows entries and keepalives, and nothing else. At whatever else happens (a gap, a source that is away, a
//! deadline, a drain, a client that takes too little) its members go back to tasks of their own, which tell their clients
//! of it and come again once they are level.

mod members;
mod rounds;
mod task;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use super::merged::{LevelPart, LevelStream};
use super::shard::Probe;
use super::{Fanout, Socket};
use crate::config::Signals;
use crate::sse::Controls;

/// What the members of a crowd have in common: all of them get the same bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct CrowdKey {
    /// Topic, rendering and name of each part.
    parts: Vec<(u64, u16, Arc<str>)>,
    controls: Controls,
    framed: bool,
    signals: Signals,
}

/// What comes into a crowd's loop from outside.
pub(super) enum CrowdMessage {
    /// A client that is to stay.
    Join(Box<(Socket, LevelStream)>),
    /// The question whether the loop goes round.
    Probe(Probe),
    /// Grants were revoked, perhaps some of its members'.
    RecheckGrants,
}

/// A crowd, seen from outside.
pub(super) struct CrowdHandle(mpsc::UnboundedSender<CrowdMessage>);

impl CrowdHandle {
    /// Sends a message. While the handle can be reached its crowd takes it.
    pub(super) fn deliver(&self, message: CrowdMessage) {
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
}

impl Fanout {
    /// Hands a client that is level with all of its streams to those that follow the same.
    pub(super) fn join_crowd(self: &Arc<Self>, socket: Socket, stream: LevelStream) {
        let key = CrowdKey::of(&stream);
        let open = || {
            let (sender, inbox) = mpsc::unbounded_channel();
            let number = self.opened_shards.fetch_add(1, Ordering::Relaxed);
            task::spawn(self, key.clone(), number, &stream, inbox);
            CrowdHandle(sender)
        };
        // Under the lock of the entry: a crowd that is empty ends under the same.
        let crowd = self.crowds.entry(key.clone()).or_insert_with(open);
        crowd.deliver(CrowdMessage::Join(Box::new((socket, stream))));
    }
}
