//! What waits outside of a shard until its loop comes to it. There is one for each of ten thousand keys: a channel would
//! have room for dozens of messages from the start.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use super::ShardMessage;

/// Messages to one shard.
pub(super) struct Inbox {
    /// Locked for one message at a time; `None`: the shard has ended.
    waiting: Mutex<Option<VecDeque<ShardMessage>>>,
    arrived: Notify,
    /// The shard's subscribers, those on their way into it as well.
    pub(super) subscribers: AtomicUsize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::new(Some(VecDeque::new())),
            arrived: Notify::new(),
            subscribers: AtomicUsize::new(0),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<VecDeque<ShardMessage>>> {
        self.waiting.lock().expect("no holder of the lock panics")
    }

    /// Leaves a message for the shard; once that has ended, it is dropped.
    pub(super) fn put(&self, message: ShardMessage) {
        let mut waiting = self.waiting();
        let Some(messages) = &mut *waiting else { return };
        messages.push_back(message);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// The next message, if there is one.
    pub(super) fn take(&self) -> Option<ShardMessage> {
        let mut waiting = self.waiting();
        let messages = waiting.as_mut()?;
        let next = messages.pop_front();
        if messages.is_empty() {
            *messages = VecDeque::new();
        }
        next
    }

    /// The next message, once there is one. If it is dropped, nothing is lost.
    pub(super) async fn next(&self) -> ShardMessage {
        loop {
            if let Some(message) = self.take() {
                return message;
            }
            // Kept for us, if it comes before we wait.
            self.arrived.notified().await;
        }
    }

    /// The shard has ended: what waits goes, and so does all that comes.
    pub(super) fn close(&self) {
        // Not dropped under the lock: subscribers go with it.
        let _left = self.waiting().take();
    }

    /// A subscriber has left the shard.
    pub(super) fn subscriber_left(&self) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}
