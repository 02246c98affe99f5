//! Orphaned replicas: they have lost their primary and still answer, with a stream that stands still. No error
//! shows that.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::client::role::Role;
use crate::config::Address;
use crate::source::{Error, ErrorClass};

/// A replica may be without its primary for this long. It finds a primary that was restarted, or replaced in a
/// failover, within a few seconds. A full copy takes longer, and until then nothing new arrives.
pub(crate) const ORPHAN_PATIENCE: Duration = Duration::from_secs(10);
/// A replica that nobody has checked for this long may have had its primary meanwhile. It is longer than any
/// server is suspected.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// When each orphaned replica was first seen so: a new connection to it does not start its patience again.
#[derive(Default)]
pub(crate) struct OrphanedReplicas {
    known: Mutex<HashMap<Address, Sighting>>,
}

#[derive(Clone, Copy)]
struct Sighting {
    first: Instant,
    last: Instant,
}

impl OrphanedReplicas {
    /// Notes the role of a server; returns since when it has been an orphaned replica, and fails if that was too long.
    pub(crate) fn judge(
        &self,
        address: &Address,
        role: Option<&Role>,
    ) -> Result<Option<Instant>, Error> {
        let is_orphaned = matches!(role, Some(Role::Replica { is_connected: false, .. }));
        let since = self.note_at(Instant::now(), address, is_orphaned);
        if since.is_none_or(|since| since.elapsed() < ORPHAN_PATIENCE) {
            return Ok(since);
        }
        let message = format!(
            "{address} is a replica without its primary and gets nothing new; see INFO replication there"
        );
        Err(Error { class: ErrorClass::Away, code: "LAGGING", message })
    }

    fn note_at(&self, now: Instant, address: &Address, is_orphaned: bool) -> Option<Instant> {
        let mut known = self.known.lock().expect("no holder of the lock panics");
        known.retain(|_, sighting| now - sighting.last < FORGOTTEN_AFTER);
        if !is_orphaned {
            known.remove(address);
            return None;
        }
        let sighting = known.entry(address.clone()).or_insert(Sighting { first: now, last: now });
        sighting.last = now;
        Some(sighting.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_orphaned_until_it_has_its_primary_or_nobody_checks() {
        let (orphans, at) = (OrphanedReplicas::default(), Address::Tcp("a".into(), 6379));
        let other = Address::Tcp("b".into(), 6379);
        let first = Instant::now();
        let after = |seconds| first + Duration::from_secs(seconds);
        assert_eq!(orphans.note_at(first, &at, true), Some(first));
        assert_eq!(orphans.note_at(after(50), &at, true), Some(first), "it was checked in time");
        assert_eq!(orphans.note_at(after(50), &other, false), None);
        assert_eq!(orphans.note_at(after(100), &at, false), None);
        assert_eq!(orphans.note_at(after(101), &at, true), Some(after(101)));
        assert_eq!(orphans.note_at(after(161), &at, true), Some(after(161)), "it was forgotten");
    }
}
