//! Which entries of a stream a client gets: those whose fields have the values that its token or its request names. This
//! is the whole rule; replay, ring and shards ask it and nothing else.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;
use std::sync::LazyLock;

use serde_json::value::RawValue;

use super::Entry;

/// A field by which a route's clients may be told apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// Its name. All that are read from payloads are read from the same one.
    pub field: String,
    /// The field of the entry whose JSON object has it; `None`: it is a field of the entry itself.
    pub payload: Option<String>,
}

/// A value, in the form in which many are kept and compared. Two share one with a chance of 2^-126, and nobody outside
/// can make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowValue([NonZeroU64; 2]);

static HASHERS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);

impl RowValue {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let hash = |hasher: &RandomState| NonZeroU64::MIN.saturating_add(hasher.hash_one(bytes));
        Self(HASHERS.each_ref().map(hash))
    }
}

/// Which entries a client gets: those that have one of the wanted values in each of its columns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selection {
    /// By the number of the column; both are sorted.
    wanted: Vec<(usize, Vec<RowValue>)>,
}

impl Selection {
    /// Of these values, by the number of the column. A column that is named twice has to have a value of both.
    pub fn new(wanted: impl IntoIterator<Item = (usize, Vec<RowValue>)>) -> Self {
        let mut wanted: Vec<_> = wanted.into_iter().collect();
        for (_, values) in &mut wanted {
            values.sort_unstable();
            values.dedup();
        }
        wanted.sort();
        wanted.dedup();
        Self { wanted }
    }

    /// Whether a client gets the entry that has this row.
    pub fn admits(&self, row: &[Option<RowValue>]) -> bool {
        self.wanted.iter().all(|(column, values)| {
            let value = row.get(*column).copied().flatten();
            value.is_some_and(|value| values.binary_search(&value).is_ok())
        })
    }

    /// The wanted values, by the number of the column.
    pub fn wanted(&self) -> &[(usize, Vec<RowValue>)] {
        &self.wanted
    }
}

/// Reads the values of an entry, one for each column; `None`: the entry has none, or nobody can tell which is meant.
pub fn row_of<'a>(
    entry: &'a Entry,
    columns: &'a [Column],
) -> impl Iterator<Item = Option<RowValue>> + 'a {
    let mut payload = Payload::default();
    columns.iter().map(move |column| match &column.payload {
        None => only_value(entry, &column.field).map(RowValue::of),
        Some(field) => payload.of(entry, field).value(&column.field),
    })
}

/// A whole row.
pub fn whole_row(entry: &Entry, columns: &[Column]) -> Vec<Option<RowValue>> {
    row_of(entry, columns).collect()
}

/// The value of a field that the entry has once, or several times with the same value.
fn only_value<'a>(entry: &'a Entry, field: &str) -> Option<&'a [u8]> {
    let mut values = entry.fields.iter().filter(|(name, _)| name == field.as_bytes());
    let (_, first) = values.next()?;
    values.all(|(_, value)| value == first).then_some(&**first)
}

/// The JSON object in an entry's payload, read once for all columns; nothing where it is none.
#[derive(Default)]
struct Payload<'a>(Option<HashMap<String, &'a RawValue>>);

impl<'a> Payload<'a> {
    fn of(&mut self, entry: &'a Entry, field: &str) -> &Self {
        self.0.get_or_insert_with(|| {
            let text = only_value(entry, field).unwrap_or_default();
            serde_json::from_slice(text).unwrap_or_default()
        });
        self
    }

    /// A text as it is meant; a number, `true` or `false` as it is written; nothing else can be asked for.
    fn value(&self, field: &str) -> Option<RowValue> {
        let written = self.0.as_ref()?.get(field)?.get();
        match written.as_bytes().first()? {
            b'"' => {
                let text: String = serde_json::from_str(written).ok()?;
                Some(RowValue::of(text.as_bytes()))
            }
            b'{' | b'[' | b'n' => None,
            _ => Some(RowValue::of(written.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::StreamId;

    fn entry(fields: &[(&str, &str)]) -> Entry {
        let fields = fields.iter().map(|(name, value)| {
            (name.to_string().into_bytes().into(), value.to_string().into_bytes().into())
        });
        Entry { id: StreamId { ms: 1, seq: 0 }, fields: fields.collect() }
    }

    fn columns(names: &[&str], payload: Option<&str>) -> Vec<Column> {
        let column = |name: &&str| Column {
            field: (*name).to_owned(),
            payload: payload.map(ToOwned::to_owned),
        };
        names.iter().map(column).collect()
    }

    fn selection(wanted: &[(usize, &[&str])]) -> Selection {
        Selection::new(wanted.iter().map(|(column, values)| {
            (*column, values.iter().map(|value| RowValue::of(value.as_bytes())).collect())
        }))
    }

    #[test]
    fn every_column_has_to_have_one_of_its_values() {
        let columns = columns(&["tenant", "severity"], None);
        let wanted = selection(&[(1, &["low", "high"]), (0, &["acme"])]);
        for (fields, is_admitted) in [
            (&[("tenant", "acme"), ("severity", "high")][..], true),
            (&[("severity", "low"), ("tenant", "acme")], true),
            (&[("tenant", "acme"), ("severity", "middle")], false),
            (&[("tenant", "other"), ("severity", "high")], false),
            (&[("tenant", "acme")], false),
            (&[("tenant", ""), ("severity", "high")], false),
            (&[("tenant", "acme"), ("tenant", "acme"), ("severity", "low")], true),
            (&[("tenant", "acme"), ("tenant", "other"), ("severity", "low")], false),
            (&[], false),
        ] {
            assert_eq!(
                wanted.admits(&whole_row(&entry(fields), &columns)),
                is_admitted,
                "{fields:?}"
            );
        }
        assert!(selection(&[]).admits(&[]), "nothing is wanted");
        assert!(!selection(&[(3, &["x"])]).admits(&[]), "a row that lacks the column");
        let both = selection(&[(0, &["acme", "other"]), (0, &["acme"])]);
        let admits = |tenant| both.admits(&whole_row(&entry(&[("tenant", tenant)]), &columns));
        assert_eq!((admits("acme"), admits("other")), (true, false));
    }

    #[test]
    fn a_payload_is_a_json_object_and_its_scalars_are_values() {
        let columns = columns(&["a"], Some("payload"));
        for (payload, is_admitted) in [
            (r#"{"a":"x"}"#, true),
            (r#" { "b" : [1], "a" : "\u0078" } "#, true),
            (r#"{"a":"y","a":"x"}"#, true),
            (r#"{"a":12}"#, true),
            (r#"{"a":12.0}"#, false),
            (r#"{"a":true}"#, true),
            (r#"{"a":null}"#, false),
            (r#"{"a":["x"]}"#, false),
            (r#"{"a":{"x":1}}"#, false),
            (r#"{"b":{"a":"x"}}"#, false),
            (r#"["x"]"#, false),
            (r#"{"a":"x""#, false),
            ("", false),
        ] {
            let row = whole_row(&entry(&[("payload", payload)]), &columns);
            let wanted = selection(&[(0, &["x", "12", "true"])]);
            assert_eq!(wanted.admits(&row), is_admitted, "{payload}");
        }
        assert_eq!(whole_row(&entry(&[("a", "x")]), &columns), [None]);
    }
}
