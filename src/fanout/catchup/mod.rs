//! One client at its own pace: replaying, or behind. Level with the tail, it goes to a pack, unless
//! hyper writes to it (HTTP/2, TLS): then it waits for what is new by itself.
//!
//! It holds no events while it waits for its client: only a place in the ring or in the source, from
//! which the rest of a half-written entry is made again (a small rest it keeps).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::sync::SemaphorePermit;

use super::body::{Body, Following, Said, body};
use super::broadcast_write::observe_latency;
use super::deadline::Due;
use super::signal::{Signal, is_up, last_words};
use super::socket::watched;
use super::wire::{Spot, age_ms, id_before, now_ms};
use super::writer::Outlet;
use super::{Client, Fanout, Socket, View, farewell};
use crate::sse::{Control, Gap, StreamId};
use crate::stream::continuity::Continuity;
use crate::stream::{self, Batch, Reader};
use crate::telemetry::metrics::{Left, Scope};

mod backfill;
mod begin;
mod run;
mod wait;

use backfill::Past;
pub use begin::Begin;
pub(super) use begin::{History, Place};
use run::{half_written, is_as_begun, run_from};
use wait::Level;

/// Ring items are written in runs of about this.
const RUN_BYTES: usize = 128 << 10;

/// Why a follower ends.
enum End {
    /// It is level with the tail.
    Level(u64),
    /// The client is gone, or is cut where it stands.
    Cut(Left),
    /// It gets its last words.
    SendAway(Option<Control>, Left),
}

impl std::convert::From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Cut(Left::Client)
    }
}

struct Follower {
    fanout: Arc<Fanout>,
    outlet: Outlet,
    /// For a client that no pack takes.
    level: Option<Level>,
    client: Client,
    place: Place,
    /// What the operator sees of it.
    seen: stream::Follower,
    history: History,
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
/// their pack without a task of their own and without a place in the runtime's reactor.
pub fn welcome(fanout: &Arc<Fanout>, socket: Socket, client: Client, mut begin: Begin) {
    if let Some(seq) = begin.level() {
        // A client that is gone already is one that takes nothing: its follower finds out.
        let sent = socket.send(&begin.unsent).unwrap_or(0);
        fanout.metrics.routes()[usize::from(client.route)].bytes.increment(sent as u64);
        client.record(0, 0, sent);
        begin.unsent.drain(..sent);
        if begin.unsent.is_empty() {
            return fanout.join(socket, client, seq, begin.history);
        }
    }
    follow(fanout, socket, client, begin);
}

/// Follows a client until it is level with the tail, gone, or sent away.
pub(super) fn follow(fanout: &Arc<Fanout>, socket: Socket, client: Client, begin: Begin) {
    let task = fanout.clone();
    fanout.tasks.spawn(async move {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let outlet = match watched(socket, interest) {
            Ok(socket) => Outlet::Socket(socket),
            Err(error) => {
                tracing::warn!(connection = client.id.connection, %error, "cannot watch a client; it is closed and comes back");
                client.ended(&task.metrics, Left::Error);
                return;
            }
        };
        Follower::new(task, outlet, client, begin).run().await;
    });
}

/// A body, and who follows the client that it goes to until that is gone or sent away. Whoever polls
/// the body polls the follower (see [`beside`](super::beside)).
pub fn follow_in_body(fanout: &Arc<Fanout>, client: Client, begin: Begin) -> (Following, Body) {
    let (sink, body) = body();
    let level = Level::new(client.topic());
    let mut follower = Follower::new(fanout.clone(), Outlet::Body(sink), client, begin);
    follower.level = Some(level);
    let following = Following::new(&body, fanout.tasks.track_future(follower.run()));
    (following, body)
}

impl Follower {
    fn new(fanout: Arc<Fanout>, outlet: Outlet, client: Client, begin: Begin) -> Self {
        let seen = stream::Follower::of(client.topic());
        Self {
            fanout,
            outlet,
            level: None,
            client,
            seen,
            place: begin.place,
            history: begin.history,
            unsent: begin.unsent,
            partial: begin.partial,
            replayed: 0,
            draining: false,
            last_write: Instant::now(),
            blocked_since: None,
        }
    }

    async fn run(mut self) -> Said {
        let end = loop {
            if let Err(end) = self.step().await {
                break end;
            }
        };
        let amid_an_entry = self.partial.is_some();
        let Self { fanout, outlet, client, history, unsent, .. } = self;
        let (why, control) = match end {
            End::Level(seq) => {
                if let Outlet::Socket(socket) = outlet {
                    fanout.join(socket.into_inner(), client, seq, history);
                }
                return Said::Part;
            }
            End::Cut(why) => (why, None),
            // Of an entry that cannot be finished the client keeps nothing, as long as nothing follows it.
            End::SendAway(_, why) if amid_an_entry => (why, None),
            End::SendAway(control, why) => (why, Some(control)),
        };
        client.ended(&fanout.metrics, why);
        let Some(control) = control else { return Said::Part };
        let mut words = unsent;
        words.extend(last_words(&fanout.settings(), client.view, history.last_id, control));
        let write_stall = fanout.settings().write_stall;
        match outlet {
            Outlet::Socket(socket) => {
                farewell(&fanout, socket.into_inner(), client, words);
                Said::Part
            }
            // The client's permits are held to the end of it.
            Outlet::Body(body) => body.finish(&words, write_stall).await,
        }
    }

    async fn step(&mut self) -> Result<(), End> {
        // A client that takes everything at once would never let the others have their turn.
        tokio::task::coop::consume_budget().await;
        self.check_due()?;
        if !self.unsent.is_empty() {
            return self.flush().await;
        }
        self.tell_reader()?;
        if !self.unsent.is_empty() {
            return Ok(());
        }
        self.seen.is_at(if let Place::Ring(spot) = self.place { Some(spot.seq) } else { None });
        match self.place {
            // Boxed: most of a stream's life is not spent in these, and their room is four times the rest.
            Place::Start { start, replay, now, tail } => {
                Box::pin(self.begin(start, replay, now, tail)).await
            }
            Place::Source(_) => Box::pin(self.follow_source()).await,
            Place::Ring(spot) => self.follow_ring(spot).await,
            Place::NewLife => self.follow_new_life().await,
        }
    }

    /// Ends the stream where its time is up, or tells that it will be, but only between two events.
    fn check_due(&mut self) -> Result<(), End> {
        if self.fanout.draining.is_cancelled() && !self.draining {
            self.draining = true;
            self.client.expires = Some(self.fanout.drain_expiry());
        }
        let due = self.client.due(Instant::now(), self.draining);
        match due.filter(|_| self.is_between_events()) {
            Some(Due::End(control, left)) => return Err(End::SendAway(control, left)),
            Some(Due::Warning(control)) => {
                self.client.warned();
                let id = self.history.last_id;
                self.client.view.append_control(id, control, &mut self.unsent);
            }
            None => {}
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.client.next_due().is_some_and(|due| due <= Instant::now())
    }

    fn is_between_events(&self) -> bool {
        self.partial.is_none() && self.unsent.is_empty()
    }

    /// Tells of Redis' coming and going, between two events.
    fn tell_reader(&mut self) -> Result<(), End> {
        if self.partial.is_some() {
            return Ok(());
        }
        let reader = self.client.topic().state().reader.clone();
        if let Reader::Refused(reason) = reader {
            return Err(End::SendAway(Some(Control::Unavailable { reason }), Left::Error));
        }
        if self.history.down == is_up(&reader) {
            self.history.down = !self.history.down;
            let signal = Signal::of_state(self.history.down);
            self.unsent = signal.bytes(self.client.view, self.client.signals);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), End> {
        let sent = self.outlet.send(&self.unsent)?;
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
        self.fanout.metrics.routes()[usize::from(self.client.route)].bytes.increment(sent as u64);
        self.client.record(0, 0, sent);
    }

    fn tell_gap(&mut self, gap: Gap, id: StreamId) {
        self.fanout.metrics.gap(Scope::Resume, gap);
        self.client.topic().state().gaps += 1;
        self.client.record(0, 1, 0);
        self.tell(id, Control::Gap(gap));
    }

    fn tell(&mut self, id: StreamId, control: Control) {
        self.client.view.append_control(Some(id), control, &mut self.unsent);
        self.history.last_id = Some(id);
    }

    fn tell_live(&mut self, id: StreamId) {
        self.history.live = true;
        self.tell(id, Control::Live { replayed: self.replayed });
    }

    async fn follow_ring(&mut self, spot: Spot) -> Result<(), End> {
        let view = self.client.view;
        let topic = self.client.topic().clone();
        // Waited for before anything is taken from the ring, which may move on meanwhile.
        let (fanout, level) = (self.fanout.clone(), topic.state().ring.next_seq() <= spot.seq);
        let turn = if self.history.live || level { None } else { Some(fanout.replay_turn().await) };
        let (batches, tail, life) = {
            let state = topic.state();
            let ring = &state.ring;
            let told_of_life = ring.is_in_life(spot.seq);
            if spot.seq >= ring.next_seq() {
                (
                    Vec::new(),
                    Some((ring.next_seq(), ring.tail())),
                    told_of_life.then(|| ring.life()),
                )
            } else if ring.first_seq() <= spot.seq {
                let most_bytes = self.outlet.most_bytes().min(RUN_BYTES);
                let run = run_from(ring.from(spot.seq), view, most_bytes);
                (run, None, told_of_life.then(|| ring.life()))
            } else {
                (Vec::new(), None, told_of_life.then(|| ring.life()))
            }
        };
        match (tail, life) {
            (Some(_), _) if self.history.live && self.level.is_some() => {
                return self.wait_for_news().await;
            }
            (Some((seq, _)), _) if self.history.live => return Err(End::Level(seq)),
            (Some((_, tail)), Some(_)) => self.tell_live(tail),
            // The stream began anew this moment; what there is to tell of it comes next.
            (Some(_), None) => return self.wait_for_source().await,
            (None, life) if batches.is_empty() => self.leave_ring(spot, life),
            (None, _) => self.place = Place::Ring(self.write(batches, view, spot, turn).await?),
        }
        Ok(())
    }

    /// The ring has moved on: read on from the source, after what the client has. Without a `life`
    /// it was told nothing of the stream's present one.
    fn leave_ring(&mut self, spot: Spot, life: Option<u64>) {
        self.place = match self.history.last_id.zip(life) {
            Some((last_id, life)) => {
                let mut past = Past::new(Continuity::after(last_id), life);
                past.spot.offset = spot.offset;
                Place::Source(past)
            }
            None => Place::NewLife,
        };
    }

    /// One write from `spot` on, in a turn where one is needed; where it ended.
    async fn write(
        &mut self,
        batches: Vec<Arc<Batch>>,
        view: View,
        spot: Spot,
        turn: Option<SemaphorePermit<'_>>,
    ) -> Result<Spot, End> {
        self.check_lag(&batches, spot)?;
        if !is_as_begun(&batches, view, spot) {
            return Err(End::Cut(Left::Slow));
        }
        let all = view.bytes_of(&batches, spot, self.outlet.most_bytes());
        let rest = if self.is_due() { half_written(&batches, view, spot, all) } else { all };
        let sent = self.outlet.send_shared(&rest)?;
        if sent == 0 && !rest.is_empty() {
            // Whoever waits holds nothing.
            drop((rest, batches, turn));
            self.wait_writable().await?;
            return Ok(spot);
        }
        if sent > 0 {
            self.progress(sent);
        }
        let done = view.advance(&batches, spot, sent);
        self.fanout.metrics.routes()[usize::from(self.client.route)].events.increment(done.events);
        self.client.record(done.events, done.gaps, 0);
        if self.history.live {
            observe_latency(&self.fanout.metrics, &batches, view, spot.seq..done.spot.seq, 1);
        } else {
            self.replayed += done.events;
        }
        self.unsent.extend_from_slice(&done.rest);
        self.note(&batches, done.spot);
        Ok(done.spot)
    }

    /// Remembers what the client has, and what it has half of.
    fn note(&mut self, batches: &[Arc<Batch>], spot: Spot) {
        self.history.last_id = id_before(batches, spot.seq).or(self.history.last_id);
        self.partial = if spot.offset > 0 { id_before(batches, spot.seq + 1) } else { None };
    }

    fn check_lag(&self, batches: &[Arc<Batch>], spot: Spot) -> Result<(), End> {
        let max_lag = self.fanout.settings().max_lag;
        if max_lag.is_zero() || !self.history.live {
            return Ok(());
        }
        let next = batches.first().and_then(|batch| batch.ids_from(spot.seq).first().copied());
        let age = next.and_then(|id| age_ms(id, now_ms())).map(Duration::from_millis);
        // What has just come to the ring is not late by the client's doing, however old it is.
        let is_news = |batch: &Arc<Batch>| batch.since.elapsed() <= max_lag;
        let is_level = matches!(self.place, Place::Ring(_)) && batches.first().is_some_and(is_news);
        let is_late = age.is_some_and(|age| age > max_lag) && !is_level;
        if is_late { Err(End::Cut(Left::Slow)) } else { Ok(()) }
    }
}
