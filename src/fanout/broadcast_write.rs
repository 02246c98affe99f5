//! One pass of a pack: the same batches to all of its sockets. Whatever is cheaper than a send per
//! client goes in here and nowhere else.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::wire::{Done, Spot, age_ms, now_ms};
use super::{Client, Socket, View, uring};
use crate::stream::Batch;
use crate::telemetry::metrics::Metrics;

pub(super) struct Pass<'a> {
    batches: &'a [Arc<Batch>],
    start: u64,
    /// What goes to whom: one for each view, and one for each client that is ahead of the start.
    parts: Vec<Part>,
    due: Vec<Due>,
    outcomes: Vec<io::Result<usize>>,
    /// Events and bytes written, by route: counted here, published once.
    tally: Vec<(u64, u64)>,
    /// Somebody had nothing to get: every entry is skipped by his route.
    silent: bool,
}

/// What goes to one kind of client.
struct Part {
    view: View,
    seq: u64,
    bytes: Bytes,
    events: u64,
    gaps: u64,
    /// So many got all of it.
    clients: u64,
}

/// One client that is to be written to.
#[derive(Clone, Copy)]
struct Due {
    slot: usize,
    part: usize,
}

/// What became of one client.
pub(super) enum Sent {
    /// Its socket took only so much.
    Short(Done),
    /// It is gone.
    Failed,
}

impl<'a> Pass<'a> {
    /// Batches that go to everybody from the item `start` on.
    pub(super) fn new(batches: &'a [Arc<Batch>], start: u64, routes: usize) -> Self {
        Self {
            batches,
            start,
            parts: Vec::with_capacity(1),
            due: Vec::new(),
            outcomes: Vec::new(),
            tally: vec![(0, 0); routes],
            silent: false,
        }
    }

    /// Adds a client that is to get what it has not got: everything from the start on, or less.
    pub(super) fn add(&mut self, slot: usize, view: View, has_until: u64) {
        let seq = self.start.max(has_until);
        let known = self.parts.iter().position(|part| part.view == view && part.seq == seq);
        let part = known.unwrap_or_else(|| {
            self.parts.push(Part::new(self.batches, view, seq));
            self.parts.len() - 1
        });
        if self.parts[part].bytes.is_empty() {
            self.silent = true;
        } else {
            self.due.push(Due { slot, part });
        }
    }

    /// Whether what was added is as much as is written in one go.
    pub(super) fn is_full(&self) -> bool {
        self.due.len() >= uring::MOST
    }

    /// Writes to everybody that was added, and says for each slot what became of it.
    pub(super) fn send<'m>(
        &mut self,
        at_once: bool,
        member: impl Fn(usize) -> (&'m Socket, &'m Client),
    ) -> Vec<(usize, Sent)> {
        let parts = &self.parts;
        let sends = self.due.iter().map(|due| (member(due.slot).0, &*parts[due.part].bytes));
        uring::send(at_once, sends, &mut self.outcomes);
        let mut not_whole = Vec::new();
        for (due, outcome) in self.due.drain(..).zip(self.outcomes.drain(..)) {
            let part = &mut self.parts[due.part];
            let Ok(sent) = outcome else {
                not_whole.push((due.slot, Sent::Failed));
                continue;
            };
            let client = member(due.slot).1;
            let (events, bytes) = &mut self.tally[usize::from(client.route)];
            *bytes += sent as u64;
            if sent == part.bytes.len() {
                *events += part.events;
                client.record(part.events, part.gaps, sent);
                part.clients += 1;
                continue;
            }
            let done = part.view.advance(self.batches, Spot { seq: part.seq, offset: 0 }, sent);
            *events += done.events;
            client.record(done.events, done.gaps, sent);
            not_whole.push((due.slot, Sent::Short(done)));
        }
        not_whole
    }

    /// Whether every client that it was sent to heard something.
    pub(super) fn reached_all(&self) -> bool {
        !self.silent
    }

    /// Publishes what was written, and how late it was.
    pub(super) fn count(&self, metrics: &Metrics) {
        for ((events, bytes), route) in self.tally.iter().zip(metrics.routes().iter()) {
            if *bytes > 0 {
                route.events.increment(*events);
                route.bytes.increment(*bytes);
            }
        }
        let end = self.batches.last().map_or(self.start, |batch| batch.end_seq());
        for part in self.parts.iter().filter(|part| part.clients > 0) {
            observe_latency(metrics, self.batches, part.view, part.seq..end, part.clients);
        }
    }
}

impl Part {
    fn new(batches: &[Arc<Batch>], view: View, seq: u64) -> Self {
        let from = Spot { seq, offset: 0 };
        let all = view.advance(batches, from, usize::MAX);
        let bytes = view.bytes_of(batches, from, usize::MAX);
        Self { view, seq, bytes, events: all.events, gaps: all.gaps, clients: 0 }
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
        metrics.latency.observe(Duration::from_millis(age), clients);
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
