//! Reads which entries a route's clients get: `where`, which their tokens decide, and `filter`, which they ask for.

use super::section::{Found, Section};
use crate::config::units::{self, Item, WrittenValue};
use crate::config::{
    Access, ClaimedColumn, Rows, SnapshotRule, StateTemplate, TokenPlace, is_own_parameter,
};
use crate::sse::{Column, Data};

const MAX_FILTERS: usize = 16;
const NO_RULE: &str = "not a rule; name the claim for each field, as in { tenant = \"tenants\" }, or write false for every entry";

/// What else a route says, as far as it matters here.
pub(super) struct OfRoute<'a> {
    /// `None`: it has a fault.
    pub(super) access: Option<&'a Access>,
    /// What of an entry is sent.
    pub(super) data: &'a Data,
    /// Where tokens are.
    pub(super) tokens: &'a [TokenPlace],
}

/// Reads them; where they were written comes along, for [`check_snapshot`].
pub(super) fn rows(section: &mut Section<'_, '_>, route: &OfRoute<'_>) -> (Rows, Option<Found>) {
    let (claimed, claimed_found) = section.read("where", WrittenValue::Flag(false), claimed);
    if !claimed.is_empty() && route.access == Some(&Access::Public) {
        section.fault(
            &claimed_found,
            "is for tokens, but access is \"public\"; write access = \"jwt\", or let clients choose with filter = [\"severity\"]",
        );
    }
    // Read by the key `merge_query`, which is another's.
    let merges = match section.peek("merge_query") {
        Some(WrittenValue::Text(name)) => Some(name.clone()),
        _ => None,
    };
    let is_taken =
        |name: &str| is_own_parameter(name, route.tokens) || merges.as_deref() == Some(name);
    let no_filter = WrittenValue::List(Vec::new());
    let (filters, filters_found) =
        section.read("filter", no_filter, |written| filters(written, is_taken));
    let payload = payload(section, route.data, &filters_found);
    let is_set = |found: &Found| {
        !matches!(&found.value, WrittenValue::Flag(false))
            && !matches!(&found.value, WrittenValue::List(names) if names.is_empty())
    };
    let found = [claimed_found, filters_found].into_iter().find(is_set);
    (numbered(claimed, filters, payload.as_deref()), found)
}

/// The state in a key of its own is one for everybody.
pub(super) fn check_snapshot(
    section: &mut Section<'_, '_>,
    rows: &Found,
    snapshot: &SnapshotRule,
    snapshot_found: &Found,
) {
    if matches!(snapshot.of, StateTemplate::Key(_)) {
        let message = format!(
            "would show every client the rows of all, and route.{} gives each its own; write {{ newest_by = \"id\" }}, or make the tenant a variable of path, key and snapshot in place of route.{}",
            rows.key, rows.key
        );
        section.fault(snapshot_found, message);
    }
}

/// Fields of the entry, each with its claim.
fn claimed(written: &WrittenValue) -> Result<Vec<(String, String)>, String> {
    let items = match written {
        WrittenValue::Flag(false) => return Ok(Vec::new()),
        WrittenValue::Table(items) => items,
        _ => return Err(NO_RULE.into()),
    };
    if items.is_empty() {
        return Err(
            "names no field; write one with its claim, as in { tenant = \"tenants\" }, or false for every entry".into(),
        );
    }
    let claim = |item: &Item| match &item.value {
        _ if item.name.is_empty() => {
            Err("a field of the entry has a name; write it, as in { tenant = \"tenants\" }".into())
        }
        WrittenValue::Text(claim) if !claim.is_empty() => Ok((item.name.clone(), claim.clone())),
        WrittenValue::Table(_) => Err(format!(
            "{} is not the name of a claim; write the field in quotes if it has dots, as in {{ \"a.b\" = \"tenants\" }}",
            item.value
        )),
        other => Err(format!("{other} is not the name of a claim; write it in quotes")),
    };
    items.iter().map(claim).collect()
}

/// The fields by which clients may narrow what they get.
fn filters(written: &WrittenValue, is_taken: impl Fn(&str) -> bool) -> Result<Vec<String>, String> {
    let WrittenValue::List(elements) = written else {
        return Err("not a list; write fields in brackets, as in [\"severity\", \"source\"]".into());
    };
    let names: Vec<String> =
        elements.iter().map(|(_, name)| units::field(name)).collect::<Result<_, _>>()?;
    if names.len() > MAX_FILTERS {
        return Err(format!("names {} fields; {MAX_FILTERS} are the most", names.len()));
    }
    if let Some(name) = names.iter().find(|name| is_taken(name)) {
        return Err(format!(
            "\"{name}\" in a query is the gateway's own; let producers write the field under another name"
        ));
    }
    match names.iter().enumerate().find(|&(index, name)| names[..index].contains(name)) {
        Some((_, name)) => Err(format!("names the field \"{name}\" twice; remove one")),
        None => Ok(names),
    }
}

/// The field whose JSON object has the filters' fields; `None`: they are the entry's own.
fn payload(section: &mut Section<'_, '_>, data: &Data, filters: &Found) -> Option<String> {
    let (is_payload, found) = section.word("filter_from", &[("entry", false), ("payload", true)]);
    if !is_payload {
        return None;
    }
    if matches!(&filters.value, WrittenValue::List(names) if names.is_empty()) {
        section.fault(&found, "is for filter, which this route does not have; remove it");
        return None;
    }
    let Data::Field(field) = data else {
        section.fault(
            &found,
            "the payload is the JSON object in one field, and data is not one field here; write data = \"payload\", or filter_from = \"entry\"",
        );
        return None;
    };
    Some(field.clone())
}

/// Gives each field its number; one that both name is one column, if both read it from the entry.
fn numbered(claimed: Vec<(String, String)>, filters: Vec<String>, payload: Option<&str>) -> Rows {
    let mut rows = Rows::default();
    for (field, claim) in claimed {
        rows.claims.push(ClaimedColumn { column: rows.columns.len(), claim });
        rows.columns.push(Column { field, payload: None });
    }
    for field in filters {
        let column = Column { field, payload: payload.map(ToOwned::to_owned) };
        let known = rows.columns.iter().position(|known| *known == column);
        rows.filters.push(known.unwrap_or_else(|| {
            rows.columns.push(column);
            rows.columns.len() - 1
        }));
    }
    rows
}
