//! Reading entries in bulk, with replies that are limited while they arrive: readers do it over connections
//! of their own, catch-up subscribers page by page.

mod connection;
mod looks;
mod pages;
mod xread;

pub(in crate::source) use connection::ReaderConnection;
pub use pages::LOOK_BACK_BYTES;
#[cfg(any(test, fuzzing))]
pub use xread::fuzz_reply;
