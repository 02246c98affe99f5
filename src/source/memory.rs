//! The embedded source: streams in this process that behave as those of Redis do.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use super::addition::{Addition, Fields, WriteError};
use super::{Error, ErrorClass, ReadRequest, Reply, StreamInfo, StreamState};
use crate::config::Ring;
use crate::sse::{Entry, StreamId};

/// The most stream keys; a client that may publish must not be able to fill the memory.
const MAX_KEYS: usize = 10_000;

/// All streams. Cheap to clone.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Streams>,
}

struct Streams {
    /// Each stream keeps as much as a ring does.
    keep: Ring,
    /// Held for one look or one addition at a time, never across an await.
    by_key: Mutex<HashMap<String, Stream>>,
    added: Notify,
    /// When the first of them expires.
    next_expiry: Mutex<Option<Instant>>,
    #[cfg(test)]
    others: Mutex<Option<(String, Others)>>,
}

/// What other clients make of a stream before each command of a test.
#[cfg(test)]
pub(crate) type Others = Box<dyn FnMut() -> Option<(Vec<Entry>, StreamInfo)> + Send>;

#[derive(Default)]
struct Stream {
    entries: VecDeque<Entry>,
    bytes: usize,
    last_generated: StreamId,
    entries_added: u64,
    /// When the key is gone; `None`: it stays.
    expires: Option<Instant>,
    /// Stands in for `info()`, as [`Others`] returned it.
    #[cfg(test)]
    info: Option<StreamInfo>,
}

impl Memory {
    pub(super) fn new(keep: &Ring) -> Self {
        let shared = Streams {
            keep: keep.clone(),
            by_key: Mutex::default(),
            added: Notify::new(),
            next_expiry: Mutex::default(),
            #[cfg(test)]
            others: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// As with Redis, other clients may change the stream between the read and the look at it.
    pub(super) fn read(&self, ask: ReadRequest<'_>) -> Reply {
        let entries = self.after(ask);
        Reply {
            entries,
            seen: self.info(ask.key).map_or(StreamState::Missing, StreamState::Stream),
        }
    }

    fn after(&self, ask: ReadRequest<'_>) -> Vec<Entry> {
        let streams = self.streams();
        let Some(stream) = streams.get(ask.key) else { return Vec::new() };
        let count = usize::try_from(ask.count).unwrap_or(usize::MAX);
        let from = stream.entries.partition_point(|entry| entry.id <= ask.after);
        stream.entries.range(from..).take(count).cloned().collect()
    }

    pub(super) async fn read_blocking(&self, ask: ReadRequest<'_>, block: Duration) -> Reply {
        let deadline = tokio::time::Instant::now() + block;
        loop {
            let mut added = std::pin::pin!(self.shared.added.notified());
            // Registered before the read, so that an entry added in between is not missed.
            added.as_mut().enable();
            let reply = self.read(ask);
            if !reply.entries.is_empty() {
                // A reader that always finds entries would never give way to the tasks that it wakes, which
                // may wait for this very thread.
                tokio::task::yield_now().await;
                return reply;
            }
            if tokio::time::timeout_at(deadline, added).await.is_err() {
                return reply;
            }
        }
    }

    pub(super) fn info(&self, key: &str) -> Option<StreamInfo> {
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

    /// No entry is told apart from another: what is sent again is added again.
    pub(super) fn publish(&self, addition: &Addition<'_>) -> Result<Vec<StreamId>, WriteError> {
        if addition.once.is_some() {
            return Err(WriteError::NotOnce);
        }
        let ids = {
            let mut streams = self.streams();
            if streams.len() >= MAX_KEYS && !streams.contains_key(addition.key) {
                return Err(full().into());
            }
            let stream = streams.entry(addition.key.to_owned()).or_default();
            let entries = addition.entries.iter().cloned();
            let ids = entries.map(|fields| stream.add(fields, &self.shared.keep)).collect();
            stream.trim_to(addition.maxlen);
            if let Some(expire) = addition.expire {
                stream.expires = Instant::now().checked_add(expire);
                self.shared.expires_at(stream.expires);
            }
            ids
        };
        self.shared.added.notify_waiters();
        Ok(ids)
    }

    /// The streams that have not expired.
    fn streams(&self) -> MutexGuard<'_, HashMap<String, Stream>> {
        #[cfg(test)]
        self.others_come();
        let mut streams = self.shared.by_key.lock().expect("no holder of the lock panics");
        self.shared.expire(&mut streams);
        streams
    }

    /// See [`super::Source::leave_to`].
    #[cfg(test)]
    pub(super) fn leave_to(&self, key: &str, others: Others) {
        *self.shared.others.lock().unwrap() = Some((key.to_owned(), others));
    }

    #[cfg(test)]
    fn others_come(&self) {
        let mut others = self.shared.others.lock().unwrap();
        let Some((key, others)) = &mut *others else { return };
        let mut streams = self.shared.by_key.lock().unwrap();
        streams.remove(key);
        if let Some((entries, info)) = others() {
            let stream = Stream { entries: entries.into(), info: Some(info), ..Stream::default() };
            streams.insert(key.clone(), stream);
        }
    }
}

fn full() -> Error {
    let message = format!("the embedded source already holds {MAX_KEYS} stream keys, its limit");
    Error { class: ErrorClass::Away, code: "FULL", message }
}

impl Streams {
    fn expires_at(&self, expires: Option<Instant>) {
        let mut next = self.next_expiry.lock().expect("no holder of the lock panics");
        *next = [*next, expires].into_iter().flatten().min();
    }

    /// Removes what has expired. All streams are looked at, but at most once in a moment.
    fn expire(&self, streams: &mut HashMap<String, Stream>) {
        let now = Instant::now();
        let mut next = self.next_expiry.lock().expect("no holder of the lock panics");
        if next.is_some_and(|next| next <= now) {
            streams.retain(|_, stream| stream.expires.is_none_or(|expires| expires > now));
            *next = streams.values().filter_map(|stream| stream.expires).min();
        }
    }
}

impl Stream {
    fn info(&self) -> StreamInfo {
        #[cfg(test)]
        if let Some(info) = self.info {
            return info;
        }
        StreamInfo {
            length: self.entries.len() as u64,
            last_generated: self.last_generated,
            first: self.entries.front().map(|entry| entry.id),
            last: self.entries.back().map(|entry| entry.id),
            max_deleted: StreamId::ZERO,
            entries_added: Some(self.entries_added),
            may_have_holes: false,
        }
    }

    /// `XADD *`: the id is the clock's time, or the next greater one if the clock stands still or went back.
    fn add(&mut self, fields: Fields, keep: &Ring) -> StreamId {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        let now = StreamId { ms: u64::try_from(now_ms).unwrap_or(u64::MAX), seq: 0 };
        let id = now.max(self.last_generated.next().expect("fewer than 2^128 entries were added"));
        let entry = Entry { id, fields };
        self.bytes += entry.size_bytes();
        self.entries.push_back(entry);
        self.last_generated = id;
        self.entries_added += 1;
        self.trim_to(keep.entries);
        while self.bytes > keep.bytes && self.entries.len() > 1 {
            self.remove_first();
        }
        id
    }

    /// Keeps the newest so many; zero: all.
    fn trim_to(&mut self, maxlen: usize) {
        while maxlen > 0 && self.entries.len() > maxlen {
            self.remove_first();
        }
    }

    fn remove_first(&mut self) {
        let first = self.entries.pop_front().expect("the stream is longer than it may be");
        self.bytes -= first.size_bytes();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const KEEP: Ring = Ring { entries: 3, bytes: 1000, total_bytes: 1000 };

    fn add(stream: &mut Stream, payload_bytes: usize) -> StreamId {
        let payload = Bytes::from(vec![b'x'; payload_bytes]);
        stream.add(vec![(Bytes::from_static(b"payload"), payload)], &KEEP)
    }

    #[test]
    fn ids_rise_where_the_clock_stands_still_or_goes_back() {
        let ahead = StreamId { ms: u64::MAX - 1, seq: u64::MAX - 1 };
        let mut stream = Stream { last_generated: ahead, ..Stream::default() };
        let ids: Vec<_> = (0..3).map(|_| add(&mut stream, 1)).collect();
        assert_eq!(ids[0], StreamId { seq: u64::MAX, ..ahead });
        assert_eq!(ids[1], StreamId { ms: u64::MAX, seq: 0 });
        assert_eq!(ids[2], StreamId { ms: u64::MAX, seq: 1 });
    }

    #[test]
    fn ids_are_clock_times_and_rise_however_fast_entries_come() {
        let mut stream = Stream::default();
        let ids: Vec<_> = (0..1000).map(|_| add(&mut stream, 1)).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        assert!(u128::from(ids[999].ms).abs_diff(now_ms) < 60_000, "{}", ids[999]);
    }

    #[test]
    fn entries_over_the_bounds_are_trimmed_from_the_beginning_and_stay_counted() {
        let mut stream = Stream::default();
        let ids: Vec<_> = (0..5).map(|_| add(&mut stream, 10)).collect();
        assert_eq!(stream.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), ids[2..]);
        let info = stream.info();
        assert_eq!((info.length, info.entries_added), (3, Some(5)));
        assert_eq!((info.first, info.last_generated), (Some(ids[2]), ids[4]));
        // The newest entry stays, however large it is.
        let large = add(&mut stream, 5000);
        assert_eq!(stream.info().first, Some(large));
        assert_eq!(stream.bytes, stream.entries[0].size_bytes());
        add(&mut stream, 10);
        assert_eq!((stream.entries.len(), stream.entries_added), (1, 7));
    }
}
