//! What wakes a subscriber that is level with the tail and in no shard.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Instant;

use tokio::sync::broadcast;
use tokio::time::{Sleep, sleep_until};

use crate::stream::Topic;

/// What the driver of a subscriber that no shard takes waits for while it is level with the tail. It is kept
/// from one wait to the next: making it again for each delivery would cost as much as the rest.
pub(super) struct Level {
    pub(super) news: broadcast::Receiver<()>,
    pub(super) alarm: Pin<Box<Sleep>>,
    /// What asks it to leave, where it is part of a merged stream.
    pub(super) leave: LeaveRequest,
}

/// Asks the parts of a merged stream to leave as soon as they are level with the tail. No waker is kept: who asks polls
/// them in the same task.
#[derive(Clone, Default)]
pub(in crate::fanout) struct LeaveRequest(Arc<AtomicBool>);

impl LeaveRequest {
    /// They are asked to leave from now on, or not any more.
    pub(in crate::fanout) fn set(&self, is_asked: bool) {
        self.0.store(is_asked, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns when it is.
    pub(super) async fn comes(&self) {
        let is_set = || if self.is_set() { Poll::Ready(()) } else { Poll::Pending };
        std::future::poll_fn(|_| is_set()).await;
    }
}

impl Level {
    pub(super) fn new(topic: &Topic) -> Self {
        let alarm = Box::pin(sleep_until(Instant::now().into()));
        Self { news: topic.subscribe(), alarm, leave: LeaveRequest::default() }
    }

    /// Sets the alarm to `wake` or earlier. An early alarm is set again then, so a wait that ends later than the
    /// last one, as most do, costs nothing.
    pub(super) fn alarm_by(&mut self, wake: Instant) {
        if self.alarm.is_elapsed() || self.alarm.deadline() > wake.into() {
            self.alarm.as_mut().reset(wake.into());
        }
    }
}
