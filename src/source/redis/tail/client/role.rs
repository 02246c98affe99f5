//! `ROLE`: whether a server is a primary or a replica. <https://redis.io/docs/latest/commands/role/>

use super::replies::{accepted, bytes, list, number, text};
use super::resp::Value;
use crate::config::Address;
use crate::source::Error;
use crate::source::redis::refusal::is_too_many_clients;

/// A server's role. Offsets count the bytes of the replication history, which replicas share with their
/// primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It takes writes; how far its history goes.
    Primary { offset: Option<u64> },
    /// It follows `primary`, which may be a replica itself; `offset` is `None` before its first copy.
    Replica { primary: Option<Address>, is_connected: bool, offset: Option<u64> },
}

/// What `ROLE` answers; `None`: this user may not ask, or the answer is none that Redis gives. The first word
/// decides; what follows it is not the same with every make of server.
pub(crate) fn role(value: Value) -> Result<Option<Role>, Error> {
    let value = match value {
        Value::Error(words) if is_denied(&words) => return Ok(None),
        value => accepted(value)?,
    };
    let Ok(parts) = list(value) else { return Ok(None) };
    let mut parts = parts.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let first = bytes(next()).unwrap_or_default();
    Ok(match &*first {
        b"master" => Some(Role::Primary { offset: number(&next()).ok() }),
        b"slave" => {
            let (host, port) = (text(next()).ok(), number(&next()).ok());
            let port = port.and_then(|port| u16::try_from(port).ok());
            let primary = host.zip(port).map(|(host, port)| Address::Tcp(host, port));
            // Only where it says so: a server that tells nothing of its link is taken to have one.
            let is_connected = bytes(next()).map_or(true, |state| *state == *b"connected");
            // -1 before the first copy.
            let offset = number(&next()).ok();
            Some(Role::Replica { primary, is_connected, offset })
        }
        _ => None,
    })
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
        assert_eq!(primary, Some(Role::Primary { offset: Some(7) }));
        let replica = |state, offset| {
            let (state, offset) = (word(state), Value::Integer(offset));
            list([word("slave"), word("::1"), Value::Integer(6379), state, offset])
        };
        let of = |is_connected, offset| {
            let primary = Some(Address::Tcp("::1".into(), 6379));
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
    fn the_first_word_decides_and_what_is_unclear_is_unknown() {
        let primary = |rest: Vec<Value>| {
            let parts = std::iter::once(word("master")).chain(rest);
            role(Value::List(parts.collect())).unwrap()
        };
        let without_offset = Some(Role::Primary { offset: None });
        assert_eq!(primary(vec![]), without_offset);
        assert_eq!(primary(vec![Value::List(vec![])]), without_offset, "as Dragonfly answers");
        let replica = list([word("slave"), word("h"), Value::Integer(99_999)]).unwrap();
        let unclear = Role::Replica { primary: None, is_connected: true, offset: None };
        assert_eq!(replica, Some(unclear));
        for odd in [list([]), list([word("sentinel")]), list([Value::Nil]), role(Value::Nil)] {
            assert_eq!(odd.unwrap(), None);
        }
    }
}
