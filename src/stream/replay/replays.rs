//! Where a subscriber begins and what follows, asked of the source once for all that ask the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::bounds::{PAGES_BYTES, ReadPermits, STATES_BYTES, SharedMemory};
use super::folded::Folded;
use super::page::{Begun, Generation, Opened, Page, PageKey};
use super::recent::RecentPages;
use super::single_flight::SingleFlight;
use super::snapshot::Snapshots;
use crate::config::{Config, Replay, StreamRules};
use crate::source::{Error, ErrorClass, ReadRequest, Reply, Source, StreamState};
use crate::sse::{EndMarker, Entry, Rendering, StreamId};
use crate::stream::continuity::Continuity;
use crate::stream::start::lookup::{self, Selected, StreamQuery};
use crate::stream::start::rule::{Known, Newest};
use crate::stream::start::{Resolved, Start, resolve_in_ring};
use crate::stream::topic::Topic;
use crate::stream::{StreamEnd, View};
use crate::telemetry::metrics::{Metrics, Scope};

/// One page stays near this,
const PAGE_BYTES: usize = 256 << 10;
/// and is never larger than this, unless it is one entry.
const MOST_PAGE_BYTES: usize = 4 * PAGE_BYTES;

/// Reads of the past, of all topics.
pub struct Replays {
    pub(super) source: Source,
    pub(super) metrics: Arc<Metrics>,
    pub(super) max_entry_bytes: usize,
    read_count: AtomicU64,
    pub(super) permits: ReadPermits,
    memory: SharedMemory,
    resumes: SingleFlight<(Generation, Replay, StreamId), Resolved>,
    /// The newest entries that `replay` allows, by their number.
    allowed: SingleFlight<(Generation, u64), Newest>,
    /// Pages that are being read,
    reads: SingleFlight<PageKey, Opened>,
    /// and those that were.
    recent: RecentPages,
    pub(super) snapshots: Snapshots,
}

impl Replays {
    /// At most `limits.replays` reads at once.
    pub fn new(source: Source, metrics: Arc<Metrics>, config: &Config) -> Self {
        Self {
            source,
            metrics,
            max_entry_bytes: config.source.max_entry_bytes,
            read_count: AtomicU64::new(config.source.read_count),
            permits: ReadPermits::new(config.limits.replays),
            memory: SharedMemory::new(PAGES_BYTES),
            resumes: SingleFlight::default(),
            allowed: SingleFlight::default(),
            reads: SingleFlight::default(),
            recent: RecentPages::default(),
            snapshots: Snapshots::new(SharedMemory::new(STATES_BYTES)),
        }
    }

    /// Reads under way, and bytes that pages hold.
    pub fn in_use(&self) -> (usize, usize) {
        (self.permits.in_use(), self.memory.in_use_bytes())
    }

    /// Takes on another configuration; reads under way go on.
    pub fn take_on(&self, config: &Config) {
        self.read_count.store(config.source.read_count, Ordering::Relaxed);
        self.permits.set_most(config.limits.replays);
    }

    /// Where a subscriber with this `view` begins in the stream of `topic`, which is in this generation and whose reader
    /// has read up to `read_up_to`.
    pub async fn resolve(
        &self,
        topic: &Topic,
        generation: u64,
        read_up_to: StreamId,
        view: View<'_>,
        replay: Replay,
        asked: Start,
    ) -> Result<Resolved, Error> {
        if let Some(resolved) = resolve_in_ring(topic, replay, asked, view) {
            return Ok(resolved);
        }
        let generation = (topic.id, generation);
        let known = Known { read_up_to, ..Known::default() };
        let query = self.query(topic);
        let rendering = view.rendering;
        let Start::After(id) = asked else {
            let columns = topic.state().renderings.get(rendering).map(|made| made.columns.clone());
            let (columns, most) = (&columns.unwrap_or_default()[..], replay.most());
            let selected = view.selection.map(|selection| Selected { columns, selection, most });
            let _permit = self.permits.acquire().await;
            let allowed = |count| query.newest(count);
            let query = StreamQuery { selected, ..query };
            return lookup::resolve(query, asked, replay, known, allowed).await;
        };
        // After a restart clients come back in a herd: those with the same id ask once, and all of them
        // once for what `replay` allows (which then also has what came in the two seconds since).
        let allowed =
            |count| self.allowed.get((generation, count), move || query.newest(count), |_| true);
        let ask = async || {
            // A page that was read for another subscriber may show that the stream held the entry. It is
            // dropped before anything is waited for: others wait for its memory.
            let from = Continuity::after(id);
            let page_key = PageKey { generation, rendering, from, conflates: false };
            let held = self.opened(topic, page_key).await?.page.holds(id);
            if let Some(info) = held {
                let stream = Some(StreamState::Stream(info));
                let known = Known { stream, holds: Some(true), ..known };
                return lookup::resolve(query, asked, replay, known, allowed).await;
            }
            let _permit = self.permits.acquire().await;
            lookup::resolve(query, asked, replay, known, allowed).await
        };
        self.resumes.get((generation, replay, id), ask, |_| true).await
    }

    /// Whether the stream of `topic` is over, as this marker says, for a client `at` this id. Where it may be over the
    /// source is asked for those who came by then: an entry that was added before they came is not overlooked, and a
    /// herd asks few times.
    pub async fn end(
        &self,
        topic: &Topic,
        marker: &EndMarker,
        at: Option<StreamId>,
    ) -> Result<StreamEnd, Error> {
        let came = Instant::now();
        let permit = topic.backfill_permits.acquire().await;
        let _permit = permit.expect("the semaphore is never closed");
        let read_up_to = {
            let mut state = topic.state();
            let read_up_to = state.ring.tail();
            let is_open = state.ends.find(marker) == Some(StreamEnd::Open);
            if is_open && state.exists() && at.is_none_or(|at| at <= read_up_to) {
                return Ok(StreamEnd::Open);
            }
            if let Some(end) = state.ends.asked_since(marker, came) {
                return Ok(end);
            }
            state.ends.expect(marker);
            read_up_to
        };
        let asked = Instant::now();
        let (end, last) = self.ask_end(topic, marker, read_up_to).await?;
        topic.state().ends.note(marker, end, last, asked);
        Ok(end)
    }

    /// Finds out whether the stream of `topic` is over, as these rules have it, unless the topic knows.
    pub async fn end_if_unknown(&self, topic: &Topic, rules: &StreamRules) -> Result<(), Error> {
        match rules.end() {
            Some(marker) if topic.state().ends.find(marker).is_none() => {
                self.end(topic, marker, None).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// What the source says of the end, and the id of the stream's last entry.
    async fn ask_end(
        &self,
        topic: &Topic,
        marker: &EndMarker,
        read_up_to: StreamId,
    ) -> Result<(StreamEnd, Option<StreamId>), Error> {
        let _permit = self.permits.acquire().await;
        let query = self.query(topic);
        let last = async || Ok::<_, Error>(self.source.newest(&topic.key, None, 1).await?.pop());
        let mut found = last().await?;
        // A replica may be behind.
        let may_be_behind =
            found.as_ref().is_none_or(|last| last.id < read_up_to || marker.is(last));
        if may_be_behind && query.waited_for_primary().await? {
            found = last().await?;
        }
        let end = match &found {
            None if query.look().await? == StreamState::Missing => StreamEnd::Absent,
            found => StreamEnd::at(marker, found.as_ref()),
        };
        Ok((end, found.map(|last| last.id)))
    }

    /// Whether there is no such key, on the primary either.
    pub async fn is_absent(&self, topic: &Topic) -> Result<bool, Error> {
        let _permit = self.permits.acquire().await;
        let query = self.query(topic);
        let is_missing = async || Ok::<_, Error>(query.look().await? == StreamState::Missing);
        Ok(is_missing().await? && (!query.waited_for_primary().await? || is_missing().await?))
    }

    /// Where a subscriber goes on that has all up to `last_id` of a stream that was recreated.
    pub async fn new_generation(
        &self,
        topic: &Topic,
        last_id: Option<StreamId>,
    ) -> Result<Resolved, Error> {
        let _permit = self.permits.acquire().await;
        lookup::resolve_recreated(self.query(topic), last_id).await
    }

    /// What follows `from` in the stream of `topic`, which is in this generation. `conflates`: without what newer
    /// entries supersede.
    pub async fn page(
        &self,
        topic: &Topic,
        generation: u64,
        rendering: usize,
        from: Continuity,
        conflates: bool,
    ) -> Result<Opened, Error> {
        let generation = (topic.id, generation);
        self.opened(topic, PageKey { generation, rendering, from, conflates }).await
    }

    /// Returns when a page is wanted that there is no memory for: a subscriber that does not need its own
    /// page right now drops it.
    pub async fn page_wanted(&self) {
        self.memory.wanted().await;
    }

    /// Frees the memory of what nobody will share any more.
    pub fn forget_old(&self) {
        self.resumes.forget_old();
        self.allowed.forget_old();
        self.reads.forget_old();
        self.recent.forget_old();
        self.snapshots.forget_old();
    }

    fn query<'a>(&'a self, topic: &'a Topic) -> StreamQuery<'a> {
        StreamQuery { source: &self.source, key: &topic.key, selected: None }
    }

    async fn opened(&self, topic: &Topic, page_key: PageKey) -> Result<Opened, Error> {
        if let Some(opened) = self.recent.find(&page_key) {
            return Ok(opened);
        }
        let read = async || {
            // The topic's permit first: a subscriber that waits for it takes none from other topics.
            let permit = topic.backfill_permits.acquire().await;
            let _permit = permit.expect("the semaphore is never closed");
            // Another may have read the same page while this one waited.
            if let Some(opened) = self.recent.find(&page_key) {
                return Ok(opened);
            }
            let _permit = self.permits.acquire().await;
            let mut page = self.read(topic, page_key).await?;
            let page_bytes = page.batch.size_bytes();
            page.memory = Some(self.memory.acquire(page_bytes, || self.recent.clear()).await);
            let page = Arc::new(page);
            self.recent.keep(page_key, &page);
            Ok(Opened { page, seq: 0 })
        };
        // Not kept here too: `recent` has the page, for those near it as well.
        self.reads.get(page_key, read, |_| false).await
    }

    async fn read(&self, topic: &Topic, page_key: PageKey) -> Result<Page, Error> {
        let PageKey { rendering, from, conflates, .. } = page_key;
        let rendering =
            topic.state().renderings.get(rendering).cloned().expect("its client has it");
        let reply = self.reply(topic, from).await?;
        let field = rendering.conflate.clone().filter(|_| conflates);
        let page = match field {
            Some(field) => {
                let begun = Begun::by(from, reply);
                self.conflated(topic, begun, &field, rendering).await?
            }
            None => Page::of_reply(from, reply, rendering, self.max_entry_bytes),
        };
        self.metrics.unsent(Scope::Resume, &page.batch.unsent());
        Ok(page)
    }

    /// The page that is begun, of as much of what follows as the newest entries of each fill.
    async fn conflated(
        &self,
        topic: &Topic,
        (mut begun, entries): (Begun, Vec<Entry>),
        field: &str,
        rendering: Rendering,
    ) -> Result<Page, Error> {
        let mut folded = Folded::by(field);
        folded.take(entries);
        while begun.has_more() && folded.bytes < MOST_PAGE_BYTES {
            let reply = self.reply(topic, begun.next).await?;
            let Some(entries) = begun.go_on(reply) else { break };
            folded.take(entries);
        }
        let (entries, spared) = folded.into_entries();
        Ok(begun.page(entries, spared, rendering, self.max_entry_bytes))
    }

    async fn reply(&self, topic: &Topic, from: Continuity) -> Result<Reply, Error> {
        let sizes = &topic.backfill_sizes;
        // The anchor is an entry that the subscriber has; never read it alone.
        let least = if from.anchor().is_some() { 2 } else { 1 };
        let count = sizes.count(PAGE_BYTES).min(self.read_count.load(Ordering::Relaxed)).max(least);
        let after = from.anchor().unwrap_or(from.cursor());
        let ask = ReadRequest { key: &topic.key, after, count, most_bytes: MOST_PAGE_BYTES };
        let reply = self.source.read(ask).await.inspect_err(|error| {
            // Entries have grown; a time-out may mean that they are too many for this connection, and a lost
            // connection that they are too many for the server.
            if error.class == ErrorClass::TooLarge || matches!(error.code, "TIMEOUT" | "IO") {
                sizes.were_too_many(count, PAGE_BYTES);
            }
        })?;
        // A shorter reply is the end of the stream, and says nothing about what a read can bring.
        if reply.entries.len() as u64 == count {
            sizes.observe(&reply.entries);
        }
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;
    use crate::source::Addition;
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
    async fn a_reload_changes_how_many_reads_there_may_be() {
        let mut config =
            crate::config::parse(ONE_AT_A_TIME, "gateway.toml", &[], false).unwrap().config;
        let metrics = Arc::new(Metrics::new(&config.routes));
        let replays = Replays::new(Source::open(&config), metrics, &config);
        let _one = replays.permits.acquire().await;
        assert!(timeout(Duration::ZERO, replays.permits.acquire()).await.is_err());
        config.limits.replays = 2;
        replays.take_on(&config);
        let _two = timeout(Duration::from_secs(20), replays.permits.acquire()).await.unwrap();
        assert_eq!(replays.in_use().0, 2);
    }

    #[tokio::test]
    async fn a_read_that_waits_for_a_permit_holds_no_memory() {
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
            ..Rendering::default()
        };
        // Their pages together are more than there is memory for; none holds the entry that was asked for.
        let (pages, payload) = (20, vec![b'x'; 1_000_000]);
        let mut clients = JoinSet::new();
        let permit = replays.permits.acquire().await;
        for page in 0..pages {
            let key = format!("events:{page}");
            let gone = source.publish(&Addition::of(&key, "gone")).await.unwrap()[0];
            source.publish(&Addition::of(&key, payload.clone())).await.unwrap();
            let (replays, lease) = (replays.clone(), hub.open(&key, |_| ()).unwrap());
            lease.topic().state().renderings.enter(&rendering.clone().into());
            clients.spawn(async move {
                let start = Start::After(gone);
                let (none, view) = (StreamId::ZERO, View { rendering: 0, selection: None });
                replays.resolve(lease.topic(), 0, none, view, Replay::All, start).await.unwrap()
            });
        }
        // Each runs up to where it waits for the permit.
        tokio::task::yield_now().await;
        drop(permit);
        let all = timeout(Duration::from_secs(20), clients.join_all()).await;
        assert_eq!(all.expect("each of them gets a permit").len(), pages);
    }
}
