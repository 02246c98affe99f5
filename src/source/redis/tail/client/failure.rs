//! How long Redis may take to answer, and what it means that a connection fails.

use std::io;
use std::time::Duration;

use crate::source::redis::refusal::no_tls;
use crate::source::{Error, ErrorClass};

/// Time to connect, and time for any command with a small answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Time to read entries, apart from the time that `XREAD` may block. A large reply over a slow network may
/// take long, as long as bytes keep coming.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn in_time<T>(
    timeout: Duration,
    doing: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(too_late(doing)))
}

pub(crate) fn too_late(doing: &str) -> Error {
    let message = format!("no answer from Redis in time ({doing}): the connection counts as dead");
    Error { class: ErrorClass::Away, code: "TIMEOUT", message }
}

/// What the failure of a connection means: if TLS fails, only the operator can help.
pub(super) fn lost(error: &io::Error) -> Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(cause) = tls {
        return no_tls(cause);
    }
    let message = format!("no connection, or it was lost: {error}");
    Error { class: ErrorClass::Away, code: "IO", message }
}
