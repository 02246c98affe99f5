//! `/overview`: the gateway and its largest streams, once a second, for the operator's page.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::Admin;
use super::events::{Events, Gone};
use crate::admin::report;
use crate::state::State;
use crate::telemetry::histogram::Counts;

/// How often it is sent.
const EVERY: Duration = Duration::from_secs(1);
/// It lists this many streams, those with the most clients,
const MOST_STREAMS: usize = 200;
/// and no more than fit into this.
const MOST_BYTES: usize = 128 << 10;

/// Sends it until the client leaves or the drain begins; the last one says that it has begun.
pub(super) async fn fill(admin: Admin, events: Events) -> Result<(), Gone> {
    let state = &admin.state;
    let mut next = interval(EVERY);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = state.metrics.latency.counts();
    loop {
        tokio::select! {
            _ = next.tick() => {}
            () = state.fanout.draining.cancelled() => {}
        }
        let draining = state.fanout.draining.is_cancelled();
        let latency = state.metrics.latency.counts();
        let new = latency.since(&before);
        before = latency;
        events.event("overview", &overview(state, admin.since, &new)).await?;
        if draining {
            return Ok(());
        }
    }
}

/// The gateway now, and the latency of the deliveries since the last overview.
fn overview(state: &Arc<State>, since: Instant, latency: &Counts) -> Value {
    let mut overview = report::whole(state);
    let (streams, left_out) = report::largest_streams(state, MOST_STREAMS, MOST_BYTES);
    let totals = &state.metrics.totals;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let milliseconds = |share| latency.quantile(share).map(|seconds| seconds * 1e3);
    let more = json!({
        "now_ms": u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        "uptime_seconds": since.elapsed().as_secs(),
        "connections": {
            "http1_accepted": totals.http1.now(),
            "http2_accepted": totals.http2.now(),
            "kept_by_hyper": state.hosted.len(),
        },
        "totals": {
            "deliveries": totals.deliveries.now(),
            "entries": totals.entries.now(),
            "gaps": totals.gaps.now(),
        },
        "latency": {
            "deliveries": latency.total(),
            "p50_ms": milliseconds(0.5),
            "p99_ms": milliseconds(0.99),
        },
        "streams": streams,
        "streams_left_out": left_out,
    });
    if let (Value::Object(overview), Value::Object(more)) = (&mut overview, more) {
        overview.extend(more);
    }
    overview
}
