//! How a snapshot is read: its size first, then the state and the end of the stream in one moment.

use std::time::Instant;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::newest::{NewestBy, too_large};
use super::{Found, Snapshot, Snapshots};
use crate::config::{StateOf, StateQuery};
use crate::source::{Error, ErrorClass, Source, StateSize};
use crate::sse::{Rendering, Selection, StreamId, write_chunk};
use crate::stream::Topic;
use crate::stream::continuity::Continuity;
use crate::stream::replay::bounds::shrink;
use crate::stream::start::lookup::StreamQuery;

/// A key that changes its kind, or grows, between two questions is asked about so often.
const ATTEMPTS: usize = 4;
/// What the answer about the stream takes, and what the state may have grown by since its size was asked.
const SPARE_BYTES: usize = 256 << 10;
/// Where the server does not tell what a state takes in memory, it may be so many times its text.
const UNTOLD: usize = 4;

/// What is to be read.
pub(in crate::stream::replay) struct Reading<'a> {
    pub(in crate::stream::replay) source: &'a Source,
    pub(in crate::stream::replay) topic: &'a Topic,
    pub(in crate::stream::replay) query: &'a StateQuery,
    pub(in crate::stream::replay) rendering: &'a Rendering,
    /// Of which entries the state is folded; `None`: of all.
    pub(in crate::stream::replay) selection: Option<&'a Selection>,
    pub(in crate::stream::replay) max_entry_bytes: usize,
}

impl Reading<'_> {
    /// Reads it, in some of the memory that all snapshots `shared` have. Fails with the class `TooLarge` if the state is larger than its route allows,
    /// and with `LAGGING` if the server does not know all that the topic's reader has read.
    pub(in crate::stream::replay) async fn read(
        &self,
        shared: &Snapshots,
    ) -> Result<Snapshot, Error> {
        let began = Instant::now();
        // Looked at first: a reset while the source is asked has to show.
        let (generation, read_up_to) = {
            let state = self.topic.state();
            (state.ring.generation(), state.ring.tail())
        };
        let (mut found, mut permit) = self.find(shared).await?;
        if found.next.cursor() < read_up_to {
            // A replica that lags, or a stream that was recreated and whose reader is still to tell.
            drop((found, permit));
            let query = StreamQuery { source: self.source, key: &self.topic.key, selected: None };
            query.waited_for_primary().await?;
            (found, permit) = self.find(shared).await?;
        }
        let id = found.next.cursor();
        if id < read_up_to {
            let message = "the stream ends before what its reader has read".to_owned();
            return Err(Error { class: ErrorClass::Away, code: "LAGGING", message });
        }
        let events = self.events(&found, id);
        let next = found.next;
        drop(found);
        shrink(&mut permit, events.iter().map(Bytes::len).sum());
        Ok(Snapshot { events, next, generation, began, _memory: permit })
    }

    /// The events, in chunks.
    fn events(&self, found: &Found, id: StreamId) -> Vec<Bytes> {
        let chunk = |event: Vec<u8>| {
            let mut chunk = Vec::with_capacity(event.len() + 16);
            write_chunk(&mut chunk, &event);
            Bytes::from(chunk)
        };
        found.state.events(id, self.max_entry_bytes).into_iter().map(chunk).collect()
    }

    async fn find(&self, shared: &Snapshots) -> Result<(Found, OwnedSemaphorePermit), Error> {
        match &self.query.of {
            StateOf::Key(key) => self.find_in_key(key, shared).await,
            StateOf::NewestBy(field) => {
                // Folded, and then once more as its events.
                let permit = shared.memory(2 * self.query.max_bytes).await;
                let newest = NewestBy {
                    source: self.source,
                    key: &self.topic.key,
                    field,
                    rendering: self.rendering,
                    selection: self.selection,
                    sizes: &self.topic.backfill_sizes,
                    most_bytes: self.query.max_bytes,
                };
                Ok((newest.fold().await?, permit))
            }
        }
    }

    async fn find_in_key(
        &self,
        key: &str,
        shared: &Snapshots,
    ) -> Result<(Found, OwnedSemaphorePermit), Error> {
        for _ in 0..ATTEMPTS {
            let StateSize { kind, text_bytes, memory_bytes } = self.source.state_size(key).await?;
            if text_bytes > self.query.max_bytes {
                return Err(too_large(self.query.max_bytes));
            }
            let likely = memory_bytes.clamp(text_bytes, UNTOLD * self.query.max_bytes);
            // As Redis gives it, and then as its events.
            let most_bytes = 2 * likely + SPARE_BYTES;
            let permit = shared.memory(most_bytes).await;
            let read = self.source.state(key, kind, &self.topic.key, most_bytes).await;
            let (state, info) = match read {
                Err(error) if matches!(error.code, "TOOLARGE" | "WRONGTYPE") => continue,
                read => read?,
            };
            if state.size_bytes() > self.query.max_bytes {
                return Err(too_large(self.query.max_bytes));
            }
            return Ok((Found { state, next: Continuity::at_tail(info.as_ref()) }, permit));
        }
        Err(too_large(self.query.max_bytes))
    }
}
