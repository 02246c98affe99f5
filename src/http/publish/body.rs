//! What a body says: the entries that it stands for. Pure: it takes bytes, and the terms of the route.

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::config::publish::{BodyFields, MOST_ENTRIES};
use crate::source::Fields;

/// What an entry may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) fields: BodyFields,
    pub(super) max_bytes: usize,
}

/// Why a body stands for no entries. Nothing of it was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadBody {
    /// Where several entries were sent: the line, from 1.
    pub(super) line: Option<usize>,
    pub(super) fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not the JSON that it has to be: why, and the line and the column, from 1.
    Json(String, usize, usize),
    /// Larger than an entry may be.
    TooLarge,
    /// More lines than there may be.
    TooMany,
    /// No line has an entry.
    Nothing,
}

/// The only entry of a body.
pub(super) fn one(body: &Bytes, terms: Terms) -> Result<Vec<Fields>, BadBody> {
    let fields = entry(body.clone(), terms).map_err(|fault| BadBody { line: None, fault })?;
    Ok(vec![fields])
}

/// An entry in each line that is not empty; the last one may have no end.
pub(super) fn several(body: &Bytes, terms: Terms) -> Result<Vec<Fields>, BadBody> {
    let mut entries = Vec::new();
    let mut rest = body.clone();
    for number in 1.. {
        if rest.is_empty() {
            break;
        }
        let bad = |fault| BadBody { line: Some(number), fault };
        let line = next_line(&mut rest);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if entries.len() == MOST_ENTRIES {
            return Err(bad(Fault::TooMany));
        }
        entries.push(entry(line, terms).map_err(bad)?);
    }
    if entries.is_empty() {
        return Err(BadBody { line: None, fault: Fault::Nothing });
    }
    Ok(entries)
}

/// Takes a line, and what ends it.
fn next_line(rest: &mut Bytes) -> Bytes {
    let end = rest.iter().position(|byte| *byte == b'\n');
    let mut line = rest.split_to(end.map_or(rest.len(), |end| end + 1));
    for end in [b'\n', b'\r'] {
        if line.last() == Some(&end) {
            line.truncate(line.len() - 1);
        }
    }
    line
}

fn entry(text: Bytes, terms: Terms) -> Result<Fields, Fault> {
    if text.len() > terms.max_bytes {
        return Err(Fault::TooLarge);
    }
    match terms.fields {
        BodyFields::Payload => Ok(vec![(Bytes::from_static(b"payload"), text)]),
        BodyFields::Json => members(&text),
    }
}

/// The members of a JSON object: strings as they are, other values as they are written.
fn members(text: &[u8]) -> Result<Fields, Fault> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = reader.deserialize_map(Object).and_then(|fields| reader.end().map(|()| fields));
    read.map_err(|error| {
        let told = error.to_string();
        let why = told.rsplit_once(" at line ").map_or(&*told, |(why, _)| why);
        Fault::Json(why.to_owned(), error.line().max(1), error.column().max(1))
    })
}

/// Reads the members in their order.
struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with a member or more")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let (mut fields, mut names) = (Fields::new(), HashSet::new());
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            let value = value.get();
            let value = if value.starts_with('"') {
                serde_json::from_str(value).map_err(|_| {
                    A::Error::custom(format_args!("the member {name:?} is no Unicode text"))
                })?
            } else {
                value.to_owned()
            };
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("the member {name:?} is there twice")));
            }
            fields.push((name.into(), value.into()));
        }
        if fields.is_empty() {
            return Err(A::Error::custom("the object has no member, and an entry needs one"));
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    const JSON: Terms = Terms { fields: BodyFields::Json, max_bytes: 1 << 20 };
    const PAYLOAD: Terms = Terms { fields: BodyFields::Payload, max_bytes: 1 << 20 };

    fn texts(fields: &Fields) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        fields.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    fn json(text: &str) -> Result<Fields, Fault> {
        members(text.as_bytes())
    }

    #[test]
    fn members_become_fields_in_their_order_and_other_values_stay_as_they_are_written() {
        let text = " {\"type\":\"a\\n\\u00e9\", \"n\": 1.0,\"big\":12345678901234567890123,\n\"o\":{\"b\": [1, null]},\"t\":true,\"\":null} ";
        let fields = json(text).unwrap();
        let expected = [
            ("type", "a\né"),
            ("n", "1.0"),
            ("big", "12345678901234567890123"),
            ("o", "{\"b\": [1, null]}"),
            ("t", "true"),
            ("", "null"),
        ];
        assert_eq!(texts(&fields), expected);
    }

    #[test]
    fn what_is_no_object_is_told_with_its_place() {
        for (text, why, line, column) in [
            ("", "EOF while parsing a value", 1, 1),
            ("{\"a\":1", "EOF while parsing an object", 1, 6),
            ("{\"a\":1}\n x", "trailing characters", 2, 2),
            ("{\"a\":tru}", "expected ident", 1, 9),
            ("[1]", "invalid type: sequence", 1, 1),
            ("5", "invalid type: integer `5`, expected a JSON object", 1, 1),
            ("{}", "the object has no member", 1, 2),
            ("{\"a\":1,\"a\":2}", "the member \"a\" is there twice", 1, 12),
            ("{\"a\":\"\\ud800\"}", "the member \"a\" is no Unicode text", 1, 13),
            ("{a:1}", "key must be a string", 1, 2),
            ("\u{feff}{\"a\":1}", "expected value", 1, 1),
        ] {
            let Err(Fault::Json(told, at_line, at_column)) = json(text) else { panic!("{text}") };
            assert!(told.starts_with(why), "{text}: {told}");
            assert_eq!(at_line, line, "{text}");
            assert!(at_column.abs_diff(column) <= 1, "{text}: column {at_column}");
        }
        assert!(json("{\"a\":\"\u{0}\"}").is_err(), "a bare control character");
        assert!(members(b"{\"a\":\"\xff\"}").is_err(), "no UTF-8");
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(json(&deep).unwrap().len(), 1, "no depth costs stack");
    }

    #[test]
    fn empty_lines_are_skipped_and_the_last_line_needs_no_end() {
        let lines = |text: &'static str| several(&Bytes::from_static(text.as_bytes()), PAYLOAD);
        let payloads = |text| -> Vec<String> {
            let entries = lines(text).unwrap();
            entries.iter().map(|fields| texts(fields)[0].1.to_owned()).collect()
        };
        assert_eq!(payloads("a\nb"), ["a", "b"]);
        assert_eq!(payloads("\r\na\r\n \t\n\nb \n"), ["a", "b "]);
        let nothing = Err(BadBody { line: None, fault: Fault::Nothing });
        assert_eq!(lines(""), nothing);
        assert_eq!(lines("\n \n"), nothing);
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_among_all_lines() {
        let lines = |text: &str, terms| several(&Bytes::copy_from_slice(text.as_bytes()), terms);
        let bad = lines("{\"a\":1}\n\n{\"a\":x}\n", JSON).unwrap_err();
        assert_eq!(bad.line, Some(3));
        assert!(matches!(bad.fault, Fault::Json(_, 1, 6)), "{bad:?}");
        let short = Terms { max_bytes: 3, ..PAYLOAD };
        let too_large = BadBody { line: Some(2), fault: Fault::TooLarge };
        assert_eq!(lines("abc\r\nabcd\n", short), Err(too_large));
        let all = "x\n".repeat(MOST_ENTRIES);
        assert_eq!(lines(&format!("{all}\n\n"), PAYLOAD).unwrap().len(), MOST_ENTRIES);
        let too_many = BadBody { line: Some(MOST_ENTRIES + 1), fault: Fault::TooMany };
        assert_eq!(lines(&format!("{all}x"), PAYLOAD), Err(too_many));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no others", |n| n.is_finite()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| vec(inner, 0..4).prop_map(Value::from))
    }

    fn object() -> impl Strategy<Value = Map<String, Value>> {
        btree_map(any::<String>(), value(), 1..6).prop_map(|members| members.into_iter().collect())
    }

    proptest! {
        #![proptest_config(crate::seed::cases())]

        /// Read back, the fields are what the object was.
        #[test]
        fn an_object_is_its_fields(object in object()) {
            let fields = members(Value::from(object.clone()).to_string().as_bytes()).unwrap();
            let written = |value: &Value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let pairs = texts(&fields);
            prop_assert_eq!(pairs.len(), object.len());
            for (name, text) in pairs {
                prop_assert_eq!(text, written(&object[name]));
            }
        }

        /// However lines end, and whatever empty ones are between them.
        #[test]
        fn lines_are_entries(
            objects in vec((object(), prop_oneof!["\n", "\r\n", "\n\n", "\n \r\n"]), 1..20),
            ends in any::<bool>(),
        ) {
            let mut text = String::new();
            for (object, end) in &objects {
                text += &Value::from(object.clone()).to_string();
                text += end;
            }
            let text = if ends { &*text } else { text.trim_end() };
            let entries = several(&Bytes::copy_from_slice(text.as_bytes()), JSON).unwrap();
            let alone: Vec<_> = objects
                .iter()
                .map(|(object, _)| members(Value::from(object.clone()).to_string().as_bytes()).unwrap())
                .collect();
            prop_assert_eq!(entries, alone);
        }

        /// Any bytes are entries within the bounds, or a fault at one of their lines.
        #[test]
        fn any_bytes_are_entries_or_a_fault(body in vec(any::<u8>(), 0..400), is_json in any::<bool>()) {
            let fields = if is_json { BodyFields::Json } else { BodyFields::Payload };
            let lines = body.split(|byte| *byte == b'\n').count();
            match several(&Bytes::from(body), Terms { fields, max_bytes: 50 }) {
                Ok(entries) => prop_assert!(entries.iter().all(|fields| !fields.is_empty())),
                Err(bad) => prop_assert!(bad.line.is_none_or(|line| (1..=lines).contains(&line))),
            }
        }
    }
}
