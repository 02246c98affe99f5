//! One server of several: how to speak to it, and how long it is suspected after a failure.

use std::time::Duration;

use crate::config::Address;
use crate::source::redis::client::Link;
use crate::source::redis::client::role::Role;
use crate::source::{Error, ErrorClass};

/// A server that failed is asked last for this long, and not read from if there is another.
const SUSPECTED: Duration = Duration::from_secs(5);
/// One that lags answers on: whoever comes back too soon waits for it once more.
const SUSPECTED_OF_LAG: Duration = Duration::from_secs(30);

/// What a server is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source::redis) enum Purpose {
    /// To read from, as `read_from` says.
    Reading,
    /// To write to, or to have the last word.
    Primary,
}

/// A server, and how to speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::redis) struct Node {
    pub(in crate::source::redis) address: Address,
    /// Each command is announced with ASKING.
    pub(in crate::source::redis) asking: bool,
    /// It is believed to be a primary, and of no use if it is none.
    pub(in crate::source::redis) primary: bool,
}

impl Node {
    pub(in crate::source::redis) fn at(address: Address) -> Self {
        Self { address, asking: false, primary: false }
    }

    /// Whether the server is what it is taken for, as far as we may know.
    pub(in crate::source::redis) async fn verify(&self, link: &mut Link) -> Result<(), Error> {
        if self.primary && matches!(link.role().await?, Some(Role::Replica { .. })) {
            let message = format!("{} is no longer the primary, or not yet", self.address);
            return Err(Error { class: ErrorClass::Away, code: "FAILOVER", message });
        }
        Ok(())
    }
}

/// How long the server where this happened is suspected.
pub(in crate::source::redis) fn suspicion(error: &Error) -> Duration {
    if error.code == "LAGGING" { SUSPECTED_OF_LAG } else { SUSPECTED }
}

/// A refusal that has nothing to do with any key, which only the operator can mend.
pub(in crate::source::redis) fn about_no_key(error: Error) -> Error {
    let class = if error.class == ErrorClass::Key { ErrorClass::Login } else { error.class };
    Error { class, ..error }
}
