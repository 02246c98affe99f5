//! What the gateway is doing, for the operator: `/streams`, `/state`, and the log on SIGUSR1. Reports are
//! bounded, and do not identify clients.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};
use tracing::info;

use crate::config::Address;
use crate::state::State;
use crate::stream::replay::{PAGES_BYTES, STATES_BYTES};
use crate::stream::{self, ConnectionStatus, ReaderState, Topic};

/// `/state` and the log list this many streams, those with the most clients.
const MOST_STREAMS: usize = 100;

/// Logs what the gateway is doing.
pub struct Report(pub(crate) Arc<State>);

/// One stream key.
struct StreamReport {
    key: Arc<str>,
    clients: usize,
    entries: u64,
    gaps: u64,
    onlookers: usize,
    /// `None`: the end of the stream is not known yet.
    last_id: Option<String>,
    ring_entries: usize,
    ring_bytes: usize,
    reader: &'static str,
    /// The code of Redis or of the gateway, and the message.
    error: Option<&'static str>,
    error_text: Option<String>,
    retry_in_ms: Option<u64>,
    waits_for: &'static str,
    since: SystemTime,
    last_answer: SystemTime,
    server: Option<String>,
    connection: Option<ConnectionStatus>,
    source_last_id: Option<String>,
    lag_entries: Option<u64>,
    ended: bool,
    shards: Vec<ShardReport>,
    catch_ups: CatchUps,
}

/// Subscribers that are level with the tail.
struct ShardReport {
    clients: usize,
    behind_entries: u64,
}

/// Subscribers at their own pace.
struct CatchUps {
    count: usize,
    /// Those that read from the source, because the ring does not reach back to them.
    past: usize,
    /// How far the last of the others is behind.
    behind_entries_most: u64,
}

/// Every stream key that has a reader, in the order of their names.
pub fn streams(state: &State) -> Value {
    let mut topics = state.hub.all();
    topics.sort_by(|a, b| a.key.cmp(&b.key));
    topics.iter().map(|topic| StreamReport::of(state, topic).json()).collect()
}

/// The gateway as a whole, and its largest streams.
pub fn gateway(state: &State) -> Value {
    let mut whole = whole(state);
    let (streams, left_out) = largest_streams(state, MOST_STREAMS, usize::MAX);
    whole["streams"] = streams.into();
    whole["streams_left_out"] = left_out.into();
    whole
}

/// The streams with the most clients, as many as fit into `most_bytes`, and the number of the others.
pub fn largest_streams(state: &State, most: usize, most_bytes: usize) -> (Vec<Value>, usize) {
    let (streams, mut left_out) = largest(state, most);
    let (mut bytes, mut listed) = (0, Vec::with_capacity(streams.len()));
    for stream in &streams {
        let stream = stream.json();
        bytes += stream.to_string().len();
        if bytes > most_bytes {
            break;
        }
        listed.push(stream);
    }
    left_out += streams.len() - listed.len();
    (listed, left_out)
}

/// The gateway as a whole, without its streams.
pub fn whole(state: &State) -> Value {
    let now = state.gauges();
    let (reads, page_bytes) = state.fanout.replays.in_use();
    let links = state.readers.source.links().into_iter().map(|links| {
        json!({ "server": links.server.to_string(), "in_use": links.in_use, "idle": links.idle })
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "draining": state.fanout.draining.is_cancelled(),
        "source": {
            "place": state.config().source.place(),
            "up": now.redis_connected,
            "connections": now.redis_connections.iter().copied().collect::<HashMap<_, _>>(),
            "seen": state.source_seen.load(Ordering::Relaxed),
            "links": links.collect::<Vec<_>>(),
        },
        "clients": { "now": now.clients, "limit": now.clients_limit },
        "pending": { "now": now.pending, "limit": state.limits.max_pending() },
        "readers": { "now": now.readers, "limit": now.readers_limit },
        "rings": { "bytes": now.buffered_bytes, "limit_bytes": now.buffered_limit_bytes },
        "replays": {
            "now": reads, "limit": state.config().limits.replays,
            "page_bytes": page_bytes, "page_limit_bytes": PAGES_BYTES,
            "state_bytes": state.fanout.replays.states_bytes(), "state_limit_bytes": STATES_BYTES,
        },
    })
}

impl Report {
    /// Logs a line for the gateway, and one for each of its largest streams.
    pub fn log(&self) {
        let state = &*self.0;
        let (now, (reads, page_bytes)) = (state.gauges(), state.fanout.replays.in_use());
        let (streams, left_out) = largest(state, MOST_STREAMS);
        let links = state.readers.source.links();
        info!(
            draining = state.fanout.draining.is_cancelled(),
            source = %state.config().source.place(),
            source_up = now.redis_connected,
            links_in_use = links.iter().map(|links| links.in_use).sum::<usize>(),
            links_idle = links.iter().map(|links| links.idle).sum::<usize>(),
            clients = now.clients,
            clients_limit = now.clients_limit,
            pending = now.pending,
            pending_limit = state.limits.max_pending(),
            readers = now.readers,
            readers_limit = now.readers_limit,
            rings_bytes = now.buffered_bytes,
            replays = reads,
            replay_page_bytes = page_bytes,
            streams_left_out = left_out,
            "state of the gateway"
        );
        streams.iter().for_each(StreamReport::log);
    }
}

/// The streams with the most clients, and the number of the others.
fn largest(state: &State, most: usize) -> (Vec<StreamReport>, usize) {
    let mut topics = state.hub.all();
    topics.sort_by_cached_key(|topic| (usize::MAX - topic.state().audience(), topic.key.clone()));
    let left_out = topics.len().saturating_sub(most);
    topics.truncate(most);
    (topics.iter().map(|topic| StreamReport::of(state, topic)).collect(), left_out)
}

impl StreamReport {
    fn of(gateway: &State, topic: &Topic) -> Self {
        let shards = gateway.fanout.shards_of(topic);
        let places = topic.catch_ups.positions();
        let is_full = gateway.hub.is_full();
        let state = topic.state();
        let (reader, error) = match state.reader {
            ReaderState::Starting => ("starting", None),
            ReaderState::Up => ("up", None),
            ReaderState::Away(code) => ("away", Some(code)),
            ReaderState::Refused(code) => ("refused", Some(code)),
        };
        let next_seq = state.ring.next_seq();
        let position = |number| {
            state.shards.iter().find(|(n, _)| *n == number).map_or(next_seq, |(_, at)| *at)
        };
        let shards = shards.into_iter().map(|(number, clients)| ShardReport {
            clients,
            behind_entries: next_seq - position(number).min(next_seq),
        });
        let failure = state.status.failure.as_ref();
        Self {
            key: topic.key.clone(),
            clients: state.audience(),
            entries: state.entries,
            gaps: state.gaps,
            onlookers: state.onlookers,
            last_id: (state.ring.generation() > 0).then(|| state.ring.tail().to_string()),
            ring_entries: state.ring.items(),
            ring_bytes: state.ring.size_bytes(),
            reader,
            error,
            error_text: failure.map(|failure| failure.message.clone()),
            retry_in_ms: failure.map(|failure| milliseconds_until(failure.retry_at)),
            waits_for: waits_for(&state, is_full),
            since: state.status.since,
            last_answer: state.last_answer,
            server: state.status.server.as_ref().map(Address::to_string),
            connection: state.status.connection,
            source_last_id: state.status.source_last_id.map(|id| id.to_string()),
            lag_entries: state.status.lag_entries,
            ended: state.ends.is_over(),
            shards: shards.collect(),
            catch_ups: CatchUps::at(&places, next_seq),
        }
    }

    fn json(&self) -> Value {
        let shards = self.shards.iter().map(
            |shard| json!({ "clients": shard.clients, "behind_entries": shard.behind_entries }),
        );
        json!({
            "key": &*self.key,
            "clients": self.clients,
            "entries": self.entries,
            "gaps": self.gaps,
            "onlookers": self.onlookers,
            "last_id": self.last_id,
            "ring_entries": self.ring_entries,
            "ring_bytes": self.ring_bytes,
            "reader": self.reader,
            "error": self.error,
            "error_text": self.error_text,
            "retry_in_ms": self.retry_in_ms,
            "waits_for": self.waits_for,
            "since": rfc3339(self.since),
            "last_answer": rfc3339(self.last_answer),
            "server": self.server,
            "connection": self.connection.map(
                |connection| json!({ "number": connection.number, "shared": connection.is_shared }),
            ),
            "source_last_id": self.source_last_id,
            "lag_entries": self.lag_entries,
            "ended": self.ended,
            "packs": shards.collect::<Vec<_>>(),
            "followers": {
                "count": self.catch_ups.count,
                "past": self.catch_ups.past,
                "behind_entries_most": self.catch_ups.behind_entries_most,
            },
        })
    }

    fn log(&self) {
        info!(
            key = &*self.key,
            clients = self.clients,
            entries = self.entries,
            gaps = self.gaps,
            packs = ?self.shards.iter().map(|shard| shard.clients).collect::<Vec<_>>(),
            followers = self.catch_ups.count,
            followers_past = self.catch_ups.past,
            followers_behind_entries_most = self.catch_ups.behind_entries_most,
            reader = self.reader,
            error = self.error,
            error_text = self.error_text,
            retry_in_ms = self.retry_in_ms,
            waits_for = self.waits_for,
            since = rfc3339(self.since),
            server = self.server,
            connection = self.connection.map(|connection| connection.number),
            connection_shared = self.connection.is_some_and(|connection| connection.is_shared),
            last_id = self.last_id,
            source_last_id = self.source_last_id,
            lag_entries = self.lag_entries,
            ended = self.ended,
            ring_entries = self.ring_entries,
            ring_bytes = self.ring_bytes,
            "state of a stream"
        );
    }
}

impl CatchUps {
    fn at(places: &[Option<u64>], next_seq: u64) -> Self {
        let last = places.iter().flatten().min();
        Self {
            count: places.len(),
            past: places.iter().filter(|slot| slot.is_none()).count(),
            behind_entries_most: last.map_or(0, |at| next_seq.saturating_sub(*at)),
        }
    }
}

/// What the reader of a topic waits for; `is_full`: the rings together have no room left.
fn waits_for(state: &stream::TopicState, is_full: bool) -> &'static str {
    match &state.status.failure {
        Some(_) => "retry",
        None if state.reader == ReaderState::Starting => "answer",
        None if state.crowded() => "slow_clients",
        None if is_full => "memory",
        None => "entries",
    }
}

fn milliseconds_until(when: Instant) -> u64 {
    let left = when.saturating_duration_since(Instant::now());
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

fn rfc3339(time: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(time).ok().map(|time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Ring;
    use crate::sse::{Entry, StreamId};
    use crate::stream::{Hub, Item, ReadFailure};

    #[test]
    fn a_reader_says_what_it_waits_for() {
        let hub = Hub::new(Ring { entries: 4, bytes: 1 << 20, total_bytes: 1000 }, 1);
        let lease = hub.open("events:a", |_| ()).expect("there is room for one");
        let topic = lease.topic();
        let waits = || waits_for(&topic.state(), hub.is_full());
        assert_eq!(waits(), "answer");
        topic.start_generation(StreamId::ZERO);
        topic.answered();
        topic.state().shards.push((7, 0));
        assert_eq!(waits(), "entries");
        for ms in 1..=4 {
            let entry = Entry { id: StreamId { ms, seq: 0 }, fields: Vec::new() };
            topic.push(&[Item::Entry(entry)], 1000);
        }
        assert_eq!(waits(), "slow_clients");
        topic.shard_sent(7, 4);
        topic.state().renderings.enter(&rendering().into());
        let large = vec![("payload".into(), vec![b'x'; 900].into())];
        let entry = Entry { id: StreamId { ms: 5, seq: 0 }, fields: large };
        topic.push(&[Item::Entry(entry)], 1000);
        topic.shard_sent(7, 5);
        assert_eq!(waits(), "memory");
        topic.forget_ring();
        assert_eq!(waits(), "entries");
        let failure = ReadFailure { message: "gone".into(), retry_at: Instant::now() };
        topic.failed(ReaderState::Away("IO"), failure);
        assert_eq!(waits(), "retry");
    }

    fn rendering() -> crate::sse::Rendering {
        let (event, data) = ("message".into(), "payload".into());
        crate::sse::Rendering {
            event: crate::sse::EventName::Fixed(event),
            data: crate::sse::Data::Field(data),
            missing: None,
            ..crate::sse::Rendering::default()
        }
    }
}
