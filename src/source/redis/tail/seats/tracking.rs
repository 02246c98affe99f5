//! Whether a server tells of keys that have changed (`CLIENT TRACKING`): then one group is enough.

use std::time::{Duration, Instant};

use super::ServerSeats;

/// Whether it does.
pub(super) enum Tracking {
    /// Nothing is known to the contrary.
    Possible,
    /// It does not; to be tried again then.
    Forgone { until: Instant },
}

/// After this it is tried again whether a server tells of keys.
const TRIED_AGAIN: Duration = Duration::from_secs(600);

impl ServerSeats {
    /// Whether a group should try to be told of its keys; where that has failed, one of them once in a while.
    pub(crate) fn may_track(&self, now: Instant) -> bool {
        let mut state = self.state();
        match &mut state.tracking {
            Tracking::Possible => true,
            Tracking::Forgone { until } if *until <= now => {
                *until = now + TRIED_AGAIN;
                true
            }
            Tracking::Forgone { .. } => false,
        }
    }

    /// The server tells of keys.
    pub(crate) fn note_tracking(&self) {
        self.state().tracking = Tracking::Possible;
    }

    /// The server does not tell of keys, and is not tried again for so long. Where more groups are of use than there
    /// are, all are closed: their readers spread.
    pub(crate) fn forgo_tracking(&self, now: Instant, pause: Duration) {
        let mut state = self.state();
        state.tracking = Tracking::Forgone { until: now + pause };
        if self.allotment(&state, state.readers.len()).groups <= state.groups.len() {
            return;
        }
        state.closed = now;
        for group in std::mem::take(&mut state.groups) {
            group.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Seat, SeatKind};
    use super::*;

    fn groups_of(taken: &[Seat]) -> usize {
        let mut groups: Vec<u64> = taken
            .iter()
            .filter_map(|seat| match &seat.kind {
                SeatKind::Shared(place) => Some(place.group.id),
                SeatKind::Own { .. } => None,
            })
            .collect();
        groups.sort_unstable();
        groups.dedup();
        groups.len()
    }

    fn take(seats: &Arc<ServerSeats>) -> Vec<Seat> {
        (0..300).map(|key| seats.take(&format!("key {key}")).0).collect()
    }

    #[test]
    fn one_group_is_enough_as_long_as_the_server_tells_of_keys() {
        let seats = Arc::new(ServerSeats::new(64, usize::MAX));
        let taken = take(&seats);
        assert_eq!(groups_of(&taken), 1);
        let now = Instant::now();
        assert!(seats.may_track(now) && seats.may_track(now));
        seats.forgo_tracking(now, TRIED_AGAIN);
        assert_eq!(seats.groups(), 0, "its readers come back");
        drop(taken);
        assert!(groups_of(&take(&seats)) > 10);
        assert!(!seats.may_track(now));
        assert!(seats.may_track(now + TRIED_AGAIN));
        assert!(!seats.may_track(now + TRIED_AGAIN), "one tries for all");
        seats.note_tracking();
        assert!(seats.may_track(now));
        drop(take(&seats));
    }

    #[test]
    fn a_group_that_is_enough_goes_on_without_being_told() {
        let seats = Arc::new(ServerSeats::new(64, 1));
        let taken = take(&seats);
        seats.forgo_tracking(Instant::now(), TRIED_AGAIN);
        assert_eq!(seats.groups(), 1);
        drop(taken);
    }
}
