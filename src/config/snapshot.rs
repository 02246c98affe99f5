//! The state that a route's clients get before its entries.

use std::time::Duration;

use super::KeyTemplate;

/// Which state a route gives, and what it may cost.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotRule {
    /// Where the state is.
    pub of: StateTemplate,
    /// A state that was read so long ago is given to no further client.
    pub max_age: Duration,
    /// A larger state is not given at all.
    pub max_bytes: usize,
}

/// Where the state of a stream is.
#[derive(Clone, Debug, PartialEq)]
pub enum StateTemplate {
    /// In a Redis key of its own.
    Key(KeyTemplate),
    /// In the stream itself: the newest entry for each value of this field.
    NewestBy(String),
}

/// The state of one stream, which many clients ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StateQuery {
    /// Where it is.
    pub of: StateOf,
    /// A state that was read so long ago is given to no further client.
    pub max_age: Duration,
    /// A larger state is not given at all.
    pub max_bytes: usize,
}

/// Where one state is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StateOf {
    /// In this Redis key.
    Key(String),
    /// In the stream itself: the newest entry for each value of this field.
    NewestBy(String),
}

impl SnapshotRule {
    /// The state for a path with these variables.
    pub fn query(&self, variables: &[(String, String)]) -> StateQuery {
        let of = match &self.of {
            StateTemplate::Key(key) => StateOf::Key(key.key(variables)),
            StateTemplate::NewestBy(field) => StateOf::NewestBy(field.clone()),
        };
        StateQuery { of, max_age: self.max_age, max_bytes: self.max_bytes }
    }
}
