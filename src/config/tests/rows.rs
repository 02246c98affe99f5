//! `where`, `filter` and `filter_from` of a route: what they are read as, and each fault of them.

use super::refused::{assert_told, told};
use super::*;
use crate::sse::Column;

/// A configuration whose tokens may be in the query as `auth`, with `lines` in a route for tokens.
fn with_tokens(name: &str, lines: &str) -> Result<Loaded, Faults> {
    let secret = scratch_file(name, &[b'x'; 64]);
    let keys = format!(
        "[auth.jwt]\nkeys = [{{ alg = \"HS256\", secret_file = {:?} }}]\nfrom = [\"header\", \"query:auth\"]",
        secret.to_str().unwrap()
    );
    let route = MINIMAL.replace("\"public\"", "\"jwt\"\nmatch = \"any\"");
    let loaded = parse(&format!("{keys}{route}{lines}\n"), "gateway.toml", &[], false);
    remove(&secret);
    loaded
}

fn rows(loaded: Result<Loaded, Faults>) -> Rows {
    loaded.unwrap_or_else(|faults| panic!("{faults}")).config.routes[0].rows.clone()
}

fn column(field: &str, payload: Option<&str>) -> Column {
    Column { field: field.into(), payload: payload.map(Into::into) }
}

fn claim(column: usize, claim: &str) -> ClaimedColumn {
    ClaimedColumn { column, claim: claim.into() }
}

#[test]
fn every_client_gets_every_entry_unless_a_route_says_otherwise() {
    assert_eq!(rows(with_route("")), Rows::default());
    let nothing = "where = false\nfilter = []\nfilter_from = \"entry\"";
    assert_eq!(rows(with_route(nothing)), Rows::default());
}

#[test]
fn the_fields_of_where_come_first_and_one_that_is_a_filter_too_is_one_column() {
    let read = rows(with_tokens(
        "rows-both",
        "where = { tenant = \"tenants\", \"a.b\" = \"org.id\" }\nfilter = [\"severity\", \"tenant\"]",
    ));
    let place = |field: &str| read.columns.iter().position(|column| column.field == field).unwrap();
    let (tenant, dotted) = (place("tenant"), place("a.b"));
    assert_eq!((tenant + dotted, read.columns.len()), (1, 3));
    assert_eq!(read.columns[2], column("severity", None));
    assert!(read.claims.contains(&claim(tenant, "tenants")));
    assert!(read.claims.contains(&claim(dotted, "org.id")));
    assert_eq!(read.filters, [2, tenant]);
    let named: Vec<_> = read.filter_names().collect();
    assert_eq!(named, [("severity", 2), ("tenant", tenant)]);
}

#[test]
fn filters_of_the_payload_are_columns_of_their_own() {
    let read = rows(with_tokens(
        "rows-payload",
        "where = { tenant = \"sub\" }\nfilter = [\"tenant\"]\nfilter_from = \"payload\"\ndata = \"body\"",
    ));
    assert_eq!(read.columns, [column("tenant", None), column("tenant", Some("body"))]);
    assert_eq!((read.claims, read.filters), (vec![claim(0, "sub")], vec![1]));
}

#[test]
fn what_is_wrong_is_told_where_it_stands() {
    let names: Vec<_> = (0..17).map(|number| format!("\"f{number}\"")).collect();
    let many = format!("filter = [{}]", names.join(", "));
    for (lines, told) in [
        (
            "where = { tenant = \"sub\" }",
            "8:9: route.where = { tenant = \"sub\" }: is for tokens, but access is \"public\"; write access = \"jwt\"",
        ),
        ("where = {}", "8:9: route.where = {}: names no field; write one with its claim"),
        ("where = \"tenant\"", "8:9: route.where = \"tenant\": not a rule; name the claim"),
        ("where = true", "8:9: route.where = true: not a rule"),
        (
            "where = { tenant = 1 }",
            "8:9: route.where = { tenant = 1 }: 1 is not the name of a claim; write it in quotes",
        ),
        ("where = { tenant = \"\" }", "8:9: route.where = { tenant = \"\" }: \"\" is not the name"),
        ("where = { tenant = [\"a\"] }", "8:9: route.where = { tenant = [\"a\"] }: [\"a\"] is not"),
        (
            "where = { a.b = \"sub\" }",
            "8:9: route.where = { a = { b = \"sub\" } }: { b = \"sub\" } is not the name of a claim; write the field in quotes if it has dots",
        ),
        (
            "where = { \"\" = \"sub\" }",
            "8:9: route.where = { \"\" = \"sub\" }: a field of the entry",
        ),
        (
            "filter = \"severity\"",
            "8:10: route.filter = \"severity\": not a list; write fields in brackets",
        ),
        ("filter = [1]", "8:10: route.filter = [1]: not an entry's field; write its name"),
        ("filter = [\"\"]", "8:10: route.filter = [\"\"]: not an entry's field"),
        (
            "filter = [\"a\", \"b\", \"a\"]",
            "8:10: route.filter = [\"a\", \"b\", \"a\"]: names the field \"a\" twice",
        ),
        (&many, "8:10: route.filter = [\"f0\""),
        (
            "filter = [\"last\"]",
            "8:10: route.filter = [\"last\"]: \"last\" in a query is the gateway's own; let producers",
        ),
        ("filter = [\"since\"]", "8:10: route.filter = [\"since\"]: \"since\" in a query is"),
        (
            "filter = [\"lastEventId\"]",
            "8:10: route.filter = [\"lastEventId\"]: \"lastEventId\" in",
        ),
        (
            "filter = [\"LAST-event_id\"]",
            "8:10: route.filter = [\"LAST-event_id\"]: \"LAST-event_id\"",
        ),
        (
            "filter_from = \"payload\"",
            "8:15: route.filter_from = \"payload\": is for filter, which this route does not have",
        ),
        (
            "filter_from = \"data\"",
            "8:15: route.filter_from = \"data\": unknown; write \"entry\" or \"payload\"",
        ),
        (
            "data = \"*\"\nfilter = [\"a\"]\nfilter_from = \"payload\"",
            "10:15: route.filter_from = \"payload\": the payload is the JSON object in one field, and data is not one field here; write data = \"payload\"",
        ),
        (
            "data = [\"a\", \"b\"]\nfilter = [\"a\"]\nfilter_from = \"payload\"",
            "10:15: route.filter_from = \"payload\": the payload is",
        ),
        (
            "filter = [\"a\"]\nsnapshot = \"state:{name}\"",
            "9:12: route.snapshot = \"state:{name}\": would show every client the rows of all, and route.filter gives each its own; write { newest_by = \"id\" }",
        ),
    ] {
        assert_told(with_route(lines), &format!("gateway.toml:{told}"));
    }
    assert!(told(with_route(&many)).contains("names 17 fields; 16 are the most"));
}

#[test]
fn the_place_of_a_token_is_no_filter_and_a_state_for_everybody_no_rows_of_a_token() {
    let refused = told(with_tokens("rows-query", "filter = [\"auth\"]"));
    assert!(refused.contains("\"auth\" in a query is the gateway's own"), "{refused}");
    assert!(with_route("filter = [\"auth\"]").is_ok(), "no token is looked for there");
    let state = "where = { tenant = \"sub\" }\nsnapshot = ";
    let refused = told(with_tokens("rows-state", &format!("{state}\"state:{{name}}\"")));
    assert!(refused.contains("and route.where gives each its own"), "{refused}");
    assert!(with_tokens("rows-newest", &format!("{state}{{ newest_by = \"id\" }}")).is_ok());
}

#[test]
fn they_may_stand_in_the_environment_and_are_printed() {
    let routes = "[{ path = \"/e\", key = \"e\", access = \"public\", filter = [\"severity\"], filter_from = \"payload\" }]";
    let pairs = env(&[("SSEGATE_ROUTES", routes)]);
    let loaded = parse(MINIMAL, "gateway.toml", &pairs, false).unwrap();
    assert_eq!(loaded.config.routes[0].rows.columns, [column("severity", Some("payload"))]);
    let printed = print::print(&loaded);
    for line in ["where = false", "filter = [\"severity\"]", "filter_from = \"payload\""] {
        assert!(printed.contains(line), "{printed}");
    }
}

#[test]
fn a_stream_key_has_room_for_one_selection_at_least() {
    let with = |count: &str| {
        let limits = format!("[limits]\nselections_per_key = {count}\n");
        parse(&format!("{limits}{MINIMAL}"), "gateway.toml", &[], false)
    };
    assert_eq!(read(MINIMAL).config.limits.selections_per_key, 10_000);
    assert_eq!(with("1").unwrap().config.limits.selections_per_key, 1);
    let begin =
        "gateway.toml:2:22: limits.selections_per_key = 0: out of range; write a value from 1";
    assert_told(with("0"), begin);
}
