//! Reads of the past: few at once, each shared by all clients that are near one another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::config::Replay;
use crate::source::{Error, Source};
use crate::sse::{Reason, StreamId};
use crate::stream::Topic;
use crate::stream::continuity::Continuity;
use crate::stream::start::{self, Reach, Resolved, Start, StreamQuery};
use crate::telemetry::metrics::Metrics;

mod page;
mod recent;
mod single_flight;

pub use page::{Opened, Page};
use recent::Recent;
use single_flight::SingleFlight;

/// What all pages in memory may have, however many clients are in the past.
pub const PAGES_BYTES: usize = 16 << 20;
/// It is given out in parts of this.
const PART_BYTES: usize = 64 << 10;

/// Reads of the past.
pub struct Replays {
    source: Source,
    metrics: Arc<Metrics>,
    max_entry_bytes: usize,
    read_count: AtomicU64,
    most_reads: AtomicUsize,
    permits: Arc<Semaphore>,
    resumes: SingleFlight<(Generation, Replay, StreamId), Resolved>,
    /// How far back so many entries are.
    reaches: SingleFlight<(Generation, u64), Reach>,
    /// Under way.
    reads: SingleFlight<PageKey, Opened>,
    recent: Recent,
    /// Room in memory for pages.
    room: Arc<Semaphore>,
    /// There is none.
    full: Notify,
}

/// One life of one stream, as a topic saw it.
type Generation = (u64, u64);

/// What makes two pages the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct PageKey {
    generation: Generation,
    rendering: usize,
    from: Continuity,
}

impl PageKey {
    /// Whether what one wants may be in what is read for the other.
    fn is_beside(&self, other: &Self) -> bool {
        (self.generation, self.rendering) == (other.generation, other.rendering)
    }
}

impl Replays {
    /// At most `limits.replays` reads at once.
    pub fn new(source: Source, metrics: Arc<Metrics>, config: &crate::config::Config) -> Self {
        Self {
            source,
            metrics,
            max_entry_bytes: config.source.max_entry_bytes,
            read_count: AtomicU64::new(config.source.read_count),
            most_reads: AtomicUsize::new(config.limits.replays),
            permits: Arc::new(Semaphore::new(config.limits.replays)),
            resumes: SingleFlight::default(),
            reaches: SingleFlight::default(),
            reads: SingleFlight::default(),
            recent: Recent::default(),
            room: Arc::new(Semaphore::new(PAGES_BYTES / PART_BYTES)),
            full: Notify::new(),
        }
    }

    /// Reads under way, and bytes that pages hold.
    pub fn in_use(&self) -> (usize, usize) {
        let most_reads = self.most_reads.load(Ordering::Relaxed);
        let reads = most_reads.saturating_sub(self.permits.available_permits());
        (reads, PAGES_BYTES - self.room.available_permits() * PART_BYTES)
    }

    /// Reads are as this configuration has them from now on; those under way are not disturbed.
    pub fn take_on(&self, config: &crate::config::Config) {
        self.read_count.store(config.source.read_count, Ordering::Relaxed);
        self.set_most_reads(config.limits.replays);
    }

    fn set_most_reads(&self, most_reads: usize) {
        let before = self.most_reads.swap(most_reads, Ordering::Relaxed);
        if most_reads >= before {
            return self.permits.add_permits(most_reads - before);
        }
        let fewer = u32::try_from(before - most_reads).expect("there are not that many");
        let permits = self.permits.clone();
        // Each that is given back goes, until they are so few.
        tokio::spawn(async move {
            if let Ok(permits) = permits.acquire_many_owned(fewer).await {
                permits.forget();
            }
        });
    }

    /// Finds out where a client begins in the stream of `topic`, which is in its `life`-th life and whose
    /// reader has come up to `read_up_to`.
    pub async fn resolve(
        &self,
        topic: &Topic,
        generation: u64,
        read_up_to: StreamId,
        rendering: usize,
        replay: Replay,
        start: Start,
    ) -> Result<Resolved, Error> {
        if let Some(resolved) = start::in_ring(topic, replay, start) {
            return Ok(resolved);
        }
        let (generation, query) =
            ((topic.id, generation), StreamQuery { source: &self.source, key: &topic.key });
        let Start::After(id) = start else {
            let _permit = self.permit().await;
            let reach = |allowed| query.reach(allowed);
            return start::resolve(query, read_up_to, replay, start, reach).await;
        };
        // After a restart clients come back in a herd: those of one id ask once, and all of them once
        // how far back they may ask (what came within two seconds may be theirs beyond that).
        let reach = |allowed| {
            self.reaches.get((generation, allowed), move || query.reach(allowed), |_| true)
        };
        let ask = async || {
            // Whoever finds its id in a page that another has just read needs no question of its own.
            let page_key = PageKey { generation, rendering, from: Continuity::after(id) };
            // The page itself is not held while waiting: its room is what others wait for.
            let held = self.opened(topic, page_key).await?.page.holds(id);
            if let Some(info) = held {
                return start::resolve_known(id, &info, replay, reach).await;
            }
            let _permit = self.permit().await;
            start::resolve(query, read_up_to, replay, start, reach).await
        };
        self.resumes.get((generation, replay, id), ask, |_| true).await
    }

    /// Where a client goes on whose stream began anew after `last_id`.
    pub async fn new_generation(
        &self,
        topic: &Topic,
        last_id: Option<StreamId>,
    ) -> Result<Resolved, Error> {
        let _permit = self.permit().await;
        let query = StreamQuery { source: &self.source, key: &topic.key };
        start::from_the_first(query, last_id, Reason::Reset).await
    }

    /// What follows `from` in the stream of `topic`, which is in its `life`-th life.
    pub async fn page(
        &self,
        topic: &Topic,
        generation: u64,
        rendering: usize,
        from: Continuity,
    ) -> Result<Opened, Error> {
        self.opened(topic, PageKey { generation: (topic.id, generation), rendering, from }).await
    }

    /// Returns when pages are wanted that there is no room for: whoever does not need his just now
    /// gives it back.
    pub async fn page_wanted(&self) {
        self.full.notified().await;
    }

    /// Gives back the memory of what nobody will share any more.
    pub fn forget_old(&self) {
        self.resumes.forget_old();
        self.reaches.forget_old();
        self.reads.forget_old();
        self.recent.forget_old();
    }

    async fn opened(&self, topic: &Topic, page_key: PageKey) -> Result<Opened, Error> {
        if let Some(opened) = self.recent.find(&page_key) {
            return Ok(opened);
        }
        let read = async || {
            // The stream's turn first: who waits for it takes none from other streams.
            let turn = topic.backfill_permits.acquire().await;
            let _turn = turn.expect("the semaphore is never closed");
            // While this one waited for its turn another may have read the same.
            if let Some(opened) = self.recent.find(&page_key) {
                return Ok(opened);
            }
            let _permit = self.permit().await;
            let mut page = self.read(topic, page_key.rendering, page_key.from).await?;
            page.room = Some(self.room(page.batch.size_bytes()).await);
            let page = Arc::new(page);
            self.recent.keep(page_key, &page);
            Ok(Opened { page, seq: 0 })
        };
        // Not kept there as well: who comes later finds the page, and those near it.
        self.reads.get(page_key, read, |_| false).await
    }

    async fn permit(&self) -> SemaphorePermit<'_> {
        self.permits.acquire().await.expect("the semaphore is never closed")
    }

    /// Room for a page of this size; whoever waits for it is one of the few that read.
    async fn room(&self, page_bytes: usize) -> OwnedSemaphorePermit {
        let parts = page_bytes.div_ceil(PART_BYTES).clamp(1, PAGES_BYTES / PART_BYTES);
        let parts = u32::try_from(parts).expect("there are not that many");
        if let Ok(room) = self.room.clone().try_acquire_many_owned(parts) {
            return room;
        }
        self.recent.clear();
        self.full.notify_waiters();
        self.room.clone().acquire_many_owned(parts).await.expect("the semaphore is never closed")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::*;
    use crate::sse::{Data, EventName, Rendering};
    use crate::stream::Hub;

    const ONE_AT_A_TIME: &str = r#"
        [source]
        url = "memory:"
        [ring]
        entries = 1
        [limits]
        replays = 1
        [[route]]
        path = "/events/{name}"
        key = "events:{name}"
        access = "public"
    "#;

    #[tokio::test]
    async fn there_may_be_fewer_reads_as_soon_as_there_are_and_more_at_once() {
        let mut config =
            crate::config::parse(ONE_AT_A_TIME, "gateway.toml", &[], false).unwrap().config;
        config.limits.replays = 3;
        let metrics = Arc::new(Metrics::new(&config.routes));
        let replays = Replays::new(Source::open(&config), metrics, &config);
        let held = [replays.permit().await, replays.permit().await];
        config.limits.replays = 1;
        replays.take_on(&config);
        tokio::task::yield_now().await;
        assert_eq!(replays.permits.available_permits(), 0);
        drop(held);
        let one = tokio::time::timeout(Duration::from_secs(20), replays.permit()).await.unwrap();
        assert_eq!((replays.permits.available_permits(), replays.in_use().0), (0, 1));
        config.limits.replays = 2;
        replays.take_on(&config);
        assert_eq!((replays.permits.available_permits(), replays.in_use().0), (1, 1));
        drop(one);
        assert_eq!(replays.in_use().0, 0);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_turn_holds_no_room() {
        let config = crate::config::parse(ONE_AT_A_TIME, "gateway.toml", &[], false);
        let config = config.unwrap().config;
        let source = Source::open(&config);
        let hub = Hub::new(config.ring.clone(), 100);
        let metrics = Arc::new(Metrics::new(&config.routes));
        let replays = Arc::new(Replays::new(source.clone(), metrics, &config));
        let rendering = Rendering {
            event: EventName::Fixed("message".into()),
            data: Data::Field("payload".into()),
            missing: None,
        };
        // Their pages together are more than there is room for; none holds the entry that was asked for.
        let (pages, payload) = (20, vec![b'x'; 1_000_000]);
        let mut clients = JoinSet::new();
        let turn = replays.permit().await;
        for page in 0..pages {
            let key = format!("events:{page}");
            let gone = source.publish(&key, "gone".into()).await.unwrap();
            source.publish(&key, payload.clone().into()).await.unwrap();
            let (replays, lease) = (replays.clone(), hub.open(&key, |_| ()).unwrap());
            lease.topic().state().rendering(&rendering);
            clients.spawn(async move {
                let start = Start::After(gone);
                let none = StreamId::ZERO;
                replays.resolve(lease.topic(), 0, none, 0, Replay::All, start).await.unwrap()
            });
        }
        // Each runs up to where it waits for its turn.
        tokio::task::yield_now().await;
        drop(turn);
        let all = tokio::time::timeout(Duration::from_secs(20), clients.join_all()).await;
        assert_eq!(all.expect("each of them comes to its turn").len(), pages);
    }
}
