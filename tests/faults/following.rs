//! What a client follows: a stream, or several on one connection; and what it hears of each.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use ssegate::sse::parse::{Event, Item};
use ssegate::sse::{CONTROL_EVENT, StreamId, composite_id, parse_composite};

use crate::history::{Gap, What};
use crate::payload;
use crate::record::Record;
use crate::selection::Selection;

/// Comments that a gateway sends.
const COMMENTS: [&str; 4] = ["ssegate", "keepalive", "reconnecting", "reconnected"];
/// The type of an entry's event.
const MESSAGE: &str = "message";

/// The streams of a client.
pub struct Following {
    /// What the client calls each of several; empty where there is one.
    names: &'static [&'static str],
    /// What it has heard of each.
    pub records: Vec<Arc<Record>>,
    /// Where it is in each, by its last event id.
    positions: Mutex<Vec<Option<StreamId>>>,
}

impl Following {
    pub fn one(began: Instant, selection: Selection) -> Self {
        let records = vec![Arc::new(Record::new(began, selection, false))];
        Self { names: &[], records, positions: Mutex::default() }
    }

    pub fn several(began: Instant, selection: Selection, names: &'static [&'static str]) -> Self {
        let record = |_: &&str| Arc::new(Record::new(began, selection, true));
        let records = names.iter().map(record).collect();
        Self { names, records, positions: Mutex::new(vec![None; names.len()]) }
    }

    /// Notes what concerns the connection.
    pub fn note(&self, what: &What) {
        self.records.iter().for_each(|record| record.note(what.clone()));
    }

    /// The client was admitted, having asked to resume after this id.
    pub fn opened(&self, last_event_id: &str) {
        if self.names.is_empty() {
            return self.note(&What::Opened(last_event_id.to_owned()));
        }
        for (record, position) in self.records.iter().zip(&*self.positions.lock().unwrap()) {
            record.note(What::Opened(position.map_or(String::new(), |id| id.to_string())));
        }
    }

    /// Notes what an item of the stream says.
    pub fn hear(&self, item: Item) {
        match item {
            Item::Event(event) if !self.names.is_empty() => {
                if let Err(wrong) = self.hear_of_several(event) {
                    self.note(&What::Wrong(wrong));
                }
            }
            item => self.note(&understand(item)),
        }
    }

    /// The event is told of its stream as it would be if that was the only one; what its id says of the others is told
    /// of them, if it is new.
    fn hear_of_several(&self, event: Event) -> Result<(), String> {
        let now = self.positions_in(&event.last_event_id)?;
        let of = self.stream_of(&event)?;
        let own = of.and_then(|index| now[index]);
        let type_of_one = event.event_type.strip_prefix(self.prefix(of).as_str());
        let event_type = type_of_one.unwrap_or(&event.event_type).to_owned();
        let last_event_id = own.map_or(String::new(), |id| id.to_string());
        let what = understand(Item::Event(Event { event_type, last_event_id, ..event }));
        let has_id = matches!(what, What::Entry(..) | What::Gap(_) | What::At(_) | What::End(_));
        if of.is_none() && !matches!(what, What::Signal(_)) {
            return Err(format!("it is of none of the streams: {what:.300?}"));
        }
        let mut before = self.positions.lock().unwrap();
        for (index, record) in self.records.iter().enumerate() {
            let (before, now) = (&mut before[index], now[index]);
            let is_its = has_id && of == Some(index);
            if !is_its && std::mem::replace(before, now) != now {
                record.note(What::Moved(now));
            }
            *before = now;
        }
        drop(before);
        match of {
            Some(index) => self.records[index].note(what),
            None => self.note(&what),
        }
        Ok(())
    }

    /// Where the client is in each stream by this id, which has them in their order and no others.
    fn positions_in(&self, id: &str) -> Result<Vec<Option<StreamId>>, String> {
        let found = parse_composite(id).unwrap_or_default();
        let position = |name: &&str| found.iter().find(|(of, _)| of == name).map(|(_, id)| *id);
        let positions: Vec<_> = self.names.iter().map(position).collect();
        let known = self.names.iter().zip(&positions);
        let again = composite_id(known.filter_map(|(name, id)| Some((*name, (*id)?))));
        match again.unwrap_or_default() == id {
            true => Ok(positions),
            false => Err(format!("an id that is none of {:?}: {id:?}", self.names)),
        }
    }

    /// Of which stream an event is; `None`: it concerns the connection.
    fn stream_of(&self, event: &Event) -> Result<Option<usize>, String> {
        let unknown = || format!("an event of an unknown stream: {event:.300?}");
        if event.event_type != CONTROL_EVENT {
            let is_of = |index: &usize| event.event_type == self.prefix(Some(*index)) + MESSAGE;
            return (0..self.names.len()).find(is_of).map(Some).ok_or_else(unknown);
        }
        let control: serde_json::Value =
            serde_json::from_str(&event.data).map_err(|_| unknown())?;
        let Some(stream) = control.get("stream") else { return Ok(None) };
        let index = self.names.iter().position(|name| stream == name);
        index.map(Some).ok_or_else(unknown)
    }

    fn prefix(&self, of: Option<usize>) -> String {
        of.map_or(String::new(), |index| format!("{}.", self.names[index]))
    }
}

/// What an item of a stream says that is alone on its connection.
pub fn understand(item: Item) -> What {
    match item {
        Item::Comment(text) if COMMENTS.contains(&&*text) => What::Signal(text),
        Item::Comment(text) => What::Wrong(format!("an unknown comment {text:?}")),
        Item::Event(event) if event.event_type == CONTROL_EVENT => {
            control(&event).unwrap_or_else(|| What::Wrong(format!("a control event {event:?}")))
        }
        Item::Event(event) => {
            let id = event.last_event_id.parse();
            match (payload::number(&event.data), id, &*event.event_type) {
                (Some(number), Ok(id), MESSAGE) => What::Entry(id, number),
                _ => What::Wrong(format!("torn: {event:.300?}")),
            }
        }
    }
}

fn control(event: &Event) -> Option<What> {
    let control: serde_json::Value = serde_json::from_str(&event.data).ok()?;
    let kind = control["type"].as_str()?;
    if kind == "end" && control["reason"] == "marker" {
        return Some(What::End(event.last_event_id.parse().ok()?));
    }
    if kind == "end" && control["reason"] == "gap" && control.get("stream").is_some() {
        return Some(What::EndAtGap);
    }
    if kind == "at" {
        return Some(What::At(event.last_event_id.parse().ok()?));
    }
    if kind != "gap" {
        let known = ["live", "drain", "unavailable", "ping", "source"].contains(&kind);
        return known.then(|| What::Signal(kind.to_owned()));
    }
    let id = |name: &str| match &control[name] {
        serde_json::Value::Null => Some(None),
        value => value.as_str()?.parse::<StreamId>().ok().map(Some),
    };
    let (after, next) = (id("after")?, id("next")?);
    let count = |value: &serde_json::Value| match value {
        serde_json::Value::Null => Some(None),
        value => value.as_u64().map(Some),
    };
    let lost = count(control.get("lost")?)?;
    let at_most = match control.get("at_most") {
        None => None,
        Some(value) => Some(count(value)?),
    };
    let reason = control["reason"].as_str()?.to_owned();
    let id = event.last_event_id.parse().ok()?;
    Some(What::Gap(Gap { id, after, next, lost, at_most, reason }))
}
