//! What one client gets of a topic.

use crate::sse::Selection;

/// What one client gets of a topic: some of its entries, in one of its renderings.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The number of the rendering.
    pub rendering: usize,
    /// Which entries; `None`: all.
    pub selection: Option<&'a Selection>,
}
