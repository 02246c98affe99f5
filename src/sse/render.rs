//! From an entry to an event: what a route makes of an entry, and the bytes of that.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;

use memchr::{memchr, memchr2};

use super::line::write_line;
use super::{CONTROL_EVENT, Column, Controls, EndMarker, Entry};

/// What a route makes of an entry. Routes with equal renderings share the encoded bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rendering {
    /// Where the event's type comes from.
    pub event: EventName,
    /// The stream's name among several, with which the type begins (`chat.message`).
    pub stream: Option<String>,
    /// Where its data comes from.
    pub data: Data,
    /// The data of an entry that has none of the data fields; `None`: such an entry is skipped.
    pub missing: Option<String>,
    /// In which form gaps among the entries are sent.
    pub controls: Controls,
    /// The entry that ends a stream.
    pub end: Option<EndMarker>,
    /// A client that is behind gets only the newest entry for each value of this field.
    pub conflate: Option<String>,
    /// Whether a gap becomes the client's last event id. Not where a snapshot follows it: a client that has not had
    /// that comes back as it was before the gap.
    pub gaps_have_ids: bool,
    /// By which fields its clients are told apart; none: each of them gets every entry.
    pub columns: Vec<Column>,
}

impl Default for Rendering {
    /// As a route has it that names nothing else.
    fn default() -> Self {
        Self {
            event: EventName::Fixed("message".into()),
            stream: None,
            data: Data::Field("payload".into()),
            missing: Some("{}".into()),
            controls: Controls::default(),
            end: None,
            conflate: None,
            gaps_have_ids: true,
            columns: Vec::new(),
        }
    }
}

/// Where an event's type comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EventName {
    /// Always this; empty: no type is sent.
    Fixed(String),
    /// The value of a field, if it [can be](is_event_name) an event's type.
    Field {
        /// The field.
        field: String,
        /// The type if the entry has no such field, or an unusable value.
        otherwise: String,
    },
}

/// Where an event's data comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Data {
    /// One field, verbatim.
    Field(String),
    /// These fields as one JSON object of strings.
    Fields(Vec<String>),
    /// All fields as one JSON object of strings.
    All,
}

/// What [`write_entry`] made of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// An event was written.
    Event,
    /// Nothing was written: the route skips entries without its data field.
    Skipped,
    /// Nothing was written: the data is larger than `max_entry_bytes`.
    Oversize,
    /// Nothing was written: the source gave the entry in a form that cannot be read.
    Unreadable,
}

/// Writes `entry` as one whole event, or nothing.
///
/// The client gets the data unchanged, but for what SSE cannot carry: CR and CRLF become LF, invalid UTF-8
/// becomes U+FFFD. `max_entry_bytes` is the most that the data may have as the client gets it.
pub fn write_entry(
    out: &mut Vec<u8>,
    entry: &Entry,
    rendering: &Rendering,
    max_entry_bytes: usize,
) -> Written {
    if !entry.is_readable() {
        return Written::Unreadable;
    }
    let Some(data) = data_of(entry, rendering) else { return Written::Skipped };
    if joined_len_bytes(&data) > max_entry_bytes {
        return Written::Oversize;
    }
    writeln!(out, "id: {}", entry.id).expect("writing to a Vec succeeds");
    let name = event_of(entry, &rendering.event);
    match &rendering.stream {
        Some(stream) => write_event_name(out, &format!("{stream}.{name}")),
        None => write_event_name(out, &name),
    }
    write_data(out, &data);
    Written::Event
}

/// Writes the last event of a stream, which has no id of its own.
pub fn write_last_event(out: &mut Vec<u8>, rendering: &Rendering, data: &str) {
    let (EventName::Fixed(name) | EventName::Field { otherwise: name, .. }) = &rendering.event;
    write_event_name(out, name);
    write_data(out, data);
}

/// The data of an event, and its end.
pub(super) fn write_data(out: &mut Vec<u8>, data: &str) {
    for line in lines(data) {
        write_line(out, "data", line);
    }
    out.push(b'\n');
}

fn write_event_name(out: &mut Vec<u8>, name: &str) {
    if !name.is_empty() {
        write_line(out, "event", name);
    }
}

/// What a client gets of an entry; `None`: nothing.
pub fn data_of<'a>(entry: &'a Entry, rendering: &'a Rendering) -> Option<Cow<'a, str>> {
    match &rendering.data {
        Data::Field(name) => match entry.field(name) {
            Some(value) => Some(text_of(value)),
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

/// The text in these bytes, with U+FFFD for what is none. Most are text, which the whole is told of faster than its parts.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// The chosen fields in the entry's order; a repeated field once, where it came first, with its last value.
fn object_of(entry: &Entry, chosen: impl Fn(&str) -> bool) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let mut object: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::with_capacity(entry.fields.len());
    let mut indexes = std::collections::HashMap::new();
    for (name, value) in &entry.fields {
        let name = text_of(name);
        if !chosen(&name) {
            continue;
        }
        let value = text_of(value);
        if let Some(&index) = indexes.get(&name) {
            object[index] = (name, value);
        } else {
            indexes.insert(name.clone(), object.len());
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

pub(super) fn json_string(text: &str) -> String {
    escaped_line_ends(serde_json::to_string(text).expect("a string is always JSON"))
}

/// Line ends of Unicode, which SSE does not take for such, and some clients that split lines do.
const FOREIGN_LINE_ENDS: [(char, &str); 3] =
    [('\u{85}', "\\u0085"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];

/// JSON that has none of them: outside of its strings there are none.
pub fn escaped_line_ends(json: String) -> String {
    if !json.contains(FOREIGN_LINE_ENDS.map(|(end, _)| end)) {
        return json;
    }
    FOREIGN_LINE_ENDS.iter().fold(json, |json, (end, escaped)| json.replace(*end, escaped))
}

fn event_of<'a>(entry: &'a Entry, name: &'a EventName) -> Cow<'a, str> {
    match name {
        EventName::Fixed(name) => Cow::Borrowed(name),
        EventName::Field { field, otherwise } => {
            match entry.field(field).map(|value| text_of(value)) {
                Some(value) if is_event_name(&value) => value,
                _ => Cow::Borrowed(otherwise),
            }
        }
    }
}

/// The longest event type. `max_entry` does not bound it, for it is a name and not data.
const EVENT_NAME_BYTES: usize = 1024;

/// Whether `name` can be an event's type: one line of 1 to 1,024 bytes, and not that of the control events.
pub fn is_event_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= EVENT_NAME_BYTES
        && name != CONTROL_EVENT
        && !name.contains(['\r', '\n', '\0'])
}

/// The lines of `text`, which CRLF, CR and LF end alike. There is one more line than there are line ends.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = memchr2(b'\r', b'\n', text.as_bytes()) else {
            rest = None;
            return Some(text);
        };
        let width = if text[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[end + width..]);
        Some(&text[..end])
    })
}

/// How many bytes `text` has once the client's parser has joined its lines again.
fn joined_len_bytes(text: &str) -> usize {
    if memchr(b'\r', text.as_bytes()).is_none() {
        return text.len();
    }
    text.len() - text.matches("\r\n").count()
}
