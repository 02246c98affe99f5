//! A topic: what the reader of one stream key and its subscribers share.
//!
//! The ring is the only store of entries; the broadcast only says that something changed.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Instant, SystemTime};

use tokio::sync::{Notify, Semaphore, broadcast};

use crate::config::StreamRules;
use crate::sse::{Rendering, StreamId};

use super::batch::{Batch, Unsent};
use super::catchup_positions::CatchUpRegistry;
use super::ends::{Ends, StreamEnd};
use super::item::Item;
use super::renderings::Renderings;
use super::ring::Ring;
use super::selections::Selections;
use super::sizes::Sizes;
use super::status::{ReadFailure, ReaderStatus};

/// How many announcements a receiver may lag behind. It may skip any: what is new is in the ring. Each costs memory for
/// each stream key.
const NEWS_KEPT: usize = 2;

/// Reads of one stream's past at once. In a herd only subscribers that no page serves read another one: the
/// more of them at once, the more pages hold the same entries.
const BACKFILL_READS: usize = 2;

/// Topics opened so far.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// One stream key that somebody reads.
pub struct Topic {
    /// Never used again, unlike its key.
    pub id: u64,
    /// The stream key.
    pub key: Arc<str>,
    /// Nobody reads it any more, and its shards end.
    is_closed: AtomicBool,
    /// How large the entries are that subscribers replay from the source.
    pub backfill_sizes: Sizes,
    /// Permits for reads of its past.
    pub backfill_permits: Semaphore,
    /// Its catch-up subscribers.
    pub catch_ups: CatchUpRegistry,
    /// Locked for one push or one look at a time, never across an await.
    state: Mutex<TopicState>,
    news: broadcast::Sender<()>,
    /// The last client has left: the reader may begin to linger.
    pub(crate) abandoned: Notify,
    /// A shard has moved on: the reader may have room again.
    progress: Notify,
    /// Bytes of all rings together.
    total_bytes: Arc<AtomicUsize>,
}

/// How a topic is now.
pub struct TopicState {
    /// The recent entries.
    pub ring: Ring,
    /// How its reader fares.
    pub reader: ReaderState,
    /// What the reader tells the operator.
    pub status: ReaderStatus,
    /// What new batches are encoded for.
    pub renderings: Renderings,
    /// What clients get of it that do not get all.
    pub selections: Selections,
    /// Clients that hold it open.
    pub clients: usize,
    /// When its last client left, or when it was opened.
    pub idle_since: Instant,
    /// Whether the stream is over.
    pub ends: Ends,
    /// When its reader last found an entry.
    pub last_entry: Option<Instant>,
    /// When its reader was last lost, or was back.
    pub reader_changed: Option<Instant>,
    /// When its reader last had an answer, and all of it in the ring.
    pub delivered: Option<Instant>,
    /// The same by the clock.
    pub last_answer: SystemTime,
    /// Each shard with its position in the ring; the reader waits for the slowest.
    pub shards: Vec<(usize, u64)>,
    /// How many of its clients are the operator's, who looks on.
    pub onlookers: usize,
    /// Entries read since it was opened.
    pub entries: u64,
    /// Gaps told since then, by the reader to everybody or to a client that resumed.
    pub gaps: u64,
}

/// What a topic tells of entries that it has taken in.
#[derive(Clone, Copy, Debug)]
pub struct Pushed {
    /// Which of them could not be sent.
    pub unsent: Unsent,
    /// How often the stream had ended, and went on.
    pub reopened: u64,
}

/// How a topic's reader fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReaderState {
    /// It has not read yet; the stream's end is not known.
    Starting,
    /// It is connected.
    Up,
    /// The source is away; the code of the last failure.
    Away(&'static str),
    /// The key cannot be read (WRONGTYPE, NOPERM): its clients are disconnected.
    Refused(&'static str),
}

impl Topic {
    pub(super) fn new(
        key: &str,
        limits: &crate::config::Ring,
        total_bytes: Arc<AtomicUsize>,
    ) -> Self {
        let state = TopicState {
            ring: Ring::new(limits.clone()),
            reader: ReaderState::Starting,
            status: ReaderStatus::default(),
            renderings: Renderings::default(),
            selections: Selections::default(),
            clients: 0,
            idle_since: Instant::now(),
            ends: Ends::default(),
            last_entry: None,
            reader_changed: None,
            delivered: None,
            last_answer: SystemTime::now(),
            shards: Vec::new(),
            onlookers: 0,
            entries: 0,
            gaps: 0,
        };
        Self {
            id: OPENED.fetch_add(1, Ordering::Relaxed),
            key: key.into(),
            is_closed: AtomicBool::new(false),
            backfill_sizes: Sizes::default(),
            backfill_permits: Semaphore::new(BACKFILL_READS),
            catch_ups: CatchUpRegistry::default(),
            state: Mutex::new(state),
            news: broadcast::Sender::new(NEWS_KEPT),
            abandoned: Notify::new(),
            progress: Notify::new(),
            total_bytes,
        }
    }

    /// The topic as it is now; do not hold it for long.
    pub fn state(&self) -> MutexGuard<'_, TopicState> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Ends its shards.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.announce();
    }

    /// Whether its shards are to end. It is announced.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Announces every change from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<()> {
        self.news.subscribe()
    }

    /// Appends what one read found and announces it; what is to be counted of them.
    pub fn push(&self, items: &[Item], max_entry_bytes: usize) -> Pushed {
        self.append(None, items, max_entry_bytes)
    }

    /// The same for the first items of a new generation, which begins after `base`. In one step: a subscriber
    /// that came in between would be told of a reset that was before its time.
    pub fn push_generation(
        &self,
        base: StreamId,
        items: &[Item],
        max_entry_bytes: usize,
    ) -> Pushed {
        self.append(Some(base), items, max_entry_bytes)
    }

    fn append(&self, base: Option<StreamId>, items: &[Item], max_entry_bytes: usize) -> Pushed {
        let mut renderings = self.state().renderings.clone();
        // Encoded outside the lock, and again if a rendering was registered meanwhile: a subscriber that
        // takes a position in the ring finds its own rendering from there on.
        let (batch, mut state) = loop {
            let batch = Batch::encode_for(items, renderings.iter(), max_entry_bytes);
            let state = self.state();
            if !state.renderings.has_more_than(&renderings) {
                break (batch, state);
            }
            renderings.clone_from(&state.renderings);
        };
        let unsent = batch.unsent();
        let entries = batch.entries_from(0);
        state.entries += entries;
        state.gaps += items.len() as u64 - entries;
        state.gaps += unsent.iter().map(|(_, entries)| entries).sum::<u64>();
        let before = state.ring.size_bytes();
        let needed = state.needed_seq();
        if let Some(base) = base {
            state.ring.start_generation(base);
            state.ends.new_generation();
        }
        let reopened = state.ends.move_over(&items.iter().filter_map(Item::entry));
        if entries > 0 {
            state.last_entry = Some(Instant::now());
        }
        state.ring.note_deletions(items);
        state.ring.push(batch, needed);
        self.account_bytes(before, state.ring.size_bytes());
        drop(state);
        self.announce();
        Pushed { unsent, reopened }
    }

    /// Begins a new generation of the stream: nobody can resume from an item before it.
    #[cfg(test)]
    pub(crate) fn start_generation(&self, base: StreamId) {
        self.state().ring.start_generation(base);
    }

    /// The reader has found the end of the stream. In one step: who waits for it asks then whether the reader is up.
    pub fn begin(&self, base: StreamId) {
        let mut state = self.state();
        state.ring.start_generation(base);
        self.note_answer(state);
    }

    /// The reader had an answer.
    pub fn answered(&self) {
        self.note_answer(self.state());
    }

    fn note_answer(&self, mut state: MutexGuard<'_, TopicState>) {
        state.last_answer = SystemTime::now();
        state.status.failure = None;
        self.set_reader(state, ReaderState::Up);
    }

    /// What the reader's last answer brought is in the ring.
    pub fn has_delivered(&self) {
        self.state().delivered = Some(Instant::now());
    }

    /// The reader cannot read, and tries again in a while.
    pub fn failed(&self, reader: ReaderState, failure: ReadFailure) {
        let mut state = self.state();
        state.status.failure = Some(failure);
        self.set_reader(state, reader);
    }

    /// Records how the reader fares, and announces a change.
    fn set_reader(&self, mut state: MutexGuard<'_, TopicState>, reader: ReaderState) {
        let changed = state.reader != reader;
        state.reader = reader;
        if changed {
            state.status.since = SystemTime::now();
            state.reader_changed = Some(Instant::now());
        }
        drop(state);
        if changed {
            self.announce();
        }
    }

    /// Wakes all who wait for a change.
    pub fn announce(&self) {
        // An error means that nobody listens. A subscriber that comes later looks at the state first.
        let _ = self.news.send(());
    }

    /// Waits until the slowest shard is at most half a ring behind. Until then entries stay in Redis.
    pub async fn wait_for_room(&self) {
        loop {
            let mut progress = std::pin::pin!(self.progress.notified());
            progress.as_mut().enable();
            if !self.state().crowded() {
                return;
            }
            progress.await;
        }
    }

    /// A shard has sent everything before `position`; whether there is more already.
    pub fn shard_sent(&self, shard: usize, position: u64) -> bool {
        let mut state = self.state();
        let was_crowded = state.crowded();
        for (_, at) in state.shards.iter_mut().filter(|(id, _)| *id == shard) {
            *at = position;
        }
        if was_crowded && !state.crowded() {
            self.progress.notify_waiters();
        }
        state.ring.next_seq() > position
    }

    /// A shard has ended.
    pub fn shard_ended(&self, shard: usize) {
        self.state().shards.retain(|(id, _)| *id != shard);
        self.progress.notify_waiters();
    }

    /// Frees the ring's memory, but for what a shard still needs; how many bytes that was. Subscribers then
    /// replay from the source.
    pub fn forget_ring(&self) -> usize {
        let mut state = self.state();
        let before = state.ring.size_bytes();
        let needed = state.needed_seq();
        state.ring.shrink_to(0, needed);
        self.account_bytes(before, state.ring.size_bytes());
        before - state.ring.size_bytes()
    }

    fn account_bytes(&self, before: usize, after: usize) {
        if after >= before {
            self.total_bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.total_bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        self.account_bytes(self.state().ring.size_bytes(), 0);
    }
}

impl TopicState {
    /// Whether the stream is over, as a client with these rules has it; `None`: nobody knows, or the rules name no end.
    pub fn end(&self, rules: &StreamRules) -> Option<StreamEnd> {
        rules.end().and_then(|marker| self.ends.find(marker))
    }

    /// A client with the rendering of this number has left.
    pub(super) fn leave_rendering(&mut self, number: usize) {
        self.renderings.leave(number);
        self.forget_ends();
    }

    /// The routes have other renderings now, which are `wanted`; so have they other markers.
    pub fn replace_renderings(&mut self, wanted: impl Fn(&Rendering) -> bool) {
        self.renderings.replace(wanted);
        self.forget_ends();
    }

    fn forget_ends(&mut self) {
        let Self { renderings, ends, .. } = self;
        ends.keep(|marker| renderings.iter().any(|(_, made)| made.end.as_ref() == Some(marker)));
    }

    /// Whether there is such a key, as its reader saw last.
    pub fn exists(&self) -> bool {
        self.status.source_last_id.is_some()
    }

    /// Clients, without the operator's.
    pub fn audience(&self) -> usize {
        self.clients - self.onlookers
    }

    /// The first item that a shard has not sent yet.
    fn needed_seq(&self) -> u64 {
        self.shards.iter().map(|(_, position)| *position).min().unwrap_or(u64::MAX)
    }

    /// Whether the slowest shard is so far behind that the reader has to wait for it.
    pub fn crowded(&self) -> bool {
        self.shards.iter().any(|(_, position)| self.ring.is_far_behind(*position))
    }
}
