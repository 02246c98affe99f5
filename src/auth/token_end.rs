//! When the token of a stream ends.

use std::time::{Duration, Instant};

/// The end of a stream's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenEnd {
    /// When.
    pub at: Instant,
    /// When the client gets its one warning.
    pub warn: Option<Instant>,
}

impl TokenEnd {
    /// The end of a token that lasts for so long, with a warning `warn` before it (zero: none).
    pub fn after(lasts: Duration, warn: Duration) -> Self {
        let now = Instant::now();
        let warned = now + lasts.saturating_sub(warn);
        Self { at: now + lasts, warn: (!warn.is_zero()).then_some(warned) }
    }
}
