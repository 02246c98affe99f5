//! The embedded source: streams in this process, with the same contract as Redis.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Ask, Class, Error, Info, Reply, Seen};
use crate::config::Ring;
use crate::event::{Entry, StreamId};

/// More stream keys than this are refused: whoever may publish may not fill the memory.
const MAX_KEYS: usize = 10_000;

/// All streams. Cheap to clone.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    /// What each stream keeps is what a ring keeps.
    keep: Ring,
    /// Held for one lookup or one addition at a time, never across an await.
    streams: Mutex<HashMap<String, Stream>>,
    added: Notify,
}

#[derive(Default)]
struct Stream {
    entries: VecDeque<Entry>,
    bytes: usize,
    last_generated: StreamId,
    entries_added: u64,
}

impl Memory {
    pub(super) fn new(keep: &Ring) -> Self {
        let shared = Shared { keep: keep.clone(), streams: Mutex::default(), added: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    pub(super) fn read(&self, ask: Ask<'_>) -> Reply {
        let streams = self.streams();
        let Some(stream) = streams.get(ask.key) else {
            return Reply { entries: Vec::new(), seen: Seen::Missing };
        };
        let count = usize::try_from(ask.count).unwrap_or(usize::MAX);
        let from = stream.entries.partition_point(|entry| entry.id <= ask.after);
        let entries = stream.entries.range(from..).take(count).cloned().collect();
        Reply { entries, seen: Seen::Stream(stream.info()) }
    }

    pub(super) async fn read_blocking(&self, ask: Ask<'_>, block: Duration) -> Reply {
        let deadline = tokio::time::Instant::now() + block;
        loop {
            let mut added = std::pin::pin!(self.shared.added.notified());
            // Registered before the look, so that an entry added in between is not missed.
            added.as_mut().enable();
            let reply = self.read(ask);
            if !reply.entries.is_empty() || tokio::time::timeout_at(deadline, added).await.is_err()
            {
                return reply;
            }
        }
    }

    pub(super) fn info(&self, key: &str) -> Option<Info> {
        self.streams().get(key).map(Stream::info)
    }

    pub(super) fn holds(&self, key: &str, from: StreamId, to: StreamId) -> bool {
        let streams = self.streams();
        let Some(stream) = streams.get(key) else { return false };
        let at = stream.entries.partition_point(|entry| entry.id < from);
        stream.entries.get(at).is_some_and(|entry| entry.id <= to)
    }

    pub(super) fn newest(&self, key: &str, before: Option<StreamId>, count: u64) -> Vec<Entry> {
        let streams = self.streams();
        let Some(stream) = streams.get(key) else { return Vec::new() };
        let end =
            before.map_or(stream.entries.len(), |id| stream.entries.partition_point(|e| e.id < id));
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        stream.entries.range(..end).rev().take(count).cloned().collect()
    }

    pub(super) fn publish(&self, key: &str, payload: Bytes) -> Result<StreamId, Error> {
        let id = {
            let mut streams = self.streams();
            if streams.len() >= MAX_KEYS && !streams.contains_key(key) {
                return Err(Error {
                    class: Class::Away,
                    code: "FULL",
                    message: format!("the embedded source holds {MAX_KEYS} stream keys already"),
                });
            }
            let stream = streams.entry(key.to_owned()).or_default();
            stream.add(payload, &self.shared.keep)
        };
        self.shared.added.notify_waiters();
        Ok(id)
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<String, Stream>> {
        self.shared.streams.lock().expect("no holder of the lock panics")
    }
}

impl Stream {
    fn info(&self) -> Info {
        Info {
            length: self.entries.len() as u64,
            last_generated: self.last_generated,
            first: self.entries.front().map(|entry| entry.id),
            max_deleted: StreamId::ZERO,
            entries_added: Some(self.entries_added),
        }
    }

    /// `XADD *`: the clock's id, or the next one where the clock stands still or went back.
    fn add(&mut self, payload: Bytes, keep: &Ring) -> StreamId {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        let now = StreamId { ms: u64::try_from(now_ms).unwrap_or(u64::MAX), seq: 0 };
        let id = now.max(self.last_generated.next().expect("fewer than 2^128 entries were added"));
        let entry = Entry { id, fields: vec![(Bytes::from_static(b"payload"), payload)] };
        self.bytes += entry.size_bytes();
        self.entries.push_back(entry);
        self.last_generated = id;
        self.entries_added += 1;
        while self.entries.len() > keep.entries
            || (self.bytes > keep.bytes && self.entries.len() > 1)
        {
            let first = self.entries.pop_front().expect("the stream is longer than it may be");
            self.bytes -= first.size_bytes();
        }
        id
    }
}
