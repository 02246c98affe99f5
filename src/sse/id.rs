//! The id of a stream entry, which is also the last event id of a client that has the entry.

use std::fmt;
use std::str::FromStr;

/// The id of a stream entry: milliseconds, and a counter within the millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds since the Unix epoch, if the producer let Redis choose the id.
    pub ms: u64,
    /// Counter within the millisecond.
    pub seq: u64,
}

impl StreamId {
    /// Before every entry: no entry has this id.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };

    /// The id one less; of zero, zero.
    #[must_use]
    pub fn prev(self) -> Self {
        match (self.ms, self.seq) {
            (0, 0) => self,
            (ms, 0) => Self { ms: ms - 1, seq: u64::MAX },
            (ms, seq) => Self { ms, seq: seq - 1 },
        }
    }

    /// The id one greater; `None` after the greatest.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => self.ms.checked_add(1).map(|ms| Self { ms, seq: 0 }),
        }
    }

    /// Reads an id of a query, which may be short: `5` means `5-0`.
    pub fn parse_short(text: &str) -> Result<Self, NotAnId> {
        if text.contains('-') { text.parse() } else { Ok(Self { ms: decimal(text)?, seq: 0 }) }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// The text is not a stream id: `u64-u64` in canonical decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a stream id: expected two decimal numbers below 2^64 without leading zeros, as in 1700000000000-0"
)]
pub struct NotAnId;

impl FromStr for StreamId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (ms, seq) = text.split_once('-').ok_or(NotAnId)?;
        Ok(Self { ms: decimal(ms)?, seq: decimal(seq)? })
    }
}

/// A `u64` in canonical decimal: digits only, no sign, no leading zero.
fn decimal(text: &str) -> Result<u64, NotAnId> {
    let canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().map_err(|_| NotAnId) } else { Err(NotAnId) }
}
