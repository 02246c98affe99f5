//! Servers that refused a login. They are asked again after a pause, by one link for all: many are refused together,
//! where a password has expired, and each attempt costs the server a hash.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::config::Address;
use crate::source::{Error, ErrorClass};

const PAUSE: Duration = Duration::from_secs(2);

/// The last refusal of each server that has let nobody in since.
#[derive(Default)]
pub(super) struct LoginRefusals {
    known: Mutex<HashMap<Address, (Instant, Error)>>,
}

impl LoginRefusals {
    fn known(&self) -> MutexGuard<'_, HashMap<Address, (Instant, Error)>> {
        self.known.lock().expect("no holder of the lock panics")
    }

    /// Fails with the last refusal, if that was just now; else this attempt is the one for all.
    pub(super) fn may_log_in(&self, server: &Address) -> Result<(), Error> {
        let mut known = self.known();
        let Some((when, refusal)) = known.get_mut(server) else { return Ok(()) };
        if when.elapsed() < PAUSE {
            return Err(refusal.clone());
        }
        *when = Instant::now();
        Ok(())
    }

    /// A login has failed with this error, or has not failed.
    pub(super) fn note(&self, server: &Address, error: Option<&Error>) {
        match error {
            None => drop(self.known().remove(server)),
            Some(error) if error.class == ErrorClass::Login => {
                self.known().insert(server.clone(), (Instant::now(), error.clone()));
            }
            Some(_) => {}
        }
    }
}
