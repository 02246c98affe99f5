//! The task of a client that follows several streams: polls the parts, and does what concerns the client.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use super::composer::{Composer, READY_BYTES, stranger_gap};
use super::parts::{Parts, Ready};
use super::{LevelPart, LevelStream, MergedPart, MergedStream, may_join_crowd};
use crate::config::StreamRules;
use crate::fanout::catchup::PartEnd;
use crate::fanout::deadline::Deadline;
use crate::fanout::signal::Signal;
use crate::fanout::writer::SubscriberWriter;
use crate::fanout::{Admitted, BodyEnd, Fanout, WireFormat, close};
use crate::sse::{Control, EndReason};
use crate::telemetry::metrics::{DisconnectReason, Scope};

/// A part that gives nothing of the rest of an event for so long holds up the others: its client is cut, and resumes.
const REST_TIME: Duration = Duration::from_secs(5);

/// A client that is not level with all parts is asked again after this.
const JOIN_INTERVAL: Duration = Duration::from_millis(100);

/// A client of several streams, with its connection.
pub(super) struct Task {
    fanout: Arc<Fanout>,
    writer: SubscriberWriter,
    admitted: Admitted,
    format: WireFormat,
    route: u16,
    rules: Arc<StreamRules>,
    parts: Parts,
    composer: Composer,
    /// Ready to be written.
    unsent: Vec<u8>,
    draining: bool,
    last_write: Instant,
    /// Since when the client takes nothing.
    blocked_since: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
    /// Whether others may serve it together with those that follow the same.
    is_for_crowd: bool,
    /// They are not asked again before this.
    may_join_at: Instant,
}

/// Why the stream ends.
enum End {
    /// It is level with all parts: others take it from there.
    Level(Vec<LevelPart>),
    /// Its client is gone, or is cut where it stands.
    Cut(DisconnectReason),
    /// It gets a closing frame.
    Disconnect(Option<Control>, DisconnectReason),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Cut(DisconnectReason::Client)
    }
}

impl Task {
    pub(super) fn new(
        fanout: Arc<Fanout>,
        writer: SubscriberWriter,
        MergedStream { admitted, format, route, rules, parts, strangers, opening }: MergedStream,
        is_live: bool,
    ) -> Self {
        let part = |part: &MergedPart| (part.name.clone(), part.machine.first_position());
        let composer = Composer::new(format, parts.iter().map(part), is_live);
        let is_for_crowd = may_join_crowd(&rules, &parts);
        let mut unsent = opening;
        composer.tell_strangers(&strangers, &mut unsent);
        for (_, after) in &strangers {
            fanout.metrics.gap(Scope::Resume, stranger_gap(*after));
            admitted.record(0, 1, 0);
        }
        let parts = Parts::new(&fanout, parts);
        let now = Instant::now();
        Self {
            fanout,
            writer,
            admitted,
            format,
            route,
            rules,
            parts,
            composer,
            unsent,
            draining: false,
            last_write: now,
            blocked_since: None,
            alarm: Box::pin(sleep_until(now.into())),
            is_for_crowd,
            may_join_at: now,
        }
    }

    pub(super) async fn run(mut self) -> BodyEnd {
        let end = loop {
            if let Err(end) = self.step().await {
                break end;
            }
        };
        let (reason, control) = match end {
            End::Level(parts) => {
                self.join_crowd(parts);
                return BodyEnd::Part;
            }
            End::Cut(reason) => (reason, None),
            // Of an event that cannot be finished the client keeps nothing, as long as nothing follows it.
            End::Disconnect(_, reason) if self.composer.amid().is_some() => (reason, None),
            End::Disconnect(control, reason) => (reason, Some(control)),
        };
        let Self { fanout, writer, admitted, format, route, rules, composer, mut unsent, .. } =
            self;
        admitted.ended(&fanout.metrics, route, reason);
        let Some(control) = control else { return BodyEnd::Part };
        let id = composer.id();
        let frame = fanout.closing_frame_at((format, &rules), id.as_deref(), control);
        unsent.extend(frame.bytes);
        match writer {
            SubscriberWriter::Socket(socket) => {
                close(&fanout, socket.into_inner(), admitted, unsent);
                BodyEnd::Part
            }
            SubscriberWriter::Body(body) => {
                let write_stall = fanout.settings().write_stall;
                // The client's permits are held to the end of it.
                let end = body.finish(&unsent, frame.is_whole, write_stall).await;
                drop(admitted);
                end
            }
        }
    }

    async fn step(&mut self) -> Result<(), End> {
        tokio::task::coop::consume_budget().await;
        let fanout = self.fanout.clone();
        // Registered before the look whether it is due.
        let mut recheck = pin!(fanout.recheck.notified());
        self.check_deadline()?;
        self.send()?;
        self.leave_if_level().await?;
        self.set_alarm();
        let (is_blocked, draining) = (!self.unsent.is_empty(), self.draining);
        let (parts, composer) = (&mut self.parts, &self.composer);
        let ready = std::future::poll_fn(|context| {
            parts.poll(context, is_blocked);
            let ready = parts.ready(composer.amid()).filter(|_| !is_blocked);
            ready.map_or(Poll::Pending, Poll::Ready)
        });
        // The client comes first: many parts may use up what the runtime lets a task do at once.
        let ready = tokio::select! {
            biased;
            room = self.writer.writable(), if is_blocked => {
                room?;
                None
            }
            () = self.writer.left() => return Err(End::Cut(DisconnectReason::Client)),
            () = fanout.draining.cancelled(), if !draining => None,
            () = &mut recheck => None,
            () = &mut self.alarm => None,
            ready = ready => Some(ready),
        };
        match ready {
            Some(Ready::Piece(_)) => self.pass_on(),
            Some(Ready::End(part, end)) => self.part_ended(part, end)?,
            None => self.look()?,
        }
        Ok(())
    }

    /// Makes ready what the parts have, to be written in one go.
    fn pass_on(&mut self) {
        let finishes_only = self.is_due();
        while self.unsent.len() < READY_BYTES {
            let Some(Ready::Piece(index)) = self.parts.ready(self.composer.amid()) else { return };
            let before = self.unsent.len();
            self.parts.pass(index, &mut self.composer, finishes_only, &mut self.unsent);
            if finishes_only && self.unsent.len() == before {
                return;
            }
        }
    }

    /// Leaves to a crowd, if all parts are level.
    async fn leave_if_level(&mut self) -> Result<(), End> {
        if !self.may_leave() || self.may_join_at > Instant::now() {
            return Ok(());
        }
        self.may_join_at = Instant::now() + JOIN_INTERVAL;
        let Some(positions) = self.composer.positions() else { return Ok(()) };
        let left = self.parts.leave_if_level(&self.fanout).await;
        let Some(left) = left else { return Ok(()) };
        let part = |((name, id), (subscriber, seq))| LevelPart { name, subscriber, seq, id };
        Err(End::Level(positions.into_iter().zip(left).map(part).collect()))
    }

    fn may_leave(&self) -> bool {
        let is_on_socket = matches!(self.writer, SubscriberWriter::Socket(_));
        let is_quiet = self.is_between_events() && !self.draining && !self.is_due();
        self.is_for_crowd && is_on_socket && is_quiet && self.composer.is_live()
    }

    fn join_crowd(self, parts: Vec<LevelPart>) {
        let Self { fanout, writer, admitted, format, route, rules, .. } = self;
        if let SubscriberWriter::Socket(socket) = writer {
            let stream = LevelStream { admitted, format, route, rules, parts };
            fanout.join_crowd(socket.into_inner(), stream);
        }
    }

    fn part_ended(&mut self, part: usize, end: PartEnd) -> Result<(), End> {
        match end {
            // It was asked to leave, and others were not level.
            PartEnd::Level(..) => {}
            PartEnd::Cut(reason) => return Err(End::Cut(reason)),
            PartEnd::Disconnect(control, reason) => return Err(End::Disconnect(control, reason)),
            PartEnd::Over(reason, id) => {
                self.parts.forget_end(part);
                self.composer.end(part, reason, id, &mut self.unsent);
            }
        }
        match self.composer.over() {
            Some(reason) => Err(over(reason)),
            None => Ok(()),
        }
    }

    /// Sends what the client takes now.
    fn send(&mut self) -> Result<(), End> {
        while !self.unsent.is_empty() {
            let sent = self.writer.send(&self.unsent)?;
            if sent == 0 {
                let since = *self.blocked_since.get_or_insert_with(Instant::now);
                let is_stalled = since + self.fanout.settings().write_stall <= Instant::now();
                return if is_stalled { Err(End::Cut(DisconnectReason::Slow)) } else { Ok(()) };
            }
            (self.last_write, self.blocked_since) = (Instant::now(), None);
            self.admitted.count_bytes(&self.fanout.metrics, self.route, sent);
            self.unsent.drain(..sent);
        }
        self.unsent.shrink_to(READY_BYTES);
        Ok(())
    }

    fn is_between_events(&self) -> bool {
        self.composer.amid().is_none() && self.unsent.is_empty()
    }

    fn is_due(&self) -> bool {
        self.admitted.next_deadline().is_some_and(|due| due <= Instant::now())
    }

    /// Ends the stream where its time is up, or tells that it will be, but only between two events.
    fn check_deadline(&mut self) -> Result<(), End> {
        if self.fanout.draining.is_cancelled() && !self.draining {
            self.draining = true;
            self.admitted.expires = Some(self.fanout.drain_expiry());
        }
        let deadline = self.admitted.deadline(Instant::now(), self.draining);
        match deadline.filter(|_| self.is_between_events()) {
            Some(Deadline::End(control, reason)) => Err(End::Disconnect(control, reason)),
            Some(Deadline::Warning(control)) => {
                self.admitted.warned();
                self.composer.tell(control, &mut self.unsent);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// When to look again, should nothing happen. An early alarm is set again then.
    fn set_alarm(&mut self) {
        let settings = self.fanout.settings();
        let silence = match self.blocked_since {
            Some(since) => since + settings.write_stall,
            None if self.composer.amid().is_some() => self.last_write + REST_TIME,
            None => self.last_write + settings.keepalive,
        };
        let due = self.admitted.next_deadline().filter(|_| self.is_between_events());
        let wake = due.map_or(silence, |due| due.min(silence));
        let wake = if self.may_leave() { wake.min(self.may_join_at) } else { wake }.into();
        if self.alarm.is_elapsed() || self.alarm.deadline() > wake {
            self.alarm.as_mut().reset(wake);
        }
    }

    /// Nothing came: does what is due to that.
    fn look(&mut self) -> Result<(), End> {
        let silence = self.last_write.elapsed();
        let waits_for_rest = self.composer.amid().is_some() && self.unsent.is_empty();
        if waits_for_rest && silence >= REST_TIME {
            return Err(End::Cut(DisconnectReason::Slow));
        }
        if self.is_between_events() && silence >= self.fanout.settings().keepalive {
            self.tell_alive();
        }
        Ok(())
    }

    /// A silent client hears that its stream lives, or which parts of it do not.
    fn tell_alive(&mut self) {
        let down: Vec<usize> = self.composer.down().collect();
        for part in &down {
            self.composer.tell_down(*part, &mut self.unsent);
        }
        if down.is_empty() {
            self.unsent = Signal::Keepalive.bytes(self.format, self.rules.signals);
        }
        self.fanout.metrics.heartbeats.increment(1);
    }
}

/// The stream is over.
fn over(reason: EndReason) -> End {
    End::Disconnect(Some(Control::End { reason }), DisconnectReason::Ended(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::body::body;
    use crate::fanout::testing::TestFanout;
    use crate::sse::Controls;

    #[tokio::test]
    async fn the_rest_of_an_event_does_not_hold_up_the_others_for_ever() {
        let test = TestFanout::new();
        let config = crate::config::parse("", "", &[], true).unwrap().config;
        let format = WireFormat { rendering: 0, controls: Controls::Event, framed: false };
        let (sink, _body) = body();
        let stream = MergedStream {
            admitted: test.admitted("a"),
            format,
            route: 0,
            rules: config.routes[0].rules.clone(),
            parts: Vec::new(),
            strangers: Vec::new(),
            opening: Vec::new(),
        };
        let mut task = Task::new(test.fanout.clone(), SubscriberWriter::Body(sink), stream, false);
        task.composer = Composer::new(format, [("a".into(), None)].into_iter(), false);
        let mut half = &b"id: 1-0\nevent: m\ndata: ha"[..];
        task.composer.take(0, &mut half, false, &mut Vec::new());
        assert!(task.look().is_ok(), "it has just begun");
        task.last_write -= REST_TIME;
        assert!(matches!(task.look(), Err(End::Cut(DisconnectReason::Slow))));
    }
}
