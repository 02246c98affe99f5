//! Backfill: reads of a stream's past, few at once, each shared by all subscribers that are near one another.

mod bounds;
mod page;
mod recent;
mod replays;
mod single_flight;

pub use bounds::PAGES_BYTES;
pub use page::{Opened, Page};
pub use replays::Replays;
