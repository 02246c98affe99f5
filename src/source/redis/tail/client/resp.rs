//! RESP2, the protocol of Redis: writes commands, and decodes replies as their bytes come in.
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>

use bytes::{Buf, Bytes, BytesMut};

/// How deep lists may be nested; `XREAD` and `XINFO STREAM` need four levels.
const MAX_DEPTH: usize = 8;
/// The longest line: a length, a number, an error or a simple string.
const MAX_LINE_BYTES: usize = 64 << 10;
/// The longest string, as Redis' own `proto-max-bulk-len` has it.
const MAX_STRING_BYTES: usize = 512 << 20;
/// A list gets room for at most this many items at first, however many are announced.
const LIST_CAPACITY: usize = 64;

/// A reply, or part of one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// The null string, or the null list.
    Nil,
    /// A simple string or a bulk string.
    Bytes(Bytes),
    Integer(i64),
    List(Vec<Value>),
    /// The command failed; why, in Redis' words.
    Error(String),
}

impl Value {
    /// About how many bytes it has.
    pub(crate) fn weight_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::List(values) => values.iter().map(Self::weight_bytes).sum(),
            Self::Nil | Self::Integer(_) | Self::Error(_) => 0,
        }
    }
}

/// The bytes are no RESP2: the connection cannot be used any more.
#[derive(Debug, PartialEq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Appends a command: an array of strings.
pub(crate) fn write_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    write_length(out, b'*', words.len());
    for word in words {
        write_length(out, b'$', word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_length(out: &mut Vec<u8>, kind: u8, length: usize) {
    use std::io::Write as _;
    out.push(kind);
    write!(out, "{length}\r\n").expect("writing to a Vec succeeds");
}

/// Decodes replies; no byte is looked at twice, but for those of a value that is not whole yet.
#[derive(Default)]
pub(crate) struct Decoder {
    /// Lists that are not whole yet, outermost first: how many items each still lacks, and those it has.
    open: Vec<(usize, Vec<Value>)>,
    /// Values decoded since the link set this to zero, lists included.
    pub(crate) values: usize,
}

enum Token {
    Value(Value),
    /// The beginning of a list of so many items, at least one.
    List(usize),
}

impl Decoder {
    /// Decodes the next whole reply and removes what it has decoded from `input`; `None`: more bytes are
    /// needed.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Value>, Malformed> {
        while let Some(token) = next_token(input)? {
            self.values += 1;
            match token {
                Token::List(_) if self.open.len() == MAX_DEPTH => {
                    return Err(Malformed("lists nested too deeply"));
                }
                Token::List(length) => {
                    self.open.push((length, Vec::with_capacity(length.min(LIST_CAPACITY))));
                }
                Token::Value(value) => {
                    if let Some(whole) = self.add(value) {
                        return Ok(Some(whole));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Adds a value to the innermost open list; returns the reply if that makes it whole.
    fn add(&mut self, mut value: Value) -> Option<Value> {
        while let Some((lacking, items)) = self.open.last_mut() {
            items.push(value);
            *lacking -= 1;
            if *lacking > 0 {
                return None;
            }
            value = Value::List(std::mem::take(items));
            self.open.pop();
        }
        Some(value)
    }
}

fn next_token(input: &mut BytesMut) -> Result<Option<Token>, Malformed> {
    let Some(end) = input.iter().take(MAX_LINE_BYTES).position(|byte| *byte == b'\n') else {
        let endless = input.len() >= MAX_LINE_BYTES;
        return if endless { Err(Malformed("a line too long")) } else { Ok(None) };
    };
    let Some((kind, rest)) = input[..end].strip_suffix(b"\r").and_then(|line| line.split_first())
    else {
        return Err(Malformed("a line without a type or without CRLF"));
    };
    let value = match kind {
        b'+' => Value::Bytes(Bytes::copy_from_slice(rest)),
        b'-' => Value::Error(String::from_utf8_lossy(rest).into_owned()),
        b':' => Value::Integer(number(rest)?),
        b'$' => return string(input, end + 1),
        b'*' => match length(rest)? {
            None => Value::Nil,
            Some(0) => Value::List(Vec::new()),
            Some(length) => {
                input.advance(end + 1);
                return Ok(Some(Token::List(length)));
            }
        },
        _ => return Err(Malformed("a reply of unknown type")),
    };
    input.advance(end + 1);
    Ok(Some(Token::Value(value)))
}

/// The bulk string whose content begins at `start`, after the line with its length.
fn string(input: &mut BytesMut, start: usize) -> Result<Option<Token>, Malformed> {
    let Some(length) = length(&input[1..start - 2])? else {
        input.advance(start);
        return Ok(Some(Token::Value(Value::Nil)));
    };
    if length > MAX_STRING_BYTES {
        return Err(Malformed("a string too long"));
    }
    if input.len() < start + length + 2 {
        return Ok(None);
    }
    if input[start + length..start + length + 2] != *b"\r\n" {
        return Err(Malformed("a string longer than announced"));
    }
    input.advance(start);
    let bytes = input.split_to(length).freeze();
    input.advance(2);
    Ok(Some(Token::Value(Value::Bytes(bytes))))
}

/// `None`: -1, which stands for null.
fn length(digits: &[u8]) -> Result<Option<usize>, Malformed> {
    match number(digits)? {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| Malformed("a negative length")),
    }
}

fn number(digits: &[u8]) -> Result<i64, Malformed> {
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.ok_or(Malformed("an invalid number"))
}

/// The replies in `bytes`, received in pieces of `size`.
#[cfg(any(test, fuzzing))]
pub(crate) fn in_pieces(bytes: &[u8], size: usize) -> Result<Vec<Value>, Malformed> {
    let (mut decoder, mut input, mut values) = (Decoder::default(), BytesMut::new(), vec![]);
    for piece in bytes.chunks(size) {
        input.extend_from_slice(piece);
        while let Some(value) = decoder.next(&mut input)? {
            values.push(value);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sse::PART_BYTES;

    fn all(bytes: &[u8]) -> Result<Vec<Value>, Malformed> {
        in_pieces(bytes, bytes.len().max(1))
    }

    fn text(text: &str) -> Value {
        Value::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_command_is_a_list_of_strings() {
        let mut out = Vec::new();
        write_command(&mut out, &[b"PING", b"", b"a\r\nb"]);
        assert_eq!(out, b"*3\r\n$4\r\nPING\r\n$0\r\n\r\n$4\r\na\r\nb\r\n");
    }

    #[test]
    fn every_type_of_reply_is_decoded() {
        let values =
            all(b"+OK\r\n-ERR no\r\n:-7\r\n$-1\r\n*-1\r\n*0\r\n*2\r\n$1\r\na\r\n*1\r\n:1\r\n");
        let inner = Value::List(vec![Value::Integer(1)]);
        assert_eq!(
            values.unwrap(),
            [
                text("OK"),
                Value::Error("ERR no".into()),
                Value::Integer(-7),
                Value::Nil,
                Value::Nil,
                Value::List(vec![]),
                Value::List(vec![text("a"), inner]),
            ]
        );
    }

    #[test]
    fn bytes_that_are_no_resp_are_an_error() {
        let deep = "*1\r\n".repeat(MAX_DEPTH + 1);
        let long = format!("+{}", "a".repeat(MAX_LINE_BYTES));
        for wrong in [
            "\r\n",
            "OK\r\n",
            "+OK\n",
            ":\r\n",
            ":1x\r\n",
            "$x\r\n",
            "$-2\r\n",
            "*-2\r\n",
            "$1\r\nab\r\n",
            "$536870913\r\n",
            "*99999999999999999999\r\n",
            &deep,
            &long,
        ] {
            assert!(all(wrong.as_bytes()).is_err(), "{wrong:.20}");
        }
    }

    #[test]
    fn an_announced_length_allocates_nothing() {
        assert_eq!(all(b"*9223372036854775807\r\n$536870912\r\nabc"), Ok(vec![]));
    }

    #[test]
    fn a_value_takes_no_more_memory_than_is_counted_for_it() {
        assert!(2 * size_of::<Value>() <= PART_BYTES, "{}", size_of::<Value>());
        let mut decoder = Decoder::default();
        let mut input = BytesMut::from("*2\r\n$1\r\na\r\n*1\r\n:1\r\n+OK\r\n");
        while decoder.next(&mut input).unwrap().is_some() {}
        assert_eq!(decoder.values, 5);
    }

    fn encode(value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::Nil => out.extend_from_slice(b"$-1\r\n"),
            Value::Bytes(bytes) => {
                write_length(out, b'$', bytes.len());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Value::Integer(number) => out.extend_from_slice(format!(":{number}\r\n").as_bytes()),
            Value::Error(text) => out.extend_from_slice(format!("-{text}\r\n").as_bytes()),
            Value::List(items) => {
                write_length(out, b'*', items.len());
                for item in items {
                    encode(item, out);
                }
            }
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<i64>().prop_map(Value::Integer),
            any::<Vec<u8>>().prop_map(|bytes| Value::Bytes(bytes.into())),
            "[A-Z]{1,5} [a-z ]{0,9}".prop_map(Value::Error),
        ];
        leaf.prop_recursive(5, 40, 4, |inner| {
            proptest::collection::vec(inner, 0..4).prop_map(Value::List)
        })
    }

    proptest! {
        #![proptest_config(crate::seed::cases())]

        #[test]
        fn replies_are_the_same_however_their_bytes_are_split(
            values in proptest::collection::vec(value(), 0..4),
            size in 1_usize..40,
        ) {
            let mut bytes = Vec::new();
            for value in &values {
                encode(value, &mut bytes);
            }
            prop_assert_eq!(in_pieces(&bytes, size).unwrap(), values);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, words in "([*$:+-]?-?[0-9]{0,3}\r?\n?){0,9}") {
            let _ = all(&bytes);
            let _ = all(words.as_bytes());
        }
    }
}
