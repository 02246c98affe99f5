//! Counts that the operator's page reads back, which the counters of the metrics crate do not allow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, CounterFn};

/// Counts since the start, over all routes and reasons.
#[derive(Default)]
pub struct Totals {
    /// Events written to clients, control events not counted.
    pub deliveries: Total,
    /// Entries that readers took from the source.
    pub entries: Total,
    /// Gaps told to clients.
    pub gaps: Total,
    /// Connections that speak HTTP/1.
    pub http1: Total,
    /// Connections that speak HTTP/2.
    pub http2: Total,
}

/// A count that only goes up.
#[derive(Clone, Default)]
pub struct Total(Arc<AtomicU64>);

/// A counter of the metrics and a total beside it.
struct Both {
    shown: Counter,
    total: Total,
}

impl Total {
    /// Its value now.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// A counter that also counts here.
    pub(super) fn beside(&self, shown: Counter) -> Counter {
        Counter::from_arc(Arc::new(Both { shown, total: self.clone() }))
    }
}

impl CounterFn for Both {
    fn increment(&self, value: u64) {
        self.shown.increment(value);
        self.total.add(value);
    }

    fn absolute(&self, value: u64) {
        self.shown.absolute(value);
        self.total.0.fetch_max(value, Ordering::Relaxed);
    }
}
