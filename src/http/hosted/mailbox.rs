//! What the service tells the task that runs it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use tokio::sync::Notify;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::fanout::CatchUpHalf;

tokio::task_local! {
    /// The mailbox of this task's stream.
    pub(super) static MAILBOX: Mailbox;
}

/// From the service to its task.
#[derive(Clone, Default)]
pub(super) struct Mailbox {
    catch_up: Arc<Mutex<Option<CatchUpHalf>>>,
    /// The connection's, set with its first stream: a drain waits for it.
    pub(super) drain_token: Arc<OnceLock<TaskTrackerToken>>,
    /// Notified when a client was admitted.
    pub(super) admitted: Arc<Notify>,
}

impl Mailbox {
    /// For another stream of the same connection.
    pub(super) fn for_next_stream(&self) -> Self {
        Self { catch_up: Arc::default(), ..self.clone() }
    }

    /// Leaves the catch-up half of the stream that was opened.
    pub(super) fn put(&self, catch_up: CatchUpHalf) {
        *self.lock() = Some(catch_up);
    }

    pub(super) fn take(&self) -> Option<CatchUpHalf> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<CatchUpHalf>> {
        self.catch_up.lock().expect("no holder of the lock panics")
    }
}
