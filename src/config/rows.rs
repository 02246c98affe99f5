//! Which entries of a stream the clients of a route get, where not each of them gets all.

use std::sync::Arc;

use super::{Route, TokenPlace};
use crate::sse::{Column, Rendering};

/// By which fields the clients of a route are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// The fields; each has its number by its place here.
    pub columns: Vec<Column>,
    /// Columns that have to equal a claim of the token, or be an element of it.
    pub claims: Vec<ClaimedColumn>,
    /// The numbers of the columns by which a client may narrow what it gets.
    pub filters: Vec<usize>,
}

/// A column that has to equal a claim of the token, or be an element of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedColumn {
    /// The column's number.
    pub column: usize,
    /// The claim; dots lead into objects (`org.id`), unless a claim has the whole name.
    pub claim: String,
}

impl Rows {
    /// The names by which a client may narrow what it gets, each with its column's number.
    pub fn filter_names(&self) -> impl Iterator<Item = (&str, usize)> {
        self.filters.iter().map(|column| (self.columns[*column].field.as_str(), *column))
    }
}

impl Route {
    /// What it makes of an entry, for a client that gets every entry or only a selection.
    pub fn rendering(&self, selects: bool) -> &Arc<Rendering> {
        self.rules.rendering_for(selects)
    }
}

/// Whether a parameter of a query has a meaning on every route, where tokens are in these places.
pub fn is_own_parameter(name: &str, tokens: &[TokenPlace]) -> bool {
    let is_token = |place: &TokenPlace| matches!(place, TokenPlace::Query(own) if own == name);
    matches!(name, "last" | "since") || is_last_event_id(name) || tokens.iter().any(is_token)
}

/// Clients write the name in many ways: `last_event_id`, `lastEventId`, `Last-Event-ID`.
pub fn is_last_event_id(name: &str) -> bool {
    let letters = name.bytes().filter(|byte| !b"-_".contains(byte));
    letters.map(|byte| byte.to_ascii_lowercase()).eq(*b"lasteventid")
}
