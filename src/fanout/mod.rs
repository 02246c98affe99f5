//! From a topic to its subscribers: shards for those that are level with the tail, catch-up for each of
//! the others, and the close of those that go.
//!
//! Shards and catch-up hand subscribers to each other by way of [`Fanout`].

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use dashmap::DashMap;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{StateQuery, StreamRules};
use crate::sse::{Control, StreamId};
use crate::stream::Topic;
use crate::stream::replay::Replays;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::throttle::LogThrottle;

mod access_record;
mod body;
mod broadcast_write;
mod catchup;
mod close;
mod crowd;
mod deadline;
mod members;
mod merged;
mod poller;
mod probe;
mod settings;
mod shard;
mod signal;
mod socket;
mod subscriber;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod uring;
mod wire;
mod writer;

pub use access_record::{AccessRecord, AccessedStream, LogId};
pub use body::{Body, BodyEnd, CatchUpHalf, cut_after};
pub use catchup::{CatchUp, follow_in_body, welcome};
pub use close::{CLIENT_CLOSE_TIME, close, close_with};
pub use merged::{MergedPart, MergedStream};
pub use settings::Settings;
pub use signal::end_frame;
pub use socket::{Socket, left};
pub use subscriber::{Admitted, Subscriber};
pub use uring::may_send_at_once;
pub use wire::WireFormat;

use catchup::DeliveryState;
use crowd::{HallHandle, HallMessage};
use shard::{Joining, ShardHandle, ShardMessage};
use signal::ClosingFrame;

/// A shard takes this many subscribers before another one is opened for the same topic.
const SHARD_MIN_SUBSCRIBERS: usize = 256;
/// Writes to subscribers that replay before these pause; they take a millisecond or two.
const REPLAY_WRITES: usize = 16;
/// The length of that pause.
const REPLAY_PAUSE: Duration = Duration::from_millis(1);

/// What shards and catch-up subscribers share.
pub struct Fanout {
    settings: ArcSwap<Settings>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Reads of the past.
    pub replays: Replays,
    /// Set when the server begins to drain.
    pub draining: CancellationToken,
    /// Set when a drain admits nobody any more.
    pub refusing: CancellationToken,
    /// Told when grants were revoked.
    recheck: Notify,
    /// For writes to subscribers that are not live yet.
    replay_permits: Semaphore,
    /// How many of these there were.
    replay_writes: AtomicUsize,
    /// Tasks that hold one subscriber each, or write its closing frame: the drain waits for them.
    pub tasks: TaskTracker,
    /// When the drain closes its last subscriber; set with the first.
    drain_ends: OnceLock<Instant>,
    opened_shards: AtomicUsize,
    /// What happens to many clients at once is a line, not one for each.
    failures_told: LogThrottle,
    /// By topic; a topic's shards end with it.
    shards: DashMap<u64, Vec<ShardHandle>>,
    /// For clients that follow several streams: as many as there are workers.
    halls: DashMap<usize, HallHandle>,
}

impl Fanout {
    /// Nobody yet.
    pub fn new(settings: Arc<Settings>, metrics: Arc<Metrics>, replays: Replays) -> Self {
        let replay_permits = Semaphore::new(settings.workers.saturating_sub(1).max(1));
        Self {
            settings: ArcSwap::new(settings),
            metrics,
            replays,
            replay_permits,
            replay_writes: AtomicUsize::new(0),
            draining: CancellationToken::new(),
            refusing: CancellationToken::new(),
            recheck: Notify::new(),
            tasks: TaskTracker::new(),
            drain_ends: OnceLock::new(),
            opened_shards: AtomicUsize::new(0),
            failures_told: LogThrottle::default(),
            shards: DashMap::new(),
            halls: DashMap::new(),
        }
    }

    /// How shards and catch-up subscribers behave now.
    pub fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// They behave like this from now on; `workers` stays as it is.
    pub fn set_settings(&self, settings: Arc<Settings>) {
        self.settings.store(settings);
    }

    /// Hands a subscriber whose client has everything before `next_seq` to a shard of its topic.
    fn join(
        self: &Arc<Self>,
        socket: Socket,
        subscriber: Subscriber,
        next_seq: u64,
        delivery: DeliveryState,
    ) {
        let topic = subscriber.topic().clone();
        let mut shards = self.shards.entry(topic.id).or_default();
        let smallest = |shards: &Vec<ShardHandle>| {
            let suitable = shards.iter().enumerate().filter(|(_, shard)| shard.suits(&subscriber));
            suitable.min_by_key(|(_, shard)| shard.subscribers()).map(|(index, _)| index)
        };
        let full = smallest(&shards)
            .is_none_or(|index| shards[index].subscribers() >= SHARD_MIN_SUBSCRIBERS);
        let count = shards.iter().filter(|shard| shard.suits(&subscriber)).count();
        if full && count < self.settings().workers {
            let number = self.opened_shards.fetch_add(1, Ordering::Relaxed);
            // Most topics have one.
            shards.reserve_exact(1);
            let selects = subscriber.selection().is_some();
            shards.push(shard::open(self, &topic, number, selects));
        }
        let smallest = smallest(&shards);
        let shard = &shards[smallest.expect("where there is none, one was opened")];
        shard.send(Joining { socket, subscriber, next_seq, delivery });
    }

    /// A permit to write, for a subscriber that replays. Where there are several workers, one of them is left to
    /// live subscribers; the others are left to them some of the time.
    async fn replay_permit(&self) -> SemaphorePermit<'_> {
        let permit = self.replay_permits.acquire().await.expect("the semaphore is never closed");
        let writes = self.replay_writes.fetch_add(1, Ordering::Relaxed);
        if writes.is_multiple_of(REPLAY_WRITES) {
            tokio::time::sleep(REPLAY_PAUSE).await;
        }
        permit
    }

    /// Begins the drain; when it ends. Alone, it admits newcomers until then.
    pub fn begin_drain(&self) -> Instant {
        let left = self.drain_left();
        if !self.settings().alone {
            self.refusing.cancel();
        }
        self.draining.cancel();
        // One that is opened meanwhile sees for itself.
        self.tell_shards(|| ShardMessage::Drain);
        Instant::now() + left
    }

    fn drain_left(&self) -> Duration {
        let now = Instant::now();
        let end = *self.drain_ends.get_or_init(|| now + self.settings().drain);
        end.saturating_duration_since(now)
    }

    /// When one subscriber is closed by the drain.
    fn drain_expiry(&self) -> Instant {
        Instant::now() + self.settings().drain_close(self.drain_left())
    }

    /// The last bytes of a stream: a control event, where there is one to tell, and the end of the body.
    fn closing_frame(
        &self,
        subscriber: &Subscriber,
        id: Option<StreamId>,
        control: Option<Control>,
    ) -> ClosingFrame {
        let id = id.map(|id| id.to_string());
        self.closing_frame_at((subscriber.format, &subscriber.rules), id.as_deref(), control)
    }

    /// The same, after any id.
    fn closing_frame_at(
        &self,
        (format, rules): (WireFormat, &StreamRules),
        id: Option<&str>,
        control: Option<Control>,
    ) -> ClosingFrame {
        let settings = self.settings();
        let wait = match control {
            Some(Control::Drain) => settings.return_time(self.drain_left()),
            Some(Control::Unavailable { .. }) => settings.long_reconnection_time(),
            _ => settings.reconnection_time(),
        };
        signal::closing_frame(wait, format, rules, id, control)
    }

    /// The shards of a topic: the number of each, and how many subscribers it has.
    pub fn shards_of(&self, topic: &Topic) -> Vec<(usize, usize)> {
        let shards = self.shards.get(&topic.id);
        let shards = shards.iter().flat_map(|shards| shards.iter());
        shards.map(|shard| (shard.number(), shard.subscribers())).collect()
    }

    /// Lets each subscriber look whether its grant was revoked. One that is level with the tail and in no
    /// shard looks when its topic has news.
    pub fn recheck_grants(&self) {
        self.tell_shards(|| ShardMessage::RecheckGrants);
        for hall in &self.halls {
            hall.deliver(HallMessage::RecheckGrants);
        }
        self.recheck.notify_waiters();
    }

    fn tell_shards(&self, message: impl Fn() -> ShardMessage) {
        for shards in &self.shards {
            shards.iter().for_each(|shard| shard.deliver(message()));
        }
    }

    /// A subscriber ends because its socket cannot be watched; more of them are logged as any end of a stream.
    fn warn_unwatched(&self, admitted: &Admitted, error: &io::Error) {
        if self.failures_told.allows("watch") {
            tracing::warn!(connection = admitted.id.connection, %error, "cannot watch a client's socket; the stream is closed and the client comes back; where descriptors have run out, raise LimitNOFILE=");
        }
    }

    /// Clients of a route get no state, and no stream; more of them are logged as any end of a stream.
    fn warn_too_large_state(&self, topic: &Topic, query: &StateQuery) {
        let reason = "snapshot";
        self.metrics.rejected(reason);
        if self.failures_told.allows(reason) {
            tracing::warn!(key = %topic.key, max_bytes = query.max_bytes, "the state of a stream is larger than its route's snapshot_max, and its clients are sent away; raise snapshot_max, or make the state smaller");
        }
    }

    fn forget_shards(&self, topic: &Topic) {
        self.shards.remove(&topic.id);
    }
}
