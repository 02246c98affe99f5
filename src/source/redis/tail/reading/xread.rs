//! The one read of both halves: `XREAD`, and `XINFO STREAM` in the same write. It takes one round trip, and
//! Redis looks at the stream right after it has answered the read.

use std::time::Duration;

use super::looks::Beside;
use crate::source::redis::tail::client::replies::{protocol_error, stream_info, streams};
use crate::source::redis::tail::client::request::Request;
use crate::source::redis::tail::client::resp::Value;
use crate::source::{Error, ReadRequest, Reply, StreamState};
use crate::sse::Entry;

/// The fewest entries that a read can ask for: one, and the one before it that shows that nothing is missing.
/// Such a reply may have any size, for a smaller request would not make it smaller.
const FEWEST: u64 = 2;

pub(super) fn request(ask: ReadRequest<'_>, block: Option<Duration>, beside: Beside) -> Request {
    let (count, after) = (ask.count.to_string(), ask.after.to_string());
    let block = block.map(|block| block.as_millis().to_string());
    let mut words: Vec<&[u8]> = vec![b"XREAD", b"COUNT", count.as_bytes()];
    if let Some(block) = &block {
        words.extend([b"BLOCK", block.as_bytes()]);
    }
    words.extend([b"STREAMS", ask.key.as_bytes(), after.as_bytes()]);
    let max_bytes = if ask.count > FEWEST { ask.most_bytes } else { usize::MAX };
    let request = Request::new(&words).with_max_answer_bytes(max_bytes);
    match beside {
        Beside::Look => request.and(&[b"XINFO", b"STREAM", ask.key.as_bytes()]),
        Beside::Length => request.and(&[b"XLEN", ask.key.as_bytes()]),
        Beside::Nothing => request,
    }
}

/// What the answers to a read and a look say.
pub(super) fn reply(ask: ReadRequest<'_>, answers: Vec<Value>) -> Result<Reply, Error> {
    let answers: Result<[_; 2], _> = answers.try_into();
    let [read, info] = answers.map_err(|_| protocol_error("not an answer to each command"))?;
    let entries = found(ask, read)?;
    let seen = stream_info(info)?.map_or(StreamState::Missing, StreamState::Stream);
    Ok(Reply { entries, seen })
}

/// The entries in the answer to a read.
pub(super) fn found(ask: ReadRequest<'_>, read: Value) -> Result<Vec<Entry>, Error> {
    let entries = streams(read, ask.key)?;
    let ids = entries.iter().map(|entry| entry.id);
    if !std::iter::once(ask.after).chain(ids).is_sorted_by(|before, id| before < id) {
        return Err(protocol_error(
            "XREAD answered with entries out of order, or not after the id",
        ));
    }
    Ok(entries)
}

/// For [`crate::fuzz`]: answers to a read, received in pieces whose size is the first byte. The size of the
/// pieces makes no difference, and any answers are a reply or an error.
#[cfg(any(test, fuzzing))]
pub fn fuzz_reply(data: &[u8]) {
    use crate::source::redis::tail::client::resp::in_pieces;
    let Some((size, data)) = data.split_first() else { return };
    let whole = in_pieces(data, data.len().max(1)).ok();
    assert_eq!(whole, in_pieces(data, usize::from(*size).max(1)).ok());
    let after = crate::sse::StreamId::ZERO;
    let ask = ReadRequest { key: "k", after, count: 10, most_bytes: usize::MAX };
    if let Some(Ok(reply)) = whole.map(|answers| reply(ask, answers)) {
        assert!(reply.entries.is_sorted_by(|a, b| a.id < b.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::StreamId;

    fn ask(after: u64, count: u64) -> ReadRequest<'static> {
        ReadRequest { key: "k", after: StreamId { ms: after, seq: 0 }, count, most_bytes: 100 }
    }

    fn text(text: &str) -> Value {
        Value::Bytes(bytes::Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn entries_out_of_order_or_not_after_the_id_are_protocol_errors() {
        let outcome = |ids: &[&str]| {
            let entry = |id: &&str| Value::List(vec![text(id), Value::List(Vec::new())]);
            let entries = Value::List(ids.iter().map(entry).collect());
            let read = Value::List(vec![Value::List(vec![text("k"), entries])]);
            let none = Value::Error("ERR no such key".into());
            let reply = reply(ask(5, 10), vec![read, none]);
            reply.map(|reply| reply.entries.len()).map_err(|error| error.code)
        };
        assert_eq!(outcome(&["5-1", "6-0", "10-0"]), Ok(3));
        for wrong in [&["5-0"][..], &["4-0", "6-0"], &["7-0", "6-0"], &["6-0", "6-0"]] {
            assert_eq!(outcome(wrong), Err("PROTOCOL"), "{wrong:?}");
        }
    }

    /// Asking for fewer entries would not make it smaller: abandoned each time, it would never be read.
    #[test]
    fn one_entry_and_the_one_before_it_may_be_of_any_size() {
        let max_bytes = |count| request(ask(5, count), None, Beside::Look).max_answer_bytes();
        let and_the_one_before_it = 1 + 1;
        assert_eq!(max_bytes(and_the_one_before_it), usize::MAX);
        assert_eq!(max_bytes(and_the_one_before_it + 1), 100);
    }
}
