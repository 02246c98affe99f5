//! What a route says of publishing: who may add entries, which, and how many.

use std::time::Duration;

use super::Access;

/// `publish` of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Who may publish; it is apart from who may read.
    pub access: Access,
    /// What becomes of a body.
    pub fields: BodyFields,
    /// The largest entry, as it is sent.
    pub max_bytes: usize,
    /// How many entries a principal may publish, or an address where there is none; `None`: any number.
    pub rate: Option<Rate>,
    /// What the stream is trimmed to, about; zero: it is not trimmed.
    pub maxlen: usize,
    /// The key's time to live after an entry; `None`: it stays as it is.
    pub expire: Option<Duration>,
}

/// What becomes of the body of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFields {
    /// The field `payload`, as it is.
    Payload,
    /// The members of a JSON object become fields.
    Json,
}

/// So many entries in each of these times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub entries: u32,
    /// The time.
    pub per: Duration,
}

/// The longest body of several entries, unless one alone may be larger.
const SEVERAL_BYTES: usize = 8 << 20;
/// The most entries of one request.
pub const MOST_ENTRIES: usize = 1000;

impl Publish {
    /// The longest body of several entries: as many as there may be, each with a line feed, within 8 MiB.
    pub fn several_bytes(&self) -> usize {
        several_bytes(self.max_bytes)
    }
}

/// The same where an entry may have so many.
pub fn several_bytes(max_bytes: usize) -> usize {
    let all = (max_bytes + 1).saturating_mul(MOST_ENTRIES);
    all.min(SEVERAL_BYTES).max(max_bytes + 1)
}
