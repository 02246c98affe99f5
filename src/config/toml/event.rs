//! Reads `event` of a route: where the types of its events come from.

use super::section::Section;
use crate::config::Streams;
use crate::config::units::{self, WrittenValue};
use crate::sse::{CONTROL_EVENT, EventName, is_event_name};

/// The types of events that `EventSource` itself dispatches.
const EVENT_SOURCES_OWN: [&str; 2] = ["open", "error"];
const DEFAULT_EVENT: &str = "message";

/// The type, and whether it begins with the name of the part where several streams are merged.
pub(super) fn event(section: &mut Section<'_, '_>, streams: Option<&Streams>) -> (EventName, bool) {
    let ((name, names_parts), found) = section.read("event", DEFAULT_EVENT, event_name);
    if names_parts {
        if streams.is_some_and(|streams| streams.one().is_some()) {
            section.fault(
                &found,
                "stream = true is for routes that merge several streams; remove it, or write merge",
            );
        }
        return (name, true);
    }
    let (EventName::Fixed(fixed) | EventName::Field { otherwise: fixed, .. }) = &name;
    if EVENT_SOURCES_OWN.contains(&fixed.as_str()) {
        let message = format!(
            "EventSource has its own events of the type \"{fixed}\": clients could not tell them apart; choose another name"
        );
        section.warn(&found, message);
    }
    if let EventName::Field { field, .. } = &name {
        let message = format!(
            "a value of the field \"{field}\" may be \"open\" or \"error\": EventSource has its own events of these types, and clients could not tell them apart; let producers write other names"
        );
        section.warn(&found, message);
    }
    (name, false)
}

fn event_name(written: &WrittenValue) -> Result<(EventName, bool), String> {
    let WrittenValue::Table(items) = written else {
        return fixed_name(written).map(|name| (EventName::Fixed(name), false));
    };
    let (mut field, mut otherwise, mut fixed, mut stream) = (None, None, None, false);
    for item in items {
        match item.name.as_str() {
            "field" => field = Some(units::field(&item.value)?),
            "otherwise" => otherwise = Some(fixed_name(&item.value)?),
            "name" => fixed = Some(fixed_name(&item.value)?),
            "stream" => stream = units::flag(&item.value)?,
            name => {
                return Err(format!(
                    "unknown key \"{name}\"; it takes field and otherwise, and stream and name where streams are merged"
                ));
            }
        }
    }
    if stream && [&otherwise, &fixed].into_iter().flatten().any(String::is_empty) {
        return Err(
            "has no type after the stream's name; write one, as in name = \"message\"".into()
        );
    }
    let name = match (field, fixed) {
        (Some(_), Some(_)) => {
            return Err(
                "has both field and name; with a field write otherwise for entries without it"
                    .into(),
            );
        }
        (Some(field), None) => {
            let otherwise = otherwise.unwrap_or_else(|| DEFAULT_EVENT.to_owned());
            EventName::Field { field, otherwise }
        }
        (None, fixed) if stream && otherwise.is_none() => {
            EventName::Fixed(fixed.unwrap_or_else(|| DEFAULT_EVENT.to_owned()))
        }
        (None, _) => {
            return Err(
                "names no field; write { field = \"type\", otherwise = \"message\" }".into()
            );
        }
    };
    Ok((name, stream))
}

fn fixed_name(written: &WrittenValue) -> Result<String, String> {
    let WrittenValue::Text(name) = written else {
        return Err("not an event's name; write \"message\" or { field = \"type\", otherwise = \"message\" }".into());
    };
    if name == CONTROL_EVENT {
        return Err(
            "taken: the control events of the gateway have this name; choose another".into()
        );
    }
    if name.is_empty() || is_event_name(name) {
        return Ok(name.clone());
    }
    Err("not an event's name; write one line of text, or \"\" for events without a name".into())
}
