//! Publishes the demo's sample events.

use std::sync::Arc;

use tokio::time::sleep;
use tracing::warn;

use crate::demo::Feed;
use crate::state::State;
use crate::telemetry::throttle::LogThrottle;

pub(super) async fn feed(state: Arc<State>) {
    let (mut feed, throttle) = (Feed::new(), LogThrottle::default());
    loop {
        let sample = feed.next();
        let published = state.readers.source.publish("events:demo", sample.payload.into()).await;
        if let Err(error) = published
            && throttle.allows("publish")
        {
            warn!(%error, "a sample event was not published; the demo goes on with the next one");
        }
        sleep(sample.wait).await;
    }
}
