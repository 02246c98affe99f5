//! Entries to add to a stream, and what becomes of them.

use std::time::Duration;

use bytes::Bytes;

use super::Error;

/// The fields of an entry: names and values, at least one.
pub type Fields = Vec<(Bytes, Bytes)>;

/// Entries to add to one stream: all of them, side by side, or none.
#[derive(Clone, Debug)]
pub struct Addition<'a> {
    /// The stream key.
    pub key: &'a str,
    /// The entries, at least one, in their order.
    pub entries: Vec<Fields>,
    /// What the stream is trimmed to, about; zero: it is not trimmed.
    pub maxlen: usize,
    /// The key's time to live from then on; `None`: it stays as it is.
    pub expire: Option<Duration>,
    /// Added only once under this name.
    pub once: Option<Once<'a>>,
}

/// What tells an entry that is sent again (`XADD … IDMP`).
#[derive(Clone, Copy, Debug)]
pub struct Once<'a> {
    /// Who sends it: the names of two producers do not meet.
    pub producer: &'a str,
    /// The producer's name for the entry.
    pub name: &'a str,
}

impl<'a> Addition<'a> {
    /// One entry with one field, `payload`, to a stream that is not trimmed.
    pub fn of(key: &'a str, payload: impl Into<Bytes>) -> Self {
        let entries = vec![vec![(Bytes::from_static(b"payload"), payload.into())]];
        Self { key, entries, maxlen: 0, expire: None, once: None }
    }

    /// The same entries, where the stream is trimmed to about so many.
    #[must_use]
    pub fn trimmed_to(self, maxlen: usize) -> Self {
        Self { maxlen, ..self }
    }
}

/// Why nothing is known to be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// Nothing was written.
    #[error("{0}")]
    NotWritten(#[from] Error),
    /// The server does not know [`Once`]; nothing was written.
    #[error("entries are told apart from Redis 8.6 on (XADD IDMP), and this server does not do so")]
    NotOnce,
    /// The request was sent, and its answer was lost or did not come in time: it may have been carried out.
    #[error("whether it was carried out is not known: {0}")]
    Unknown(Error),
}
