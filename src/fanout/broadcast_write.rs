//! One pass of a shard: the same batches to all of its sockets. Whatever is cheaper than a send per
//! client goes in here and nowhere else.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::wire::{WritePosition, WriteProgress, age_ms, now_ms};
use super::{Socket, Subscriber, WireFormat, uring};
use crate::stream::Batch;
use crate::telemetry::metrics::Metrics;

pub(super) struct BroadcastWrite<'a> {
    batches: &'a [Arc<Batch>],
    start: u64,
    /// What goes to whom: one for each view, and one for each client that is ahead of the start.
    parts: Vec<Part>,
    due: Vec<Recipient>,
    outcomes: Vec<io::Result<usize>>,
    /// Events and bytes written, by route: counted here, published once.
    tally: Vec<(u64, u64)>,
    /// Somebody had nothing to get: every entry is skipped by his route.
    silent: bool,
}

/// What goes to one kind of client.
struct Part {
    format: WireFormat,
    seq: u64,
    bytes: Bytes,
    events: u64,
    gaps: u64,
    /// So many got all of it.
    subscribers: u64,
}

/// One client that is to be written to.
#[derive(Clone, Copy)]
struct Recipient {
    slot: usize,
    part: usize,
}

/// What became of one client.
pub(super) enum Sent {
    /// Its socket took only so much.
    Short(WriteProgress),
    /// It is gone.
    Failed,
}

impl<'a> BroadcastWrite<'a> {
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
    pub(super) fn add(&mut self, slot: usize, format: WireFormat, has_until: u64) {
        let seq = self.start.max(has_until);
        let known = self.parts.iter().position(|part| part.format == format && part.seq == seq);
        let part = known.unwrap_or_else(|| {
            self.parts.push(Part::new(self.batches, format, seq));
            self.parts.len() - 1
        });
        if self.parts[part].bytes.is_empty() {
            self.silent = true;
        } else {
            self.due.push(Recipient { slot, part });
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
        member: impl Fn(usize) -> (&'m Socket, &'m Subscriber),
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
            let subscriber = member(due.slot).1;
            let (events, bytes) = &mut self.tally[usize::from(subscriber.route)];
            *bytes += sent as u64;
            if sent == part.bytes.len() {
                *events += part.events;
                subscriber.record(part.events, part.gaps, sent);
                part.subscribers += 1;
                continue;
            }
            let done =
                part.format.advance(self.batches, WritePosition { seq: part.seq, offset: 0 }, sent);
            *events += done.events;
            subscriber.record(done.events, done.gaps, sent);
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
        for part in self.parts.iter().filter(|part| part.subscribers > 0) {
            observe_latency(metrics, self.batches, part.format, part.seq..end, part.subscribers);
        }
    }
}

impl Part {
    fn new(batches: &[Arc<Batch>], format: WireFormat, seq: u64) -> Self {
        let from = WritePosition { seq, offset: 0 };
        let all = format.advance(batches, from, usize::MAX);
        let bytes = format.bytes_of(batches, from, usize::MAX);
        Self { format, seq, bytes, events: all.events, gaps: all.gaps, subscribers: 0 }
    }
}

/// How late the entries among these items reached so many clients.
pub(super) fn observe_latency(
    metrics: &Metrics,
    batches: &[Arc<Batch>],
    format: WireFormat,
    seqs: Range<u64>,
    subscribers: u64,
) {
    let now = now_ms();
    let ids = batches.iter().flat_map(|batch| format.entries_of(batch, seqs.clone()));
    for age in ids.filter_map(|id| age_ms(id, now)) {
        metrics.latency.observe(Duration::from_millis(age), subscribers);
    }
}

/// What was made once for each kind of client; there are few kinds.
pub(super) struct PerKind<K, V>(Vec<(K, V)>);

impl<K, V> Default for PerKind<K, V> {
    fn default() -> Self {
        Self(Vec::with_capacity(1))
    }
}

impl<K: PartialEq, V: Clone> PerKind<K, V> {
    pub(super) fn get(&mut self, kind: K, produce: impl FnOnce() -> V) -> V {
        if let Some((_, made)) = self.0.iter().find(|(known, _)| *known == kind) {
            return made.clone();
        }
        let made = produce();
        self.0.push((kind, made.clone()));
        made
    }
}
