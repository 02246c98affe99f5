//! Whether a server may be believed: what the primary says, and replicas that have lost theirs.

mod orphans;
mod primary;

pub(super) use orphans::{Orphans, PATIENCE};
