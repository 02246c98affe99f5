//! RESP2, the protocol of Redis: commands written, replies taken apart as their bytes come in.
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>

use bytes::{Buf, Bytes, BytesMut};

/// Lists within lists: `XREAD` and `XINFO STREAM` need four.
const DEEPEST: usize = 8;
/// A line that is no string's content: a length, a number, an error.
const LONGEST_LINE_BYTES: usize = 64 << 10;
/// Redis' own limit (`proto-max-bulk-len`).
const LARGEST_STRING_BYTES: usize = 512 << 20;
/// Room for a list is made for so many at first, however many are announced.
const LIST_ROOM: usize = 64;

/// A reply, or part of one.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::source::redis) enum Value {
    /// No string, or no list.
    Nil,
    /// A string of either kind.
    Bytes(Bytes),
    Integer(i64),
    List(Vec<Value>),
    /// What Redis says against the command.
    Refusal(String),
}

/// No RESP2; the connection is of no more use.
#[derive(Debug, PartialEq)]
pub(in crate::source::redis) struct Malformed(pub(in crate::source::redis) &'static str);

/// Appends a command: an array of strings.
pub(in crate::source::redis) fn write_command(out: &mut Vec<u8>, words: &[&[u8]]) {
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

/// Takes replies apart; what has been read once is not looked at again.
#[derive(Default)]
pub(in crate::source::redis) struct Decoder {
    /// Lists that are not whole yet, outermost first: how many items each still lacks, and the rest.
    open: Vec<(usize, Vec<Value>)>,
    /// Values so far, lists among them, since whoever reads on set it to zero.
    pub(in crate::source::redis) values: usize,
}

enum Token {
    Value(Value),
    /// A list of so many items begins; at least one.
    List(usize),
}

impl Decoder {
    /// The next whole reply at the start of `input`, which is used up as far as it was understood;
    /// `None`: more bytes are needed.
    pub(in crate::source::redis) fn next(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<Value>, Malformed> {
        while let Some(token) = next_token(input)? {
            self.values += 1;
            match token {
                Token::List(_) if self.open.len() == DEEPEST => {
                    return Err(Malformed("lists within lists without end"));
                }
                Token::List(length) => {
                    self.open.push((length, Vec::with_capacity(length.min(LIST_ROOM))));
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

    /// Adds to the innermost list; what is whole by that.
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
    let Some(end) = input.iter().take(LONGEST_LINE_BYTES).position(|byte| *byte == b'\n') else {
        let endless = input.len() >= LONGEST_LINE_BYTES;
        return if endless { Err(Malformed("a line without end")) } else { Ok(None) };
    };
    let Some((kind, rest)) = input[..end].strip_suffix(b"\r").and_then(|line| line.split_first())
    else {
        return Err(Malformed("a line of no kind"));
    };
    let value = match kind {
        b'+' => Value::Bytes(Bytes::copy_from_slice(rest)),
        b'-' => Value::Refusal(String::from_utf8_lossy(rest).into_owned()),
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
        _ => return Err(Malformed("a reply of unknown kind")),
    };
    input.advance(end + 1);
    Ok(Some(Token::Value(value)))
}

/// The string whose length stands before `start`.
fn string(input: &mut BytesMut, start: usize) -> Result<Option<Token>, Malformed> {
    let Some(length) = length(&input[1..start - 2])? else {
        input.advance(start);
        return Ok(Some(Token::Value(Value::Nil)));
    };
    if length > LARGEST_STRING_BYTES {
        return Err(Malformed("a string larger than any"));
    }
    if input.len() < start + length + 2 {
        return Ok(None);
    }
    if input[start + length..start + length + 2] != *b"\r\n" {
        return Err(Malformed("a string that goes on after its end"));
    }
    input.advance(start);
    let bytes = input.split_to(length).freeze();
    input.advance(2);
    Ok(Some(Token::Value(Value::Bytes(bytes))))
}

/// `None`: -1, for nil.
fn length(digits: &[u8]) -> Result<Option<usize>, Malformed> {
    match number(digits)? {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| Malformed("a negative length")),
    }
}

fn number(digits: &[u8]) -> Result<i64, Malformed> {
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.ok_or(Malformed("a number that is none"))
}

/// What comes out where `bytes` come in pieces of this size.
#[cfg(any(test, fuzzing))]
pub(in crate::source::redis) fn in_pieces(
    bytes: &[u8],
    size: usize,
) -> Result<Vec<Value>, Malformed> {
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
    fn every_kind_of_reply_is_read() {
        let values =
            all(b"+OK\r\n-ERR no\r\n:-7\r\n$-1\r\n*-1\r\n*0\r\n*2\r\n$1\r\na\r\n*1\r\n:1\r\n");
        let inner = Value::List(vec![Value::Integer(1)]);
        assert_eq!(
            values.unwrap(),
            [
                text("OK"),
                Value::Refusal("ERR no".into()),
                Value::Integer(-7),
                Value::Nil,
                Value::Nil,
                Value::List(vec![]),
                Value::List(vec![text("a"), inner]),
            ]
        );
    }

    #[test]
    fn what_is_no_resp_is_refused() {
        let deep = "*1\r\n".repeat(DEEPEST + 1);
        let long = format!("+{}", "a".repeat(LONGEST_LINE_BYTES));
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
    fn an_announced_length_takes_no_memory() {
        assert_eq!(all(b"*9223372036854775807\r\n$536870912\r\nabc"), Ok(vec![]));
    }

    #[test]
    fn a_value_takes_no_more_than_is_counted_for_it() {
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
            Value::Refusal(text) => out.extend_from_slice(format!("-{text}\r\n").as_bytes()),
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
            "[A-Z]{1,5} [a-z ]{0,9}".prop_map(Value::Refusal),
        ];
        leaf.prop_recursive(5, 40, 4, |inner| {
            proptest::collection::vec(inner, 0..4).prop_map(Value::List)
        })
    }

    proptest! {
        #![proptest_config(crate::seed::cases())]

        #[test]
        fn whatever_the_pieces_the_replies_are_the_same(
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
