//! Commands that go to Redis in one write, and the answers to a read.

use std::time::Duration;

use super::replies::{garbled, stream_info, streams};
use super::resp::{Value, write_command};
use crate::source::{Error, ReadRequest, Reply, StreamState};

/// As few entries as a read can be about: one, and the one before it that shows that nothing is missing.
const FEWEST: u64 = 2;

/// Commands that go in one write, encoded.
pub(in crate::source::redis) struct Request {
    bytes: Vec<u8>,
    /// Where each command begins.
    starts: Vec<usize>,
    most_bytes: usize,
}

impl Request {
    pub(in crate::source::redis) fn new(words: &[&[u8]]) -> Self {
        let length: usize = words.iter().map(|word| word.len() + 16).sum();
        Self {
            bytes: Vec::with_capacity(length),
            starts: Vec::with_capacity(2),
            most_bytes: usize::MAX,
        }
        .and(words)
    }

    /// One more.
    pub(in crate::source::redis) fn and(mut self, words: &[&[u8]]) -> Self {
        self.starts.push(self.bytes.len());
        write_command(&mut self.bytes, words);
        self
    }

    /// Larger answers are given up.
    pub(in crate::source::redis) fn with_answers_within(mut self, most_bytes: usize) -> Self {
        self.most_bytes = most_bytes;
        self
    }

    /// The most that all answers together may have.
    pub(in crate::source::redis) fn most_bytes(&self) -> usize {
        self.most_bytes
    }

    /// All of them, as they are written.
    pub(in crate::source::redis) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many they are, and so the answers.
    pub(in crate::source::redis) fn commands(&self) -> usize {
        self.starts.len()
    }

    /// The same, each command behind an ASKING.
    pub(in crate::source::redis) fn asking(&self) -> Self {
        let mut asking =
            Self { bytes: Vec::new(), starts: Vec::new(), most_bytes: self.most_bytes };
        let end = self.bytes.len();
        let ends = self.starts.iter().skip(1).chain(std::iter::once(&end));
        for (start, end) in self.starts.iter().zip(ends) {
            asking = asking.and(&[b"ASKING"]);
            asking.starts.push(asking.bytes.len());
            asking.bytes.extend_from_slice(&self.bytes[*start..*end]);
        }
        asking
    }

    /// `XREAD` and, behind it on the wire, `XINFO STREAM`: one round trip, and Redis looks at the
    /// stream right after it has answered the read.
    pub(in crate::source::redis) fn read(ask: ReadRequest<'_>, block: Option<Duration>) -> Self {
        let (count, after) = (ask.count.to_string(), ask.after.to_string());
        let block = block.map(|block| block.as_millis().to_string());
        let mut words: Vec<&[u8]> = vec![b"XREAD", b"COUNT", count.as_bytes()];
        if let Some(block) = &block {
            words.extend([b"BLOCK", block.as_bytes()]);
        }
        words.extend([b"STREAMS", ask.key.as_bytes(), after.as_bytes()]);
        let read = Self::new(&words);
        let read = if ask.count > FEWEST { read.with_answers_within(ask.most_bytes) } else { read };
        read.and(&[b"XINFO", b"STREAM", ask.key.as_bytes()])
    }
}

/// What [`Request::read`] was answered.
pub(in crate::source::redis) fn read_reply(
    ask: ReadRequest<'_>,
    answers: Vec<Value>,
) -> Result<Reply, Error> {
    let answers: Result<[_; 2], _> = answers.try_into();
    let [read, info] = answers.map_err(|_| garbled("not an answer to each command"))?;
    let entries = streams(read, ask.key)?;
    let ids = entries.iter().map(|entry| entry.id);
    if !std::iter::once(ask.after).chain(ids).is_sorted_by(|before, id| before < id) {
        return Err(garbled("XREAD answered with entries out of order, or not after the id"));
    }
    let seen = stream_info(info)?.map_or(StreamState::Missing, StreamState::Stream);
    Ok(Reply { entries, seen })
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
    fn entries_out_of_order_or_not_after_the_id_are_garbled() {
        let outcome = |ids: &[&str]| {
            let entry = |id: &&str| Value::List(vec![text(id), Value::List(Vec::new())]);
            let entries = Value::List(ids.iter().map(entry).collect());
            let read = Value::List(vec![Value::List(vec![text("k"), entries])]);
            let none = Value::Refusal("ERR no such key".into());
            let reply = read_reply(ask(5, 10), vec![read, none]);
            reply.map(|reply| reply.entries.len()).map_err(|error| error.code)
        };
        assert_eq!(outcome(&["5-1", "6-0", "10-0"]), Ok(3));
        for wrong in [&["5-0"][..], &["4-0", "6-0"], &["7-0", "6-0"], &["6-0", "6-0"]] {
            assert_eq!(outcome(wrong), Err("PROTOCOL"), "{wrong:?}");
        }
    }

    /// Asked for fewer, it would be as large: given up again and again, it would never be had.
    #[test]
    fn one_entry_and_the_one_before_it_may_be_of_any_size() {
        let most_bytes = |count| Request::read(ask(5, count), None).most_bytes();
        let and_the_one_before_it = 1 + 1;
        assert_eq!(most_bytes(and_the_one_before_it), usize::MAX);
        assert_eq!(most_bytes(and_the_one_before_it + 1), 100);
    }

    #[test]
    fn each_command_is_announced_where_the_slot_is_on_its_way() {
        let asking = Request::new(&[b"A"]).and(&[b"B", b"c"]).asking();
        let ask = "*1\r\n$6\r\nASKING\r\n";
        let written = format!("{ask}*1\r\n$1\r\nA\r\n{ask}*2\r\n$1\r\nB\r\n$1\r\nc\r\n");
        assert_eq!(std::str::from_utf8(asking.bytes()).unwrap(), written);
        assert_eq!(asking.commands(), 4);
    }
}
