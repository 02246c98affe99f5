//! What wakes a subscriber that is level with the tail and in no shard.

use std::pin::Pin;
use std::time::Instant;

use tokio::sync::broadcast;
use tokio::time::{Sleep, sleep_until};

use crate::stream::Topic;

/// What the driver of a subscriber that no shard takes waits for while it is level with the tail. It is kept
/// from one wait to the next: making it again for each delivery would cost as much as the rest.
pub(super) struct Level {
    pub(super) news: broadcast::Receiver<()>,
    pub(super) alarm: Pin<Box<Sleep>>,
}

impl Level {
    pub(super) fn new(topic: &Topic) -> Self {
        Self { news: topic.subscribe(), alarm: Box::pin(sleep_until(Instant::now().into())) }
    }

    /// Sets the alarm to `wake` or earlier. An early alarm is set again then, so a wait that ends later than the
    /// last one, as most do, costs nothing.
    pub(super) fn alarm_by(&mut self, wake: Instant) {
        if self.alarm.is_elapsed() || self.alarm.deadline() > wake.into() {
            self.alarm.as_mut().reset(wake.into());
        }
    }
}
