//! Entries and the SSE grammar: the only file that knows how an event looks on the wire.
//!
//! The rules are those of the WHATWG HTML standard, section 9.2 ("Server-sent events").

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use bytes::Bytes;

mod control;
pub mod parse;

pub use control::{CONTROL_EVENT, Control, Gap, Reason, comment, write_control};

/// The id of a stream entry: milliseconds and a counter within them, ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds since the Unix epoch, where the producer let Redis choose.
    pub ms: u64,
    /// Counter within the millisecond.
    pub seq: u64,
}

impl StreamId {
    /// Before every entry: Redis never gives this id to one.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };

    /// The id one less, or zero itself.
    #[must_use]
    pub fn prev(self) -> Self {
        match (self.ms, self.seq) {
            (0, 0) => self,
            (ms, 0) => Self { ms: ms - 1, seq: u64::MAX },
            (ms, seq) => Self { ms, seq: seq - 1 },
        }
    }

    /// The id one greater, or none after the last.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => self.ms.checked_add(1).map(|ms| Self { ms, seq: 0 }),
        }
    }

    /// Reads the short form that a query may use as well: `5` means `5-0`.
    pub fn parse_short(text: &str) -> Result<Self, NotAnId> {
        if text.contains('-') { text.parse() } else { Ok(Self { ms: decimal(text)?, seq: 0 }) }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// A text is not `u64-u64` in canonical decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a stream id: expected two decimal numbers below 2^64 without leading zeros, as in 1700000000000-0"
)]
pub struct NotAnId;

impl FromStr for StreamId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (ms, seq) = text.split_once('-').ok_or(NotAnId)?;
        Ok(Self { ms: decimal(ms)?, seq: decimal(seq)? })
    }
}

/// A `u64` in canonical decimal: digits only, no sign, no leading zero.
fn decimal(text: &str) -> Result<u64, NotAnId> {
    let canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().map_err(|_| NotAnId) } else { Err(NotAnId) }
}

/// What each part of an entry takes in memory besides its bytes: its id, its list of fields, itself, and
/// each name and value. A part is 40 bytes in a list that may have just grown to twice what it holds.
pub const PART_BYTES: usize = 96;

/// One entry of a Redis Stream, its fields in the order in which they were added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id within the stream.
    pub id: StreamId,
    /// Names and values; a name may repeat.
    pub fields: Vec<(Bytes, Bytes)>,
}

impl Entry {
    /// The first value of `name`.
    fn field(&self, name: &str) -> Option<&Bytes> {
        self.fields.iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value)
    }

    /// Bytes of all names and values together.
    pub fn size_bytes(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// About what it takes in memory while it is read: of many small fields much more than their bytes.
    pub fn memory_bytes(&self) -> usize {
        self.size_bytes() + (3 + 2 * self.fields.len()) * PART_BYTES
    }
}

/// What a route makes of an entry. Routes with equal renderings share their encoded bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rendering {
    /// Where the event's type comes from.
    pub event: EventName,
    /// Where its data come from.
    pub data: Data,
    /// Sent where a single data field is absent; `None`: the entry is skipped.
    pub missing: Option<String>,
}

/// Where an event's type comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EventName {
    /// Always this.
    Fixed(String),
    /// The value of a field, where it can stand in an `event:` line and is not [`CONTROL_EVENT`].
    Field {
        /// The field.
        field: String,
        /// The type where the field is absent or unusable.
        otherwise: String,
    },
}

/// Where an event's data come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Data {
    /// One field, verbatim.
    Field(String),
    /// These fields as one JSON object of strings.
    Fields(Vec<String>),
    /// All fields as one JSON object of strings.
    All,
}

/// What became of an entry in [`write_entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// An event was written.
    Event,
    /// Nothing was written: the route skips entries without its data field.
    Skipped,
    /// Nothing was written: the data are larger than `max_entry_bytes`.
    Oversize,
}

/// Writes `entry` as one event, whole, or nothing.
///
/// Data arrive verbatim up to what SSE can carry: CR, LF and CRLF as LF, invalid UTF-8 as U+FFFD.
/// `max_entry_bytes` bounds the data as the client sees them, inclusive.
pub fn write_entry(
    out: &mut Vec<u8>,
    entry: &Entry,
    rendering: &Rendering,
    max_entry_bytes: usize,
) -> Written {
    let Some(data) = data_of(entry, rendering) else { return Written::Skipped };
    if joined_len_bytes(&data) > max_entry_bytes {
        return Written::Oversize;
    }
    write_line(out, "id", &entry.id.to_string());
    write_line(out, "event", &event_of(entry, &rendering.event));
    for line in lines(&data) {
        write_line(out, "data", line);
    }
    out.push(b'\n');
    Written::Event
}

fn data_of<'a>(entry: &'a Entry, rendering: &'a Rendering) -> Option<Cow<'a, str>> {
    match &rendering.data {
        Data::Field(name) => match entry.field(name) {
            Some(value) => Some(String::from_utf8_lossy(value)),
            None => rendering.missing.as_deref().map(Cow::Borrowed),
        },
        Data::Fields(names) => {
            let chosen = |name: &str| names.iter().any(|n| n == name);
            let object = object_of(entry, chosen);
            if object.is_empty() {
                return rendering.missing.as_deref().map(Cow::Borrowed);
            }
            Some(Cow::Owned(json(&object)))
        }
        Data::All => Some(Cow::Owned(json(&object_of(entry, |_| true)))),
    }
}

/// The chosen fields in entry order; of a repeated one the last value, at its first place.
fn object_of(entry: &Entry, chosen: impl Fn(&str) -> bool) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let mut object: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::with_capacity(entry.fields.len());
    let mut places = std::collections::HashMap::new();
    for (name, value) in &entry.fields {
        let name = String::from_utf8_lossy(name);
        if !chosen(&name) {
            continue;
        }
        let value = String::from_utf8_lossy(value);
        if let Some(&place) = places.get(&name) {
            object[place] = (name, value);
        } else {
            places.insert(name.clone(), object.len());
            object.push((name, value));
        }
    }
    object
}

fn json(object: &[(Cow<'_, str>, Cow<'_, str>)]) -> String {
    let mut text = String::from("{");
    for (index, (name, value)) in object.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(text, "{comma}{}:{}", json_string(name), json_string(value))
            .expect("writing to a String succeeds");
    }
    text.push('}');
    text
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

fn event_of<'a>(entry: &'a Entry, name: &'a EventName) -> Cow<'a, str> {
    match name {
        EventName::Fixed(name) => Cow::Borrowed(name),
        EventName::Field { field, otherwise } => {
            match entry.field(field).map(|v| String::from_utf8_lossy(v)) {
                Some(value) if is_event_name(&value) => value,
                _ => Cow::Borrowed(otherwise),
            }
        }
    }
}

/// An event's type is no longer than this; it is a name, and `max_entry` does not bound it.
const EVENT_NAME_BYTES: usize = 1024;

/// Whether `name` can be an event's type: one line of at most 1,024 bytes, not empty, and not the
/// control events' own.
pub fn is_event_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= EVENT_NAME_BYTES
        && name != CONTROL_EVENT
        && !name.contains(['\r', '\n', '\0'])
}

/// The lines of `text`, ended by CRLF, CR or LF alike; one more than there are line ends.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\r', '\n']) else {
            rest = None;
            return Some(text);
        };
        let width = if text[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[end + width..]);
        Some(&text[..end])
    })
}

/// Bytes of `text` as the client's parser joins its lines again.
fn joined_len_bytes(text: &str) -> usize {
    text.len() - text.matches("\r\n").count()
}

/// One `field: value` line. The space is written always, for the parser takes one away.
fn write_line(out: &mut Vec<u8>, field: &str, value: &str) {
    debug_assert!(!value.contains(['\r', '\n']), "a line's value holds no line end");
    out.extend_from_slice(field.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// The `retry:` line: how long a client waits before it reconnects.
pub fn write_retry(out: &mut Vec<u8>, reconnection_time: std::time::Duration) {
    write_line(out, "retry", &reconnection_time.as_millis().to_string());
}

#[cfg(test)]
mod tests;
