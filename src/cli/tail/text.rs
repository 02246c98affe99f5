//! What `tail` prints: addresses, event data without control characters, lags.

use std::time::{SystemTime, UNIX_EPOCH};

use url::{Position, Url};

use crate::sse::StreamId;

/// Ids below this (2001-09-09) are no clock times, so they have no lag.
const FIRST_CLOCK_MS: u64 = 1_000_000_000_000;

/// `HOST:PORT`, as in the `Host` header.
pub(super) fn authority(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}

/// One line without control characters, which could control a terminal.
pub(super) fn printable(text: &str) -> String {
    let escaped =
        |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// How long ago the entry got its id, by the clocks of its producer and of this machine.
pub(super) fn lag_ms(id: &str, now: SystemTime) -> Option<i128> {
    let id: StreamId = id.parse().ok()?;
    if id.ms < FIRST_CLOCK_MS {
        return None;
    }
    let now = now.duration_since(UNIX_EPOCH).ok()?.as_millis();
    Some(i128::try_from(now).ok()? - i128::from(id.ms))
}

pub(super) fn in_words(lag_ms: i128) -> String {
    match lag_ms {
        ..10_000 => format!("{lag_ms:+}ms"),
        10_000..600_000 => format!("{:+}s", lag_ms / 1000),
        600_000..172_800_000 => format!("{:+}min", lag_ms / 60_000),
        _ => format!("{:+}d", lag_ms / 86_400_000),
    }
}
