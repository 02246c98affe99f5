//! What a server is to others: `ROLE`. <https://redis.io/docs/latest/commands/role/>

use super::replies::{answered, bytes, garbled, is_full, list, number, text};
use super::resp::Value;
use crate::config::Address;
use crate::source::Error;

/// What a server is to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::redis) enum Role {
    /// It is written to; how far its history goes, in bytes.
    Primary(u64),
    /// It follows that one, and hears it or does not; how far it has come, in bytes, where it has
    /// anything.
    Replica { of: Address, hears: bool, reached: Option<u64> },
}

/// What `ROLE` says; `None`: we may not know.
pub(in crate::source::redis) fn role(value: Value) -> Result<Option<Role>, Error> {
    let value = match value {
        Value::Refusal(words) if is_denied(&words) => return Ok(None),
        value => answered(value)?,
    };
    let mut parts = list(value)?.into_iter();
    let mut next = || parts.next().ok_or_else(|| garbled("ROLE without what it has to say"));
    match &*bytes(next()?)? {
        b"master" => Ok(Some(Role::Primary(number(&next()?)?))),
        b"slave" => {
            let (host, port) = (text(next()?)?, number(&next()?)?);
            let port = u16::try_from(port).map_err(|_| garbled("ROLE with a port that is none"))?;
            let (of, hears) = (Address::Tcp(host, port), *bytes(next()?)? == *b"connected");
            // -1: it has nothing yet.
            Ok(Some(Role::Replica { of, hears, reached: number(&next()?).ok() }))
        }
        _ => Err(garbled("ROLE that is neither a primary's nor a replica's")),
    }
}

fn is_denied(words: &str) -> bool {
    words.starts_with("NOPERM") || words.starts_with("ERR") && !is_full(words)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn word(text: &str) -> Value {
        Value::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn list<const N: usize>(values: [Value; N]) -> Result<Option<Role>, Error> {
        role(Value::List(values.into()))
    }

    #[test]
    fn a_primary_and_a_replica_are_told_apart() {
        let primary = list([word("master"), Value::Integer(7), Value::List(vec![])]).unwrap();
        assert_eq!(primary, Some(Role::Primary(7)));
        let replica = |state, offset| {
            let (state, offset) = (word(state), Value::Integer(offset));
            list([word("slave"), word("::1"), Value::Integer(6379), state, offset])
        };
        let of = |hears, reached| {
            Some(Role::Replica { of: Address::Tcp("::1".into(), 6379), hears, reached })
        };
        assert_eq!(replica("connected", 9).unwrap(), of(true, Some(9)));
        assert_eq!(replica("connect", 9).unwrap(), of(false, Some(9)));
        assert_eq!(replica("sync", -1).unwrap(), of(false, None), "it has nothing yet");
    }

    #[test]
    fn who_may_not_ask_does_not_know() {
        assert_eq!(role(Value::Refusal("NOPERM no".into())).unwrap(), None);
        assert_eq!(role(Value::Refusal("ERR unknown command".into())).unwrap(), None);
        for words in ["LOADING", "ERR max number of clients reached"] {
            role(Value::Refusal(words.into())).unwrap_err();
        }
    }

    #[test]
    fn a_role_of_another_form_is_garbled() {
        let port = Value::Integer(99_999);
        let far = list([word("slave"), word("h"), port, word("connected"), Value::Integer(1)]);
        for wrong in
            [list([]), list([word("sentinel")]), list([word("master")]), list([Value::Nil]), far]
        {
            assert_eq!(wrong.unwrap_err().code, "PROTOCOL");
        }
    }
}
