//! All topics. The first client of a stream key opens its topic; when the last one leaves, the topic lingers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::selections::TooManySelections;
use super::topic::Topic;
use crate::config;
use crate::sse::{Rendering, Selection};

/// While all rings together are too large, a reader looks again after this long: shards move on meanwhile.
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// All topics, by stream key.
pub struct Hub {
    topics: DashMap<Arc<str>, Arc<Topic>>,
    limits: config::Ring,
    max_readers: AtomicUsize,
    total_bytes: Arc<AtomicUsize>,
    /// Readers wait for room one after the other.
    waiting: tokio::sync::Mutex<()>,
}

/// Too many stream keys have a reader already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyReaders;

/// One client's hold on a topic, for as long as it is not dropped.
pub struct Lease {
    topic: Arc<Topic>,
    /// The number of the rendering that its client has; in few bytes, for there are many leases.
    rendering: Option<u32>,
    /// What its client gets; `None`: everything.
    selection: Option<Arc<Selection>>,
}

impl Lease {
    fn new(topic: &Arc<Topic>) -> Self {
        topic.state().clients += 1;
        Self { topic: topic.clone(), rendering: None, selection: None }
    }

    /// The number of its client's rendering, which the topic makes for as long as it is held open.
    pub fn render(&mut self, rendering: &Arc<Rendering>) -> usize {
        let number = self.topic.state().renderings.enter(rendering);
        self.rendered(Some(number));
        number
    }

    /// The same for one of these, or for any that is made.
    pub fn render_any(&mut self, wanted: &[Arc<Rendering>]) -> Option<usize> {
        let number = self.topic.state().renderings.enter_any(wanted);
        self.rendered(number);
        number
    }

    fn rendered(&mut self, number: Option<usize>) {
        let number =
            number.map(|number| u32::try_from(number).expect("a topic has few renderings"));
        if let Some(before) = std::mem::replace(&mut self.rendering, number) {
            self.topic.state().leave_rendering(before as usize);
        }
    }

    /// Its client gets only this, which it shares with the clients that get the same. It is counted for as long as the
    /// topic is held open; `most` different ones may be.
    pub fn select(
        &mut self,
        selection: &Arc<Selection>,
        most: usize,
    ) -> Result<(), TooManySelections> {
        let mut state = self.topic.state();
        let entered = state.selections.enter(selection, most)?;
        if let Some(before) = self.selection.replace(entered) {
            state.selections.leave(&before);
        }
        Ok(())
    }

    /// What its client gets; `None`: everything.
    pub fn selection(&self) -> Option<&Arc<Selection>> {
        self.selection.as_ref()
    }

    /// The topic held open.
    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.topic.state();
        state.clients -= 1;
        if let Some(number) = self.rendering {
            state.leave_rendering(number as usize);
        }
        if let Some(selection) = &self.selection {
            state.selections.leave(selection);
        }
        if state.clients == 0 {
            state.idle_since = Instant::now();
            drop(state);
            self.topic.abandoned.notify_one();
        }
    }
}

impl Hub {
    /// No topics yet.
    pub fn new(limits: config::Ring, max_readers: usize) -> Self {
        Self {
            topics: DashMap::new(),
            limits,
            max_readers: AtomicUsize::new(max_readers),
            total_bytes: Arc::default(),
            waiting: tokio::sync::Mutex::default(),
        }
    }

    /// Changes how many stream keys may have a reader; those that have one keep it.
    pub fn set_max_readers(&self, max_readers: usize) {
        self.max_readers.store(max_readers, Ordering::Relaxed);
    }

    /// Holds the topic of `key` open. If it is new, `start` is called to start its reader.
    pub fn open(
        &self,
        key: &str,
        start: impl FnOnce(&Arc<Topic>),
    ) -> Result<Lease, TooManyReaders> {
        // Asked before the entry is locked: `len` would wait for that lock for ever.
        let full = self.topics.len() >= self.max_readers.load(Ordering::Relaxed);
        // The lease is counted under the map's lock, so `close` cannot come in between.
        match self.topics.entry(key.into()) {
            Entry::Occupied(found) => Ok(Lease::new(found.get())),
            Entry::Vacant(_) if full => Err(TooManyReaders),
            Entry::Vacant(vacant) => {
                let topic = Arc::new(Topic::new(key, &self.limits, self.total_bytes.clone()));
                let lease = Lease::new(&topic);
                start(&topic);
                vacant.insert(topic);
                Ok(lease)
            }
        }
    }

    /// Holds the topic of `key` open, if there is one.
    pub fn open_known(&self, key: &str) -> Option<Lease> {
        self.topics.get(key).map(|topic| Lease::new(&topic))
    }

    /// Closes a topic that nobody holds; whether nobody did.
    pub fn close(&self, topic: &Arc<Topic>) -> bool {
        let closed = self.topics.remove_if(&*topic.key, |_, held| {
            Arc::ptr_eq(held, topic) && topic.state().clients == 0
        });
        if closed.is_some() {
            topic.close();
        }
        closed.is_some()
    }

    /// Keeps all rings together within `total_bytes`: the longest unused are freed first.
    pub fn make_room(&self) {
        if !self.is_full() {
            return;
        }
        let mut topics = self.all();
        topics.sort_by_cached_key(|topic| {
            let state = topic.state();
            (state.clients > 0, state.idle_since)
        });
        for topic in topics {
            if !self.is_full() {
                return;
            }
            topic.forget_ring();
        }
    }

    /// Waits until all rings together are within `total_bytes`. What cannot be freed, shards still need; they
    /// wait for nobody, so they will soon have sent it.
    pub async fn wait_for_room(&self) {
        if !self.is_full() {
            return;
        }
        let _first_in_line = self.waiting.lock().await;
        loop {
            self.make_room();
            if !self.is_full() {
                return;
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }

    /// Whether all rings together are over `total_bytes`, and readers wait.
    pub fn is_full(&self) -> bool {
        self.rings_bytes() > self.limits.total_bytes
    }

    /// Memory that all rings hold.
    pub fn rings_bytes(&self) -> usize {
        self.total_bytes.load(Ordering::Relaxed)
    }

    /// Every topic, for the operator.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.topics.iter().map(|topic| topic.value().clone()).collect()
    }

    /// Stream keys with a reader.
    pub fn readers(&self) -> usize {
        self.topics.len()
    }
}
