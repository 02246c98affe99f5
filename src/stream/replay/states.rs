//! The states of streams, read for all that ask for the same.

use std::sync::Arc;

use super::replays::Replays;
use super::snapshot::{Reading, Snapshot, SnapshotKey};
use crate::config::StateQuery;
use crate::source::Error;
use crate::sse::StreamId;
use crate::stream::View;
use crate::stream::topic::Topic;

impl Replays {
    /// Bytes that states hold.
    pub fn states_bytes(&self) -> usize {
        self.snapshots.in_use_bytes()
    }

    /// The state that a route gives with the stream of `topic`, for clients with this view. It is level with `least`
    /// at least.
    pub async fn snapshot(
        &self,
        topic: &Topic,
        View { rendering, selection }: View<'_>,
        query: &Arc<StateQuery>,
        least: StreamId,
    ) -> Result<Arc<Snapshot>, Error> {
        let read = || async {
            let permit = topic.backfill_permits.acquire().await;
            let _permit = permit.expect("the semaphore is never closed");
            let _permit = self.permits.acquire().await;
            let made = topic.state().renderings.get(rendering).cloned();
            let rendering = &made.expect("its client has it");
            self.metrics.snapshots.increment(1);
            let (source, max_entry_bytes) = (&self.source, self.max_entry_bytes);
            let reading = Reading { source, topic, query, rendering, selection, max_entry_bytes };
            reading.read(&self.snapshots).await.map(Arc::new)
        };
        let generation = (topic.id, topic.state().ring.generation());
        let (query, selection) = (query.clone(), selection.cloned());
        let key = SnapshotKey { generation, rendering, query, selection };
        self.snapshots.get(&key, least, read).await
    }

    /// Returns when a state is wanted that there is no memory for.
    pub async fn state_wanted(&self) {
        self.snapshots.wanted().await;
    }
}
