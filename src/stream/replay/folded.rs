//! What a client that is behind gets of many entries: the newest of each.

use std::collections::HashMap;

use crate::sse::Entry;
use crate::stream::FieldValue;

/// Entries of several reads, without those that later ones supersede.
pub(super) struct Folded<'a> {
    field: &'a str,
    /// By the index of the newest with each value.
    newest: HashMap<FieldValue, usize>,
    /// In order; `None` in place of one that is superseded.
    entries: Vec<Option<Entry>>,
    pub(super) bytes: usize,
}

impl<'a> Folded<'a> {
    pub(super) fn by(field: &'a str) -> Self {
        Self { field, newest: HashMap::new(), entries: Vec::new(), bytes: 0 }
    }

    pub(super) fn take(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let index = self.entries.len();
            let value = FieldValue::of(&entry, self.field).filter(|_| entry.is_readable());
            let before = value.and_then(|value| self.newest.insert(value, index));
            if let Some(superseded) = before.and_then(|before| self.entries[before].take()) {
                self.bytes -= superseded.memory_bytes();
            }
            self.bytes += entry.memory_bytes();
            self.entries.push(Some(entry));
        }
    }

    /// Those that are not superseded; and how many before each of them are.
    pub(super) fn into_entries(self) -> (Vec<Entry>, Vec<u64>) {
        let (mut kept, mut spared, mut before) = (Vec::new(), Vec::new(), 0);
        for entry in self.entries {
            match entry {
                Some(entry) => {
                    kept.push(entry);
                    spared.push(before);
                }
                None => before += 1,
            }
        }
        (kept, spared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::StreamId;

    #[test]
    fn the_newest_of_each_stays_in_its_place_and_what_has_no_value_stays() {
        let entry = |ms, value: Option<&str>| {
            let mut fields = vec![("payload".into(), "x".into())];
            fields.extend(value.map(|value| ("id".into(), value.to_owned().into())));
            Entry { id: StreamId { ms, seq: 0 }, fields }
        };
        let mut folded = Folded::by("id");
        folded.take(vec![entry(1, Some("a")), entry(2, None), entry(3, Some("b"))]);
        let bytes = folded.bytes;
        folded.take(vec![entry(4, Some("a")), entry(5, Some("a"))]);
        assert_eq!(folded.bytes, bytes);
        let (kept, spared) = folded.into_entries();
        assert_eq!(kept.iter().map(|entry| entry.id.ms).collect::<Vec<_>>(), [2, 3, 5]);
        assert_eq!(spared, [1, 1, 2]);
    }
}
