//! What a follower waits for: its client's socket, or the source; and what may come in between.

use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, sleep_until};

use super::super::Socket;
use super::super::signal::Signal;
use super::super::socket::Input;
use super::{End, Follower};
use crate::event::Control;
use crate::metrics::Left;
use crate::source::{Class, Error};

/// A client that takes nothing for this long does not keep a page of the past in memory.
const PAGE_KEPT: Duration = Duration::from_secs(1);
/// The source is looked at again after this, should no news come.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Follower {
    pub(super) async fn wait_writable(&mut self) -> Result<(), End> {
        let stalled = self.last_write + self.fanout.settings.write_stall;
        let forget_page = self.last_write + PAGE_KEPT;
        let draining = self.fanout.draining.clone();
        let until = self.wake_for_expiry();
        loop {
            tokio::select! {
                biased;
                ready = self.socket.writable() => {
                    let mut ready = ready?;
                    // Readiness may be old: a failed send clears it, and the next wait is a true one.
                    ready.clear_ready();
                    return Ok(());
                }
                left = input_ended(&self.socket) => return Err(left),
                () = sleep_until(stalled.into()) => return Err(End::Cut(Left::Slow)),
                // It is read again when the client takes something, not before.
                () = sleep_until(forget_page.into()), if self.has_page() => {}
                () = draining.cancelled(), if !self.draining => return Ok(()),
                () = sleep_until(until.into()), if self.may_expire() => return Ok(()),
            }
            self.forget_page();
        }
    }

    pub(super) fn may_expire(&self) -> bool {
        self.client.expires.is_some() && self.partial.is_none() && self.unsent.is_empty()
    }

    pub(super) fn wake_for_expiry(&self) -> Instant {
        self.client.expires.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    pub(super) async fn failed(&mut self, error: &Error) -> Result<(), End> {
        if error.class == Class::Key {
            let control = Control::Unavailable { reason: error.code };
            return Err(End::SendAway(Some(control), Left::Error));
        }
        tracing::debug!(client = self.client.id, %error, "a read of the past failed; trying again");
        self.wait_for_source().await
    }

    /// Waits until there may be something to read, and keeps the stream alive meanwhile.
    pub(super) async fn wait_for_source(&mut self) -> Result<(), End> {
        let keepalive = self.last_write + self.fanout.settings.keepalive;
        let draining = self.fanout.draining.clone();
        let until = self.wake_for_expiry();
        let mut news = self.client.topic().subscribe();
        tokio::select! {
            left = input_ended(&self.socket) => return Err(left),
            // Lagged or closed is news as well.
            _ = news.recv() => return Ok(()),
            () = sleep(LOOK_AGAIN) => {}
            () = sleep_until(keepalive.into()) => {}
            () = draining.cancelled(), if !self.draining => {}
            () = sleep_until(until.into()), if self.may_expire() => {}
        }
        if keepalive <= Instant::now() && self.partial.is_none() {
            let signal = Signal::of_silence(&self.client.topic().state().reader);
            self.unsent = signal.bytes(self.client.view, self.client.signals);
        }
        Ok(())
    }
}

/// Returns once the client has left; whatever it sends is thrown away.
async fn input_ended(socket: &AsyncFd<Socket>) -> End {
    loop {
        let Ok(mut ready) = socket.readable().await else { return End::Cut(Left::Client) };
        match socket.get_ref().discard_input() {
            Input::Closed => return End::Cut(Left::Client),
            Input::None => ready.clear_ready(),
            Input::Discarded => {}
        }
    }
}
