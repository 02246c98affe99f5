//! How many clients, readers and pending connections there may be. Every count is a permit that gives
//! itself back on drop.
//!
//! - `bounds`: what the configuration and the open files allow
//! - `permits`: counts clients and readers, in all and by address or principal
//! - `pending`: connections that are no streams yet
//! - `rates`: entries that are published, by principal or address

mod arrivals;
mod bounds;
mod identity;
mod pending;
mod permits;
mod rates;
mod shares;
#[cfg(test)]
mod tests;

pub use bounds::{Bounds, Division, TooFewDescriptors};
pub use identity::{ClientIdentity, LimitExceeded};
pub use pending::{EvictionHandle, Pending, PendingEnd, PendingSlot};
pub use permits::{BodyPermit, Limits, Permit};
pub use rates::{Holder, Rates};
pub use shares::Share;
