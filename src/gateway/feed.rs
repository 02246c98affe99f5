//! Publishes the demo's samples: events, and how its services do.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::sleep;
use tracing::warn;

use crate::demo::{Feed, Services};
use crate::source::Addition;
use crate::state::State;
use crate::telemetry::throttle::LogThrottle;

/// A page that is away for a minute has missed more than this, and its table is healed.
const SERVICES_KEPT: usize = 100;

pub(super) async fn feed(state: Arc<State>) {
    let throttle = LogThrottle::default();
    tokio::join!(events(&state, &throttle), services(&state, &throttle));
}

async fn events(state: &State, throttle: &LogThrottle) {
    let mut feed = Feed::new();
    loop {
        let sample = feed.next();
        let addition =
            Addition::of("events:demo", sample.payload).trimmed_to(state.config().ring.entries);
        publish(state, throttle, &addition).await;
        sleep(sample.wait).await;
    }
}

async fn services(state: &State, throttle: &LogThrottle) {
    let mut services = Services::new();
    loop {
        let (name, sample) = services.next();
        let mut addition =
            Addition::of("events:services", sample.payload).trimmed_to(SERVICES_KEPT);
        let id = (Bytes::from_static(b"id"), Bytes::from_static(name.as_bytes()));
        addition.entries[0].push(id);
        publish(state, throttle, &addition).await;
        sleep(sample.wait).await;
    }
}

async fn publish(state: &State, throttle: &LogThrottle, addition: &Addition<'_>) {
    if let Err(error) = state.readers.source.publish(addition).await
        && throttle.allows("publish")
    {
        warn!(%error, "a sample event was not published; the demo goes on with the next one");
    }
}
