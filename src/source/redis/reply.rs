//! What Redis answers, read with suspicion: entries, the state of a stream, errors.

use bytes::Bytes;
use fred::prelude::Value;

use super::super::{Class, Error, Info};
use crate::event::{Entry, StreamId};

/// The entries of an `XREAD` reply about one stream; none where it timed out.
pub(super) fn streams(value: Value) -> Result<Vec<Entry>, Error> {
    let mut pair = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(mut streams) if streams.len() == 1 => array(streams.remove(0))?,
        _ => return Err(garbled("XREAD about one key answered about none or several")),
    };
    pair.pop().map_or_else(|| Err(garbled("XREAD answered without entries")), entries)
}

pub(super) fn entries(value: Value) -> Result<Vec<Entry>, Error> {
    array(value)?.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Result<Entry, Error> {
    let mut parts = array(value)?.into_iter();
    let (Some(id), Some(fields), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(garbled("an entry that is no pair of id and fields"));
    };
    let mut fields_left = array(fields)?.into_iter();
    let mut fields = Vec::with_capacity(fields_left.len() / 2);
    while let Some(name) = fields_left.next() {
        let value = fields_left.next().ok_or_else(|| garbled("a field without a value"))?;
        fields.push((bytes(name)?, bytes(value)?));
    }
    Ok(Entry { id: stream_id(&id)?, fields })
}

pub(super) fn stream_info(
    answer: Result<Value, fred::error::Error>,
) -> Result<Option<Info>, Error> {
    let value = match answer {
        Ok(value) => value,
        Err(error) if error.details().contains("no such key") => return Ok(None),
        Err(error) => return Err(classify(&error)),
    };
    let mut info = Info::default();
    let mut parts = array(value)?.into_iter();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        match name.as_str().as_deref() {
            Some("length") => info.length = number(&value)?,
            Some("last-generated-id") => info.last_generated = stream_id(&value)?,
            Some("max-deleted-entry-id") => info.max_deleted = stream_id(&value)?,
            Some("entries-added") => info.entries_added = Some(number(&value)?),
            Some("first-entry") if !value.is_null() => info.first = Some(entry(value)?.id),
            _ => {}
        }
    }
    Ok(Some(info))
}

fn array(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(garbled("not the list that was expected")),
    }
}

fn bytes(value: Value) -> Result<Bytes, Error> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::String(text) => Ok(text.into_inner()),
        Value::Integer(number) => Ok(Bytes::from(number.to_string())),
        _ => Err(garbled("not the string that was expected")),
    }
}

fn number(value: &Value) -> Result<u64, Error> {
    value.as_u64().ok_or_else(|| garbled("not the number that was expected"))
}

pub(super) fn stream_id(value: &Value) -> Result<StreamId, Error> {
    let id = value.as_str().and_then(|text| text.parse().ok());
    id.ok_or_else(|| garbled("not the stream id that was expected"))
}

pub(super) fn garbled(what: &str) -> Error {
    let message = format!("Redis answered what we do not understand: {what}");
    Error { class: Class::Away, code: "PROTOCOL", message }
}

/// Sorts a failure by what helps against it, from the first word of what Redis says.
pub(super) fn classify(error: &fred::error::Error) -> Error {
    use fred::error::ErrorKind;
    const KEY: [&str; 2] = ["WRONGTYPE", "NOPERM"];
    const LOGIN: [&str; 3] = ["NOAUTH", "WRONGPASS", "DENIED"];
    const AWAY: [&str; 9] = [
        "LOADING",
        "BUSY",
        "TRYAGAIN",
        "CLUSTERDOWN",
        "MASTERDOWN",
        "UNBLOCKED",
        "READONLY",
        "MISCONF",
        "OOM",
    ];
    let details = error.details();
    let word = details.split_whitespace().next().unwrap_or_default().trim_start_matches('-');
    let known = |codes: &[&'static str]| codes.iter().find(|code| **code == word).copied();
    let (class, code) = if let Some(code) = known(&KEY) {
        (Class::Key, code)
    } else if let Some(code) = known(&LOGIN) {
        (Class::Login, code)
    } else if let Some(code) = known(&AWAY) {
        (Class::Away, code)
    } else {
        match error.kind() {
            ErrorKind::Auth => (Class::Login, "NOAUTH"),
            ErrorKind::Timeout => (Class::Away, "TIMEOUT"),
            ErrorKind::IO | ErrorKind::Canceled => (Class::Away, "IO"),
            ErrorKind::Protocol | ErrorKind::Parse => (Class::Away, "PROTOCOL"),
            _ => (Class::Away, "ERR"),
        }
    };
    Error { class, code, message: details.to_owned() }
}
