//! RESP2, the protocol of Redis: writes commands, and decodes replies as their bytes come in. Where it was agreed upon,
//! RESP3 as well, as far as Redis answers us in it.
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
    /// No answer, but something that Redis tells unasked (RESP3).
    Push(Vec<Value>),
}

impl Value {
    /// About how many bytes it has.
    pub(crate) fn weight_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::List(values) | Self::Push(values) => values.iter().map(Self::weight_bytes).sum(),
            Self::Nil | Self::Integer(_) | Self::Error(_) => 0,
        }
    }
}

/// The bytes are no RESP: the connection cannot be used any more.
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
    /// The server was told to speak RESP3.
    pub(crate) speaks_resp3: bool,
    /// The outermost open list is told unasked.
    is_push: bool,
}

enum Token {
    Value(Value),
    /// The beginning of a list of so many items, at least one.
    List(usize),
    /// The same of one that is told unasked.
    Push(usize),
}

impl Decoder {
    /// Decodes the next whole reply and removes what it has decoded from `input`; `None`: more bytes are
    /// needed.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Value>, Malformed> {
        while let Some(token) = next_token(input, self.speaks_resp3)? {
            self.values += 1;
            match token {
                Token::Push(_) if !self.open.is_empty() => {
                    return Err(Malformed("a push within a reply"));
                }
                Token::List(_) if self.open.len() == MAX_DEPTH => {
                    return Err(Malformed("lists nested too deeply"));
                }
                Token::List(length) => {
                    self.open.push((length, Vec::with_capacity(length.min(LIST_CAPACITY))));
                }
                Token::Push(length) => {
                    self.is_push = true;
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
            let items = std::mem::take(items);
            self.open.pop();
            let is_push = self.open.is_empty() && std::mem::take(&mut self.is_push);
            value = if is_push { Value::Push(items) } else { Value::List(items) };
        }
        Some(value)
    }
}

fn next_token(input: &mut BytesMut, is_resp3: bool) -> Result<Option<Token>, Malformed> {
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
        kind if is_resp3 => {
            let token = resp3(*kind, rest)?;
            input.advance(end + 1);
            return Ok(Some(token));
        }
        _ => return Err(Malformed("a reply of unknown type")),
    };
    input.advance(end + 1);
    Ok(Some(Token::Value(value)))
}

/// What RESP3 has besides. A map is a list of names and values, and a set one of its members.
fn resp3(kind: u8, rest: &[u8]) -> Result<Token, Malformed> {
    const NEGATIVE: Malformed = Malformed("a negative length");
    Ok(Token::Value(match (kind, rest) {
        (b'_', b"") => Value::Nil,
        (b'#', b"t") => Value::Integer(1),
        (b'#', b"f") => Value::Integer(0),
        (b',', number) => Value::Bytes(Bytes::copy_from_slice(number)),
        (b'%' | b'~', count) => {
            let parts = if kind == b'%' { 2 } else { 1 };
            let length = length(count)?.ok_or(NEGATIVE)?.checked_mul(parts);
            match length.ok_or(Malformed("an invalid number"))? {
                0 => Value::List(Vec::new()),
                length => return Ok(Token::List(length)),
            }
        }
        (b'>', count) => match length(count)?.ok_or(NEGATIVE)? {
            0 => return Err(Malformed("a push of nothing")),
            length => return Ok(Token::Push(length)),
        },
        _ => return Err(Malformed("a reply of unknown type")),
    }))
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
    decoded(Decoder::default(), bytes, size)
}

/// The same of RESP3.
#[cfg(any(test, fuzzing))]
pub(crate) fn resp3_in_pieces(bytes: &[u8], size: usize) -> Result<Vec<Value>, Malformed> {
    decoded(Decoder { speaks_resp3: true, ..Decoder::default() }, bytes, size)
}

#[cfg(any(test, fuzzing))]
fn decoded(mut decoder: Decoder, bytes: &[u8], size: usize) -> Result<Vec<Value>, Malformed> {
    let (mut input, mut values) = (BytesMut::new(), vec![]);
    for piece in bytes.chunks(size) {
        input.extend_from_slice(piece);
        while let Some(value) = decoder.next(&mut input)? {
            values.push(value);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
