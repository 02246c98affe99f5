//! Reads which state a route's clients get before its entries.

use super::section::{Found, Section};
use crate::config::diagnostics::did_you_mean;
use crate::config::units::{self, WrittenValue};
use crate::config::{KeyTemplate, PathTemplate, SnapshotRule, StateTemplate};

const DEFAULT_AGE: &str = "1s";
const DEFAULT_MAX: &str = "8MiB";
const WRITE: &str = "write the Redis key of the state, as in \"state:{name}\", { newest_by = \"id\" } for the newest entry of each, or false";

/// `None`: the route gives none.
pub(super) fn snapshot(
    section: &mut Section<'_, '_>,
    is_embedded: bool,
) -> Option<(SnapshotRule, Found)> {
    let (of, found) = section.read("snapshot", WrittenValue::Flag(false), state);
    let (max_age, age_found) = section.duration_found("snapshot_age", DEFAULT_AGE, "0s", "1h");
    let (max_bytes, max_found) = section.size_bytes("snapshot_max", DEFAULT_MAX, "1KiB", "32MiB");
    if found.value == WrittenValue::Flag(false) {
        let is_default = Ok(max_age) == units::duration(&DEFAULT_AGE.into());
        check_used(section, &age_found, is_default);
        check_used(section, &max_found, Ok(max_bytes) == units::size_bytes(&DEFAULT_MAX.into()));
        return None;
    }
    if matches!(of, Some(StateTemplate::Key(_))) && is_embedded {
        section.fault(
            &found,
            "the embedded source has streams, and no other keys; write { newest_by = \"id\" }",
        );
    }
    of.map(|of| (SnapshotRule { of, max_age, max_bytes }, found))
}

fn state(written: &WrittenValue) -> Result<Option<StateTemplate>, String> {
    match written {
        WrittenValue::Flag(false) => Ok(None),
        WrittenValue::Text(text) => {
            let key = KeyTemplate::parse(text).map_err(|bad| bad.to_string())?;
            Ok(Some(StateTemplate::Key(key)))
        }
        WrittenValue::Table(items) => match &items[..] {
            [item] if item.name == "newest_by" => {
                units::field(&item.value).map(|field| Some(StateTemplate::NewestBy(field)))
            }
            _ => Err(format!("takes newest_by and nothing else; {WRITE}")),
        },
        _ => Err(format!("does not say where the state is; {WRITE}")),
    }
}

fn check_used(section: &mut Section<'_, '_>, found: &Found, is_default: bool) {
    if !is_default {
        section.fault(found, "is for snapshot, which this route does not have; remove it");
    }
}

/// The key of the state names no variable that the path does not have.
pub(super) fn check_variables(
    section: &mut Section<'_, '_>,
    found: &Found,
    rule: &SnapshotRule,
    path: &PathTemplate,
) {
    let StateTemplate::Key(key) = &rule.of else { return };
    let unknown = key.variables().filter(|name| !path.variables().any(|known| known == *name));
    for name in unknown {
        let hint = did_you_mean(name, path.variables());
        let message = format!("{{{name}}} is not a variable of the path \"{path}\"{hint}");
        section.fault(found, message);
    }
}

/// In a cluster the state and its stream are in one slot: their keys have one hash tag, or are one key's.
pub(super) fn check_slot(
    section: &mut Section<'_, '_>,
    found: &Found,
    rule: &SnapshotRule,
    stream: &KeyTemplate,
    path: &PathTemplate,
) {
    let StateTemplate::Key(state) = &rule.of else { return };
    // Each variable has a value of its own.
    let variables: Vec<_> =
        path.variables().map(|name| (name.to_owned(), format!("a-{name}"))).collect();
    let known = |key: &KeyTemplate| {
        key.variables().all(|name| variables.iter().any(|(known, _)| known == name))
    };
    if !known(stream) || !known(state) {
        return;
    }
    let keys = [stream, state].map(|template| template.key(&variables));
    if hashed(&keys[0]) != hashed(&keys[1]) {
        let message = format!(
            "is not in one slot with route.key = \"{stream}\", and a cluster reads both in one transaction only there; give both one hash tag, as in \"events:{{{{{{name}}}}}}\" and \"state:{{{{{{name}}}}}}\" (a brace in a key is written twice)"
        );
        section.fault(found, message);
    }
}

/// What decides the slot of a key: its hash tag, or all of it.
fn hashed(key: &str) -> &str {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty()).unwrap_or(key)
}
