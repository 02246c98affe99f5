//! One pass of a pack: the same batches to all of its sockets. Whatever is cheaper than a send per
//! client goes in here and nowhere else.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::wire::{Done, Spot, age_ms, now_ms};
use super::{Client, Socket, View};
use crate::metrics::Metrics;
use crate::topic::Batch;

pub(super) struct Pass<'a> {
    batches: &'a [Arc<Batch>],
    start: u64,
    /// By view, what goes to whoever has everything before the start.
    parts: Shared<View, Part>,
    /// Events and bytes written, by route: counted here, published once.
    tally: Vec<(u64, u64)>,
    /// By view, how many clients got everything.
    whole: Vec<(View, u64)>,
    /// Somebody had nothing to get: every entry is skipped by his route.
    silent: bool,
}

/// What goes to one kind of client.
#[derive(Clone)]
struct Part {
    bytes: Bytes,
    events: u64,
}

/// What became of one client.
pub(super) enum Sent {
    Whole,
    /// Its socket took only so much.
    Short(Done),
    /// It is gone.
    Failed,
}

impl<'a> Pass<'a> {
    /// Batches that go to everybody from the item `start` on.
    pub(super) fn new(batches: &'a [Arc<Batch>], start: u64, routes: usize) -> Self {
        let (parts, tally) = (Shared::default(), vec![(0, 0); routes]);
        Self { batches, start, parts, tally, whole: Vec::with_capacity(1), silent: false }
    }

    /// Writes to one client what it has not got: everything from `start` on, or less.
    pub(super) fn send(&mut self, socket: &Socket, client: &Client, has_until: u64) -> Sent {
        let seq = self.start.max(has_until);
        let (batches, view) = (self.batches, client.view);
        let part = if seq == self.start {
            self.parts.get(view, || Part::new(batches, view, seq))
        } else {
            Part::new(batches, view, seq)
        };
        if part.bytes.is_empty() {
            self.silent = true;
            return Sent::Whole;
        }
        let Ok(sent) = socket.send(&part.bytes) else { return Sent::Failed };
        let (events, bytes) = &mut self.tally[usize::from(client.route)];
        *bytes += sent as u64;
        if sent == part.bytes.len() {
            *events += part.events;
            match self.whole.iter_mut().find(|(known, _)| *known == view) {
                Some((_, clients)) => *clients += 1,
                None => self.whole.push((view, 1)),
            }
            return Sent::Whole;
        }
        let done = view.advance(batches, Spot { seq, offset: 0 }, sent);
        *events += done.events;
        Sent::Short(done)
    }

    /// Whether every client that it was sent to heard something.
    pub(super) fn reached_all(&self) -> bool {
        !self.silent
    }

    /// Publishes what was written, and how late it was.
    pub(super) fn count(&self, metrics: &Metrics) {
        for ((events, bytes), route) in self.tally.iter().zip(&metrics.routes) {
            if *bytes > 0 {
                route.events.increment(*events);
                route.bytes.increment(*bytes);
            }
        }
        for (view, clients) in &self.whole {
            let end = self.batches.last().map_or(self.start, |batch| batch.end_seq());
            observe_latency(metrics, self.batches, *view, self.start..end, *clients);
        }
    }
}

impl Part {
    fn new(batches: &[Arc<Batch>], view: View, seq: u64) -> Self {
        let all = view.advance(batches, Spot { seq, offset: 0 }, usize::MAX);
        Self { bytes: view.bytes_of(batches, seq), events: all.events }
    }
}

/// How late the entries among these items reached so many clients.
pub(super) fn observe_latency(
    metrics: &Metrics,
    batches: &[Arc<Batch>],
    view: View,
    seqs: Range<u64>,
    clients: u64,
) {
    let now = now_ms();
    let ids = batches.iter().flat_map(|batch| view.entries_of(batch, seqs.clone()));
    for age in ids.filter_map(|id| age_ms(id, now)) {
        metrics.latency.observe(age as f64 / 1e3, clients);
    }
}

/// What was made once for each kind of client; there are few kinds.
pub(super) struct Shared<K, V>(Vec<(K, V)>);

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(Vec::with_capacity(1))
    }
}

impl<K: PartialEq, V: Clone> Shared<K, V> {
    pub(super) fn get(&mut self, kind: K, produce: impl FnOnce() -> V) -> V {
        if let Some((_, made)) = self.0.iter().find(|(known, _)| *known == kind) {
            return made.clone();
        }
        let made = produce();
        self.0.push((kind, made.clone()));
        made
    }
}
