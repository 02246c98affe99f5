//! `XREAD` of several keys: only which of them hold entries that were not read yet.

use std::time::Duration;

use bytes::Bytes;

use crate::source::Error;
use crate::source::redis::tail::client::replies::{accepted, bytes, list, protocol_error};
use crate::source::redis::tail::client::request::Request;
use crate::source::redis::tail::client::resp::Value;
use crate::source::redis::tail::seats::Waiting;

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
}
