//! The drain: the gateway closes every stream, and ends when the last client has left, or at the
//! deadline.
//!
//! A tracker holds each task that has a client. The drain closes the trackers one after the other, in
//! the order in which one task hands its client to the next, and waits for each to be empty.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::accepting::Accepting;
use crate::http::listener::Listener;
use crate::state::State;

/// A hand-over takes no longer: meanwhile nobody accepts, or the successor does.
const HANDOVER: Duration = Duration::from_secs(2);
/// A connection that was accepted as the last client left is answered within this, or not at all.
const LAST_ARRIVALS: Duration = Duration::from_millis(50);
/// The closes of a hand-over are spread over this at most, so that the last clients have time, too.
const HANDOVER_SPREAD: Duration = Duration::from_millis(1500);

/// The closes of a drain are spread over this at most, whatever `server.drain` says.
pub(super) fn longest_spread(public: &[Listener]) -> Duration {
    let hands_over = public.iter().any(Listener::is_inherited);
    if hands_over { HANDOVER_SPREAD } else { Duration::MAX }
}

/// Closes every stream, and returns when all clients have left or may take no longer.
pub(super) async fn drain(state: &State, accepting: &Accepting) {
    let settings = state.fanout.settings();
    let clients = state.limits.clients();
    info!(clients, drain = ?settings.drain, "draining: each client is told to come back");
    let longest = if accepting.hands_over { HANDOVER } else { settings.longest_drain() };
    let deadline = Instant::now() + longest;
    drop(settings);
    state.fanout.draining.cancel();
    state.hub.all().iter().for_each(|topic| topic.announce());
    // The count of clients says how it ended.
    let _ = timeout_at(deadline, all_left(state, accepting)).await;
    match state.limits.clients() {
        0 => info!("drained"),
        clients => warn!(
            clients,
            "the drain reached its deadline and cut clients; they reconnect and resume; if that is too soon for them, raise server.drain or limits.write_stall"
        ),
    }
}

async fn all_left(state: &State, accepting: &Accepting) {
    // Whoever connects from now on is the successor's client; connections accepted before are ours.
    empty(&accepting.inherited).await;
    if accepting.hands_over {
        empty(&accepting.arrivals).await;
    }
    state.limits.all_left().await;
    empty(&state.hosted).await;
    // Until here a new client was told to come back; the last refusals still go out.
    accepting.end.cancel();
    // A connection that was accepted just before has a moment to get its own; one that asks for nothing has not.
    let _ = timeout(LAST_ARRIVALS, empty(&accepting.arrivals)).await;
    state.limits.all_left().await;
    empty(&state.fanout.tasks).await;
}

async fn empty(tracker: &TaskTracker) {
    tracker.close();
    tracker.wait().await;
}
