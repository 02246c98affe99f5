//! Reads of the past: few at once, each shared by all clients that want the same.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::Replay;
use crate::continuity::{Continuity, Verdict};
use crate::event::{Entry, Gap, Reason, StreamId};
use crate::metrics::{Metrics, Scope};
use crate::reader::count_for;
use crate::shared::Shared;
use crate::source::{Ask, Error, Source};
use crate::start::{self, Look, Reach, Resolved, Start};
use crate::topic::{Batch, Item, Topic};

/// One read of the past is meant to stay near this.
const PAGE_BYTES: usize = 256 << 10;
/// The first page of a range, whose entries' sizes are not known yet.
const FIRST_COUNT: u64 = 16;

/// Reads of the past.
pub struct Replays {
    source: Source,
    metrics: Arc<Metrics>,
    max_entry_bytes: usize,
    read_count: u64,
    permits: Semaphore,
    resumes: Shared<(Life, Replay, StreamId), Resolved>,
    /// How far back so many entries are.
    reaches: Shared<(Life, u64), Reach>,
    pages: Shared<Wanted, Arc<Page>>,
}

/// One life of one stream, as a topic saw it.
type Life = (u64, u64);

/// What makes two pages the same.
#[derive(Clone, PartialEq)]
struct Wanted {
    life: Life,
    rendering: usize,
    from: Continuity,
}

/// A run of entries of the past.
#[derive(Debug)]
pub struct Page {
    /// What it holds, in the one rendering that was asked for; numbered from zero.
    pub batch: Arc<Batch>,
    /// Where the next page begins.
    pub next: Continuity,
    /// The stream began anew meanwhile: the topic's reader will tell how it goes on.
    pub reset: bool,
    /// Bytes of its largest entry: the next page is asked for accordingly.
    pub largest_bytes: usize,
}

impl Page {
    /// Whether the stream holds nothing more.
    pub fn is_empty(&self) -> bool {
        self.batch.ids().is_empty()
    }
}

impl Replays {
    /// At most `limits.replays` reads at once.
    pub fn new(source: Source, metrics: Arc<Metrics>, config: &crate::config::Config) -> Self {
        Self {
            source,
            metrics,
            max_entry_bytes: config.source.max_entry_bytes,
            read_count: config.source.read_count,
            permits: Semaphore::new(config.limits.replays),
            resumes: Shared::default(),
            reaches: Shared::default(),
            pages: Shared::default(),
        }
    }

    /// Finds out where a client begins in the stream of `topic`, which is in its `life`-th life.
    pub async fn resolve(
        &self,
        topic: &Topic,
        life: u64,
        replay: Replay,
        start: Start,
    ) -> Result<Resolved, Error> {
        if let Some(resolved) = start::in_ring(topic, replay, start) {
            return Ok(resolved);
        }
        let (life, look) = ((topic.id, life), Look { source: &self.source, key: &topic.key });
        let Start::After(id) = start else {
            let _permit = self.permit().await;
            return start::resolve(look, replay, start, |allowed| look.reach(allowed)).await;
        };
        // After a restart clients come back in a herd: those of one id ask once, and all of them once
        // how far back they may ask (what came within two seconds may be theirs beyond that).
        let reach =
            |allowed| self.reaches.get((life, allowed), move || look.reach(allowed), |_| true);
        let ask = async || {
            let _permit = self.permit().await;
            start::resolve(look, replay, start, reach).await
        };
        self.resumes.get((life, replay, id), ask, |_| true).await
    }

    /// Where a client goes on whose stream began anew after `last_id`.
    pub async fn new_life(
        &self,
        topic: &Topic,
        last_id: Option<StreamId>,
    ) -> Result<Resolved, Error> {
        let _permit = self.permit().await;
        let look = Look { source: &self.source, key: &topic.key };
        start::from_the_first(look, last_id, Reason::Reset).await
    }

    /// What follows `from` in the stream of `topic`, which is in its `life`-th life; `largest_bytes`
    /// of an entry in the page before, where there was one.
    pub async fn page(
        &self,
        topic: &Topic,
        life: u64,
        rendering: usize,
        from: Continuity,
        largest_bytes: Option<usize>,
    ) -> Result<Arc<Page>, Error> {
        let wanted = Wanted { life: (topic.id, life), rendering, from };
        let read = || self.read(topic, rendering, from, largest_bytes);
        // "Nothing more" is true of this moment only.
        self.pages.get(wanted, read, |page| !page.is_empty()).await
    }

    /// What `largest_bytes` has to be for half as many entries to be asked for.
    pub fn for_half_a_page(&self, largest_bytes: Option<usize>) -> usize {
        let count = usize::try_from(self.count(largest_bytes) / 2).unwrap_or(usize::MAX);
        PAGE_BYTES / count.max(1)
    }

    /// Gives back the memory of what nobody will share any more.
    pub fn forget_old(&self) {
        self.resumes.forget_old();
        self.reaches.forget_old();
        self.pages.forget_old();
    }

    fn count(&self, largest_bytes: Option<usize>) -> u64 {
        let count = largest_bytes.map_or(FIRST_COUNT, |largest| count_for(largest, PAGE_BYTES));
        count.min(self.read_count)
    }

    async fn permit(&self) -> SemaphorePermit<'_> {
        self.permits.acquire().await.expect("the semaphore is never closed")
    }

    async fn read(
        &self,
        topic: &Topic,
        rendering: usize,
        from: Continuity,
        largest_bytes: Option<usize>,
    ) -> Result<Arc<Page>, Error> {
        let rendering = topic.state().renderings[rendering].clone();
        let anchor = from.anchor();
        // An anchor is never read alone.
        let count = self.count(largest_bytes).max(if anchor.is_some() { 2 } else { 1 });
        let after = anchor.unwrap_or(from.cursor());
        let mut reply = {
            let _permit = self.permit().await;
            let ask = Ask { key: &topic.key, after, count, info: true };
            self.source.read(ask).await?
        };
        let first = reply.entries.first().map(|entry| entry.id);
        let anchored = anchor.is_some() && first == Some(from.cursor());
        if anchored {
            reply.entries.remove(0);
        }
        let mut next = from;
        let largest_bytes = reply.entries.iter().map(Entry::size_bytes).max().unwrap_or(0);
        let mut items = Vec::with_capacity(reply.entries.len() + 1);
        let mut reset = false;
        match next.check_from(&reply, anchored) {
            Verdict::Whole => {}
            Verdict::Missing(gap) => items.push(self.told(gap, next)),
            Verdict::Reset(_) => reset = true,
        }
        if !reset {
            items.extend(reply.entries.into_iter().map(Item::Entry));
        }
        let batch = Batch::encode(&items, &[rendering], self.max_entry_bytes);
        self.metrics.oversize(Scope::Resume, batch.oversize());
        Ok(Arc::new(Page { batch: Arc::new(batch), next, reset, largest_bytes }))
    }

    fn told(&self, gap: Gap, next: Continuity) -> Item {
        self.metrics.gap(Scope::Resume, gap);
        Item::Gap(gap, gap.next.map_or(next.cursor(), StreamId::prev))
    }
}
