//! One client at its own pace: replaying, or behind. Level with the tail, it goes to a pack.
//!
//! It holds no bytes while it waits for its client: only a place in the ring or in the source, from
//! which the rest of a half-written event is made again.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::signal::{Signal, is_up, last_words};
use super::socket::watched;
use super::wire::{Spot, age_ms, now_ms};
use super::{Client, Fanout, Socket, View, farewell};
use crate::continuity::Continuity;
use crate::event::{Control, Gap, StreamId, write_control};
use crate::metrics::{Left, Scope};
use crate::start::{From, Resolved, Start, resolve_now};
use crate::topic::{Batch, Reader};

mod past;
mod wait;

use past::Past;

/// Ring items are written in runs of about this.
const RUN_BYTES: usize = 128 << 10;

/// How a follower begins.
pub struct Begin {
    pub(super) place: Place,
    /// Bytes to write before anything else.
    pub unsent: Vec<u8>,
    /// Whether it was told that it is live.
    pub(super) live: bool,
}

impl Begin {
    /// At a place of the ring, or where the client asked to start.
    pub(super) fn at(place: Place, live: bool) -> Self {
        Self { place, unsent: Vec::new(), live }
    }

    /// Where a new client asked to start, after the opening bytes of its response. What is "now" to
    /// it is settled here, before it can know that its stream is open.
    pub fn new(client: &Client, start: Start, unsent: Vec<u8>) -> Self {
        let now = resolve_now(client.topic(), client.replay, start);
        let last_id = match start {
            Start::After(id) => id,
            Start::Since(ms) => StreamId { ms, seq: 0 }.prev(),
            Start::Earliest => StreamId::ZERO,
            Start::Live | Start::Unknown | Start::Newest(_) => client.topic().state().ring.tail(),
        };
        Self { place: Place::Start(start, last_id, now), unsent, live: false }
    }
}

/// Where a follower is.
pub(super) enum Place {
    /// Not looked up yet, or only as far as "now" goes; the last event id until then.
    Start(Start, StreamId, Option<Resolved>),
    /// In the ring.
    Ring(Spot),
    /// In the source.
    Source(Past),
}

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
    socket: AsyncFd<Socket>,
    client: Client,
    place: Place,
    unsent: Vec<u8>,
    live: bool,
    replayed: u64,
    /// The last event id that the client has.
    last_id: StreamId,
    /// A half-written item, by its id.
    partial: Option<StreamId>,
    told_down: bool,
    draining: bool,
    last_write: Instant,
}

/// Follows a client until it is level with the tail, gone, or sent away.
pub fn follow(fanout: &Arc<Fanout>, socket: Socket, client: Client, begin: Begin) {
    let task = fanout.clone();
    fanout.tasks.spawn(async move {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let socket = match watched(socket, interest) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(client = client.id, %error, "cannot watch a client; it is closed and comes back");
                task.metrics.left(Left::Error);
                return;
            }
        };
        let (last_id, partial) = match &begin.place {
            Place::Ring(spot) => {
                let state = client.topic().state();
                let half = (spot.offset > 0).then(|| state.ring.id_before(spot.seq + 1));
                (state.ring.id_before(spot.seq), half)
            }
            Place::Start(_, last_id, _) => (*last_id, None),
            Place::Source(_) => (StreamId::ZERO, None),
        };
        let follower = Follower {
            fanout: task,
            socket,
            client,
            place: begin.place,
            unsent: begin.unsent,
            live: begin.live,
            replayed: 0,
            last_id,
            partial,
            told_down: false,
            draining: false,
            last_write: Instant::now(),
        };
        follower.run().await;
    });
}

impl Follower {
    async fn run(mut self) {
        let end = loop {
            if let Err(end) = self.step().await {
                break end;
            }
        };
        let Self { fanout, socket, client, last_id, .. } = self;
        let socket = socket.into_inner();
        let why = match end {
            End::Level(seq) => return fanout.join(socket, client, seq),
            End::Cut(why) => why,
            End::SendAway(control, why) => {
                let words = last_words(&fanout.settings, client.view, last_id, control);
                tracing::debug!(client = client.id, why = why.as_str(), "stream ended");
                fanout.metrics.left(why);
                return farewell(&fanout, socket, client, words);
            }
        };
        tracing::debug!(client = client.id, why = why.as_str(), "stream ended");
        fanout.metrics.left(why);
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
        match self.place {
            Place::Start(start, _, now) => self.begin(start, now).await,
            Place::Ring(spot) => self.follow_ring(spot).await,
            Place::Source(_) => self.follow_source().await,
        }
    }

    /// Ends the stream where its time is up, but only between two events.
    fn check_due(&mut self) -> Result<(), End> {
        if self.fanout.draining.is_cancelled() && !self.draining {
            self.draining = true;
            self.client.expires = Some(self.fanout.drain_expiry());
        }
        if !self.is_due() || self.partial.is_some() || !self.unsent.is_empty() {
            return Ok(());
        }
        if self.draining {
            return Err(End::SendAway(Some(Control::Drain), Left::Drain));
        }
        Err(End::SendAway(None, Left::Rotated))
    }

    fn is_due(&self) -> bool {
        self.client.expires.is_some_and(|expires| expires <= Instant::now())
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
        if self.told_down == is_up(&reader) {
            self.told_down = !self.told_down;
            let signal = if self.told_down { Signal::SourceDown } else { Signal::SourceUp };
            self.unsent = signal.bytes(self.client.view, self.client.signals);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), End> {
        let sent = self.socket.get_ref().send(&self.unsent)?;
        if sent == 0 {
            return self.wait_writable().await;
        }
        self.last_write = Instant::now();
        self.unsent.drain(..sent);
        Ok(())
    }

    async fn begin(&mut self, start: Start, now: Option<Resolved>) -> Result<(), End> {
        let topic = self.client.topic().clone();
        if topic.state().ring.life() == 0 {
            return self.wait_for_source().await;
        }
        let resolved = match now {
            Some(resolved) => resolved,
            None => match self.fanout.replays.resolve(&topic, self.client.replay, start).await {
                Ok(resolved) => resolved,
                Err(error) => return self.failed(&error).await,
            },
        };
        let life = topic.state().ring.life();
        let served_from = match resolved.from {
            From::Ring(seq, last_id) => {
                self.place = Place::Ring(Spot { seq, offset: 0 });
                self.last_id = last_id;
                "ring"
            }
            From::Source(after) => {
                // The newest as of now, but nothing that came after the stream was opened is left out.
                let newest = matches!(start, Start::Newest(_));
                let after = if newest { after.min(self.last_id) } else { after };
                self.place = Place::Source(Past::new(Continuity::after(after), life));
                self.last_id = after;
                "redis"
            }
        };
        if matches!(start, Start::After(_) | Start::Unknown) {
            let invalid = if start == Start::Unknown { "invalid" } else { "gap" };
            let result = if resolved.gap.is_some() { invalid } else { served_from };
            self.fanout.metrics.resumed(result, 1);
        }
        if let Some((gap, id)) = resolved.gap {
            self.tell_gap(gap, id);
        }
        if matches!(start, Start::Live | Start::Unknown) {
            // Level by definition; whatever came since is news already.
            self.tell_live(self.last_id);
        }
        Ok(())
    }

    fn tell_gap(&mut self, gap: Gap, id: StreamId) {
        self.fanout.metrics.gap(Scope::Resume, gap);
        self.tell(id, Control::Gap(gap));
    }

    fn tell(&mut self, id: StreamId, control: Control) {
        let mut bare = Vec::new();
        write_control(&mut bare, Some(id), control);
        self.client.view.append_event(&bare, &mut self.unsent);
        self.last_id = id;
    }

    async fn follow_ring(&mut self, spot: Spot) -> Result<(), End> {
        let view = self.client.view;
        let topic = self.client.topic().clone();
        let (batches, next_seq, told_of_life) = {
            let state = topic.state();
            let mut bytes = 0;
            let run = state.ring.from(spot.seq).take_while(|batch| {
                let fits = bytes == 0 || bytes + batch.size_bytes() <= RUN_BYTES;
                bytes += batch.size_bytes();
                fits && view.is_in(batch)
            });
            let held = state.ring.first_seq() <= spot.seq;
            let run: Vec<_> = if held { run.cloned().collect() } else { Vec::new() };
            (run, state.ring.next_seq(), state.ring.is_in_life(spot.seq))
        };
        if spot.seq >= next_seq {
            return self.level(next_seq);
        }
        if batches.is_empty() {
            if !told_of_life {
                return self.follow_new_life();
            }
            self.leave_ring(spot);
            return Ok(());
        }
        let done = self.write(&batches, view, spot).await?;
        self.place = Place::Ring(done);
        Ok(())
    }

    /// The ring has moved on: read on from the source, after what the client has.
    fn leave_ring(&mut self, spot: Spot) {
        let life = self.client.topic().state().ring.life();
        let mut past = Past::new(Continuity::after(self.last_id), life);
        past.spot.offset = spot.offset;
        self.place = Place::Source(past);
    }

    fn level(&mut self, seq: u64) -> Result<(), End> {
        if self.live {
            return Err(End::Level(seq));
        }
        let tail = self.client.topic().state().ring.id_before(seq);
        self.tell_live(tail);
        Ok(())
    }

    fn tell_live(&mut self, id: StreamId) {
        self.live = true;
        self.tell(id, Control::Live { replayed: self.replayed });
    }

    /// One write from `spot` on; where it ended.
    async fn write(&mut self, batches: &[Arc<Batch>], view: View, spot: Spot) -> Result<Spot, End> {
        self.check_lag(batches, spot)?;
        let bytes = view.bytes_of(batches, spot.seq);
        let all = &bytes[spot.offset..];
        let rest = if self.is_due() { half_written(batches, view, spot, all) } else { all };
        let sent = self.socket.get_ref().send(rest)?;
        if sent == 0 && !rest.is_empty() {
            drop(bytes);
            self.wait_writable().await?;
            return Ok(spot);
        }
        self.last_write = Instant::now();
        let sent = if sent == all.len() { usize::MAX } else { sent };
        let done = view.advance(batches, spot, sent);
        let route = &self.fanout.metrics.routes[usize::from(self.client.route)];
        route.events.increment(done.events);
        route.bytes.increment(rest.len().min(sent) as u64);
        self.replayed += if self.live { 0 } else { done.events };
        self.note(batches, done.spot);
        Ok(done.spot)
    }

    /// Remembers what the client has, and what it has half of.
    fn note(&mut self, batches: &[Arc<Batch>], spot: Spot) {
        let id_of = |seq: u64| {
            let batch =
                batches.iter().find(|batch| batch.first_seq <= seq && seq < batch.end_seq())?;
            batch.ids().get(usize::try_from(seq - batch.first_seq).ok()?).copied()
        };
        if let Some(id) = spot.seq.checked_sub(1).and_then(id_of) {
            self.last_id = id;
        }
        self.partial = if spot.offset > 0 { id_of(spot.seq) } else { None };
    }

    fn check_lag(&self, batches: &[Arc<Batch>], spot: Spot) -> Result<(), End> {
        let max_lag = self.fanout.settings.max_lag;
        if max_lag.is_zero() || !self.live {
            return Ok(());
        }
        let next = batches.first().and_then(|batch| {
            batch.ids().get(usize::try_from(spot.seq.saturating_sub(batch.first_seq)).ok()?)
        });
        let age = next.and_then(|id| age_ms(*id, now_ms())).map(Duration::from_millis);
        if age.is_some_and(|age| age > max_lag) { Err(End::Cut(Left::Slow)) } else { Ok(()) }
    }
}

/// Of the bytes from `spot` on, those of the event that was begun: whoever is due gets no other.
fn half_written<'a>(batches: &[Arc<Batch>], view: View, spot: Spot, all: &'a [u8]) -> &'a [u8] {
    let batch = batches.iter().find(|batch| (batch.first_seq..batch.end_seq()).contains(&spot.seq));
    match batch {
        Some(batch) if spot.offset > 0 => &all[..view.item(batch, spot.seq).len() - spot.offset],
        _ => all,
    }
}
