//! `ROLE`: whether a server is a primary or a replica. <https://redis.io/docs/latest/commands/role/>

use super::replies::{accepted, bytes, list, number, protocol_error, text};
use super::resp::Value;
use crate::config::Address;
use crate::source::Error;
use crate::source::redis::refusal::is_too_many_clients;

/// A server's role. Offsets count the bytes of the replication history, which replicas share with their
/// primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It takes writes; how far its history goes.
    Primary { offset: u64 },
    /// It follows `primary`, which may be a replica itself; `offset` is `None` before its first copy.
    Replica { primary: Address, is_connected: bool, offset: Option<u64> },
}

/// What `ROLE` answers; `None`: this user may not ask.
pub(crate) fn role(value: Value) -> Result<Option<Role>, Error> {
    let value = match value {
        Value::Error(words) if is_denied(&words) => return Ok(None),
        value => accepted(value)?,
    };
    let mut parts = list(value)?.into_iter();
    let mut next = || parts.next().ok_or_else(|| protocol_error("ROLE with too few items"));
    match &*bytes(next()?)? {
        b"master" => Ok(Some(Role::Primary { offset: number(&next()?)? })),
        b"slave" => {
            let (host, port) = (text(next()?)?, number(&next()?)?);
            let port =
                u16::try_from(port).map_err(|_| protocol_error("ROLE with an invalid port"))?;
            let is_connected = *bytes(next()?)? == *b"connected";
            // -1 before the first copy.
            let offset = number(&next()?).ok();
            Ok(Some(Role::Replica { primary: Address::Tcp(host, port), is_connected, offset }))
        }
        _ => Err(protocol_error("ROLE of neither a primary nor a replica")),
    }
}

fn is_denied(words: &str) -> bool {
    words.starts_with("NOPERM") || words.starts_with("ERR") && !is_too_many_clients(words)
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
        assert_eq!(primary, Some(Role::Primary { offset: 7 }));
        let replica = |state, offset| {
            let (state, offset) = (word(state), Value::Integer(offset));
            list([word("slave"), word("::1"), Value::Integer(6379), state, offset])
        };
        let of = |is_connected, offset| {
            let primary = Address::Tcp("::1".into(), 6379);
            Some(Role::Replica { primary, is_connected, offset })
        };
        assert_eq!(replica("connected", 9).unwrap(), of(true, Some(9)));
        assert_eq!(replica("connect", 9).unwrap(), of(false, Some(9)));
        assert_eq!(replica("sync", -1).unwrap(), of(false, None), "it has no copy yet");
    }

    #[test]
    fn a_user_without_the_right_gets_no_role() {
        assert_eq!(role(Value::Error("NOPERM no".into())).unwrap(), None);
        assert_eq!(role(Value::Error("ERR unknown command".into())).unwrap(), None);
        for words in ["LOADING", "ERR max number of clients reached"] {
            role(Value::Error(words.into())).unwrap_err();
        }
    }

    #[test]
    fn a_role_of_another_form_is_a_protocol_error() {
        let port = Value::Integer(99_999);
        let far = list([word("slave"), word("h"), port, word("connected"), Value::Integer(1)]);
        for wrong in
            [list([]), list([word("sentinel")]), list([word("master")]), list([Value::Nil]), far]
        {
            assert_eq!(wrong.unwrap_err().code, "PROTOCOL");
        }
    }
}
