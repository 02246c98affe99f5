//! What a catch-up subscriber waits for: its client, the source, or news; and what may come in between.

use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use tokio::time::{Sleep, sleep, sleep_until};

use super::super::signal::Signal;
use super::{CatchUp, End};
use crate::source::{Error, ErrorClass};
use crate::sse::Control;
use crate::stream::Topic;
use crate::telemetry::metrics::DisconnectReason;

/// A client that takes nothing for this long does not keep a page of the past in memory.
const PAGE_KEPT: Duration = Duration::from_secs(1);
/// The source is looked at again after this, should no news come.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a client that no shard takes waits for while it is level with the tail. It is kept from one wait
/// to the next: with each delivery, making it anew would cost as much as the rest.
pub(super) struct Level {
    news: broadcast::Receiver<()>,
    alarm: Pin<Box<Sleep>>,
}

impl Level {
    pub(super) fn new(topic: &Topic) -> Self {
        Self { news: topic.subscribe(), alarm: Box::pin(sleep_until(Instant::now().into())) }
    }

    /// The alarm comes by then. It may come earlier, and is set again then: a wait that ends later than
    /// the last one, as most do, costs nothing.
    fn alarm_by(&mut self, wake: Instant) {
        if self.alarm.is_elapsed() || self.alarm.deadline() > wake.into() {
            self.alarm.as_mut().reset(wake.into());
        }
    }
}

impl CatchUp {
    pub(super) async fn wait_writable(&mut self) -> Result<(), End> {
        let since = *self.blocked_since.get_or_insert_with(Instant::now);
        let (stalled, forget_page) =
            (since + self.fanout.settings().write_stall, since + PAGE_KEPT);
        if stalled <= Instant::now() {
            return Err(End::Cut(DisconnectReason::Slow));
        }
        let (fanout, draining) = (self.fanout.clone(), self.fanout.draining.clone());
        // It hears from here on, before it looks whether it is due.
        let mut recheck = pin!(fanout.recheck.notified());
        let until = self.wake_for_expiry();
        loop {
            tokio::select! {
                biased;
                ready = self.writer.writable() => return Ok(ready?),
                () = self.writer.left() => return Err(End::Cut(DisconnectReason::Client)),
                // Tried once more: the kernel calls a socket writable only when much of its buffer is
                // free, which a client that takes little at a time may never bring about.
                () = sleep_until(stalled.into()) => return Ok(()),
                // It is read again when the client takes something, not before.
                () = sleep_until(forget_page.into()), if self.has_page() => self.forget_page(),
                () = fanout.replays.page_wanted(), if self.has_page() => self.forget_page(),
                () = draining.cancelled(), if !self.draining => return Ok(()),
                () = &mut recheck => return Ok(()),
                () = sleep_until(until.into()), if self.may_expire() => return Ok(()),
            }
        }
    }

    fn may_expire(&self) -> bool {
        self.subscriber.next_deadline().is_some() && self.is_between_events()
    }

    fn wake_for_expiry(&self) -> Instant {
        self.subscriber
            .next_deadline()
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    pub(super) async fn failed(&mut self, error: &Error) -> Result<(), End> {
        if error.class == ErrorClass::TooLarge {
            // Fewer are asked for now.
            return Ok(());
        }
        if error.class == ErrorClass::Key {
            let control = Control::Unavailable { reason: error.code };
            return Err(End::Disconnect(Some(control), DisconnectReason::Error));
        }
        tracing::debug!(connection = self.subscriber.id.connection, stream = self.subscriber.id.stream, %error, "a read of the past failed; trying again");
        self.wait_for_source().await
    }

    /// Waits until there may be something to read.
    pub(super) async fn wait_for_source(&mut self) -> Result<(), End> {
        let mut news = self.subscriber.topic().subscribe();
        let something_new = async {
            // Lagged or closed is news as well.
            let _ = tokio::time::timeout(LOOK_AGAIN, news.recv()).await;
        };
        self.meanwhile(something_new).await.map(drop)
    }

    /// Waits for what comes after the tail, and says that the stream lives. A drain is news as well.
    pub(super) async fn wait_for_news(&mut self) -> Result<(), End> {
        let Some(mut level) = self.level.take() else { return self.wait_for_source().await };
        let keepalive = self.last_write + self.fanout.settings().keepalive;
        let wake = self.subscriber.next_deadline().map_or(keepalive, |due| due.min(keepalive));
        level.alarm_by(wake);
        tokio::select! {
            biased;
            () = self.writer.left() => return Err(End::Cut(DisconnectReason::Client)),
            // Lagged or closed is news as well.
            _ = level.news.recv() => {}
            () = &mut level.alarm => {
                if self.last_write + self.fanout.settings().keepalive <= Instant::now() {
                    // What is not taken of it now is flushed before anything else.
                    self.say_alive()?;
                }
            }
        }
        self.level = Some(level);
        Ok(())
    }

    /// Does some work of ours, and keeps the stream alive meanwhile: the source may take its time, or be
    /// away, of which the reader knows first. `None`: the client is due.
    pub(super) async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, End> {
        let mut work = pin!(work);
        let (fanout, draining) = (self.fanout.clone(), self.fanout.draining.clone());
        let mut recheck = pin!(fanout.recheck.notified());
        let until = self.wake_for_expiry();
        loop {
            let keepalive = self.last_write + self.fanout.settings().keepalive;
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                () = self.writer.left() => return Err(End::Cut(DisconnectReason::Client)),
                () = sleep_until(keepalive.into()), if self.is_between_events() => self.say_alive()?,
                () = sleep(LOOK_AGAIN), if self.is_between_events() => self.say_of_reader()?,
                () = draining.cancelled(), if !self.draining => return Ok(None),
                () = &mut recheck => return Ok(None),
                () = sleep_until(until.into()), if self.may_expire() => return Ok(None),
            }
        }
    }

    /// A sign of life, of which the socket takes what it can now.
    fn say_alive(&mut self) -> Result<(), End> {
        let signal = Signal::of_silence(&self.subscriber.topic().state().reader);
        self.unsent = signal.bytes(self.subscriber.format, self.subscriber.signals);
        self.send_now()?;
        self.fanout.metrics.heartbeats.increment(1);
        Ok(())
    }

    /// Redis' coming and going, likewise.
    fn say_of_reader(&mut self) -> Result<(), End> {
        self.tell_reader()?;
        if self.unsent.is_empty() { Ok(()) } else { self.send_now() }
    }

    fn send_now(&mut self) -> Result<(), End> {
        let sent = self.writer.send(&self.unsent)?;
        self.progress(sent);
        self.unsent.drain(..sent);
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
    use super::super::{Handoff, SubscriberWriter};
    use super::*;
    use crate::config::Replay;
    use crate::fanout::testing::TestFanout;
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
    async fn whoever_waits_for_the_source_is_told_that_it_is_away() {
        let test = TestFanout::new();
        let (mut subscriber, lease) = test.stranger("a");
        subscriber.format.framed = false;
        let handoff = Handoff::new(&subscriber, Replay::All, Start::Earliest, Vec::new());
        let (sink, mut body) = body();
        let mut follower =
            CatchUp::new(test.fanout.clone(), SubscriberWriter::Body(sink), subscriber, handoff);
        let failure = ReadFailure { message: "no answer".into(), retry_at: Instant::now() };
        lease.topic().failed(ReaderState::Away("TIMEOUT"), failure);
        let told = timeout(Duration::from_secs(10), follower.meanwhile(heard(&mut body))).await;
        let Ok(Ok(Some(told))) = told else { panic!("it is told nothing") };
        assert_eq!(told, comment::RECONNECTING);
        assert!(follower.delivery.down);
    }
}
