//! The signals that the process hears.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Catches them from now on.
    pub(super) fn catch() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the next one.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A signal that asks for something each time it comes.
pub(super) struct Request(Signal);

impl Request {
    /// SIGHUP, caught from now on.
    pub(super) fn hangup() -> std::io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// SIGUSR1, caught from now on.
    pub(super) fn user() -> std::io::Result<Self> {
        signal(SignalKind::user_defined1()).map(Self)
    }

    /// The next one; several at once are one.
    pub(super) async fn next(&mut self) {
        self.0.recv().await;
    }
}
