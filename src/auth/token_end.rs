//! When the token ends that a stream was opened with.

use std::time::{Duration, Instant};

/// The end of the token that a stream was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenEnd {
    /// When.
    pub at: Instant,
    /// When the client is to be told, once.
    pub warn: Option<Instant>,
}

impl TokenEnd {
    /// A token that lasts for so long, and is told of `warn` before its end (zero: not at all).
    pub fn after(lasts: Duration, warn: Duration) -> Self {
        let now = Instant::now();
        let told = now + lasts.saturating_sub(warn);
        Self { at: now + lasts, warn: (!warn.is_zero()).then_some(told) }
    }
}
