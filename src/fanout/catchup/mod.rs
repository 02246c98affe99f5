//! One client at its own pace: replaying, or behind. Level with the tail, it goes to a shard, unless
//! hyper writes to it (HTTP/2, TLS): then it waits for what is new by itself.
//!
//! It holds no events while it waits for its client: only a place in the ring or in the source, from
//! which the rest of a half-written entry is made again (a small rest it keeps).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::sync::SemaphorePermit;

use super::body::{Body, BodyEnd, CatchUpHalf, body};
use super::broadcast_write::observe_latency;
use super::deadline::Deadline;
use super::signal::{Signal, closing_frame, is_up};
use super::socket::watched;
use super::wire::{WritePosition, age_ms, id_before, now_ms};
use super::writer::SubscriberWriter;
use super::{Fanout, Socket, Subscriber, WireFormat, close};
use crate::sse::{Control, Gap, StreamId};
use crate::stream::continuity::Continuity;
use crate::stream::{self, Batch, ReaderState};
use crate::telemetry::metrics::{DisconnectReason, Scope};

mod backfill;
mod handoff;
mod run;
mod wait;

use backfill::Backfill;
pub use handoff::Handoff;
pub(super) use handoff::{DeliveryState, Phase};
use run::{half_written, is_as_begun, run_from};
use wait::Level;

/// Ring items are written in runs of about this.
const RUN_BYTES: usize = 128 << 10;

/// Why a catch-up subscriber ends.
enum End {
    /// It is level with the tail.
    Level(u64),
    /// The client is gone, or is cut where it stands.
    Cut(DisconnectReason),
    /// It gets its last words.
    Disconnect(Option<Control>, DisconnectReason),
}

impl std::convert::From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Cut(DisconnectReason::Client)
    }
}

struct CatchUp {
    fanout: Arc<Fanout>,
    writer: SubscriberWriter,
    /// For a client that no shard takes.
    level: Option<Level>,
    subscriber: Subscriber,
    phase: Phase,
    /// What the operator sees of it.
    seen: stream::CatchUpPosition,
    delivery: DeliveryState,
    /// Bytes to write before anything else.
    unsent: Vec<u8>,
    /// A half-written entry, by its id.
    partial: Option<StreamId>,
    replayed: u64,
    draining: bool,
    last_write: Instant,
    /// Since when the socket takes nothing.
    blocked_since: Option<Instant>,
}

/// Takes in a new client. Most come for what is new and take their opening bytes at once: these go to
/// their shard without a task of their own and without a place in the runtime's reactor.
pub fn welcome(fanout: &Arc<Fanout>, socket: Socket, subscriber: Subscriber, mut handoff: Handoff) {
    if let Some(seq) = handoff.level() {
        // A client that is gone already is one that takes nothing: its catch-up subscriber finds out.
        let sent = socket.send(&handoff.unsent).unwrap_or(0);
        fanout.metrics.routes()[usize::from(subscriber.route)].bytes.increment(sent as u64);
        subscriber.record(0, 0, sent);
        handoff.unsent.drain(..sent);
        if handoff.unsent.is_empty() {
            return fanout.join(socket, subscriber, seq, handoff.delivery);
        }
    }
    follow(fanout, socket, subscriber, handoff);
}

/// Follows a client until it is level with the tail, gone, or sent away.
pub(super) fn follow(
    fanout: &Arc<Fanout>,
    socket: Socket,
    subscriber: Subscriber,
    handoff: Handoff,
) {
    let task = fanout.clone();
    fanout.tasks.spawn(async move {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let writer = match watched(socket, interest) {
            Ok(socket) => SubscriberWriter::Socket(socket),
            Err(error) => {
                tracing::warn!(connection = subscriber.id.connection, %error, "cannot watch a client; it is closed and comes back");
                subscriber.ended(&task.metrics, DisconnectReason::Error);
                return;
            }
        };
        CatchUp::new(task, writer, subscriber, handoff).run().await;
    });
}

/// A body, and the catch-up half that fills it until the client is gone or disconnected. The task that polls
/// the body polls this half, too.
pub fn follow_in_body(
    fanout: &Arc<Fanout>,
    subscriber: Subscriber,
    handoff: Handoff,
) -> (CatchUpHalf, Body) {
    let (sink, body) = body();
    let level = Level::new(subscriber.topic());
    let mut follower =
        CatchUp::new(fanout.clone(), SubscriberWriter::Body(sink), subscriber, handoff);
    follower.level = Some(level);
    let half = CatchUpHalf::new(&body, fanout.tasks.track_future(follower.run()));
    (half, body)
}

impl CatchUp {
    fn new(
        fanout: Arc<Fanout>,
        writer: SubscriberWriter,
        subscriber: Subscriber,
        handoff: Handoff,
    ) -> Self {
        let seen = stream::CatchUpPosition::of(subscriber.topic());
        Self {
            fanout,
            writer,
            level: None,
            subscriber,
            seen,
            phase: handoff.phase,
            delivery: handoff.delivery,
            unsent: handoff.unsent,
            partial: handoff.partial,
            replayed: 0,
            draining: false,
            last_write: Instant::now(),
            blocked_since: None,
        }
    }

    async fn run(mut self) -> BodyEnd {
        let end = loop {
            if let Err(end) = self.step().await {
                break end;
            }
        };
        let amid_an_entry = self.partial.is_some();
        let Self { fanout, writer, subscriber, delivery, unsent, .. } = self;
        let (why, control) = match end {
            End::Level(seq) => {
                if let SubscriberWriter::Socket(socket) = writer {
                    fanout.join(socket.into_inner(), subscriber, seq, delivery);
                }
                return BodyEnd::Part;
            }
            End::Cut(why) => (why, None),
            // Of an entry that cannot be finished the client keeps nothing, as long as nothing follows it.
            End::Disconnect(_, why) if amid_an_entry => (why, None),
            End::Disconnect(control, why) => (why, Some(control)),
        };
        subscriber.ended(&fanout.metrics, why);
        let Some(control) = control else { return BodyEnd::Part };
        let mut words = unsent;
        words.extend(closing_frame(
            &fanout.settings(),
            subscriber.format,
            delivery.last_id,
            control,
        ));
        let write_stall = fanout.settings().write_stall;
        match writer {
            SubscriberWriter::Socket(socket) => {
                close(&fanout, socket.into_inner(), subscriber, words);
                BodyEnd::Part
            }
            // The client's permits are held to the end of it.
            SubscriberWriter::Body(body) => body.finish(&words, write_stall).await,
        }
    }

    async fn step(&mut self) -> Result<(), End> {
        // A client that takes everything at once would never let the others have their turn.
        tokio::task::coop::consume_budget().await;
        self.check_deadline()?;
        if !self.unsent.is_empty() {
            return self.flush().await;
        }
        self.tell_reader()?;
        if !self.unsent.is_empty() {
            return Ok(());
        }
        self.seen.is_at(if let Phase::Ring(position) = self.phase {
            Some(position.seq)
        } else {
            None
        });
        match self.phase {
            // Boxed: most of a stream's life is not spent in these, and their room is four times the rest.
            Phase::Start { start, replay, now, tail } => {
                Box::pin(self.handoff(start, replay, now, tail)).await
            }
            Phase::Source(_) => Box::pin(self.follow_source()).await,
            Phase::Ring(position) => self.follow_ring(position).await,
            Phase::NewGeneration => self.follow_new_life().await,
        }
    }

    /// Ends the stream where its time is up, or tells that it will be, but only between two events.
    fn check_deadline(&mut self) -> Result<(), End> {
        if self.fanout.draining.is_cancelled() && !self.draining {
            self.draining = true;
            self.subscriber.expires = Some(self.fanout.drain_expiry());
        }
        let due = self.subscriber.due(Instant::now(), self.draining);
        match due.filter(|_| self.is_between_events()) {
            Some(Deadline::End(control, left)) => return Err(End::Disconnect(control, left)),
            Some(Deadline::Warning(control)) => {
                self.subscriber.warned();
                let id = self.delivery.last_id;
                self.subscriber.format.append_control(id, control, &mut self.unsent);
            }
            None => {}
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.subscriber.next_deadline().is_some_and(|due| due <= Instant::now())
    }

    fn is_between_events(&self) -> bool {
        self.partial.is_none() && self.unsent.is_empty()
    }

    /// Tells of Redis' coming and going, between two events.
    fn tell_reader(&mut self) -> Result<(), End> {
        if self.partial.is_some() {
            return Ok(());
        }
        let reader = self.subscriber.topic().state().reader.clone();
        if let ReaderState::Refused(reason) = reader {
            return Err(End::Disconnect(
                Some(Control::Unavailable { reason }),
                DisconnectReason::Error,
            ));
        }
        if self.delivery.down == is_up(&reader) {
            self.delivery.down = !self.delivery.down;
            let signal = Signal::of_state(self.delivery.down);
            self.unsent = signal.bytes(self.subscriber.format, self.subscriber.signals);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), End> {
        let sent = self.writer.send(&self.unsent)?;
        if sent == 0 {
            return self.wait_writable().await;
        }
        self.progress(sent);
        self.unsent.drain(..sent);
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
        }
        Ok(())
    }

    /// The client took so many bytes.
    fn progress(&mut self, sent: usize) {
        self.last_write = Instant::now();
        self.blocked_since = None;
        self.fanout.metrics.routes()[usize::from(self.subscriber.route)]
            .bytes
            .increment(sent as u64);
        self.subscriber.record(0, 0, sent);
    }

    fn tell_gap(&mut self, gap: Gap, id: StreamId) {
        self.fanout.metrics.gap(Scope::Resume, gap);
        self.subscriber.topic().state().gaps += 1;
        self.subscriber.record(0, 1, 0);
        self.tell(id, Control::Gap(gap));
    }

    fn tell(&mut self, id: StreamId, control: Control) {
        self.subscriber.format.append_control(Some(id), control, &mut self.unsent);
        self.delivery.last_id = Some(id);
    }

    fn tell_live(&mut self, id: StreamId) {
        self.delivery.live = true;
        self.tell(id, Control::Live { replayed: self.replayed });
    }

    async fn follow_ring(&mut self, position: WritePosition) -> Result<(), End> {
        let format = self.subscriber.format;
        let topic = self.subscriber.topic().clone();
        // Waited for before anything is taken from the ring, which may move on meanwhile.
        let (fanout, level) = (self.fanout.clone(), topic.state().ring.next_seq() <= position.seq);
        let turn =
            if self.delivery.live || level { None } else { Some(fanout.replay_turn().await) };
        let (batches, tail, generation) = {
            let state = topic.state();
            let ring = &state.ring;
            let told_of_life = ring.knows_generation(position.seq);
            if position.seq >= ring.next_seq() {
                (
                    Vec::new(),
                    Some((ring.next_seq(), ring.tail())),
                    told_of_life.then(|| ring.generation()),
                )
            } else if ring.first_seq() <= position.seq {
                let most_bytes = self.writer.most_bytes().min(RUN_BYTES);
                let run = run_from(ring.from(position.seq), format, most_bytes);
                (run, None, told_of_life.then(|| ring.generation()))
            } else {
                (Vec::new(), None, told_of_life.then(|| ring.generation()))
            }
        };
        match (tail, generation) {
            (Some(_), _) if self.delivery.live && self.level.is_some() => {
                return self.wait_for_news().await;
            }
            (Some((seq, _)), _) if self.delivery.live => return Err(End::Level(seq)),
            (Some((_, tail)), Some(_)) => self.tell_live(tail),
            // The stream began anew this moment; what there is to tell of it comes next.
            (Some(_), None) => return self.wait_for_source().await,
            (None, generation) if batches.is_empty() => self.leave_ring(position, generation),
            (None, _) => {
                self.phase = Phase::Ring(self.write(batches, format, position, turn).await?)
            }
        }
        Ok(())
    }

    /// The ring has moved on: read on from the source, after what the client has. Without a `life`
    /// it was told nothing of the stream's present one.
    fn leave_ring(&mut self, position: WritePosition, generation: Option<u64>) {
        self.phase = match self.delivery.last_id.zip(generation) {
            Some((last_id, generation)) => {
                let mut backfill = Backfill::new(Continuity::after(last_id), generation);
                backfill.position.offset = position.offset;
                Phase::Source(backfill)
            }
            None => Phase::NewGeneration,
        };
    }

    /// One write from `spot` on, in a turn where one is needed; where it ended.
    async fn write(
        &mut self,
        batches: Vec<Arc<Batch>>,
        format: WireFormat,
        position: WritePosition,
        turn: Option<SemaphorePermit<'_>>,
    ) -> Result<WritePosition, End> {
        self.check_lag(&batches, position)?;
        if !is_as_begun(&batches, format, position) {
            return Err(End::Cut(DisconnectReason::Slow));
        }
        let all = format.bytes_of(&batches, position, self.writer.most_bytes());
        let rest = if self.is_due() { half_written(&batches, format, position, all) } else { all };
        let sent = self.writer.send_shared(&rest)?;
        if sent == 0 && !rest.is_empty() {
            // Whoever waits holds nothing.
            drop((rest, batches, turn));
            self.wait_writable().await?;
            return Ok(position);
        }
        if sent > 0 {
            self.progress(sent);
        }
        let done = format.advance(&batches, position, sent);
        self.fanout.metrics.routes()[usize::from(self.subscriber.route)]
            .events
            .increment(done.events);
        self.subscriber.record(done.events, done.gaps, 0);
        if self.delivery.live {
            observe_latency(
                &self.fanout.metrics,
                &batches,
                format,
                position.seq..done.position.seq,
                1,
            );
        } else {
            self.replayed += done.events;
        }
        self.unsent.extend_from_slice(&done.rest);
        self.note(&batches, done.position);
        Ok(done.position)
    }

    /// Remembers what the client has, and what it has half of.
    fn note(&mut self, batches: &[Arc<Batch>], position: WritePosition) {
        self.delivery.last_id = id_before(batches, position.seq).or(self.delivery.last_id);
        self.partial =
            if position.offset > 0 { id_before(batches, position.seq + 1) } else { None };
    }

    fn check_lag(&self, batches: &[Arc<Batch>], position: WritePosition) -> Result<(), End> {
        let max_lag = self.fanout.settings().max_lag;
        if max_lag.is_zero() || !self.delivery.live {
            return Ok(());
        }
        let next = batches.first().and_then(|batch| batch.ids_from(position.seq).first().copied());
        let age = next.and_then(|id| age_ms(id, now_ms())).map(Duration::from_millis);
        // What has just come to the ring is not late by the client's doing, however old it is.
        let is_news = |batch: &Arc<Batch>| batch.since.elapsed() <= max_lag;
        let is_level = matches!(self.phase, Phase::Ring(_)) && batches.first().is_some_and(is_news);
        let is_late = age.is_some_and(|age| age > max_lag) && !is_level;
        if is_late { Err(End::Cut(DisconnectReason::Slow)) } else { Ok(()) }
    }
}
