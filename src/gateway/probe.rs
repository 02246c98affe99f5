//! Asks the source every few seconds whether it is up, for `/readyz`, the metrics and the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::{error, info, warn};

use super::process::{self, GivingBack, MemoryUse};
use crate::source::{self, ErrorClass};
use crate::state::State;
use crate::stream::ReaderState;

/// How often the source is asked while it is up,
const INTERVAL: Duration = Duration::from_secs(5);
/// and while it is down.
const RETRY: Duration = Duration::from_millis(500);

pub(super) async fn probe(state: Arc<State>) {
    let (mut last, mut giving_back) = (None, GivingBack::default());
    loop {
        // Once shown, until the source is away: where keys are denied, each question is in Redis' log of denials.
        let is_shown = last == Some(None) || is_read(&state);
        let answer = state.readers.source.check(is_shown).await;
        let up = answer.is_ok();
        state.source_up.store(up, Ordering::Relaxed);
        let seen = state.source_seen.fetch_or(up, Ordering::Relaxed);
        // A login that is refused is another matter than a server that is away.
        let outcome = answer.as_ref().map_or_else(|error| Some(error.class), |()| None);
        if last.replace(outcome) != Some(outcome) {
            log(&state, answer, !seen);
        }
        state.fanout.replays.forget_old();
        if giving_back.is_due(Instant::now(), memory_use(&state)) {
            // Not in a worker: it takes milliseconds after a crowd has left.
            tokio::task::spawn_blocking(process::give_back_free_memory);
        }
        sleep(if up { INTERVAL } else { RETRY }).await;
    }
}

/// Whether a reader shows that the source does what readers need.
fn is_read(state: &State) -> bool {
    state.hub.all().iter().any(|topic| topic.state().reader == ReaderState::Up)
}

fn memory_use(state: &State) -> MemoryUse {
    MemoryUse {
        connections: state.connections.load(Ordering::Relaxed),
        clients: state.limits.clients(),
        readers: state.hub.readers(),
        bytes: state.hub.rings_bytes() + state.fanout.replays.in_use().1,
    }
}

fn log(state: &State, answer: Result<(), source::Error>, is_first: bool) {
    let source = &*state.config().source.place();
    match answer {
        Ok(()) => {
            info!(source, "source answers");
            if is_first {
                info!(clients_limit = state.limits.bounds().max_clients(), "ready");
            }
        }
        Err(error) if error.code == "TLS" => {
            error!(source, %error, "there is no TLS with the source; check source.ca_file, source.client_certificate and source.server_name");
        }
        Err(error) if error.code == "SENTINEL" => {
            error!(source, %error, "the sentinels refuse us; set source.sentinel_username and source.sentinel_password_file, and the name in source.url");
        }
        Err(error) if error.class == ErrorClass::Login => {
            error!(source, %error, "source refuses the login; set source.username and source.password_file");
        }
        Err(error) => {
            warn!(source, %error, "source does not answer; the gateway tries again, and streams stay open");
        }
    }
}
