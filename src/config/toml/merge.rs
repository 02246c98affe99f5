//! Reads which stream keys a route reads: `key`, `merge` or `merge_query`.

use super::reader::ConfigReader;
use super::section::{Found, Section};
use crate::config::diagnostics::{Location, did_you_mean};
use crate::config::template::variable_name;
use crate::config::units::{self, Item, WrittenValue};
use crate::config::{
    Jwt, KeyTemplate, NamedKey, PathTemplate, Route, Streams, TokenPlace, is_part_name,
};
use crate::sse::{COMPOSITE_BYTES, longest_composite_bytes};

/// How many streams a client may have on one connection.
const MOST_PARTS: usize = 64;
const DEFAULT_MOST: usize = 32;
/// A request has the parameter once for each stream. With this, the longest last event id, and a token of 4 KiB, it is
/// just below what the router takes.
const LONGEST_PARAMETER: usize = 64;
/// What the query of a stream has for other uses.
const TAKEN: [&str; 2] = ["last", "since"];
const WRITE_MERGE: &str = "write a list, as in [{ name = \"chat\", key = \"chat:{user}\" }, { name = \"alerts\", key = \"alerts:{tenant}\" }]";
const WRITE_QUERY: &str =
    "write { name = \"stream\", key = \"events:{stream}\", most = 32 }, for ?stream=a&stream=b";

/// What the route reads, and where that is written; `None` on a fault.
pub(super) fn streams(
    section: &mut Section<'_, '_>,
    header: &Location,
) -> Option<(Streams, Found)> {
    let merge = section.written("merge", &"".into());
    let query = section.written("merge_query", &"".into());
    let merged = match (merge, query) {
        (Some(found), Some(_)) => {
            section.written("key", &"".into());
            section.fault(&found, "is besides merge_query: either the route or the client says which streams are merged; remove one");
            return None;
        }
        (Some(found), None) => (found, parts as fn(&WrittenValue) -> Result<Streams, String>),
        (None, Some(found)) => (found, chosen as fn(&WrittenValue) -> Result<Streams, String>),
        (None, None) => return one(section, header),
    };
    let (found, read) = merged;
    section.show(&found, found.value.to_string());
    if section.written("key", &"".into()).is_some() {
        section.fault(&found, "is besides key, which it takes the place of; remove one");
        return None;
    }
    match read(&found.value) {
        Ok(streams) => Some((streams, found)),
        Err(why) => {
            section.fault(&found, why);
            None
        }
    }
}

fn one(section: &mut Section<'_, '_>, header: &Location) -> Option<(Streams, Found)> {
    let key = section.required(
        "key",
        None,
        header,
        "write the stream key that it reads, as in key = \"events:{name}\", or merge for several",
        |text| KeyTemplate::parse(text).map_err(|bad| bad.to_string()),
    );
    key.map(|(key, found)| (Streams::One(key), found))
}

fn parts(written: &WrittenValue) -> Result<Streams, String> {
    let WrittenValue::List(elements) = written else {
        return Err(format!("not a list of streams; {WRITE_MERGE}"));
    };
    let parts: Vec<NamedKey> =
        elements.iter().map(|(_, element)| part(element)).collect::<Result<_, _>>()?;
    if !(1..=MOST_PARTS).contains(&parts.len()) {
        return Err(format!("has {} streams; write 1 to {MOST_PARTS}", parts.len()));
    }
    let twice = |(index, part): &(usize, &NamedKey)| {
        parts[..*index].iter().any(|other| other.name == part.name)
    };
    if let Some((_, part)) = parts.iter().enumerate().find(twice) {
        return Err(format!("has the name \"{}\" twice; give one another name", part.name));
    }
    let longest = longest_composite_bytes(parts.iter().map(|part| part.name.as_str()));
    if longest > COMPOSITE_BYTES {
        return Err(format!(
            "a last event id of these streams can have {longest} bytes, and browsers and proxies are sure to send back no more than {COMPOSITE_BYTES}; shorten the names, or merge fewer streams"
        ));
    }
    Ok(Streams::Merged(parts))
}

fn part(written: &WrittenValue) -> Result<NamedKey, String> {
    let WrittenValue::Table(items) = written else {
        return Err(format!("{written} is not a stream; {WRITE_MERGE}"));
    };
    let (mut name, mut key) = (None, None);
    for item in items {
        match item.name.as_str() {
            "name" => name = Some(part_name(item)?),
            "key" => key = Some(key_of(item)?),
            other => return Err(format!("unknown key \"{other}\"; a stream has name and key")),
        }
    }
    let name = name.ok_or_else(|| format!("a stream has no name; {WRITE_MERGE}"))?;
    let key = key.ok_or_else(|| format!("the stream \"{name}\" has no key; {WRITE_MERGE}"))?;
    Ok(NamedKey { name, key })
}

fn part_name(item: &Item) -> Result<String, String> {
    let name = units::text(&item.value)?;
    if is_part_name(&name) {
        return Ok(name);
    }
    Err(format!(
        "\"{name}\" is not the name of a stream; write 1 to 64 letters, digits, \"_\", \".\" and \"-\""
    ))
}

fn key_of(item: &Item) -> Result<KeyTemplate, String> {
    let text = units::text(&item.value)?;
    KeyTemplate::parse(&text).map_err(|bad| format!("the key \"{text}\" {bad}"))
}

fn chosen(written: &WrittenValue) -> Result<Streams, String> {
    let WrittenValue::Table(items) = written else {
        return Err(format!("does not say how a client chooses; {WRITE_QUERY}"));
    };
    let (mut query, mut key, mut most) = (None, None, DEFAULT_MOST);
    for item in items {
        match item.name.as_str() {
            "name" => query = Some(query_name(item)?),
            "key" => key = Some(key_of(item)?),
            "most" => most = most_parts(item)?,
            other => return Err(format!("unknown key \"{other}\"; it takes name, key and most")),
        }
    }
    let query = query.ok_or_else(|| format!("names no parameter of the query; {WRITE_QUERY}"))?;
    let key = key.ok_or_else(|| format!("has no key; {WRITE_QUERY}"))?;
    if !key.variables().any(|name| name == query) {
        return Err(format!(
            "the key \"{key}\" does not have {{{query}}}: all that a client chooses would be one stream; {WRITE_QUERY}"
        ));
    }
    Ok(Streams::Chosen { query, key, most })
}

fn query_name(item: &Item) -> Result<String, String> {
    let name = units::text(&item.value)?;
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    if TAKEN.contains(&name.as_str()) || letters.eq_ignore_ascii_case("lasteventid") {
        return Err(format!(
            "the parameter \"{name}\" says where a client begins; choose another name"
        ));
    }
    if name.len() > LONGEST_PARAMETER {
        return Err(format!(
            "the parameter \"{name}\" has {} letters, and a request has it once for each stream: with a token and a last event id it could become longer than the gateway takes; write up to {LONGEST_PARAMETER}",
            name.len()
        ));
    }
    variable_name(&name).map_err(|_| {
        format!("\"{name}\" is not the name of a parameter; write letters, digits and \"_\"")
    })
}

fn most_parts(item: &Item) -> Result<usize, String> {
    let most = units::count(&item.value).ok().and_then(|most| usize::try_from(most).ok());
    most.filter(|most| (1..=MOST_PARTS).contains(most)).ok_or_else(|| {
        format!("most = {} is out of range; write a number from 1 to {MOST_PARTS}", item.value)
    })
}

/// What clients choose is not where their tokens are.
pub(super) fn check_tokens(reader: &mut ConfigReader<'_>, jwt: &Jwt, routes: &[Route]) {
    let is_token =
        |name: &&str| jwt.from.iter().any(|place| *place == TokenPlace::Query((*name).into()));
    for name in routes.iter().filter_map(|route| route.streams.query()).filter(is_token) {
        let whole = reader.whole();
        let message = format!(
            "the parameter \"{name}\" is where tokens are (auth.jwt.from); choose another name"
        );
        reader.fault(whole, "route.merge_query", message);
    }
}

/// The keys name no variable that there is not; every variable of the path is used.
pub(super) fn check_variables(
    section: &mut Section<'_, '_>,
    (path, path_found): &(PathTemplate, Found),
    (streams, found): &(Streams, Found),
) {
    if let Some(query) = streams.query()
        && path.variables().any(|name| name == query)
    {
        let message = format!(
            "{{{query}}} is a variable of the path \"{path}\" already; give it another name"
        );
        section.fault(found, message);
    }
    let known = || path.variables().chain(streams.query());
    for key in streams.templates() {
        for name in key.variables().filter(|name| !known().any(|known| known == *name)) {
            let hint = did_you_mean(name, known());
            let message = format!("{{{name}}} is not a variable of the path \"{path}\"{hint}");
            section.fault(found, message);
        }
    }
    let is_used =
        |name: &str| streams.templates().any(|key| key.variables().any(|used| used == name));
    for name in path.variables().filter(|name| !is_used(name)) {
        let message =
            format!("{{{name}}} is not used in the key: all its values read the same stream");
        section.warn(path_found, message);
    }
    for key in streams.templates().filter(|key| key.is_bare()) {
        let which = match streams {
            Streams::One(_) => String::new(),
            _ => format!("the key \"{key}\" "),
        };
        let message = format!(
            "{which}consists of variables only: clients can name every Redis key of that form; begin it with a literal, as in \"events:{{name}}\""
        );
        section.warn(found, message);
    }
}
