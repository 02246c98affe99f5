//! What a follower waits for: its client's socket, or the source; and what may come in between.

use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::time::sleep_until;

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
        let since = *self.blocked_since.get_or_insert_with(Instant::now);
        let (stalled, forget_page) = (since + self.fanout.settings.write_stall, since + PAGE_KEPT);
        let (fanout, draining) = (self.fanout.clone(), self.fanout.draining.clone());
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
                () = sleep_until(forget_page.into()), if self.has_page() => self.forget_page(),
                () = fanout.replays.page_wanted(), if self.has_page() => self.forget_page(),
                () = draining.cancelled(), if !self.draining => return Ok(()),
                () = sleep_until(until.into()), if self.may_expire() => return Ok(()),
            }
        }
    }

    fn may_expire(&self) -> bool {
        self.client.next_due().is_some() && self.is_between_events()
    }

    fn wake_for_expiry(&self) -> Instant {
        self.client.next_due().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    pub(super) async fn failed(&mut self, error: &Error) -> Result<(), End> {
        if error.class == Class::TooLarge {
            // Fewer are asked for now.
            return Ok(());
        }
        if error.class == Class::Key {
            let control = Control::Unavailable { reason: error.code };
            return Err(End::SendAway(Some(control), Left::Error));
        }
        tracing::debug!(client = self.client.id, %error, "a read of the past failed; trying again");
        self.wait_for_source().await
    }

    /// Waits until there may be something to read.
    pub(super) async fn wait_for_source(&mut self) -> Result<(), End> {
        let mut news = self.client.topic().subscribe();
        let something_new = async {
            // Lagged or closed is news as well.
            let _ = tokio::time::timeout(LOOK_AGAIN, news.recv()).await;
        };
        self.meanwhile(something_new).await.map(drop)
    }

    /// Does some work of ours, and keeps the stream alive meanwhile; `None`: the client is due.
    pub(super) async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, End> {
        let mut work = std::pin::pin!(work);
        let draining = self.fanout.draining.clone();
        let until = self.wake_for_expiry();
        loop {
            let keepalive = self.last_write + self.fanout.settings.keepalive;
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                left = input_ended(&self.socket) => return Err(left),
                () = sleep_until(keepalive.into()), if self.is_between_events() => self.say_alive()?,
                () = draining.cancelled(), if !self.draining => return Ok(None),
                () = sleep_until(until.into()), if self.may_expire() => return Ok(None),
            }
        }
    }

    /// A sign of life, of which the socket takes what it can now.
    fn say_alive(&mut self) -> Result<(), End> {
        let signal = Signal::of_silence(&self.client.topic().state().reader);
        let bytes = signal.bytes(self.client.view, self.client.signals);
        let sent = self.send(&bytes)?;
        self.progress(sent);
        self.unsent = bytes[sent..].to_vec();
        self.fanout.metrics.heartbeats.increment(1);
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
