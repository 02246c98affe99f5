//! A node: one server, how to speak to it, and how long it is suspected after a failure.

use std::time::Duration;

use crate::config::Address;
use crate::source::redis::tail::client::Link;
use crate::source::redis::tail::client::role::Role;
use crate::source::{Error, ErrorClass};

/// After a failure, a server is asked last for this long, and is not read from if there is another one.
const SUSPECTED: Duration = Duration::from_secs(5);
/// The same after a lag. A replica that lags still answers, and readers that came back to it too soon would
/// wait for it once more.
const SUSPECTED_OF_LAG: Duration = Duration::from_secs(30);

/// What a server is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To read from, as `source.read_from` says.
    Reading,
    /// To write to, or to check what a replica says.
    Primary,
}

/// A server, and how to speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) address: Address,
    /// `ASKING` goes before each command.
    pub(crate) asking: bool,
    /// The sentinels named it as the primary: it is of no use as a replica.
    pub(crate) must_be_primary: bool,
}

impl Node {
    pub(crate) fn at(address: Address) -> Self {
        Self { address, asking: false, must_be_primary: false }
    }

    /// Fails if the server has to be the primary and says that it is not.
    pub(crate) async fn verify(&self, link: &mut Link) -> Result<(), Error> {
        if self.must_be_primary && matches!(link.role().await?, Some(Role::Replica { .. })) {
            let message = format!("{} is no longer the primary, or not yet", self.address);
            return Err(Error { class: ErrorClass::Away, code: "FAILOVER", message });
        }
        Ok(())
    }
}

/// How long a server is suspected after this failure.
pub(super) fn suspicion(error: &Error) -> Duration {
    if error.code == "LAGGING" { SUSPECTED_OF_LAG } else { SUSPECTED }
}

/// An error of a command that is about no key: what would be the key's fault is the login's.
pub(super) fn about_no_key(error: Error) -> Error {
    let class = if error.class == ErrorClass::Key { ErrorClass::Login } else { error.class };
    Error { class, ..error }
}
