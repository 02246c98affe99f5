//! Which servers trim entries from the middle of a stream: Redis from 8.2 on, where it is told to keep what consumer
//! groups have not acknowledged (`XTRIM … ACKED`). <https://redis.io/docs/latest/commands/xtrim/>

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::client::replies::{list, text};
use super::client::resp::Value;
use crate::config::Address;
use crate::source::Error;

/// The first version that does.
const FIRST_VERSION: (u32, u32) = (8, 2);
/// A server's answer counts for this long: it may be upgraded.
const KEPT: Duration = Duration::from_secs(60);

/// What servers have answered.
#[derive(Default)]
pub(super) struct HoleMakers {
    known: Mutex<HashMap<Address, (Instant, bool)>>,
}

impl HoleMakers {
    /// What the server at `address` has answered, if it was asked a short while ago.
    pub(super) fn find(&self, address: &Address) -> Option<bool> {
        let known = self.known.lock().expect("no holder of the lock panics");
        known.get(address).filter(|(when, _)| when.elapsed() < KEPT).map(|(_, makes)| *makes)
    }

    pub(super) fn note(&self, address: &Address, makes_holes: bool) {
        let mut known = self.known.lock().expect("no holder of the lock panics");
        known.retain(|_, (when, _)| when.elapsed() < KEPT);
        known.insert(address.clone(), (Instant::now(), makes_holes));
    }
}

/// `HELLO` came with Redis 6: a server that does not know it answers with an error, and is older.
pub(super) fn hello_makes_holes(answer: Value) -> bool {
    if matches!(answer, Value::Error(_)) {
        return false;
    }
    match server_and_version(answer) {
        Ok((server, version)) => server == "redis" && version.is_none_or(|at| at >= FIRST_VERSION),
        Err(_) => true,
    }
}

fn server_and_version(answer: Value) -> Result<(String, Option<(u32, u32)>), Error> {
    let mut parts = list(answer)?.into_iter();
    let (mut server, mut version) = (String::new(), None);
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        match &*text(name)? {
            "server" => server = text(value)?,
            "version" => version = major_and_minor(&text(value)?),
            _ => {}
        }
    }
    Ok((server, version))
}

fn major_and_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn hello(server: &str, version: &str) -> Value {
        let words = ["server", server, "version", version];
        Value::List(words.map(|word| Value::Bytes(Bytes::copy_from_slice(word.as_bytes()))).into())
    }

    #[test]
    fn only_redis_from_8_2_on_makes_holes() {
        for version in ["8.2.0", "8.10.1", "9.0.0", "unheard of"] {
            assert!(hello_makes_holes(hello("redis", version)), "{version}");
        }
        for version in ["6.2.14", "7.4.2", "8.0.3"] {
            assert!(!hello_makes_holes(hello("redis", version)), "{version}");
        }
        assert!(!hello_makes_holes(hello("valkey", "9.1.2")));
        assert!(!hello_makes_holes(Value::Error("ERR unknown command 'HELLO'".into())));
        assert!(hello_makes_holes(Value::Nil), "nothing is known");
    }
}
