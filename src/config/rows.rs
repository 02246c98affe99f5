//! Which entries of a stream the clients of a route get, where not each of them gets all.

use crate::sse::Column;

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
    /// The claim; dots lead into objects (`org.id`).
    pub claim: String,
}
