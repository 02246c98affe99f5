//! One stream key that somebody reads: its reader, its ring, and reads of its past.

mod batch;
mod catchup_positions;
mod conflation;
pub mod continuity;
mod ends;
mod hub;
mod item;
pub mod reader;
mod renderings;
pub mod replay;
mod ring;
mod rows;
mod selections;
mod sizes;
pub mod start;
mod status;
mod topic;
mod view;

pub use batch::{Batch, Unsent};
pub use catchup_positions::{CatchUpPosition, CatchUpRegistry};
pub use conflation::{FieldValue, NewestItems};
pub use ends::{Ends, StreamEnd};
pub use hub::{Hub, Lease, TooManyReaders};
pub use item::Item;
pub use renderings::Renderings;
pub use ring::{Ring, RingLookup};
pub use selections::{Selections, TooManySelections};
pub use sizes::Sizes;
pub use status::{ConnectionStatus, ReadFailure, ReaderStatus};
pub use topic::{Pushed, ReaderState, Topic, TopicState};
pub use view::View;
