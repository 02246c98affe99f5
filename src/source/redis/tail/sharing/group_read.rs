//! What a group asks, and what the answers say: never entries, only which keys have some.

use std::time::Duration;

use bytes::Bytes;

use crate::source::Error;
use crate::source::redis::tail::client::replies::{
    accepted, bytes, list, protocol_error, stream_id,
};
use crate::source::redis::tail::client::request::Request;
use crate::source::redis::tail::client::resp::Value;
use crate::source::redis::tail::seats::Waiting;
use crate::sse::StreamId;

/// The answers to one exchange may take this much memory, as a reader's may.
const MOST_BYTES: usize = 4 << 20;
/// One entry shows that there are entries.
const COUNT: &[u8] = b"1";

/// One `XREAD` for each list of keys. Only a single one may wait for entries.
pub(super) fn request(lists: &[&[Waiting]], block: Option<Duration>) -> Request {
    let block = block.map(|block| block.as_millis().max(1).to_string());
    let after = |list: &&[Waiting]| list.iter().map(|waiting| waiting.after.to_string()).collect();
    let after: Vec<Vec<String>> = lists.iter().map(after).collect();
    let commands =
        lists.iter().zip(&after).map(|(list, after)| xread(list, after, block.as_deref()));
    Request::all(commands).with_max_answer_bytes(MOST_BYTES)
}

fn xread<'a>(of: &'a [Waiting], after: &'a [String], block: Option<&'a str>) -> Vec<&'a [u8]> {
    let mut words: Vec<&[u8]> = vec![b"XREAD", b"COUNT", COUNT];
    if let Some(block) = block {
        words.extend([b"BLOCK", block.as_bytes()]);
    }
    words.push(b"STREAMS");
    words.extend(of.iter().map(|waiting| waiting.key.as_bytes()));
    words.extend(after.iter().map(String::as_bytes));
    words
}

/// `XINFO STREAM` for each.
pub(super) fn looks(at: &[Waiting]) -> Request {
    Request::all(at.iter().map(|waiting| vec![&b"XINFO"[..], b"STREAM", waiting.key.as_bytes()]))
}

/// `XREAD` of each stream from its end on, which finds nothing: a server that tells of keys remembers them.
pub(super) fn ends(of: &[Waiting]) -> Request {
    let end = |waiting| vec![&b"XREAD"[..], b"COUNT", COUNT, b"STREAMS", key_of(waiting), b"$"];
    Request::all(of.iter().map(end)).with_max_answer_bytes(MOST_BYTES)
}

fn key_of(waiting: &Waiting) -> &[u8] {
    waiting.key.as_bytes()
}

/// Whether a look or a read was refused. That there is no such key is an answer.
pub(super) fn is_refused(answer: &Value) -> bool {
    matches!(answer, Value::Error(words) if !words.contains("no such key"))
}

/// The last entry that a look shows.
pub(super) fn last_entry(look: &Value) -> Option<StreamId> {
    let Value::List(parts) = look else { return None };
    let is_last = |pair: &&[Value]| pair[0] == Value::Bytes(Bytes::from_static(b"last-entry"));
    match parts.chunks_exact(2).find(is_last)? {
        [_, Value::List(entry)] => stream_id(entry.first()?).ok(),
        _ => None,
    }
}

/// What Redis tells of keys.
pub(super) enum Changed<'a, Keys: Iterator<Item = &'a [u8]>> {
    /// These have changed.
    Keys(Keys),
    /// Any may have.
    All,
}

/// What it tells unasked; `None`: nothing of keys.
pub(super) fn changed(push: &[Value]) -> Option<Changed<'_, impl Iterator<Item = &[u8]>>> {
    match push {
        [Value::Bytes(kind), keys] if *kind == b"invalidate"[..] => Some(match keys {
            Value::List(keys) => Changed::Keys(keys.iter().filter_map(|key| match key {
                Value::Bytes(key) => Some(&key[..]),
                _ => None,
            })),
            _ => Changed::All,
        }),
        _ => None,
    }
}

/// The keys that the answer to one `XREAD` is about; an error concerns one of the keys, or all.
pub(super) fn keys(answer: Value) -> Result<Vec<Bytes>, Error> {
    let streams = match accepted(answer)? {
        Value::Nil => return Ok(Vec::new()),
        streams => list(streams)?,
    };
    streams.into_iter().map(key).collect()
}

fn key(stream: Value) -> Result<Bytes, Error> {
    let mut pair = list(stream)?.into_iter();
    match (pair.next(), pair.next(), pair.next()) {
        (Some(key), Some(_), None) => bytes(key),
        _ => Err(protocol_error("XREAD answered without a pair of key and entries")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn an_answer_names_the_keys_that_hold_entries() {
        let stream = |key: &str| Value::List(vec![text(key), Value::List(Vec::new())]);
        assert_eq!(keys(Value::Nil).unwrap(), Vec::<Bytes>::new());
        assert_eq!(keys(Value::List(vec![stream("a"), stream("b")])).unwrap(), ["a", "b"]);
        let wrong =
            [Value::Integer(1), Value::List(vec![text("a")]), Value::List(vec![Value::Nil])];
        for wrong in wrong {
            assert_eq!(keys(wrong).unwrap_err().code, "PROTOCOL");
        }
        assert_eq!(keys(Value::Error("WRONGTYPE Operation".into())).unwrap_err().code, "WRONGTYPE");
    }

    #[test]
    fn a_look_shows_the_last_entry_and_a_refusal_none() {
        let entry = Value::List(vec![text("7-1"), Value::List(Vec::new())]);
        let look = Value::List(vec![text("length"), Value::Integer(1), text("last-entry"), entry]);
        assert_eq!(last_entry(&look), Some(StreamId { ms: 7, seq: 1 }));
        let empty = Value::List(vec![text("last-entry"), Value::Nil]);
        let missing = Value::Error("ERR no such key".into());
        let refused = Value::Error("MOVED 1 a:1".into());
        for none in [&empty, &missing, &refused, &Value::Nil] {
            assert_eq!(last_entry(none), None);
        }
        assert_eq!([&look, &missing, &refused].map(is_refused), [false, false, true]);
    }

    #[test]
    fn what_is_told_is_of_some_keys_or_of_all_or_nothing_of_keys() {
        let told = |push: &[Value]| match changed(push) {
            Some(Changed::Keys(keys)) => {
                keys.map(|key| String::from_utf8_lossy(key).into()).collect()
            }
            Some(Changed::All) => vec!["all".to_owned()],
            None => vec![],
        };
        let keys = Value::List(vec![text("a"), Value::Nil, text("b")]);
        assert_eq!(told(&[text("invalidate"), keys]), ["a", "b"]);
        assert_eq!(told(&[text("invalidate"), Value::Nil]), ["all"]);
        assert!(told(&[text("message"), text("a"), text("b")]).is_empty());
        assert!(told(&[text("invalidate")]).is_empty());
    }
}
