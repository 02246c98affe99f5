//! Publishes the demo's sample events.

use std::sync::Arc;

use tokio::time::sleep;
use tracing::warn;

use crate::demo::Feed;
use crate::source::Addition;
use crate::state::State;
use crate::telemetry::throttle::LogThrottle;

pub(super) async fn feed(state: Arc<State>) {
    let (mut feed, throttle) = (Feed::new(), LogThrottle::default());
    loop {
        let sample = feed.next();
        let addition =
            Addition::of("events:demo", sample.payload).trimmed_to(state.config().ring.entries);
        let published = state.readers.source.publish(&addition).await;
        if let Err(error) = published
            && throttle.allows("publish")
        {
            warn!(%error, "a sample event was not published; the demo goes on with the next one");
        }
        sleep(sample.wait).await;
    }
}
