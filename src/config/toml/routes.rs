//! Reads the routes: each by itself, then whether two of them match the same paths.

use std::sync::Arc;

use toml::de::DeTable;

use super::reader::ConfigReader;
use super::rules::{self, OtherSections};
use super::section::{Found, Section};
use super::{access, publish, rows, snapshot};
use crate::config::diagnostics::{Location, did_you_mean};
use crate::config::units::{self, Item, WrittenValue};
use crate::config::{KeyTemplate, PathTemplate, Replay, Route};
use crate::sse::{CONTROL_EVENT, Data, EventName, Rendering, is_event_name};

/// The types of events that `EventSource` itself dispatches.
const EVENT_SOURCES_OWN: [&str; 2] = ["open", "error"];
const DEFAULT_EVENT: &str = "message";

/// The routes of `--demo`, where the file has none.
const DEMO: &str = r#"
[[route]]
path   = "/events/{name}"
key    = "events:{name}"
access = "public"

[[route]]
path     = "/events/services"
key      = "events:services"
access   = "public"
snapshot = { newest_by = "id" }
"#;

/// Every route, the more specific first: the first that matches a path serves it.
pub(super) fn routes(
    reader: &mut ConfigReader<'_>,
    root_of_file: &mut Vec<Item>,
    others: OtherSections<'_>,
) -> Vec<Route> {
    let mut routes: Vec<(Route, Location)> = Vec::new();
    if let Some(text) = reader.routes {
        // They come in place of the file's, and are public where nothing verifies tokens.
        let access = Some(if others.has_keys { "jwt" } else { "public" });
        let before = reader.go_to(text);
        let mut root = items_of(reader, text);
        read_tables(reader, &mut root, access, others, &mut routes);
        if reader.has_no_fault() && routes.is_empty() {
            let whole = reader.whole();
            reader.missing(whole, "route", "there is none; write /events/{name}=events:{name}");
        }
        reader.go_back_to(before);
        units::take(root_of_file, "route");
    } else {
        read_tables(reader, root_of_file, None, others, &mut routes);
    }
    if routes.is_empty() && reader.demo {
        let mut root = items_of(reader, DEMO);
        for (_, items) in tables(reader, &mut root) {
            let section = Section::built_in_route(reader, items);
            routes.extend(route(section, &Location::Demo, None, others));
        }
    }
    routes.sort_by(|(a, _), (b, _)| a.path.by_specificity(&b.path));
    routes.into_iter().map(|(route, _)| route).collect()
}

fn items_of(reader: &mut ConfigReader<'_>, text: &str) -> Vec<Item> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = reader.location(error.span().map_or(0, |span| span.start));
        reader.fault(at, "", format!("not TOML: {}", error.message()));
    }
    units::items(table.get_ref())
}

fn read_tables(
    reader: &mut ConfigReader<'_>,
    root: &mut Vec<Item>,
    access: Option<&'static str>,
    others: OtherSections<'_>,
    routes: &mut Vec<(Route, Location)>,
) {
    for (at, items) in tables(reader, root) {
        let header = reader.location(at);
        let read = route(Section::route(reader, items), &header, access, others);
        let Some((route, location)) = read else { continue };
        check_ambiguity(reader, &route, &location, routes);
        routes.push((route, location));
    }
}

fn tables(reader: &mut ConfigReader<'_>, root: &mut Vec<Item>) -> Vec<(usize, Vec<Item>)> {
    let Some(routes) = units::take(root, "route") else {
        if !reader.demo {
            let whole = reader.whole();
            reader.missing(
                whole,
                "[[route]]",
                "missing: the gateway would serve nothing; write one with path, key and access",
            );
        }
        return Vec::new();
    };
    let mut tables = Vec::new();
    let wrong = "not a list of routes; begin each with [[route]]";
    let WrittenValue::List(elements) = routes.value else {
        reader.fault(reader.location(routes.name_at), "route", wrong);
        return tables;
    };
    for (at, element) in elements {
        match element {
            WrittenValue::Table(items) => tables.push((at, items)),
            _ => reader.fault(reader.location(at), "route", wrong),
        }
    }
    tables
}

fn check_ambiguity(
    reader: &mut ConfigReader<'_>,
    route: &Route,
    location: &Location,
    earlier: &[(Route, Location)],
) {
    let same = |(other, _): &&(Route, Location)| route.path.is_ambiguous_with(&other.path);
    let Some((other, other_location)) = earlier.iter().find(same) else { return };
    let subject = format!("route.path = \"{}\"", route.path);
    let message = format!(
        "can match the same path as \"{}\" ({other_location}) and is not more specific; give one of them a literal segment that the other does not have",
        other.path
    );
    reader.fault(location.clone(), &subject, message);
}

/// One route and where its path is written; `header` is where it begins, `access` what it has that writes none.
fn route(
    mut section: Section<'_, '_>,
    header: &Location,
    access: Option<&'static str>,
    others: OtherSections<'_>,
) -> Option<(Route, Location)> {
    let path = section.required(
        "path",
        None,
        header,
        "write the path that clients request, as in path = \"/events/{name}\"",
        |text| PathTemplate::parse(text).map_err(|bad| bad.to_string()),
    );
    let key = section.required(
        "key",
        None,
        header,
        "write the stream key that it reads, as in key = \"events:{name}\"",
        |text| KeyTemplate::parse(text).map_err(|bad| bad.to_string()),
    );
    let access = section.required(
        "access",
        access,
        header,
        "there is no default; write access = \"public\" if everybody may read it",
        access::access,
    );
    let access =
        access::rules(&mut section, access, path.as_ref().map(|(path, _)| path), others.has_keys);
    let publish = {
        let OtherSections { has_keys, max_entry_bytes, .. } = others;
        let others = publish::Others { has_keys, max_entry_bytes };
        publish::publish(&mut section, path.as_ref().map(|(path, _)| path), others)
    };
    let rendering = Rendering {
        event: event(&mut section),
        data: data(&mut section),
        missing: missing(&mut section),
        ..Rendering::default()
    };
    let of_route =
        rows::OfRoute { access: access.as_ref(), data: &rendering.data, tokens: others.tokens };
    let (rows, rows_found) = rows::rows(&mut section, &of_route);
    let replay = section.read("replay", WrittenValue::Integer(10_000), replay).0;
    let rules = rules::rules(&mut section, rendering, replay, others);
    let snapshot = rules.streams.snapshot.as_ref().zip(rules.snapshot_found.as_ref());
    if let (Some(rows), Some((rule, found))) = (&rows_found, snapshot) {
        rows::check_snapshot(&mut section, rows, rule, found);
    }
    if let (Some(path), Some(key)) = (&path, &key) {
        check_variables(&mut section, path, key);
        if let Some((rule, found)) = snapshot {
            snapshot::check_variables(&mut section, found, rule, &path.0);
            if others.is_cluster {
                snapshot::check_slot(&mut section, found, rule, &key.0, &path.0);
            }
        }
    }
    section.end();
    let ((path, found), (key, _)) = (path?, key?);
    let route = Route {
        path,
        key,
        access: access?,
        publish,
        replay,
        start: rules.start,
        absent: rules.absent,
        ended: rules.ended,
        headers: Arc::new(rules.headers),
        rules: Arc::new(rules.streams),
        rows,
    };
    Some((route, found.location))
}

fn check_variables(
    section: &mut Section<'_, '_>,
    (path, path_found): &(PathTemplate, Found),
    (key, key_found): &(KeyTemplate, Found),
) {
    let unknown: Vec<&str> =
        key.variables().filter(|name| !path.variables().any(|known| known == *name)).collect();
    for name in unknown {
        let hint = did_you_mean(name, path.variables());
        let message = format!("{{{name}}} is not a variable of the path \"{path}\"{hint}");
        section.fault(key_found, message);
    }
    for name in path.variables().filter(|name| !key.variables().any(|used| used == *name)) {
        let message =
            format!("{{{name}}} is not used in the key: all its values read the same stream");
        section.warn(path_found, message);
    }
    if key.is_bare() {
        section.warn(
            key_found,
            "consists of variables only: clients can name every Redis key of that form; begin it with a literal, as in \"events:{name}\"",
        );
    }
}

fn event(section: &mut Section<'_, '_>) -> EventName {
    let (name, found) = section.read("event", DEFAULT_EVENT, event_name);
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
    name
}

fn event_name(written: &WrittenValue) -> Result<EventName, String> {
    let WrittenValue::Table(items) = written else {
        return fixed_name(written).map(EventName::Fixed);
    };
    let (mut field, mut otherwise) = (None, DEFAULT_EVENT.to_owned());
    for item in items {
        match item.name.as_str() {
            "field" => field = Some(units::field(&item.value)?),
            "otherwise" => otherwise = fixed_name(&item.value)?,
            name => return Err(format!("unknown key \"{name}\"; it takes field and otherwise")),
        }
    }
    let field =
        field.ok_or("names no field; write { field = \"type\", otherwise = \"message\" }")?;
    Ok(EventName::Field { field, otherwise })
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

fn data(section: &mut Section<'_, '_>) -> Data {
    section.read("data", "payload", data_fields).0
}

fn data_fields(written: &WrittenValue) -> Result<Data, String> {
    let WrittenValue::List(elements) = written else {
        let field = units::field(written)?;
        return Ok(if field == "*" { Data::All } else { Data::Field(field) });
    };
    let fields: Vec<String> =
        elements.iter().map(|(_, field)| units::field(field)).collect::<Result<_, _>>()?;
    if fields.is_empty() {
        return Err("names no field; write \"*\" for all of them".into());
    }
    match fields.iter().enumerate().find(|&(index, field)| fields[..index].contains(field)) {
        Some((_, field)) => Err(format!("names the field \"{field}\" twice")),
        None => Ok(Data::Fields(fields)),
    }
}

fn missing(section: &mut Section<'_, '_>) -> Option<String> {
    let read = |written: &WrittenValue| {
        match written {
        WrittenValue::Text(text) => Ok(Some(text.clone())),
        WrittenValue::Flag(false) => Ok(None),
        _ => Err("neither a text nor false; write what the gateway sends when the field is absent, or false to skip the entry".into()),
    }
    };
    section.read("missing", "{}", read).0
}

fn replay(written: &WrittenValue) -> Result<Replay, String> {
    match units::count(written) {
        Ok(entries) => Ok(Replay::Newest(entries)),
        Err(_) if *written == WrittenValue::from("all") => Ok(Replay::All),
        Err(_) => Err("not a number of entries; write one from 0 up, or \"all\"".into()),
    }
}
