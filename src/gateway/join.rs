//! Joins the parts of the gateway into its state, once, at the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::fanout::Fanout;
use crate::http::{publish, response};
use crate::limits::{Limits, Pending};
use crate::source::{self, Source};
use crate::state::{Serving, State};
use crate::stream::Hub;
use crate::stream::reader::Readers;
use crate::stream::replay::Replays;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::throttle::LogThrottle;

/// The operator's connections at most, those of producers that publish among them: they come out of our own
/// descriptors, not the clients'.
const ADMIN_CONNECTIONS: usize = 96;

pub(super) fn join(serving: Serving, limits: Arc<Limits>, metrics: Arc<Metrics>) -> State {
    let config = serving.config.clone();
    metrics.unsafe_choices(&config.risks());
    metrics.response_codes(&response::STATUSES);
    metrics.reader_codes(source::codes());
    metrics.publish_reasons(&publish::REASONS);
    let source = Source::open(&config);
    let hub = Arc::new(Hub::new(config.ring.clone(), config.limits.readers));
    let readers = Readers {
        source: source.clone(),
        config: ArcSwap::from_pointee(config.source.clone()),
        hub: hub.clone(),
        metrics: metrics.clone(),
        failures_told: LogThrottle::default(),
        returns_told: LogThrottle::default(),
    };
    let replays = Replays::new(source, metrics.clone(), &config);
    let settings = serving.settings.clone();
    let counted = limits.clone();
    State {
        pending: Pending::new(move || counted.max_pending()),
        admin_pending: Pending::new(|| ADMIN_CONNECTIONS),
        admin_recheck: Notify::new(),
        fanout: Arc::new(Fanout::new(settings, metrics.clone(), replays)),
        hub,
        grants: Arc::default(),
        limits,
        metrics,
        readers: Arc::new(readers),
        hosted: TaskTracker::new(),
        source_up: AtomicBool::new(false),
        source_seen: AtomicBool::new(false),
        reload_rejected: AtomicBool::new(false),
        refusals_told: LogThrottle::default(),
        connections: AtomicU64::new(0),
        serving: ArcSwap::from_pointee(serving),
    }
}
