//! The drain: the gateway closes every stream, and ends when the last client has left, or at the
//! deadline. Where nobody else accepts, it serves those who come until the end of the drain.
//!
//! A tracker holds each task that has a client. The drain closes the trackers one after the other, in
//! the order in which one task hands its client to the next, and waits for each to be empty.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::accepting::Accepting;
use crate::state::State;

/// A hand-over takes no longer: meanwhile nobody accepts, or the successor does.
const HANDOVER: Duration = Duration::from_secs(2);
/// A connection that was accepted as the last client left is answered within this, or not at all.
const LAST_ARRIVALS: Duration = Duration::from_millis(200);

/// Closes every stream, and returns when all clients have left or may take no longer.
pub(super) async fn drain(state: &State, accepting: &Accepting) {
    let settings = state.fanout.settings();
    let clients = state.limits.clients();
    info!(clients, drain = ?settings.drain, "draining: each client is told to come back");
    let longest = if settings.alone { settings.longest_drain() } else { HANDOVER };
    let deadline = Instant::now() + longest;
    drop(settings);
    let end = state.fanout.begin_drain().into();
    state.hub.all().iter().for_each(|topic| topic.announce());
    // The count of clients says how it ended.
    let _ = timeout_at(deadline, all_left(state, accepting, end)).await;
    match state.limits.clients() {
        0 => info!("drained"),
        clients => warn!(
            clients,
            "the drain reached its deadline and cut clients; they reconnect and resume"
        ),
    }
}

async fn all_left(state: &State, accepting: &Accepting, end: Instant) {
    // Whoever connects from now on is the successor's client; connections accepted before are ours.
    empty(&accepting.inherited).await;
    if !state.fanout.settings().alone {
        empty(&accepting.arrivals).await;
    }
    let _ = timeout_at(end, state.limits.all_left()).await;
    state.fanout.refusing.cancel();
    empty(&accepting.kept).await;
    state.limits.all_left().await;
    empty(&state.hosted).await;
    // Until here a new client was told to come back; the last refusals still go out.
    accepting.end.cancel();
    // A connection that was accepted just before has a moment to get its own; one that asks for nothing has not.
    let _ = timeout(LAST_ARRIVALS, empty(&accepting.arrivals)).await;
    state.limits.all_left().await;
    // Whoever was refused in that moment reads the refusal.
    empty(&state.hosted).await;
    empty(&state.fanout.tasks).await;
}

async fn empty(tracker: &TaskTracker) {
    tracker.close();
    tracker.wait().await;
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::config;
    use crate::gateway::Gateway;
    use crate::http::inherited::Inherited;

    /// The time in which a drain would end that waits for nobody.
    const AT_ONCE: Duration = Duration::from_millis(500);
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_newcomer_that_is_refused_as_the_last_client_leaves_is_waited_for() {
        let text = "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n";
        let config = config::parse(text, "", &[], true).unwrap().config;
        let state = Gateway::bind(config, Inherited::none(), 10_000).unwrap().state;
        let accepting = Accepting::new(state.clone());
        let arrival = accepting.arrivals.token();
        let mut drained = pin!(all_left(&state, &accepting, Instant::now() + LONG));
        tokio::select! {
            () = &mut drained => panic!("a connection is still arriving"),
            () = accepting.end.cancelled() => {}
        }
        // Now its request comes, over HTTP/2 or TLS, and is refused; the client reads that.
        let refused = state.hosted.token();
        drop(arrival);
        assert!(timeout(AT_ONCE, &mut drained).await.is_err(), "it was not waited for");
        drop(refused);
        timeout(LONG, drained).await.unwrap();
    }
}
