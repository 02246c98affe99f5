//! Reads the routes: each by itself, then whether two of them match the same paths.

use std::sync::Arc;

use toml::de::DeTable;

use super::reader::ConfigReader;
use super::rules::{self, OtherSections};
use super::section::{Found, Section};
use super::{access, event, merge, publish, rows, snapshot};
use crate::config::diagnostics::Location;
use crate::config::units::{self, Item, WrittenValue};
use crate::config::{PathTemplate, Replay, Route, Streams};
use crate::sse::{Data, Rendering};

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
    let streams = merge::streams(&mut section, header);
    let access = section.required(
        "access",
        access,
        header,
        "there is no default; write access = \"public\" if everybody may read it",
        access::access,
    );
    let query = streams.as_ref().and_then(|(streams, _)| streams.query());
    let asked = path.as_ref().map(|(path, _)| (path, query));
    let access = access::rules(&mut section, access, asked, others.has_keys);
    let publish = {
        let OtherSections { has_keys, max_entry_bytes, .. } = others;
        let others = publish::Others { has_keys, max_entry_bytes };
        publish::publish(&mut section, path.as_ref().map(|(path, _)| path), others)
    };
    let (event, names_parts) = event::event(&mut section, streams.as_ref().map(|(read, _)| read));
    let rendering = Rendering {
        event,
        data: data(&mut section),
        missing: missing(&mut section),
        ..Rendering::default()
    };
    let of_route =
        rows::OfRoute { access: access.as_ref(), data: &rendering.data, tokens: others.tokens };
    let (rows, rows_found) = rows::rows(&mut section, &of_route);
    let replay = section.read("replay", WrittenValue::Integer(10_000), replay).0;
    let rules = rules::rules(&mut section, rendering, &rows.columns, replay, others);
    let snapshot = rules.streams.snapshot.as_ref().zip(rules.snapshot_found.as_ref());
    if let (Some(rows), Some((rule, found))) = (&rows_found, snapshot) {
        rows::check_snapshot(&mut section, rows, rule, found);
    }
    if let Some(streams) = &streams {
        check_merged(&mut section, streams, publish.is_some(), rules.snapshot_found.as_ref());
    }
    if let (Some(path), Some(streams)) = (&path, &streams) {
        merge::check_variables(&mut section, path, streams);
        if let Some((rule, found)) = snapshot {
            snapshot::check_variables(&mut section, found, rule, &path.0);
            if let Some(key) = streams.0.one().filter(|_| others.is_cluster) {
                snapshot::check_slot(&mut section, found, rule, key, &path.0);
            }
        }
    }
    section.end();
    let ((path, found), (streams, _)) = (path?, streams?);
    let part_rules = Arc::new(rules.streams.for_part());
    let named = if names_parts { streams.named_renderings(&part_rules) } else { Vec::new() };
    let route = Route {
        path,
        streams,
        access: access?,
        publish,
        replay,
        start: rules.start,
        absent: rules.absent,
        ended: rules.ended,
        headers: Arc::new(rules.headers),
        rules: Arc::new(rules.streams),
        part_rules,
        names_parts,
        named,
        rows,
    };
    Some((route, found.location))
}

/// What a route cannot have that merges several streams.
fn check_merged(
    section: &mut Section<'_, '_>,
    (streams, found): &(Streams, Found),
    publishes: bool,
    snapshot: Option<&Found>,
) {
    if streams.one().is_some() {
        return;
    }
    if publishes {
        section.fault(found, "entries that clients publish go to one stream key, and this route has several; remove publish, and write a route with key for it");
    }
    if let Some(snapshot) = snapshot {
        section.fault(snapshot, "a state is that of one stream, and this route merges several, of which each would begin again at another time; remove it, and write a route with key for each stream that has a state");
    }
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
