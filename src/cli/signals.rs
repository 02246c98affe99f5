//! The signals that the process handles, as streams. A stream of signals never ends.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::SignalStream;
use tokio_stream::{Stream, StreamExt};

/// The signals that stop the process.
pub(super) struct Stop<S>(S);

/// Catches SIGTERM and SIGINT from now on.
pub(super) fn stop() -> io::Result<Stop<impl Stream<Item = &'static str> + Unpin>> {
    let terminate = caught(SignalKind::terminate())?.map(|()| "SIGTERM");
    let interrupt = caught(SignalKind::interrupt())?.map(|()| "SIGINT");
    Ok(Stop(terminate.merge(interrupt)))
}

impl<S: Stream<Item = &'static str> + Unpin> Stop<S> {
    /// The name of the next one.
    pub(super) async fn next(&mut self) -> &'static str {
        self.0.next().await.expect("a stream of signals never ends")
    }
}

/// SIGHUP asks for a reload; several at once are one.
pub(super) fn reload() -> io::Result<SignalStream> {
    caught(SignalKind::hangup())
}

/// SIGUSR1 asks for a report in the log; several at once are one.
pub(super) fn report() -> io::Result<SignalStream> {
    caught(SignalKind::user_defined1())
}

fn caught(kind: SignalKind) -> io::Result<SignalStream> {
    signal(kind).map(SignalStream::new)
}
