//! One stream key that somebody reads: its reader, its ring, and reads of its past.

mod batch;
mod catchup;
pub mod continuity;
mod hub;
pub mod reader;
pub mod replay;
mod ring;
mod sizes;
pub mod start;
mod status;
mod topic;

pub use batch::{Batch, Item};
pub use catchup::{Follower, Followers};
pub use hub::{Hub, Lease, TooManyReaders};
pub use ring::{Found, Ring};
pub use sizes::{Sizes, count_for};
pub use status::{Account, Failure};
pub use topic::{Reader, State, Topic};
