//! One entry of a Redis Stream, as a read found it.

use bytes::Bytes;

use super::StreamId;

/// What each part of an entry takes in memory besides its bytes. The parts are its id, its list of fields, the
/// entry itself, each name and each value: 40 bytes each, in a list that may have just doubled its capacity.
pub const PART_BYTES: usize = 96;

/// One entry of a Redis Stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id within the stream.
    pub id: StreamId,
    /// Names and values, in Redis' order; a name may repeat. None: the entry could not be read, for every entry
    /// was added with a field.
    pub fields: Vec<(Bytes, Bytes)>,
}

impl Entry {
    /// Whether the source gave it in a form that can be read.
    pub fn is_readable(&self) -> bool {
        !self.fields.is_empty()
    }

    /// The first value of `name`.
    pub fn field(&self, name: &str) -> Option<&Bytes> {
        self.fields.iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value)
    }

    /// Bytes of all names and values together.
    pub fn size_bytes(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// About what it takes in memory while it is read: with many small fields, far more than their bytes.
    pub fn memory_bytes(&self) -> usize {
        self.size_bytes() + (3 + 2 * self.fields.len()) * PART_BYTES
    }
}
