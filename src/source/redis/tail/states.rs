//! The state beside a stream: a key of another type, read in one moment with the stream's end.
//!
//! Over links of ours, as all that streams depend on: the reply is bounded, and of two answers in one transaction one may
//! be an error (there is no such stream yet) without harm to the other.

use bytes::Bytes;

use super::client::replies::{accepted, bytes, list, number, protocol_error, stream_info};
use super::client::request::Request;
use super::client::resp::Value;
use super::client::{ANSWER_TIMEOUT, READ_TIMEOUT};
use super::routing::Tail;
use crate::source::{Error, ErrorClass, StateKind, StateSize, StreamInfo};
use crate::sse::{PART_BYTES, State};

impl Tail {
    /// How large the state in `key` is, asked before it is read; its members are not looked at.
    pub(in crate::source) async fn state_size(&self, key: &str) -> Result<StateSize, Error> {
        let kind = kind(&bytes(self.command(key, ANSWER_TIMEOUT, &["TYPE", key]).await?)?)?;
        let counting = match kind {
            StateKind::Missing => return Ok(StateSize { kind, text_bytes: 0, memory_bytes: 0 }),
            StateKind::Text => {
                let length = self.state_number(key, &["STRLEN", key]).await?;
                return Ok(StateSize { kind, text_bytes: length, memory_bytes: length });
            }
            // Its text is seldom longer than its tree takes memory.
            StateKind::Json => None,
            StateKind::Hash => Some("HLEN"),
            StateKind::List => Some("LLEN"),
            StateKind::Set => Some("SCARD"),
            StateKind::SortedSet => Some("ZCARD"),
        };
        let members = match counting {
            Some(word) => self.state_number(key, &[word, key]).await?,
            None => 1,
        };
        let usage = match self.state_number(key, &["MEMORY", "USAGE", key]).await {
            Ok(usage) => usage,
            // Some users and some servers may not; the read itself is bounded as well.
            Err(error) if error.code == "NOPERM" || error.code == "ERR" => 0,
            Err(error) => return Err(error),
        };
        // Each member has two quotes and a comma at least.
        let text_bytes = members.saturating_mul(3);
        let memory_bytes = usage.saturating_add(members.saturating_mul(2 * PART_BYTES));
        Ok(StateSize { kind, text_bytes, memory_bytes })
    }

    async fn state_number(&self, key: &str, words: &[&str]) -> Result<usize, Error> {
        let answer = accepted(self.command(key, ANSWER_TIMEOUT, words).await?)?;
        // The key may be gone meanwhile.
        if answer == Value::Nil {
            return Ok(0);
        }
        Ok(usize::try_from(number(&answer)?).unwrap_or(usize::MAX))
    }

    /// The state in `key`, which is of this kind, and the stream `stream` at the same moment. Fails with `TOOLARGE` if
    /// the two take more than `most_bytes` of memory, and with `WRONGTYPE` if the key is of another kind by now.
    pub(in crate::source) async fn state(
        &self,
        key: &str,
        kind: StateKind,
        stream: &str,
        most_bytes: usize,
    ) -> Result<(State, Option<StreamInfo>), Error> {
        let mut words: Vec<&[u8]> = match kind {
            StateKind::Missing => vec![b"TYPE"],
            StateKind::Text => vec![b"GET"],
            StateKind::Json => vec![b"JSON.GET"],
            StateKind::Hash => vec![b"HGETALL"],
            StateKind::List => vec![b"LRANGE"],
            StateKind::Set => vec![b"SMEMBERS"],
            StateKind::SortedSet => vec![b"ZRANGE"],
        };
        words.push(key.as_bytes());
        match kind {
            StateKind::List => words.extend([&b"0"[..], b"-1"]),
            StateKind::SortedSet => words.extend([&b"0"[..], b"-1", b"WITHSCORES"]),
            _ => {}
        }
        let request = Request::new(&[b"MULTI"])
            .and(&words)
            .and(&[b"XINFO", b"STREAM", stream.as_bytes()])
            .and(&[b"EXEC"])
            .with_max_answer_bytes(most_bytes);
        let mut answers = self.request(key, READ_TIMEOUT, "reading a state", &request).await?;
        // That a command was not queued tells why there was no transaction.
        let executed = answers.pop().unwrap_or(Value::Nil);
        for queued in answers {
            accepted(queued)?;
        }
        let mut both = list(accepted(executed)?)?.into_iter();
        let (Some(value), Some(info), None) = (both.next(), both.next(), both.next()) else {
            return Err(protocol_error("EXEC did not answer about both keys"));
        };
        let info = match stream_info(info)? {
            Some(info) => Some(self.with_possible_holes(stream, info).await),
            None => None,
        };
        Ok((state(kind, accepted(value)?)?, info))
    }
}

fn kind(name: &Bytes) -> Result<StateKind, Error> {
    Ok(match &name[..] {
        b"none" => StateKind::Missing,
        b"string" => StateKind::Text,
        b"ReJSON-RL" => StateKind::Json,
        b"hash" => StateKind::Hash,
        b"list" => StateKind::List,
        b"set" => StateKind::Set,
        b"zset" => StateKind::SortedSet,
        _ => return Err(other_kind()),
    })
}

fn other_kind() -> Error {
    let message = "the key of the state holds no string, hash, list, set, sorted set or JSON";
    Error { class: ErrorClass::Key, code: "WRONGTYPE", message: message.into() }
}

fn state(kind: StateKind, value: Value) -> Result<State, Error> {
    Ok(match (kind, value) {
        (StateKind::Missing, value) if bytes(value.clone())? == "none" => State::Missing,
        (StateKind::Missing, _) => return Err(other_kind()),
        (_, Value::Nil) => State::Missing,
        (StateKind::Text | StateKind::Json, value) => State::Text(bytes(value)?),
        // Redis has no empty list, set or hash: the key is gone.
        (_, Value::List(values)) if values.is_empty() => State::Missing,
        (StateKind::List | StateKind::Set, values) => {
            State::Members(list(values)?.into_iter().map(bytes).collect::<Result<_, _>>()?)
        }
        (StateKind::Hash, values) => State::Fields(pairs(values)?),
        (StateKind::SortedSet, values) => State::Scores(pairs(values)?),
    })
}

fn pairs(values: Value) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let values = list(values)?;
    let mut pairs = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let Some(name) = values.next() {
        let value = values.next().ok_or_else(|| protocol_error("a name without a value"))?;
        pairs.push((bytes(name)?, bytes(value)?));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn what_a_key_holds_becomes_a_state() {
        let pair = || Value::List(vec![text("a"), text("1")]);
        let pairs = vec![("a".into(), "1".into())];
        assert_eq!(state(StateKind::Hash, pair()).unwrap(), State::Fields(pairs.clone()));
        assert_eq!(state(StateKind::SortedSet, pair()).unwrap(), State::Scores(pairs));
        let members = State::Members(vec!["a".into(), "1".into()]);
        assert_eq!(state(StateKind::Set, pair()).unwrap(), members);
        assert_eq!(state(StateKind::Text, text("")).unwrap(), State::Text("".into()));
    }

    #[test]
    fn a_key_that_goes_or_comes_between_two_questions_is_missing_or_asked_for_again() {
        for gone in [StateKind::Hash, StateKind::Set, StateKind::List, StateKind::SortedSet] {
            assert_eq!(state(gone, Value::List(Vec::new())).unwrap(), State::Missing);
        }
        assert_eq!(state(StateKind::Text, Value::Nil).unwrap(), State::Missing);
        assert_eq!(state(StateKind::Missing, text("none")).unwrap(), State::Missing);
        assert_eq!(state(StateKind::Missing, text("hash")).unwrap_err().code, "WRONGTYPE");
        let odd = Value::List(vec![text("a")]);
        assert_eq!(state(StateKind::Hash, odd).unwrap_err().code, "PROTOCOL");
    }
}
