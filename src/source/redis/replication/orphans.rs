//! Replicas that have lost their primary: they answer on, what they have stands still, no error says so.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::config::Address;

/// A replica may be without its primary for this long. It finds one that was restarted, or one that was
/// chosen instead, within a few seconds; a full copy takes longer, and until then nothing new comes.
pub(in crate::source::redis) const PATIENCE: Duration = Duration::from_secs(10);
/// What nobody has looked at for this long may have been well meanwhile: longer than anybody is suspected.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Since when which replicas are adrift: a new connection to one of them is no reason to begin anew.
#[derive(Default)]
pub(in crate::source::redis) struct Orphans {
    known: Mutex<HashMap<Address, Sighting>>,
}

#[derive(Clone, Copy)]
struct Sighting {
    since: Instant,
    last: Instant,
}

impl Orphans {
    /// Takes note of whether this server hears its primary; since when it does not.
    pub(in crate::source::redis) fn note(&self, address: &Address, hears: bool) -> Option<Instant> {
        self.note_at(Instant::now(), address, hears)
    }

    fn note_at(&self, now: Instant, address: &Address, hears: bool) -> Option<Instant> {
        let mut known = self.known.lock().expect("no holder of the lock panics");
        known.retain(|_, sight| now - sight.last < FORGOTTEN);
        if hears {
            known.remove(address);
            return None;
        }
        let sight = known.entry(address.clone()).or_insert(Sighting { since: now, last: now });
        sight.last = now;
        Some(sight.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_adrift_until_it_hears_its_primary_or_nobody_looks() {
        let (adrift, at) = (Orphans::default(), Address::Tcp("a".into(), 6379));
        let other = Address::Tcp("b".into(), 6379);
        let first = Instant::now();
        let after = |seconds| first + Duration::from_secs(seconds);
        assert_eq!(adrift.note_at(first, &at, false), Some(first));
        assert_eq!(adrift.note_at(after(50), &at, false), Some(first), "whoever looks");
        assert_eq!(adrift.note_at(after(50), &other, true), None);
        assert_eq!(adrift.note_at(after(100), &at, true), None);
        assert_eq!(adrift.note_at(after(101), &at, false), Some(after(101)));
        assert_eq!(adrift.note_at(after(161), &at, false), Some(after(161)), "it was forgotten");
    }
}
