//! StartPoint a topic to its clients: shards for those that are level with the tail, a catch-up subscriber for each
//! of the others, and the farewell of those that go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use dashmap::DashMap;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::TokenEnd;
use crate::auth::grant::GrantHandle;
use crate::config::{Config, Refuse, Signals};
use crate::limits::Permit;
use crate::stream::replay::Replays;
use crate::stream::{Lease, Topic};
use crate::telemetry::metrics::{DisconnectReason, Metrics};

mod access_record;
mod body;
mod broadcast_write;
mod catchup;
mod close;
mod deadline;
mod poller;
mod probe;
mod shard;
mod signal;
mod socket;
#[cfg(test)]
pub(crate) mod testing;
mod uring;
mod wire;
mod writer;

pub use access_record::{AccessRecord, AccessedStream, LogId};
pub use body::{Body, Following, beside};
pub use catchup::{Handoff, follow_in_body, welcome};
pub use close::{close, close_with};
pub use socket::Socket;
pub use wire::WireFormat;

use catchup::DeliveryState;
use probe::ShardMessage;
use shard::{Joining, ShardHandle};

/// A shard takes this many clients before another one is opened for the same topic.
const SHARD_MIN_SUBSCRIBERS: usize = 256;
/// A client that was told to go has this long to read it.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// After so many writes to those that replay, which take a millisecond or two,
const REPLAY_WRITES: usize = 16;
/// they pause for this long.
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
    /// Told when some clients may not stay.
    recheck: Notify,
    /// For writes to those that are not live yet.
    replay_turns: Semaphore,
    /// How many of them there were.
    replay_writes: AtomicUsize,
    /// Tasks that hold one client each, or write its closing frame: the drain waits for them.
    pub tasks: TaskTracker,
    /// When the last client is closed; set with the drain's first.
    drained: OnceLock<Instant>,
    opened_shards: AtomicUsize,
    /// By topic; a topic's shards end with it.
    shards: DashMap<u64, Vec<ShardHandle>>,
}

/// How shards and catch-up subscribers behave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A stream silent for this long gets a comment.
    pub keepalive: Duration,
    /// Base of the reconnection time.
    pub retry: Duration,
    /// Streams live for 80-100 % of this; zero: for ever.
    pub max_connection_age: Duration,
    /// Closes are spread over this when the server stops.
    pub drain: Duration,
    /// A client that takes nothing for this long is cut.
    pub write_stall: Duration,
    /// A client whose next entry is older than this is cut; zero: never.
    pub max_lag: Duration,
    /// How clients are refused.
    pub refuse: Refuse,
    /// Packs per topic at most.
    pub workers: usize,
    /// Whether a shard's sends are handed to the kernel in one call.
    pub at_once: bool,
}

/// Whether the kernel takes many sends in one call (`io_uring`); else why not.
pub fn may_send_at_once() -> std::io::Result<()> {
    uring::may_be_at_once()
}

/// A client of a topic, besides its socket. There are many: keep it small.
pub struct Subscriber {
    /// Holds the topic open.
    pub lease: Lease,
    /// Its place among all clients.
    pub permit: Permit,
    /// What it was let in by.
    pub grant: GrantHandle,
    /// How it wants its bytes.
    pub format: WireFormat,
    /// Index of its route in the configuration.
    pub route: u16,
    /// Whether keepalives and the loss of Redis are events to it.
    pub signals: Signals,
    /// Names it in the log.
    pub id: LogId,
    /// For the access log, where there is one.
    pub record: Option<Arc<AccessRecord>>,
    /// When its stream began.
    pub opened: Instant,
    /// When it is closed so that it resumes elsewhere.
    pub expires: Option<Instant>,
    /// When its token ends, where it has one.
    pub token: Option<Box<TokenEnd>>,
}

impl Subscriber {
    /// Its topic.
    pub fn topic(&self) -> &Arc<Topic> {
        self.lease.topic()
    }
}

impl Settings {
    /// As the configuration has them, but for what the listeners and the kernel make of it: how long a
    /// drain takes, and whether many sends are `at_once`.
    pub fn new(config: &Config, drain: Duration, at_once: bool) -> Self {
        Self {
            keepalive: config.server.keepalive,
            retry: config.server.retry,
            max_connection_age: config.server.max_connection_age,
            drain,
            write_stall: config.limits.write_stall,
            max_lag: config.limits.max_lag,
            refuse: config.server.refuse,
            workers: config.server.workers,
            at_once,
        }
    }

    /// How long a drain may take: the last client is told at the end of `drain`, and has `write_stall`
    /// to take it.
    pub fn longest_drain(&self) -> Duration {
        self.drain + self.write_stall + CLOSING_TIME
    }

    /// A reconnection time for one client: 1-3 times the base, so that they don't return at once.
    pub fn reconnection_time(&self) -> Duration {
        self.retry.mul_f64(1.0 + 2.0 * fastrand::f64())
    }

    /// A reconnection time for a client that cannot be served now: five times as long.
    pub fn long_reconnection_time(&self) -> Duration {
        self.reconnection_time() * 5
    }

    /// When a stream that begins now is closed.
    pub fn expiry(&self) -> Option<Instant> {
        let age = self.max_connection_age.mul_f64(0.8 + 0.2 * fastrand::f64());
        (!age.is_zero()).then(|| Instant::now() + age)
    }
}

impl Fanout {
    /// Nobody yet.
    pub fn new(settings: Arc<Settings>, metrics: Arc<Metrics>, replays: Replays) -> Self {
        let replay_turns = Semaphore::new(settings.workers.saturating_sub(1).max(1));
        Self {
            settings: ArcSwap::new(settings),
            metrics,
            replays,
            replay_turns,
            replay_writes: AtomicUsize::new(0),
            draining: CancellationToken::new(),
            recheck: Notify::new(),
            tasks: TaskTracker::new(),
            drained: OnceLock::new(),
            opened_shards: AtomicUsize::new(0),
            shards: DashMap::new(),
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

    /// Hands a client that has everything before `next_seq` to a shard of its topic.
    fn join(
        self: &Arc<Self>,
        socket: Socket,
        subscriber: Subscriber,
        next_seq: u64,
        delivery: DeliveryState,
    ) {
        let topic = subscriber.topic().clone();
        let mut shards = self.shards.entry(topic.id).or_default();
        let smallest = shards.iter().min_by_key(|shard| shard.subscribers());
        let full = smallest.is_none_or(|shard| shard.subscribers() >= SHARD_MIN_SUBSCRIBERS);
        if full && shards.len() < self.settings().workers {
            let number = self.opened_shards.fetch_add(1, Ordering::Relaxed);
            match shard::open(self, &topic, number) {
                Ok(shard) => shards.push(shard),
                Err(error) => {
                    tracing::warn!(key = %topic.key, %error, "no descriptor for one more pack (raise LimitNOFILE=)");
                }
            }
        }
        if let Some(shard) = shards.iter().min_by_key(|shard| shard.subscribers()) {
            return shard.send(Joining { socket, subscriber, next_seq, delivery });
        }
        drop(shards);
        subscriber.ended(&self.metrics, DisconnectReason::Error);
        let words =
            signal::closing_frame(&self.settings(), subscriber.format, delivery.last_id, None);
        close(self, socket, subscriber, words);
    }

    /// Whoever replays waits for a turn to write: one worker is left to those that are live, where there
    /// are several, and some of the time of the others.
    async fn replay_turn(&self) -> SemaphorePermit<'_> {
        let turn = self.replay_turns.acquire().await.expect("the semaphore is never closed");
        let writes = self.replay_writes.fetch_add(1, Ordering::Relaxed);
        if writes.is_multiple_of(REPLAY_WRITES) {
            tokio::time::sleep(REPLAY_PAUSE).await;
        }
        turn
    }

    /// When one client is closed by the drain: closes are spread over all of it.
    fn drain_expiry(&self) -> Instant {
        let now = Instant::now();
        let end = *self.drained.get_or_init(|| now + self.settings().drain);
        now + end.saturating_duration_since(now).mul_f64(fastrand::f64())
    }

    /// The shards of a topic: the number of each, and of its members.
    pub fn shards_of(&self, topic: &Topic) -> Vec<(usize, usize)> {
        let shards = self.shards.get(&topic.id);
        let shards = shards.iter().flat_map(|shards| shards.iter());
        shards.map(|shard| (shard.number(), shard.subscribers())).collect()
    }

    /// Lets every client be looked at once more: its standing may be revoked. Whoever is level with the
    /// tail and in no shard looks when its topic has news.
    pub fn recheck_grants(&self) {
        for shards in &self.shards {
            shards.iter().for_each(|shard| shard.deliver(ShardMessage::RecheckGrants));
        }
        self.recheck.notify_waiters();
    }

    fn forget_shards(&self, topic: &Topic) {
        self.shards.remove(&topic.id);
    }
}
