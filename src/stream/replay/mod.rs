//! Backfill: reads of a stream's past, and of its state, few at once, each shared by all subscribers that are near one
//! another.

mod bounds;
mod folded;
mod page;
mod recent;
mod replays;
mod single_flight;
mod snapshot;
mod states;

pub use bounds::{PAGES_BYTES, STATES_BYTES};
pub use page::{Opened, Page};
pub use replays::Replays;
pub use snapshot::Snapshot;
