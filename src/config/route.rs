//! A route: what matches, what clients read there, and who they may be.

use std::sync::Arc;

use hyper::HeaderMap;

use super::publish::Publish;
use super::{Absent, Access, Ended, PathTemplate, RouteStart, Rows, StreamRules, Streams};
use crate::sse::Rendering;

/// `[[route]]`: a path template, and what clients read there.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// What matches.
    pub path: PathTemplate,
    /// What it reads.
    pub streams: Streams,
    /// Who may read it.
    pub access: Access,
    /// Who may add entries; `None`: nobody.
    pub publish: Option<Publish>,
    /// Entries a client may ask back for.
    pub replay: Replay,
    /// Where a client begins that names no beginning.
    pub start: RouteStart,
    /// What a client gets for a key that is not there.
    pub absent: Absent,
    /// What a client gets that comes back at or past the end of its stream.
    pub ended: Ended,
    /// Further headers of its streams' responses.
    pub headers: Arc<HeaderMap>,
    /// How its streams speak and end.
    pub rules: Arc<StreamRules>,
    /// The same for the parts of a merged stream.
    pub part_rules: Arc<StreamRules>,
    /// Whether the type of an event begins with the name of its part (`chat.message`).
    pub names_parts: bool,
    /// Then what it makes of the entries of each part that it names itself.
    pub named: Vec<Arc<Rendering>>,
    /// Which entries its clients get, where not each of them gets all.
    pub rows: Rows,
}

/// Entries a client may ask back for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replay {
    /// At most so many; zero: live only.
    Newest(u64),
    /// Everything that the stream still holds.
    All,
}

impl Replay {
    /// How many entries these are at most.
    pub fn most(self) -> u64 {
        if let Self::Newest(most) = self { most } else { u64::MAX }
    }
}
