//! Which stream keys a route reads: one, or several on one stream.

use std::sync::Arc;

use super::{KeyTemplate, Route, StreamRules};
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

    /// What becomes of the entries of the parts that the route names, where the types of events begin with the name.
    pub fn named_renderings(&self, of_part: &StreamRules) -> Vec<Arc<Rendering>> {
        let Self::Merged(parts) = self else { return Vec::new() };
        let named = |NamedKey { name, .. }: &NamedKey| {
            [false, true].map(|selects| named(name, of_part.rendering_for(selects)))
        };
        parts.iter().flat_map(named).collect()
    }

    /// The variable that clients choose in the query.
    pub fn query(&self) -> Option<&str> {
        if let Self::Chosen { query, .. } = self { Some(query) } else { None }
    }
}

impl Route {
    /// What it makes of an entry of the part with this name, for a client that gets every entry or only a selection.
    pub fn part_rendering(&self, name: &str, selects: bool) -> Arc<Rendering> {
        let rendering = self.part_rules.rendering_for(selects);
        if !self.names_parts {
            return rendering.clone();
        }
        let is_it = |made: &&Arc<Rendering>| {
            made.stream.as_deref() == Some(name) && made.columns == rendering.columns
        };
        // Clients may choose any name.
        self.named.iter().find(is_it).cloned().unwrap_or_else(|| named(name, rendering))
    }

    /// Whether it makes this of an entry, for one client or another.
    pub fn makes(&self, rendering: &Rendering) -> bool {
        let made = |selects: &bool| match (&self.streams, &rendering.stream) {
            (Streams::One(_), _) => self.rendering(*selects).clone(),
            (_, name) => self.part_rendering(name.as_deref().unwrap_or_default(), *selects),
        };
        [false, true].iter().any(|selects| *made(selects) == *rendering)
    }
}

fn named(name: &str, rendering: &Rendering) -> Arc<Rendering> {
    Arc::new(Rendering { stream: Some(name.to_owned()), ..rendering.clone() })
}

/// Whether a part may have this name.
pub fn is_part_name(name: &str) -> bool {
    let may_be_in = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(may_be_in)
}
