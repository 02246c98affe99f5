//! Which stream keys a route reads: one, or several on one stream.

use std::sync::Arc;

use super::{KeyTemplate, Route};
use crate::sse::Rendering;

/// Which stream keys a route reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Streams {
    /// One.
    One(KeyTemplate),
    /// All of these, on one stream.
    Merged(Vec<NamedKey>),
    /// Those that the client chooses, on one stream.
    Chosen {
        /// The parameter of the query that names one; it is a variable of the key.
        query: String,
        /// The key of each.
        key: KeyTemplate,
        /// How many a client may choose.
        most: usize,
    },
}

/// A part of a merged stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedKey {
    /// What clients call it.
    pub name: String,
    /// Its stream key.
    pub key: KeyTemplate,
}

impl Streams {
    /// The only key of a route that merges nothing.
    pub fn one(&self) -> Option<&KeyTemplate> {
        if let Self::One(key) = self { Some(key) } else { None }
    }

    /// Every key.
    pub fn templates(&self) -> impl Iterator<Item = &KeyTemplate> {
        let (one, parts): (_, &[NamedKey]) = match self {
            Self::One(key) | Self::Chosen { key, .. } => (Some(key), &[]),
            Self::Merged(parts) => (None, parts),
        };
        one.into_iter().chain(parts.iter().map(|part| &part.key))
    }

    /// Whether some values of the variables make one of them this key.
    pub fn may_be(&self, key: &str) -> bool {
        self.templates().any(|template| template.may_be(key))
    }

    /// The variable that clients choose in the query.
    pub fn query(&self) -> Option<&str> {
        if let Self::Chosen { query, .. } = self { Some(query) } else { None }
    }
}

impl Route {
    /// What it makes of an entry of the part with this name, for a client that gets every entry or only a selection.
    pub fn part_rendering(&self, name: &str, selects: bool) -> Arc<Rendering> {
        let stream = self.names_parts.then(|| name.to_owned());
        let controls = self.part_rules.controls();
        Arc::new(Rendering { stream, controls, ..(*self.rendering(selects)).clone() })
    }

    /// Whether it makes this of an entry, for one client or another.
    pub fn makes(&self, rendering: &Rendering) -> bool {
        let made = |selects: &bool| match (&self.streams, &rendering.stream) {
            (Streams::One(_), _) => self.rendering(*selects),
            // Clients may choose any name.
            (_, name) => self.part_rendering(name.as_deref().unwrap_or_default(), *selects),
        };
        [false, true].iter().any(|selects| *made(selects) == *rendering)
    }
}

/// Whether a part may have this name.
pub fn is_part_name(name: &str) -> bool {
    let may_be_in = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(may_be_in)
}
