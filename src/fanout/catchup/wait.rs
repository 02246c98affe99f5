//! What a driver waits for: its client, the source, or news; and what may come in between.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until};

use super::driver::Driver;
use super::level::Level;
use super::machine::End;
use crate::fanout::deadline::Deadline;
use crate::source::{Error, ErrorClass};
use crate::sse::Control;
use crate::telemetry::metrics::DisconnectReason;

/// A client that takes nothing for this long does not keep a page of the past in memory.
const PAGE_KEPT: Duration = Duration::from_secs(1);
/// For what does not come.
const FAR: Duration = Duration::from_secs(30 * 86_400);
/// The driver looks at the source again after this, should no news come.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

impl Driver {
    pub(super) async fn wait_writable(&mut self) -> Result<(), End> {
        let since = *self.blocked_since.get_or_insert_with(Instant::now);
        let is_part = self.subscriber.rules.of_part;
        // A part waits for the others, too: its client is the composer's.
        let patience = if is_part { FAR } else { self.fanout.settings().write_stall };
        let (stalled, forget_page) = (since + patience, since + PAGE_KEPT);
        if stalled <= Instant::now() {
            return Err(End::Cut(DisconnectReason::Slow));
        }
        let (fanout, draining) = (self.fanout.clone(), self.fanout.draining.clone());
        // Registered before the driver looks whether it is due.
        let mut recheck = pin!(fanout.recheck.notified());
        let until = self.wake_for_expiry();
        loop {
            tokio::select! {
                biased;
                ready = self.writer.writable() => return Ok(ready?),
                () = self.writer.left() => return Err(End::Cut(DisconnectReason::Client)),
                // The driver tries once more: the kernel calls a socket writable only when much of its buffer is
                // free, which a client that takes little at a time may never bring about.
                () = sleep_until(stalled.into()) => return Ok(()),
                // The page is read again when the client takes something, not before.
                () = sleep_until(forget_page.into()), if self.machine.has_page() => self.machine.forget_page(),
                () = fanout.replays.page_wanted(), if self.machine.has_page() => self.machine.forget_page(),
                () = fanout.replays.state_wanted(), if self.machine.has_page() => self.machine.forget_page(),
                // The client gives way to others: its parser drops what it has of the event, and it comes back.
                () = fanout.replays.state_wanted(), if self.machine.is_amid_state() => {
                    return Err(End::Cut(DisconnectReason::Slow));
                }
                () = draining.cancelled(), if !self.draining => return Ok(()),
                () = &mut recheck => return Ok(()),
                () = sleep_until(until.into()), if self.may_expire() => return Ok(()),
            }
        }
    }

    /// When nothing will have happened for so long that the client gets a sign of life. It gets none for each part, but
    /// where entries are withheld it hears of each how far it has come.
    fn next_keepalive(&self) -> Instant {
        let is_quiet = self.subscriber.rules.of_part && self.subscriber.selection().is_none();
        self.last_write + if is_quiet { FAR } else { self.fanout.settings().keepalive }
    }

    fn may_expire(&self) -> bool {
        self.subscriber.admitted.next_deadline().is_some() && self.machine.is_between_events()
    }

    fn wake_for_expiry(&self) -> Instant {
        self.subscriber
            .admitted
            .next_deadline()
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    pub(super) async fn failed(&mut self, error: &Error) -> Result<(), End> {
        if error.class == ErrorClass::TooLarge {
            // Fewer entries are asked for from now on.
            return Ok(());
        }
        if error.class == ErrorClass::Key && self.subscriber.rules.of_part {
            self.machine.is_denied = true;
            return self.wait_for_source().await;
        }
        if error.class == ErrorClass::Key {
            let control = Control::Unavailable { reason: error.code };
            return Err(End::Disconnect(Some(control), DisconnectReason::Error));
        }
        tracing::debug!(connection = self.subscriber.admitted.id.connection, stream = self.subscriber.admitted.id.stream, %error, "a read of the past failed; trying again");
        self.wait_for_source().await
    }

    /// Waits until there may be something to read.
    pub(super) async fn wait_for_source(&mut self) -> Result<(), End> {
        let mut news = self.subscriber.topic().subscribe();
        let something_new = async {
            // A lagged or closed channel is news as well.
            let _ = tokio::time::timeout(LOOK_INTERVAL, news.recv()).await;
        };
        self.meanwhile(something_new).await.map(drop)
    }

    /// Waits for what comes after the tail, and sends keepalives. A drain is news as well.
    pub(super) async fn wait_for_news(&mut self) -> Result<(), End> {
        let Some(mut level) = self.level.take() else { return self.wait_for_source().await };
        let keepalive = self.next_keepalive();
        let wake = self.subscriber.next_end().map_or(keepalive, |due| due.min(keepalive));
        level.alarm_by(wake);
        let Level { news, alarm, leave } = &mut level;
        tokio::select! {
            biased;
            () = self.writer.left() => return Err(End::Cut(DisconnectReason::Client)),
            // A lagged or closed channel is news as well.
            _ = news.recv() => {}
            () = leave.comes() => {}
            () = alarm => {
                if self.next_keepalive() <= Instant::now() {
                    // What the client does not take now is flushed before anything else.
                    self.send_keepalive()?;
                }
                if let Some(Deadline::End(control, reason)) =
                    self.subscriber.stalled_end().filter(|_| self.machine.is_between_events())
                {
                    return Err(End::Disconnect(control, reason));
                }
            }
        }
        self.level = Some(level);
        Ok(())
    }

    /// Does some `work`, and keeps the stream alive meanwhile: the source may take its time, or be away, of which
    /// the reader knows first. `None`: a deadline of the subscriber may have come.
    pub(super) async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, End> {
        let mut work = pin!(work);
        let (fanout, draining) = (self.fanout.clone(), self.fanout.draining.clone());
        let mut recheck = pin!(fanout.recheck.notified());
        let until = self.wake_for_expiry();
        loop {
            let keepalive = self.next_keepalive();
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                () = self.writer.left() => return Err(End::Cut(DisconnectReason::Client)),
                () = sleep_until(keepalive.into()), if self.machine.is_between_events() => self.send_keepalive()?,
                () = sleep(LOOK_INTERVAL), if self.machine.is_between_events() => self.send_status()?,
                () = draining.cancelled(), if !self.draining => return Ok(None),
                () = &mut recheck => return Ok(None),
                () = sleep_until(until.into()), if self.may_expire() => return Ok(None),
            }
        }
    }

    /// Sends a keepalive, as much of it as the client takes now.
    fn send_keepalive(&mut self) -> Result<(), End> {
        self.machine.tell_alive(&self.subscriber.topic().state().reader);
        self.send_now()?;
        self.fanout.metrics.heartbeats.increment(u64::from(!self.subscriber.rules.of_part));
        Ok(())
    }

    /// Sends that Redis is away or back, likewise.
    fn send_status(&mut self) -> Result<(), End> {
        self.machine.tell_status(&self.subscriber.topic().state().reader)?;
        if self.machine.unsent.is_empty() { Ok(()) } else { self.send_now() }
    }

    fn send_now(&mut self) -> Result<(), End> {
        let sent = self.writer.send(&self.machine.unsent)?;
        self.took(sent);
        self.machine.sent(sent);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;
    use hyper::body::Body as _;
    use tokio::time::timeout;

    use super::super::super::body::{Body, body};
    use super::super::machine::CatchUp;
    use super::*;
    use crate::config::Replay;
    use crate::fanout::testing::TestFanout;
    use crate::fanout::writer::SubscriberWriter;
    use crate::sse::comment;
    use crate::stream::start::Start;
    use crate::stream::{ReadFailure, ReaderState};

    async fn heard(body: &mut Body) -> Bytes {
        loop {
            let context = &mut Context::from_waker(Waker::noop());
            if let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut *body).poll_frame(context) {
                return frame.into_data().unwrap();
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// A read of the past that is not answered ends long after the reader has given up its own.
    #[tokio::test]
    async fn a_client_that_waits_for_the_source_hears_that_it_is_away() {
        let test = TestFanout::new();
        let (mut subscriber, lease) = test.unattached("a");
        subscriber.format.framed = false;
        let machine = CatchUp::begin(&subscriber, Replay::All, Start::Earliest, Vec::new());
        let (sink, mut body) = body();
        let writer = SubscriberWriter::Body(sink);
        let mut driver = Driver::new(test.fanout.clone(), writer, subscriber, machine);
        let failure = ReadFailure { message: "no answer".into(), retry_at: Instant::now() };
        lease.topic().failed(ReaderState::Away("TIMEOUT"), failure);
        let told = timeout(Duration::from_secs(10), driver.meanwhile(heard(&mut body))).await;
        let Ok(Ok(Some(told))) = told else { panic!("the client is told nothing") };
        assert_eq!(told, comment::RECONNECTING);
        assert!(driver.machine.delivery.source_down);
    }
}
