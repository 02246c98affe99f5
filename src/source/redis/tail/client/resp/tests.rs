//! Replies, whole and in pieces, and bytes that are none.

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
    let values = all(b"+OK\r\n-ERR no\r\n:-7\r\n$-1\r\n*-1\r\n*0\r\n*2\r\n$1\r\na\r\n*1\r\n:1\r\n");
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

#[test]
fn resp3_has_maps_nulls_and_what_is_told_unasked() {
    let bytes = b"%1\r\n$1\r\na\r\n_\r\n>2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n~1\r\n#t\r\n,1.5\r\n%0\r\n:1\r\n";
    let push = Value::Push(vec![text("invalidate"), Value::List(vec![text("k")])]);
    let values = [
        Value::List(vec![text("a"), Value::Nil]),
        push,
        Value::List(vec![Value::Integer(1)]),
        text("1.5"),
        Value::List(vec![]),
        Value::Integer(1),
    ];
    assert_eq!(resp3_in_pieces(bytes, bytes.len()).unwrap(), values);
    for kind in ["%1", "_", ">1", "~1", "#t", ",1"] {
        assert!(all(format!("{kind}\r\n").as_bytes()).is_err(), "{kind} is no RESP2");
    }
    for wrong in ["_x", "#x", "%-1", "~-1", ">-1", ">0", "*1\r\n>1", "=1", "(1"] {
        let wrong = format!("{wrong}\r\n");
        assert!(resp3_in_pieces(wrong.as_bytes(), 9).is_err(), "{wrong}");
    }
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
        Value::List(items) | Value::Push(items) => {
            let is_push = matches!(value, Value::Push(_));
            write_length(out, if is_push { b'>' } else { b'*' }, items.len());
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
    fn what_is_told_unasked_stays_apart_however_its_bytes_are_split(
        values in proptest::collection::vec((value(), any::<bool>()), 0..4),
        size in 1_usize..40,
    ) {
        let push = |(value, is_push)| if is_push { Value::Push(vec![value]) } else { value };
        let values: Vec<_> = values.into_iter().map(push).collect();
        let mut bytes = Vec::new();
        for value in &values {
            encode(value, &mut bytes);
        }
        prop_assert_eq!(resp3_in_pieces(&bytes, size).unwrap(), values);
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, words in "([*$:+%>_#~,-]?-?[0-9]{0,3}\r?\n?){0,9}") {
        for decoded in [in_pieces, resp3_in_pieces] {
            let _ = decoded(&bytes, bytes.len().max(1));
            let _ = decoded(words.as_bytes(), words.len().max(1));
        }
    }
}
