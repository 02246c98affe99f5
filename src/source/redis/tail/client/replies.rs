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
    // Some servers answer with an empty list where Redis answers with nil.
    let Some(stream) = streams.next() else { return Ok(Vec::new()) };
    if streams.next().is_some() {
        return Err(protocol_error("XREAD of one key answered about several"));
    }
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
    if value == Value::Nil {
        return Ok(Vec::new());
    }
    list(value)?.into_iter().map(entry).collect()
}

/// An entry whose id can be read; its place in the stream is known then, and what else is odd harms no other.
fn entry(value: Value) -> Result<Entry, Error> {
    let mut parts = list(value)?.into_iter();
    let id = stream_id(&parts.next().unwrap_or(Value::Nil))?;
    let fields = parts.next().and_then(fields).unwrap_or_default();
    Ok(Entry { id, fields })
}

/// The fields that can be read; `None`: one of them has a value that cannot. Nobody asks for a field whose name
/// cannot be read.
fn fields(value: Value) -> Option<Vec<(Bytes, Bytes)>> {
    let mut left = list(value).ok()?.into_iter();
    let mut fields = Vec::with_capacity(left.len() / 2);
    while let Some(name) = left.next() {
        let (name, value) = (bytes(name), left.next()?);
        if let Ok(name) = name {
            fields.push((name, bytes(value).ok()?));
        }
    }
    Some(fields)
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
        match &*bytes(name).unwrap_or_default() {
            b"length" => (info.length, has_length) = (number(&value)?, true),
            b"last-generated-id" => {
                (info.last_generated, has_end) = (stream_id(&value)?, true);
            }
            // These are missing from older servers: one that cannot be read is as if it were.
            b"max-deleted-entry-id" => info.max_deleted = stream_id(&value).unwrap_or_default(),
            b"entries-added" => info.entries_added = number(&value).ok(),
            b"groups" => groups = number(&value).unwrap_or(0),
            b"first-entry" => info.first = edge(value)?,
            b"last-entry" => info.last = edge(value)?,
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

/// The id of the first or last entry; none in an empty stream.
fn edge(value: Value) -> Result<Option<StreamId>, Error> {
    let is_none = value == Value::Nil || value == Value::List(Vec::new());
    if is_none { Ok(None) } else { Ok(Some(entry(value)?.id)) }
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
        Value::Bytes(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
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
        for nothing in [Value::Nil, list([]), list([list([text("key"), Value::Nil])])] {
            assert_eq!(streams(nothing, "key").unwrap(), []);
        }
    }

    #[test]
    fn bytes_and_numbers_are_values_as_well() {
        let fields = list([Value::Bytes(Bytes::from_static(b"\xff\0")), Value::Integer(-7)]);
        let entries = entries(list([list([text("5-0"), fields])])).unwrap();
        assert_eq!(entries[0].fields, [(Bytes::from_static(b"\xff\0"), "-7".into())]);
    }

    #[test]
    fn a_read_of_several_streams_or_of_another_form_is_a_protocol_error() {
        let stream = || list([text("key"), list([good("5-0")])]);
        let mut replies = vec![list([stream(), stream()]), list([list([])])];
        replies.extend(scalars().into_iter().skip(1));
        replies.extend(scalars().map(|scalar| list([scalar])));
        let of_no_entries = |scalar| list([list([text("key"), scalar])]);
        replies.extend(scalars().into_iter().skip(1).map(of_no_entries));
        let of_another = list([text("other"), list([good("5-0")])]);
        let without_key = list([list([good("5-0")])]);
        let with_more = list([text("key"), list([good("5-0")]), list([])]);
        replies.extend([of_another, without_key, with_more].map(|stream| list([stream])));
        for reply in replies {
            is_protocol_error(streams(reply.clone(), "key"), &reply);
        }
    }

    #[test]
    fn an_entry_of_another_form_is_unreadable_and_harms_no_other() {
        let name = || text("name");
        let mut odd = vec![
            list([text("5-1")]),
            list([text("5-1"), list([])]),
            list([text("5-1"), list([name()])]),
            list([text("5-1"), list([name(), text("value"), text("other")])]),
            list([text("5-1"), list([name(), text("value"), text("other"), Value::Nil])]),
            list([text("5-1"), list([Value::Nil, text("value")])]),
        ];
        odd.extend(scalars().map(|scalar| list([text("5-1"), scalar])));
        for entry in odd {
            let reply = list([good("5-0"), entry, good("6-0")]);
            let read = entries(reply.clone()).unwrap();
            let readable: Vec<_> = read.iter().map(Entry::is_readable).collect();
            assert_eq!(readable, [true, false, true], "{reply:?}");
        }
    }

    #[test]
    fn what_can_be_read_of_an_entry_is_read() {
        let fields = list([Value::Nil, text("x"), list([]), text("y"), text("name"), text("z")]);
        let entry = list([text("5-0"), fields, text("and more")]);
        let read = entries(list([entry])).unwrap();
        assert_eq!(read[0].fields, [("name".into(), "z".into())]);
    }

    #[test]
    fn an_entry_without_an_id_is_a_protocol_error_wherever_it_stands() {
        let fields = || list([text("name"), text("value")]);
        let mut wrong = vec![list([])];
        wrong.extend(scalars());
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

    /// As a server that stands in for Redis may answer.
    #[test]
    fn what_older_servers_lack_may_be_anything() {
        for odd in [Value::Nil, Value::Integer(-1), text("many"), list([])] {
            let read = |name| stream_info(info(name, &odd)).unwrap().unwrap();
            assert_eq!(read("entries-added").entries_added, None, "{odd:?}");
            assert_eq!(read("max-deleted-entry-id").max_deleted, StreamId::ZERO, "{odd:?}");
        }
        let counted = stream_info(info("entries-added", &text("4"))).unwrap().unwrap();
        assert_eq!(counted.entries_added, Some(4));
        assert_eq!(stream_info(info("first-entry", &list([]))).unwrap().unwrap().first, None);
    }

    #[test]
    fn holes_are_suspected_where_something_is_gone_and_a_group_could_have_acknowledged_it() {
        let suspected = |groups| {
            let Value::List(mut pairs) = info("", &Value::Nil) else { panic!("it is a list") };
            pairs.extend([text("groups"), Value::Integer(groups)]);
            stream_info(Value::List(pairs)).unwrap().unwrap().may_have_holes
        };
        assert_eq!([0, 1].map(suspected), [false, true]);
    }

    #[test]
    fn a_stream_described_in_another_form_is_a_protocol_error() {
        for reply in scalars() {
            is_protocol_error(stream_info(reply.clone()), &reply);
        }
        let lengths = [Value::Integer(-1), text("many"), Value::Nil].map(|odd| ("length", odd));
        let ends = [Value::Nil, text("9")].map(|odd| ("last-generated-id", odd));
        let edges = ["first-entry", "last-entry"].map(|name| (name, text("5-0")));
        let odd = lengths.iter().chain(&ends).chain(&edges);
        for reply in odd.map(|(name, value)| info(name, value)) {
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
