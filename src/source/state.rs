//! How large the state beside a stream is, before it is read.

/// What the key of a state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// There is no such key.
    Missing,
    /// A string.
    Text,
    /// A JSON document, where the server has them.
    Json,
    /// A hash.
    Hash,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    SortedSet,
}

/// How large a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSize {
    /// What its key holds.
    pub kind: StateKind,
    /// Its text has at least so many bytes.
    pub text_bytes: usize,
    /// It takes about so much memory when it is read, as far as the server tells.
    pub memory_bytes: usize,
}
