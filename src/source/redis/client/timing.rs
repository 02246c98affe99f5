//! How long Redis may take to answer.

use std::time::Duration;

use crate::source::{Error, ErrorClass};

/// Connecting, and any command with a small answer, takes no longer than this.
pub(in crate::source::redis) const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Reading entries, blocking apart: a reply of the largest ones may have a slow way to go, as long as
/// something comes.
pub(in crate::source::redis) const READ_TIMEOUT: Duration = Duration::from_secs(10);

pub(in crate::source::redis) async fn in_time<T>(
    timeout: Duration,
    doing: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(too_late(doing)))
}

pub(super) fn too_late(doing: &str) -> Error {
    let message = format!("no answer from Redis in time ({doing}): the connection counts as dead");
    Error { class: ErrorClass::Away, code: "TIMEOUT", message }
}
