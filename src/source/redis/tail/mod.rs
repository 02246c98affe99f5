//! All that streams depend on: reading entries and asking for the state of streams, over links of our own.
//!
//! - [`client`]: one connection to one server, which speaks RESP2.
//! - [`topology`]: which server to ask: the one, or what sentinels or a cluster name.
//! - [`pool`]: a few shared connections to each server.
//! - [`login_refusals`]: servers that let nobody in.
//! - [`routing`]: [`Tail`] itself, which sends a request to the server that holds a key.
//! - [`primary_snapshot`]: what a replica says, checked against its primary; [`orphaned_replicas`]: replicas
//!   that have lost theirs.
//! - [`cut_looks`]: streams at which no look succeeds.
//! - [`health`]: whether Redis does what readers need of it.
//! - [`holes`]: whether a server may have trimmed entries from the middle of a stream.
//! - [`reading`]: all that reads entries in bulk, the gateway's hot path: the connection that each reader
//!   has for itself, and pages of a stream's past.
//! - [`seats`]: which readers have a connection of their own; [`sharing`]: how the others share some.
//! - [`states`]: the state beside a stream.
//! - [`questions`]: everything else that is asked of a stream.

mod client;
mod cut_looks;
mod health;
mod holes;
mod login_refusals;
mod orphaned_replicas;
mod pool;
mod primary_snapshot;
mod questions;
mod reading;
mod routing;
mod seats;
mod sharing;
mod states;
mod topology;

pub use pool::SHARED_LINKS;
pub use reading::LOOK_BACK_BYTES;
pub(in crate::source) use reading::ReaderConnection;
#[cfg(any(test, fuzzing))]
pub use reading::fuzz_reply;
pub use routing::LARGE_REPLIES;
pub(in crate::source) use routing::Tail;
pub(in crate::source) use sharing::{ReaderLink, SharedReader, connect};
