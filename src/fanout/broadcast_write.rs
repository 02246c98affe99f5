//! One write of a shard: the same batches to all of its subscribers. What makes that cheaper than a send for
//! each is here and nowhere else.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::wire::{WritePosition, WriteProgress, age_ms, now_ms};
use super::{Socket, Subscriber, WireFormat, uring};
use crate::sse::Selection;
use crate::stream::Batch;
use crate::telemetry::metrics::Metrics;

pub(super) struct BroadcastWrite<'a> {
    batches: &'a [Arc<Batch>],
    start: u64,
    /// One for each format and selection, and one for each subscriber that is ahead of the start.
    parts: Vec<Part>,
    recipients: Vec<Recipient>,
    outcomes: Vec<io::Result<usize>>,
    /// Events and bytes written, by route: counted here, published once.
    tally: Vec<(u64, u64)>,
    /// Some subscriber gets nothing: its route skips every entry.
    skipped_some: bool,
}

/// The bytes for one kind of subscriber.
struct Part {
    format: WireFormat,
    seq: u64,
    bytes: Bytes,
    events: u64,
    gaps: u64,
    /// What the subscribers get of the batches; `None`: everything.
    items: Option<SelectedItems>,
    /// Subscribers that got all of it.
    subscribers: u64,
}

/// What subscribers get that do not get everything.
struct SelectedItems {
    selection: Arc<Selection>,
    seqs: Vec<u64>,
}

/// One subscriber that is to be written to.
#[derive(Clone, Copy)]
struct Recipient {
    slot: usize,
    part: usize,
}

/// What became of one send.
pub(super) enum Sent {
    /// The socket took only so much.
    Short(WriteProgress),
    /// The client is gone.
    Failed,
}

impl<'a> BroadcastWrite<'a> {
    /// Of these batches, from the item `start` on.
    pub(super) fn new(batches: &'a [Arc<Batch>], start: u64, routes: usize) -> Self {
        Self {
            batches,
            start,
            parts: Vec::with_capacity(1),
            recipients: Vec::new(),
            outcomes: Vec::new(),
            tally: vec![(0, 0); routes],
            skipped_some: false,
        }
    }

    /// Adds a subscriber, which gets what its client has not: everything from the start on, or less.
    pub(super) fn add(&mut self, slot: usize, format: WireFormat, has_until: u64) {
        let seq = self.start.max(has_until);
        let known = self.parts.iter().position(|part| part.format == format && part.seq == seq);
        let part = known.unwrap_or_else(|| {
            self.parts.push(Part::new(self.batches, format, seq));
            self.parts.len() - 1
        });
        if self.parts[part].bytes.is_empty() {
            self.skipped_some = true;
        } else {
            self.recipients.push(Recipient { slot, part });
        }
    }

    /// What is written.
    pub(super) fn batches(&self) -> &'a [Arc<Batch>] {
        self.batches
    }

    /// The bytes for subscribers that get these items of the batches, by their selection, and have everything before
    /// `seq`.
    pub(super) fn part_of(
        &mut self,
        format: WireFormat,
        selection: &Arc<Selection>,
        seq: u64,
        seqs: &[u64],
    ) -> usize {
        let seqs = seqs.iter().copied().filter(|item| *item >= seq).collect();
        let items = SelectedItems { selection: selection.clone(), seqs };
        self.parts.push(Part::of_items(self.batches, format, seq, items));
        self.parts.len() - 1
    }

    /// Adds a subscriber, which gets such a part.
    pub(super) fn add_to(&mut self, slot: usize, part: usize) {
        if !self.parts[part].bytes.is_empty() {
            self.recipients.push(Recipient { slot, part });
        }
    }

    /// Whether what was added is as much as is written in one go.
    pub(super) fn is_full(&self) -> bool {
        self.recipients.len() >= uring::MOST
    }

    /// Writes to all that were added; the slots whose client did not take everything.
    pub(super) fn send<'m>(
        &mut self,
        at_once: bool,
        member: impl Fn(usize) -> (&'m Socket, &'m Subscriber),
    ) -> Vec<(usize, Sent)> {
        let parts = &self.parts;
        let sends = self.recipients.iter().map(|due| (member(due.slot).0, &*parts[due.part].bytes));
        uring::send(at_once, sends, &mut self.outcomes);
        let mut not_whole = Vec::new();
        for (due, outcome) in self.recipients.drain(..).zip(self.outcomes.drain(..)) {
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
            let done = part.advance(self.batches, sent);
            *events += done.events;
            subscriber.record(done.events, done.gaps, sent);
            not_whole.push((due.slot, Sent::Short(done)));
        }
        not_whole
    }

    /// Whether every subscriber that was added got something.
    pub(super) fn reached_all(&self) -> bool {
        !self.skipped_some
    }

    /// Publishes what was written, and with what latency.
    pub(super) fn count(&self, metrics: &Metrics) {
        for ((events, bytes), route) in self.tally.iter().zip(metrics.routes().iter()) {
            if *bytes > 0 {
                route.events.increment(*events);
                route.bytes.increment(*bytes);
            }
        }
        let end = self.batches.last().map_or(self.start, |batch| batch.end_seq());
        for part in self.parts.iter().filter(|part| part.subscribers > 0) {
            part.observe_latency(metrics, self.batches, end);
        }
    }
}

impl Part {
    fn new(batches: &[Arc<Batch>], format: WireFormat, seq: u64) -> Self {
        let from = WritePosition { seq, offset: 0 };
        let all = format.advance(batches, from, usize::MAX);
        let bytes = format.bytes_of(batches, from, usize::MAX);
        let WriteProgress { events, gaps, .. } = all;
        Self { format, seq, bytes, events, gaps, items: None, subscribers: 0 }
    }

    fn of_items(
        batches: &[Arc<Batch>],
        format: WireFormat,
        seq: u64,
        items: SelectedItems,
    ) -> Self {
        let (mut events, mut gaps) = (0, 0);
        let mut chunks = Vec::with_capacity(items.seqs.len());
        for (batch, item) in found(batches, &items.seqs) {
            let bytes = format.item(batch, item);
            let is_entry = batch.is_entry(format.rendering.into(), item);
            events += u64::from(is_entry);
            gaps += u64::from(!is_entry && !bytes.is_empty());
            chunks.push(bytes);
        }
        let bytes = match &mut chunks[..] {
            [only] => std::mem::take(only),
            chunks => chunks.concat().into(),
        };
        Self { format, seq, bytes, events, gaps, items: Some(items), subscribers: 0 }
    }

    /// How far a subscriber is that took so many bytes of it.
    fn advance(&self, batches: &[Arc<Batch>], sent: usize) -> WriteProgress {
        let from = WritePosition { seq: self.seq, offset: 0 };
        match &self.items {
            None => self.format.advance(batches, from, sent),
            Some(SelectedItems { selection, .. }) => {
                self.format.advance(&self.format.selected(batches, selection), from, sent)
            }
        }
    }

    fn observe_latency(&self, metrics: &Metrics, batches: &[Arc<Batch>], end: u64) {
        let observe =
            |items| observe_latency(metrics, batches, self.format, items, self.subscribers);
        match &self.items {
            None => observe(self.seq..end),
            Some(items) => items.seqs.iter().for_each(|seq| observe(*seq..*seq + 1)),
        }
    }
}

/// Each of these items, which are in order, with its batch.
fn found<'b>(batches: &'b [Arc<Batch>], seqs: &[u64]) -> impl Iterator<Item = (&'b Batch, u64)> {
    seqs.iter().filter_map(|seq| {
        let at = batches.partition_point(|batch| batch.end_seq() <= *seq);
        batches.get(at).map(|batch| (&**batch, *seq))
    })
}

/// Observes the latency of the entries among these items, which so many clients got.
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

/// Values made once for each kind of subscriber; there are few kinds.
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
