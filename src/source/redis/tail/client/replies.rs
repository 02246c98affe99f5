//! What replies mean: entries, the state of a stream, errors. A reply of any other form is an error, never a
//! panic.

use bytes::Bytes;

use super::resp::Value;
use crate::source::redis::refusal::error_reply;
use crate::source::{Error, ErrorClass, StreamInfo};
use crate::sse::{Entry, StreamId};

/// The entries in a reply to `XREAD` of the one stream `key`; none if the read timed out.
pub(crate) fn streams(value: Value, key: &str) -> Result<Vec<Entry>, Error> {
    let mut streams = match accepted(value)? {
        Value::Nil => return Ok(Vec::new()),
        streams => list(streams)?.into_iter(),
    };
    let (Some(stream), None) = (streams.next(), streams.next()) else {
        return Err(protocol_error("XREAD of one key answered about none or several"));
    };
    let mut pair = list(stream)?.into_iter();
    let (Some(name), Some(found), None) = (pair.next(), pair.next(), pair.next()) else {
        return Err(protocol_error("XREAD answered without a pair of key and entries"));
    };
    if bytes(name)? != key.as_bytes() {
        return Err(protocol_error("XREAD answered about another key"));
    }
    entries(found)
}

pub(crate) fn entries(value: Value) -> Result<Vec<Entry>, Error> {
    list(value)?.into_iter().map(entry).collect()
}

fn entry(value: Value) -> Result<Entry, Error> {
    let mut parts = list(value)?.into_iter();
    let (Some(id), Some(fields), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(protocol_error("an entry without a pair of id and fields"));
    };
    let mut fields_left = list(fields)?.into_iter();
    let mut fields = Vec::with_capacity(fields_left.len() / 2);
    while let Some(name) = fields_left.next() {
        let value = fields_left.next().ok_or_else(|| protocol_error("a field without a value"))?;
        fields.push((bytes(name)?, bytes(value)?));
    }
    Ok(Entry { id: stream_id(&id)?, fields })
}

/// What `XINFO STREAM` answers; `None`: there is no such key.
pub(crate) fn stream_info(value: Value) -> Result<Option<StreamInfo>, Error> {
    if matches!(&value, Value::Error(words) if words.contains("no such key")) {
        return Ok(None);
    }
    let value = accepted(value)?;
    let mut info = StreamInfo::default();
    let (mut has_length, mut has_end, mut groups) = (false, false, 0);
    let mut parts = list(value)?.into_iter();
    while let Some(name) = parts.next() {
        let value =
            parts.next().ok_or_else(|| protocol_error("XINFO STREAM: a name without a value"))?;
        match &*bytes(name)? {
            b"length" => (info.length, has_length) = (number(&value)?, true),
            b"last-generated-id" => {
                (info.last_generated, has_end) = (stream_id(&value)?, true);
            }
            b"max-deleted-entry-id" => info.max_deleted = stream_id(&value)?,
            b"entries-added" => info.entries_added = Some(number(&value)?),
            b"groups" => groups = number(&value)?,
            b"first-entry" if value != Value::Nil => info.first = Some(entry(value)?.id),
            b"last-entry" if value != Value::Nil => info.last = Some(entry(value)?.id),
            _ => {}
        }
    }
    // Without a group there is nobody to acknowledge an entry, and nothing is trimmed before that.
    info.may_have_holes = groups > 0 && info.entries_added.is_some_and(|added| added > info.length);
    if has_length && has_end {
        return Ok(Some(info));
    }
    Err(protocol_error("XINFO STREAM without length or last-generated-id"))
}

/// The answer, or the error that Redis answered with.
pub(crate) fn accepted(value: Value) -> Result<Value, Error> {
    match value {
        Value::Error(words) => Err(error_reply(&words)),
        value => Ok(value),
    }
}

pub(crate) fn list(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::List(values) => Ok(values),
        _ => Err(protocol_error("not a list, where one was expected")),
    }
}

/// A string that is UTF-8.
pub(crate) fn text(value: Value) -> Result<String, Error> {
    let text = String::from_utf8(bytes(value)?.to_vec());
    text.map_err(|_| protocol_error("not text, where some was expected"))
}

pub(crate) fn bytes(value: Value) -> Result<Bytes, Error> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::Integer(number) => Ok(Bytes::from(number.to_string())),
        _ => Err(protocol_error("not a string, where one was expected")),
    }
}

pub(crate) fn number(value: &Value) -> Result<u64, Error> {
    let number = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    number.ok_or_else(|| protocol_error("not a number, where one was expected"))
}

pub(crate) fn stream_id(value: &Value) -> Result<StreamId, Error> {
    let id = match value {
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    id.ok_or_else(|| protocol_error("not a stream id, where one was expected"))
}

pub(crate) fn protocol_error(what: &str) -> Error {
    let message = format!("unexpected answer from Redis: {what}");
    Error { class: ErrorClass::Away, code: "PROTOCOL", message }
}

/// The only answer, to a request of one command.
pub(crate) fn sole(answers: Vec<Value>) -> Result<Value, Error> {
    answers.into_iter().next().ok_or_else(|| protocol_error("no answer"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Value {
        Value::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn list<const N: usize>(values: [Value; N]) -> Value {
        Value::List(values.into())
    }

    /// An entry of this id with one field.
    fn good(id: &str) -> Value {
        list([text(id), list([text("name"), text("value")])])
    }

    /// Values that are no list.
    fn scalars() -> [Value; 5] {
        [Value::Nil, text("5-0"), Value::Integer(5), Value::Integer(-1), text("")]
    }

    fn is_protocol_error<T: std::fmt::Debug>(outcome: Result<T, Error>, reply: &Value) {
        let error = outcome.expect_err(&format!("{reply:?}"));
        assert_eq!((error.class, error.code), (ErrorClass::Away, "PROTOCOL"), "{reply:?}");
    }

    #[test]
    fn the_entries_of_one_stream_are_read_and_null_is_none() {
        let reply = list([list([text("key"), list([good("5-0"), good("5-1")])])]);
        let entries = streams(reply, "key").unwrap();
        assert_eq!(entries.iter().map(|e| e.id.to_string()).collect::<Vec<_>>(), ["5-0", "5-1"]);
        assert_eq!(entries[0].fields, [("name".into(), "value".into())]);
        assert_eq!(streams(Value::Nil, "key").unwrap(), []);
    }

    #[test]
    fn bytes_and_numbers_are_values_as_well() {
        let fields = list([Value::Bytes(Bytes::from_static(b"\xff\0")), Value::Integer(-7)]);
        let entries = entries(list([list([text("5-0"), fields])])).unwrap();
        assert_eq!(entries[0].fields, [(Bytes::from_static(b"\xff\0"), "-7".into())]);
    }

    #[test]
    fn a_read_of_no_stream_or_several_or_of_another_form_is_a_protocol_error() {
        let stream = || list([text("key"), list([good("5-0")])]);
        let mut replies = vec![list([]), list([stream(), stream()]), list([list([])])];
        replies.extend(scalars().into_iter().skip(1));
        replies.extend(scalars().map(|scalar| list([scalar])));
        replies.extend(scalars().map(|scalar| list([list([text("key"), scalar])])));
        let of_another = list([text("other"), list([good("5-0")])]);
        let without_key = list([list([good("5-0")])]);
        let with_more = list([text("key"), list([good("5-0")]), list([])]);
        replies.extend([of_another, without_key, with_more].map(|stream| list([stream])));
        for reply in replies {
            is_protocol_error(streams(reply.clone(), "key"), &reply);
        }
    }

    #[test]
    fn a_malformed_entry_is_a_protocol_error_wherever_it_stands() {
        let fields = || list([text("name"), text("value")]);
        let mut wrong = vec![
            list([]),
            list([text("5-0")]),
            list([text("5-0"), fields(), fields()]),
            list([text("5-0"), list([text("name")])]),
            list([text("5-0"), list([text("name"), text("value"), text("name")])]),
            list([text("5-0"), list([text("name"), Value::Nil])]),
            list([text("5-0"), list([list([]), text("value")])]),
        ];
        wrong.extend(scalars());
        wrong.extend(scalars().map(|scalar| list([text("5-0"), scalar])));
        for id in
            ["", "5", "-", "5-", "-5", "5-0-0", "05-0", "+5-0", "x-0", "18446744073709551616-0"]
        {
            wrong.push(list([text(id), fields()]));
        }
        for id in
            [Value::Nil, Value::Integer(5), list([]), Value::Bytes(Bytes::from_static(b"\xff"))]
        {
            wrong.push(list([id, fields()]));
        }
        for entry in wrong {
            let reply = list([good("5-0"), entry, good("6-0")]);
            is_protocol_error(entries(reply.clone()), &reply);
        }
    }

    /// As `XINFO STREAM` of Redis 7 answers, with one value replaced.
    fn info(name: &str, value: &Value) -> Value {
        let mut pairs = vec![
            ("length", Value::Integer(2)),
            ("radix-tree-keys", Value::Integer(1)),
            ("last-generated-id", text("9-0")),
            ("max-deleted-entry-id", text("3-0")),
            ("entries-added", Value::Integer(4)),
            ("first-entry", good("5-0")),
            ("last-entry", good("9-0")),
        ];
        for pair in pairs.iter_mut().filter(|pair| pair.0 == name) {
            pair.1 = value.clone();
        }
        Value::List(pairs.into_iter().flat_map(|(name, value)| [text(name), value]).collect())
    }

    #[test]
    fn a_stream_is_described_and_an_empty_one_has_no_first_entry() {
        let id = |ms| StreamId { ms, seq: 0 };
        let full = StreamInfo {
            length: 2,
            last_generated: id(9),
            first: Some(id(5)),
            last: Some(id(9)),
            max_deleted: id(3),
            entries_added: Some(4),
            may_have_holes: false,
        };
        assert_eq!(stream_info(info("", &Value::Nil)).unwrap(), Some(full));
        let without = |name| stream_info(info(name, &Value::Nil)).unwrap();
        assert_eq!(without("first-entry"), Some(StreamInfo { first: None, ..full }));
        assert_eq!(without("last-entry"), Some(StreamInfo { last: None, ..full }));
    }

    #[test]
    fn a_redis_before_7_counts_no_entries_ever_added() {
        let reply =
            list([text("length"), Value::Integer(0), text("last-generated-id"), text("9-0")]);
        let info = stream_info(reply).unwrap().unwrap();
        assert_eq!((info.entries_added, info.max_deleted), (None, StreamId::ZERO));
        assert_eq!(info.last_generated.to_string(), "9-0");
    }

    #[test]
    fn a_stream_described_in_another_form_is_a_protocol_error() {
        for reply in scalars() {
            is_protocol_error(stream_info(reply.clone()), &reply);
        }
        let numbers = ["length", "entries-added"].map(|name| (name, Value::Integer(-1)));
        let words = ["length", "entries-added"].map(|name| (name, text("many")));
        let nils = ["length", "entries-added", "last-generated-id", "max-deleted-entry-id"]
            .map(|name| (name, Value::Nil));
        let ids = ["last-generated-id", "max-deleted-entry-id"].map(|name| (name, text("9")));
        let none = ["first-entry", "last-entry"].map(|name| (name, list([])));
        let bare = ["first-entry", "last-entry"].map(|name| (name, text("5-0")));
        let entries = none.iter().chain(&bare);
        for (name, value) in numbers.iter().chain(&words).chain(&nils).chain(&ids).chain(entries) {
            let reply = info(name, value);
            is_protocol_error(stream_info(reply.clone()), &reply);
        }
    }

    #[test]
    fn a_description_without_what_continuity_needs_is_a_protocol_error() {
        for reply in [
            list([]),
            list([text("length"), Value::Integer(2)]),
            list([text("last-generated-id"), text("9-0")]),
            list([text("length"), Value::Integer(2), text("last-generated-id")]),
            list([Value::Nil, Value::Nil]),
        ] {
            is_protocol_error(stream_info(reply.clone()), &reply);
        }
    }

    #[test]
    fn a_refusal_is_told_by_its_words() {
        let denied = Value::Error("NOPERM no permissions".into());
        assert_eq!(streams(denied.clone(), "key").unwrap_err().class, ErrorClass::Key);
        assert_eq!(stream_info(denied).unwrap_err().class, ErrorClass::Key);
        assert_eq!(stream_info(Value::Error("ERR no such key".into())).unwrap(), None);
    }

    /// Any reply, with the words and forms of real ones.
    fn reply() -> impl Strategy<Value = Value> {
        let word = prop_oneof!["[0-9]{1,3}-[0-9]", ".{0,8}", Just("length".to_owned())];
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<i64>().prop_map(Value::Integer),
            "[A-Z]{0,4} .{0,8}".prop_map(Value::Error),
            word.prop_map(|word| text(&word)),
            any::<Vec<u8>>().prop_map(|bytes| Value::Bytes(bytes.into())),
        ];
        leaf.prop_recursive(5, 40, 4, |inner| {
            proptest::collection::vec(inner, 0..4).prop_map(Value::List)
        })
    }

    proptest! {
        #![proptest_config(crate::seed::cases())]

        #[test]
        fn no_reply_makes_it_panic(reply in reply()) {
            let _ = streams(reply.clone(), "key");
            let _ = entries(reply.clone());
            let _ = stream_info(reply.clone());
            let _ = stream_id(&reply);
        }
    }
}
