//! `/tail/{key}`: the events of one stream key, for the operator's page.
//!
//! It reads the ring, never Redis: where a reader runs already, it costs Redis nothing, and it delays no
//! subscriber. A page cannot show thousands of entries a second, so the surplus is left out and counted.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::events::{Events, Gone};
use super::response::Refusal;
use crate::http::response::text;
use crate::limits::{ClientIdentity, LimitExceeded};
use crate::sse::parse::{Event, Item, Parser};
use crate::sse::unframed;
use crate::sse::{Control, Controls, Rendering, StreamId, write_control};
use crate::state::State;
use crate::stream::{Lease, ReaderState, Ring, Topic};

/// Entries of the ring that it begins with.
const BACKLOG: u64 = 20;
/// The shortest time between two looks at the ring,
const PAUSE: Duration = Duration::from_millis(100);
/// and how many events each look shows at most.
const MOST_SHOWN: u64 = 40;
/// How much of each event is shown.
const SHOWN_BYTES: usize = 4 << 10;
/// A silent tail sends a comment this often.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Keeps a topic open for an operator, who is no subscriber.
pub(super) struct Onlooker(Lease);

/// How far an operator has read a topic.
pub(super) struct Tail {
    onlooker: Onlooker,
    /// The rendering that is shown.
    rendering: usize,
    /// The next item; `None` until the end of the stream is known.
    seq: Option<u64>,
    /// The state of the reader as last sent.
    reader: ReaderState,
}

/// One event that is shown.
struct Shown {
    id: StreamId,
    is_entry: bool,
    /// The beginning of its event.
    text: Vec<u8>,
    /// The length of the whole event.
    bytes: usize,
}

/// What one look at the ring found.
#[derive(Default)]
struct Look {
    shown: Vec<Shown>,
    /// Surplus entries.
    left_out: u64,
    /// Sent after these events: the tail is level with the end of the stream now.
    live: Option<StreamId>,
}

/// Opens a tail of `key`, which has a reader or belongs to a route: so the page reaches only the keys of
/// Redis that clients reach.
pub(super) fn open(state: &State, key: &str) -> Result<Tail, Refusal> {
    if state.fanout.draining.is_cancelled() {
        return Err(text(StatusCode::SERVICE_UNAVAILABLE, "not now: drain"));
    }
    let serving = state.serving();
    let routes = serving.config.routes.iter().filter(|route| route.streams.may_be(key));
    // The operator sees gaps, whether the route's clients do or not.
    let renderings: Vec<_> = routes
        .map(|route| Rendering { controls: Controls::Event, ..(*route.rules.rendering).clone() })
        .map(Arc::new)
        .collect();
    let mut lease = match state.hub.open_known(key) {
        Some(lease) => lease,
        None if renderings.is_empty() => {
            return Err(text(
                StatusCode::NOT_FOUND,
                "no route reads this key, and no client follows it",
            ));
        }
        None => state.topic(&serving.bounds, key, &ClientIdentity::default()).map_err(
            |LimitExceeded(limit)| {
                text(StatusCode::SERVICE_UNAVAILABLE, &format!("not now: {limit}"))
            },
        )?,
    };
    // A reload may have removed its route; its subscribers have a rendering.
    let rendering = lease.render_any(&renderings).unwrap_or(0);
    Ok(Tail { onlooker: Onlooker::new(lease), rendering, seq: None, reader: ReaderState::Starting })
}

impl Tail {
    /// Sends what is new, until the client leaves or the drain begins.
    pub(super) async fn fill(mut self, state: Arc<State>, events: Events) -> Result<(), Gone> {
        let draining = &state.fanout.draining;
        let mut news = self.topic().subscribe();
        loop {
            self.send_reader_state(&events).await?;
            self.send_new(&events).await?;
            if draining.is_cancelled() {
                return events.event("control", &control(None, Control::Drain)).await;
            }
            tokio::select! {
                () = draining.cancelled() => {}
                // Lagged is news as well.
                _ = news.recv() => tokio::select! {
                    () = draining.cancelled() => {}
                    () = sleep(PAUSE) => {}
                },
                () = sleep(KEEPALIVE) => events.keepalive().await?,
            }
        }
    }

    fn topic(&self) -> &Arc<Topic> {
        self.onlooker.0.topic()
    }

    /// Unlike a client's stream, this one stays open when its key cannot be read.
    async fn send_reader_state(&mut self, events: &Events) -> Result<(), Gone> {
        let now = self.topic().state().reader.clone();
        if now == self.reader {
            return Ok(());
        }
        let was_up = matches!(
            std::mem::replace(&mut self.reader, now),
            ReaderState::Starting | ReaderState::Up
        );
        let event = match &self.reader {
            ReaderState::Starting => return Ok(()),
            ReaderState::Up if was_up => return Ok(()),
            ReaderState::Up => control(None, Control::Source { up: true }),
            ReaderState::Away(_) => control(None, Control::Source { up: false }),
            ReaderState::Refused(reason) => control(None, Control::Unavailable { reason }),
        };
        events.event("control", &event).await
    }

    async fn send_new(&mut self, events: &Events) -> Result<(), Gone> {
        let look = self.look();
        if look.left_out > 0 {
            let left_out = json!({ "type": "left_out", "entries": look.left_out });
            events.event("control", &left_out).await?;
        }
        let mut entries = 0;
        for shown in look.shown {
            entries += u64::from(shown.is_entry);
            let (name, data) = shown.event();
            events.event(name, &data).await?;
        }
        match look.live {
            Some(id) => {
                let live = control(Some(id), Control::Live { replayed: entries });
                events.event("control", &live).await
            }
            None => Ok(()),
        }
    }

    /// Copies what is new in the ring: a slow client must not keep batches in memory.
    fn look(&mut self) -> Look {
        let (rendering, seq) = (self.rendering, self.seq);
        let topic = self.topic().clone();
        let state = topic.state();
        let ring = &state.ring;
        if ring.generation() == 0 {
            return Look::default();
        }
        let end = ring.next_seq();
        let begin =
            seq.unwrap_or_else(|| end.saturating_sub(BACKLOG).max(ring.first_in_generation()));
        let mut look = Look::at(ring, rendering, begin..end);
        look.live = seq.is_none().then(|| ring.tail());
        drop(state);
        self.seq = Some(end);
        look
    }
}

impl Look {
    /// The newest of these items, and the number of the entries left out.
    fn at(ring: &Ring, rendering: usize, seqs: std::ops::Range<u64>) -> Self {
        let first = ring.first_seq().max(seqs.start);
        let mut look = Self { left_out: first - seqs.start, ..Self::default() };
        let shown_from = seqs.end.saturating_sub(MOST_SHOWN);
        let mut gaps_left = MOST_SHOWN;
        for batch in ring.from(first).filter(|batch| batch.has(rendering)) {
            let from = batch.first_seq.max(first);
            for (seq, id) in (from..batch.end_seq()).zip(batch.ids_from(from)) {
                let is_entry = batch.is_entry(rendering, seq);
                if is_entry && seq < shown_from {
                    look.left_out += 1;
                    continue;
                }
                let event = unframed(&batch.item(rendering, seq));
                if event.is_empty() || (!is_entry && gaps_left == 0) {
                    continue;
                }
                gaps_left -= u64::from(!is_entry);
                let text = event[..event.len().min(SHOWN_BYTES)].to_vec();
                look.shown.push(Shown { id: *id, is_entry, text, bytes: event.len() });
            }
        }
        look
    }
}

impl Shown {
    /// The event as the page takes it: data, never markup.
    fn event(self) -> (&'static str, Value) {
        let is_cut = self.text.len() < self.bytes;
        let Event { event_type, data, .. } = parsed(self.text);
        // The cut may be within a character.
        let data = if is_cut { data.trim_end_matches('\u{fffd}') } else { &data };
        if self.is_entry {
            let entry = json!({
                "id": self.id.to_string(), "event": event_type, "data": data,
                "bytes": self.bytes, "cut": is_cut,
            });
            return ("entry", entry);
        }
        ("control", with_id(data, Some(self.id)))
    }
}

/// Parses an event, or the beginning of one.
fn parsed(mut text: Vec<u8>) -> Event {
    text.extend_from_slice(b"\n\n");
    let mut items = Vec::new();
    // The parser's limit is far beyond what is shown.
    let _ = Parser::new().feed(&text, &mut items);
    let event = items.into_iter().find_map(|item| match item {
        Item::Event(event) => Some(event),
        Item::Comment(_) => None,
    });
    // The type alone was longer than what is shown.
    event.unwrap_or_else(|| Event {
        event_type: String::new(),
        data: String::new(),
        last_event_id: String::new(),
    })
}

/// A control event as clients get it, with its id as a member.
fn control(id: Option<StreamId>, control: Control) -> Value {
    let mut text = Vec::new();
    write_control(&mut text, Controls::Event, id, control);
    with_id(&parsed(text).data, id)
}

fn with_id(json: &str, id: Option<StreamId>) -> Value {
    let mut value: Value = serde_json::from_str(json).unwrap_or_else(|_| json!({}));
    value["id"] = id.map(|id| id.to_string()).into();
    value
}

impl Onlooker {
    fn new(lease: Lease) -> Self {
        lease.topic().state().onlookers += 1;
        Self(lease)
    }
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        self.0.topic().state().onlookers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_event_is_cut_between_two_characters_and_says_so() {
        let data = "ü".repeat(SHOWN_BYTES);
        let all = format!("id: 1-0\nevent: log\ndata: {data}\n\n");
        let shown = Shown {
            id: StreamId { ms: 1, seq: 0 },
            is_entry: true,
            text: all.as_bytes()[..SHOWN_BYTES].to_vec(),
            bytes: all.len(),
        };
        let (name, shown) = shown.event();
        assert_eq!((name, &shown["event"], &shown["cut"]), ("entry", &"log".into(), &true.into()));
        let text = shown["data"].as_str().unwrap();
        assert!(text.len() > SHOWN_BYTES / 2 && text.chars().all(|c| c == 'ü'), "{text}");
    }
}
