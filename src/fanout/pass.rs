//! One pass of a pack: the same batches to all of its sockets. Whatever is cheaper than a send per
//! client goes in here and nowhere else.

use std::sync::Arc;

use bytes::Bytes;

use super::wire::{Spot, age_ms, now_ms};
use super::{Client, Socket, View};
use crate::metrics::Metrics;
use crate::topic::Batch;

pub(super) struct Pass<'a> {
    batches: &'a [Arc<Batch>],
    start: u64,
    /// The bytes from the start on, and how many events they are.
    parts: Shared<View, (Bytes, u64)>,
    /// Events and bytes written, by route: counted here, published once.
    tally: Vec<(u64, u64)>,
}

/// What became of one client.
#[derive(Clone, Copy)]
pub(super) enum Sent {
    Whole,
    /// Its socket took only so much.
    Short(Spot),
    /// It is gone.
    Failed,
}

impl<'a> Pass<'a> {
    /// Batches that go to everybody from the item `start` on.
    pub(super) fn new(batches: &'a [Arc<Batch>], start: u64, routes: usize) -> Self {
        Self { batches, start, parts: Shared::default(), tally: vec![(0, 0); routes] }
    }

    /// Writes to one client what it has not got: everything from `start` on, or less.
    pub(super) fn send(&mut self, socket: &Socket, client: &Client, has_until: u64) -> Sent {
        let seq = self.start.max(has_until);
        let (batches, view) = (self.batches, client.view);
        let (bytes, events) = if seq == self.start {
            self.parts.get(view, || part(batches, view, seq))
        } else {
            part(batches, view, seq)
        };
        let Ok(sent) = socket.send(&bytes) else { return Sent::Failed };
        let whole = sent == bytes.len();
        let from = Spot { seq, offset: 0 };
        let done = if whole { None } else { Some(view.advance(batches, from, sent)) };
        let (all_events, all_bytes) = &mut self.tally[usize::from(client.route)];
        *all_events += done.map_or(events, |done| done.events);
        *all_bytes += sent as u64;
        done.map_or(Sent::Whole, |done| Sent::Short(done.spot))
    }

    /// Publishes what was written.
    pub(super) fn count(&self, metrics: &Metrics) {
        for ((events, bytes), route) in self.tally.iter().zip(&metrics.routes) {
            if *bytes > 0 {
                route.events.increment(*events);
                route.bytes.increment(*bytes);
            }
        }
    }

    /// How late the entries reached so many clients.
    pub(super) fn observe_latency(&self, metrics: &Metrics, clients: u64) {
        let now = now_ms();
        let ids = self.batches.iter().flat_map(|batch| batch.ids());
        for age in ids.filter_map(|id| age_ms(*id, now)) {
            metrics.latency.observe(age as f64 / 1e3, clients);
        }
    }
}

fn part(batches: &[Arc<Batch>], view: View, seq: u64) -> (Bytes, u64) {
    let all = view.advance(batches, Spot { seq, offset: 0 }, usize::MAX);
    (view.bytes_of(batches, seq), all.events)
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
