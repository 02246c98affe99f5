//! Subscribers of one topic that are level with the tail: one task, one loop, one write for each.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use super::catchup::DeliveryState;
use super::{Fanout, Socket, Subscriber};
use crate::stream::Topic;

mod groups;
mod inbox;
mod members;
mod selected;
mod signals;
mod task;
#[cfg(test)]
mod tests;

use inbox::Inbox;

/// What comes into a shard's loop from outside.
pub(super) enum ShardMessage {
    /// A subscriber that is to stay.
    Join(Box<Joining>),
    /// The question whether the loop goes round.
    Probe(Probe),
    /// Grants were revoked, perhaps some of its subscribers'.
    RecheckGrants,
    /// The server drains.
    Drain,
}

/// Nothing is ever sent: it has come back when it is dropped, by a shard that has ended as well.
pub(super) type Probe = mpsc::Sender<Infallible>;

/// A subscriber on its way into a shard.
pub(super) struct Joining {
    pub socket: Socket,
    pub subscriber: Subscriber,
    pub next_seq: u64,
    pub delivery: DeliveryState,
}

/// A shard, seen from outside.
pub(super) struct ShardHandle {
    number: usize,
    /// Whether it is for subscribers that get only some entries.
    selects: bool,
    inbox: Arc<Inbox>,
}

impl ShardHandle {
    /// Its number, as the topic knows it.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Whether a subscriber like this belongs there.
    pub(super) fn suits(&self, subscriber: &Subscriber) -> bool {
        self.selects == subscriber.selection().is_some()
    }

    pub(super) fn subscribers(&self) -> usize {
        self.inbox.subscribers.load(Ordering::Relaxed)
    }

    pub(super) fn send(&self, joining: Joining) {
        self.inbox.subscribers.fetch_add(1, Ordering::Relaxed);
        // The shard lives as long as its topic, and the subscriber holds that open; when the runtime
        // itself ends the subscriber ends with it.
        self.inbox.put(ShardMessage::Join(Box::new(joining)));
    }

    /// Sends a message; a probe comes back even from a shard that has ended.
    pub(super) fn deliver(&self, message: ShardMessage) {
        self.inbox.put(message);
    }
}

/// Opens a shard at the topic's tail; whether it is for subscribers that get only some entries.
pub(super) fn open(
    fanout: &Arc<Fanout>,
    topic: &Arc<Topic>,
    number: usize,
    selects: bool,
) -> ShardHandle {
    let inbox = Arc::new(Inbox::new());
    task::spawn(fanout, topic, number, selects, inbox.clone());
    ShardHandle { number, selects, inbox }
}
