//! Reading entries in bulk, with replies that are limited while they arrive: readers do it over connections
//! of their own, catch-up subscribers page by page.

mod connection;
mod looks;
mod pages;
mod reads;
mod xread;

pub(in crate::source) use connection::ReaderConnection;
pub(super) use connection::is_redirection;
pub(super) use looks::Looks;
pub use pages::LOOK_BACK_BYTES;
pub(super) use reads::{Reads, UNASKED_PAUSE, seen, unless_replaced};
#[cfg(any(test, fuzzing))]
pub use xread::fuzz_reply;
