//! Reads of the past: few at once, each shared by all clients that want the same range.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{OnceCell, Semaphore};

use crate::config::Replay;
use crate::continuity::{Continuity, Verdict};
use crate::event::{Entry, Gap, StreamId};
use crate::metrics::{Metrics, Scope};
use crate::reader::count_for;
use crate::source::{Ask, Error, Source};
use crate::start::{Resolved, Start, resolve};
use crate::topic::{Batch, Item, Topic};

/// One read of the past is meant to stay near this.
const PAGE_BYTES: usize = 256 << 10;
/// The first page of a range, whose entries' sizes are not known yet.
const FIRST_COUNT: u64 = 16;
/// A page is kept this long for whoever wants the same: after a restart clients come in a herd.
const KEPT: Duration = Duration::from_secs(2);
/// So many pages are kept at most.
const PAGES_KEPT: usize = 64;

/// Reads of the past.
pub struct Replays {
    source: Source,
    metrics: Arc<Metrics>,
    max_entry_bytes: usize,
    read_count: u64,
    permits: Semaphore,
    /// Pages under way or just read; held for one lookup at a time.
    pages: Mutex<Vec<Kept>>,
}

struct Kept {
    wanted: Wanted,
    since: Instant,
    page: Arc<OnceCell<Arc<Page>>>,
}

/// What makes two pages the same.
#[derive(Clone, PartialEq)]
struct Wanted {
    topic: u64,
    life: u64,
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
    /// At most `permits` reads at once.
    pub fn new(source: Source, metrics: Arc<Metrics>, config: &crate::config::Config) -> Self {
        Self {
            source,
            metrics,
            max_entry_bytes: config.source.max_entry_bytes,
            read_count: config.source.read_count,
            permits: Semaphore::new(config.limits.replays),
            pages: Mutex::default(),
        }
    }

    /// Finds out where a client begins.
    pub async fn resolve(
        &self,
        topic: &Topic,
        replay: Replay,
        start: Start,
    ) -> Result<Resolved, Error> {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        resolve(&self.source, topic, replay, start).await
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
        let wanted = Wanted { topic: topic.id, life, rendering, from };
        let cell = self.kept(wanted);
        let page = cell
            .get_or_try_init(|| self.read(topic, rendering, from, largest_bytes))
            .await?
            .clone();
        if page.is_empty() {
            // "Nothing more" is true of this moment only.
            self.pages().retain(|kept| !Arc::ptr_eq(&kept.page, &cell));
        }
        Ok(page)
    }

    fn kept(&self, wanted: Wanted) -> Arc<OnceCell<Arc<Page>>> {
        let mut pages = self.pages();
        pages.retain(|kept| kept.since.elapsed() < KEPT);
        if let Some(kept) = pages.iter().find(|kept| kept.wanted == wanted) {
            return kept.page.clone();
        }
        if pages.len() >= PAGES_KEPT {
            pages.remove(0);
        }
        let page = Arc::<OnceCell<Arc<Page>>>::default();
        pages.push(Kept { wanted, since: Instant::now(), page: page.clone() });
        page
    }

    fn pages(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        self.pages.lock().expect("no holder of the lock panics")
    }

    async fn read(
        &self,
        topic: &Topic,
        rendering: usize,
        from: Continuity,
        largest_bytes: Option<usize>,
    ) -> Result<Arc<Page>, Error> {
        let rendering = topic.state().renderings[rendering].clone();
        let count = largest_bytes.map_or(FIRST_COUNT, |largest| count_for(largest, PAGE_BYTES));
        let anchor = from.anchor();
        // An anchor is never read alone.
        let count = count.min(self.read_count).max(if anchor.is_some() { 2 } else { 1 });
        let after = anchor.unwrap_or(from.cursor());
        let mut reply = {
            let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
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
        let batch = Arc::new(Batch::encode(&items, &[rendering], self.max_entry_bytes));
        Ok(Arc::new(Page { batch, next, reset, largest_bytes }))
    }

    fn told(&self, gap: Gap, next: Continuity) -> Item {
        self.metrics.gap(Scope::Resume, gap);
        Item::Gap(gap, gap.next.map_or(next.cursor(), StreamId::prev))
    }
}
