//! Does what the machine of a catch-up subscriber decides, until a shard takes the subscriber or its
//! stream ends.

use std::sync::Arc;
use std::time::Instant;

use tokio::io::Interest;
use tokio::sync::SemaphorePermit;

use super::level::Level;
use super::machine::{Action, Beginning, CatchUp, End, Phase, TopicView};
use super::run::Run;
use crate::fanout::body::{Body, BodyEnd, CatchUpHalf, body};
use crate::fanout::broadcast_write::observe_latency;
use crate::fanout::deadline::Deadline;
use crate::fanout::socket::watched;
use crate::fanout::writer::SubscriberWriter;
use crate::fanout::{Fanout, Socket, Subscriber, close};
use crate::stream::continuity::Continuity;
use crate::stream::start::Start;
use crate::stream::{CatchUpPosition, StreamEnd, View};
use crate::telemetry::metrics::{DisconnectReason, Scope};

/// A catch-up subscriber with its client's connection.
pub(super) struct Driver {
    pub(super) fanout: Arc<Fanout>,
    pub(super) writer: SubscriberWriter,
    pub(super) subscriber: Subscriber,
    pub(super) machine: CatchUp,
    /// For a subscriber that no shard takes.
    pub(super) level: Option<Level>,
    /// What the operator sees of it.
    position: CatchUpPosition,
    pub(super) draining: bool,
    pub(super) last_write: Instant,
    /// Since when the client takes nothing.
    pub(super) blocked_since: Option<Instant>,
}

/// Takes in a new subscriber. Most come for what is new and take their opening bytes at once: these go to
/// their shard without a task of their own and without a place in the runtime's reactor.
pub fn welcome(fanout: &Arc<Fanout>, socket: Socket, subscriber: Subscriber, mut machine: CatchUp) {
    if let Some(seq) = machine.level() {
        // A client that is gone already is one that takes nothing: the driver finds out.
        let sent = socket.send(&machine.unsent).unwrap_or(0);
        subscriber.count_bytes(&fanout.metrics, sent);
        machine.unsent.drain(..sent);
        if machine.unsent.is_empty() {
            return fanout.join(socket, subscriber, seq, machine.delivery);
        }
    }
    catch_up(fanout, socket, subscriber, machine);
}

/// Drives a subscriber until it is level with the tail, gone, or disconnected.
pub(in crate::fanout) fn catch_up(
    fanout: &Arc<Fanout>,
    socket: Socket,
    subscriber: Subscriber,
    machine: CatchUp,
) {
    let task = fanout.clone();
    fanout.tasks.spawn(async move {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let writer = match watched(socket, interest) {
            Ok(socket) => SubscriberWriter::Socket(socket),
            Err(error) => {
                task.warn_unwatched(&subscriber.admitted, &error);
                subscriber.ended(&task.metrics, DisconnectReason::Error);
                return;
            }
        };
        Driver::new(task, writer, subscriber, machine).run().await;
    });
}

/// A body, and the catch-up half that fills it until its client is gone or disconnected. One task polls both
/// (`http/hosted/` has the picture).
pub fn follow_in_body(
    fanout: &Arc<Fanout>,
    subscriber: Subscriber,
    machine: CatchUp,
) -> (CatchUpHalf, Body) {
    let (sink, body) = body();
    let level = Level::new(subscriber.topic());
    let writer = SubscriberWriter::Body(sink);
    let mut driver = Driver::new(fanout.clone(), writer, subscriber, machine);
    driver.level = Some(level);
    let half = CatchUpHalf::new(&body, fanout.tasks.track_future(driver.run()));
    (half, body)
}

impl Driver {
    pub(super) fn new(
        fanout: Arc<Fanout>,
        writer: SubscriberWriter,
        subscriber: Subscriber,
        machine: CatchUp,
    ) -> Self {
        let position = subscriber.topic().catch_ups.register();
        // A drain is the whole client's.
        let (level, draining, blocked_since) = (None, subscriber.rules.of_part, None);
        let last_write = Instant::now();
        Self {
            fanout,
            writer,
            subscriber,
            machine,
            level,
            position,
            draining,
            last_write,
            blocked_since,
        }
    }

    pub(super) async fn run(mut self) -> BodyEnd {
        let end = self.run_to_end().await;
        let Self { fanout, writer, subscriber, machine, .. } = self;
        let CatchUp { delivery, unsent, half_written, .. } = machine;
        let (reason, control) = match end {
            End::Level(seq) => {
                if let SubscriberWriter::Socket(socket) = writer {
                    fanout.join(socket.into_inner(), subscriber, seq, delivery);
                }
                return BodyEnd::Part;
            }
            End::Cut(reason) => (reason, None),
            // Of an entry that cannot be finished the client keeps nothing, as long as nothing follows it.
            End::Disconnect(_, reason) if half_written.is_some() => (reason, None),
            End::Disconnect(control, reason) => (reason, Some(control)),
        };
        subscriber.ended(&fanout.metrics, reason);
        let Some(control) = control else { return BodyEnd::Part };
        let settings = fanout.settings().clone();
        let mut bytes = unsent;
        let frame = fanout.closing_frame(&subscriber, delivery.last_id, control);
        bytes.extend(frame.bytes);
        match writer {
            SubscriberWriter::Socket(socket) => {
                close(&fanout, socket.into_inner(), subscriber, bytes);
                BodyEnd::Part
            }
            // The subscriber's permits are held to the end of it.
            SubscriberWriter::Body(body) => {
                body.finish(&bytes, frame.is_whole, settings.write_stall).await
            }
        }
    }

    pub(super) async fn run_to_end(&mut self) -> End {
        loop {
            if let Err(end) = self.step().await {
                return end;
            }
        }
    }

    pub(super) async fn step(&mut self) -> Result<(), End> {
        // A client that takes everything at once would never let the others have their turn.
        tokio::task::coop::consume_budget().await;
        self.check_deadline()?;
        let fanout = self.fanout.clone();
        // Waited for before anything is taken from the ring, which may move on meanwhile.
        let permit = if self.replays() { Some(fanout.replay_permit().await) } else { None };
        let action = self.next_action();
        self.count_told();
        // Nothing else needs it.
        let permit = permit.filter(|_| matches!(action, Action::Write(_) | Action::WriteState));
        match action {
            Action::Again => Ok(()),
            Action::Flush => self.flush().await,
            Action::Write(run) => self.write(run, permit).await,
            Action::WriteState => self.write_state(permit).await,
            // Boxed: most of a stream's life is not spent in these, and their room is four times the rest.
            Action::Resolve(beginning) => Box::pin(self.resolve(beginning)).await,
            Action::ResolveGeneration => Box::pin(self.resolve_generation()).await,
            Action::ReadPage { after, generation, conflates } => {
                Box::pin(self.read_page(after, generation, conflates)).await
            }
            Action::ReadState { least } => Box::pin(self.read_state(least)).await,
            Action::WaitForSource => self.wait_for_source().await,
            Action::Level(_) if self.level.as_ref().is_some_and(|level| !level.leave.is_set()) => {
                self.wait_for_news().await
            }
            Action::Level(seq) => Err(End::Level(seq)),
            Action::End(end) => Err(end),
        }
    }

    fn replays(&self) -> bool {
        self.machine.replays(&self.subscriber.topic().state())
    }

    fn next_action(&mut self) -> Action {
        let at = if let Phase::Ring(at) = self.machine.phase { Some(at.seq) } else { None };
        self.position.set(at);
        let state = self.subscriber.topic().state();
        self.machine.next(&TopicView::of(&state, &self.subscriber.rules, self.writer.most_bytes()))
    }

    /// Ends the stream where its time is up, or tells that it will be, but only between two events.
    fn check_deadline(&mut self) -> Result<(), End> {
        if self.fanout.draining.is_cancelled() && !self.draining {
            self.draining = true;
            self.subscriber.admitted.expires = Some(self.fanout.drain_expiry());
        }
        let deadline = self.subscriber.admitted.deadline(Instant::now(), self.draining);
        match deadline.filter(|_| self.machine.is_between_events()) {
            Some(Deadline::End(control, reason)) => return Err(End::Disconnect(control, reason)),
            Some(Deadline::Warning(control)) => {
                self.subscriber.admitted.warned();
                self.machine.warn(control);
            }
            None => {}
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.subscriber.admitted.next_deadline().is_some_and(|due| due <= Instant::now())
    }

    async fn resolve(&mut self, beginning: Beginning) -> Result<(), End> {
        let topic = self.subscriber.topic().clone();
        // Looked at first: a reset while the source is asked has to show.
        let (generation, read_up_to) = {
            let state = topic.state();
            (state.ring.generation(), state.ring.tail())
        };
        let fanout = self.fanout.clone();
        let (rendering, selection) =
            (self.subscriber.format.rendering, self.subscriber.selection().cloned());
        let view = View { rendering: rendering.into(), selection: selection.as_deref() };
        let Beginning { asked, replay, now, .. } = beginning;
        let rules = self.subscriber.rules.clone();
        let resolving = async {
            fanout.replays.end_if_unknown(&topic, &rules).await?;
            let replays = &fanout.replays;
            let resolved = match now {
                Some(resolved) => resolved,
                None => {
                    replays.resolve(&topic, generation, read_up_to, view, replay, asked).await?
                }
            };
            // What is remembered of a key that was gone may be older than the stream that is there by now.
            let was_gone = topic.state().end(&rules).is_some_and(StreamEnd::is_gone);
            Ok((resolved, was_gone && replays.is_absent(&topic).await?))
        };
        let (resolved, is_gone) = match self.meanwhile(resolving).await? {
            Some(Ok(resolved)) => resolved,
            Some(Err(error)) => return self.failed(&error).await,
            None => return Ok(()),
        };
        self.machine.is_denied = false;
        let served_from =
            self.machine.resolved(beginning, resolved, generation, read_up_to, is_gone);
        if matches!(asked, Start::After(_) | Start::Unknown) {
            let invalid = if asked == Start::Unknown { "invalid" } else { "gap" };
            let result = if resolved.gap.is_some() { invalid } else { served_from };
            self.fanout.metrics.resumed(result, 1);
        }
        self.count_told();
        Ok(())
    }

    async fn resolve_generation(&mut self) -> Result<(), End> {
        let topic = self.subscriber.topic().clone();
        let (generation, end) = {
            let state = topic.state();
            (state.ring.generation(), state.end(&self.subscriber.rules))
        };
        let (fanout, last_id) = (self.fanout.clone(), self.machine.delivery.last_id);
        let resolving = fanout.replays.new_generation(&topic, last_id);
        match self.meanwhile(resolving).await? {
            Some(Ok(resolved)) => {
                self.machine.is_denied = false;
                self.machine.generation_resolved(
                    resolved,
                    generation,
                    end.is_some_and(StreamEnd::is_gone),
                );
                self.count_told();
                Ok(())
            }
            Some(Err(error)) => self.failed(&error).await,
            None => Ok(()),
        }
    }

    async fn read_page(
        &mut self,
        after: Continuity,
        generation: u64,
        conflates: bool,
    ) -> Result<(), End> {
        let topic = self.subscriber.topic().clone();
        let fanout = self.fanout.clone();
        let rendering = usize::from(self.subscriber.format.rendering);
        let reading = fanout.replays.page(&topic, generation, rendering, after, conflates);
        let opened = match self.meanwhile(reading).await? {
            Some(Ok(opened)) => opened,
            Some(Err(error)) => return self.failed(&error).await,
            None => return Ok(()),
        };
        self.machine.is_denied = false;
        let next = self.machine.page_read(opened, after);
        self.count_told();
        match next {
            Action::WaitForSource => self.wait_for_source().await,
            Action::End(end) => Err(end),
            _ => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        let sent = self.writer.send(&self.machine.unsent)?;
        if sent == 0 {
            return self.wait_writable().await;
        }
        self.took(sent);
        self.machine.sent(sent);
        Ok(())
    }

    /// One write of a run, with a permit where one is needed.
    async fn write(&mut self, run: Run, permit: Option<SemaphorePermit<'_>>) -> Result<(), End> {
        if self.is_late(&run) || !run.begins_as_begun() {
            return Err(End::Cut(DisconnectReason::Slow));
        }
        let all = run.bytes(self.writer.most_bytes());
        let bytes = if self.is_due() { run.half_written(all) } else { all };
        let sent = self.writer.send_shared(&bytes)?;
        if sent == 0 && !bytes.is_empty() {
            // A subscriber that waits holds nothing.
            drop((bytes, run, permit));
            self.machine.is_behind = true;
            return self.wait_writable().await;
        }
        if sent > 0 {
            self.took(sent);
        }
        self.machine.is_behind |= sent < bytes.len();
        let done = self.machine.wrote(&run, sent);
        self.subscriber.count_events(&self.fanout.metrics, done.events, done.gaps);
        if self.machine.delivery.live {
            let items = run.at.seq..done.position.seq;
            observe_latency(&self.fanout.metrics, &run.batches, run.format, items, 1);
        }
        Ok(())
    }

    /// Whether a live client is further behind than it may be, by its own doing.
    pub(super) fn is_late(&self, run: &Run) -> bool {
        let max_lag = self.fanout.settings().max_lag;
        let is_level = || matches!(self.machine.phase, Phase::Ring(_)) && run.is_news(max_lag);
        let conflates = self.subscriber.rules.rendering.conflate.is_some();
        let may_be_late = !max_lag.is_zero() && self.machine.delivery.live && !conflates;
        may_be_late && run.is_older_than(max_lag) && !is_level()
    }

    /// The client took so many bytes.
    pub(super) fn took(&mut self, sent: usize) {
        self.last_write = Instant::now();
        self.blocked_since = None;
        self.subscriber.count_bytes(&self.fanout.metrics, sent);
    }

    fn count_told(&mut self) {
        let spared = std::mem::take(&mut self.machine.spared_uncounted);
        if spared > 0 {
            self.fanout.metrics.conflated.increment(spared);
        }
        let withheld = std::mem::take(&mut self.machine.withheld_uncounted);
        if withheld > 0 {
            self.fanout.metrics.withheld.increment(withheld);
        }
        for told in self.machine.take_gaps() {
            self.fanout.metrics.gap(Scope::Resume, told.gap);
            self.subscriber.topic().state().gaps += 1;
            if !told.in_page {
                self.subscriber.count_events(&self.fanout.metrics, 0, 1);
            }
        }
    }
}
