//! Who may read what: tokens, the keys that verify them, and what each stream was admitted by.
//!
//! - `gate`: admits a request to a route, or says why not
//! - `token`: finds the token in a request; [`cookies`]: whether a cookie counts; [`host`]: which host it is for
//! - `keyring`, `key_set`, `fetch`: verify its signature, with keys from files or from addresses
//! - `claims`: hold its claims against the rules and the path
//! - [`grant`]: what a stream was admitted by, for as long as it runs

mod claims;
pub mod cookies;
mod denied;
mod fetch;
mod gate;
pub mod grant;
pub mod host;
mod key_set;
mod keyring;
#[cfg(test)]
mod tests;
mod token;
mod token_end;

pub use denied::Denied;
pub use gate::{Admission, Gate};
pub use key_set::KeysAway;
pub use token_end::TokenEnd;
