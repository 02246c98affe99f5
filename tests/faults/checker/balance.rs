//! What a client was told to be missing against what is, in numbers: between two entries, and over its whole run.

use super::{Client, Group};

/// Counted over a client's whole run.
pub(super) struct Balance {
    /// By gaps with a number.
    pub(super) reported: u64,
    /// Entries not delivered, and not deleted one by one.
    pub(super) missing: u64,
    /// Entries not delivered that were.
    pub(super) deleted: u64,
    /// Those of them that were deleted after the last gap.
    pub(super) unreported: u64,
    /// Attempts to write whose outcome is unknown, and entries of others that are gone.
    pub(super) unknown: u64,
    /// Every gap had a number.
    exact: bool,
}

impl Default for Balance {
    fn default() -> Self {
        Self { reported: 0, missing: 0, deleted: 0, unreported: 0, unknown: 0, exact: true }
    }
}

impl Client<'_> {
    /// Exact numbers are held against what is missing. A deletion may be reported late, or with what lies
    /// around it, so where there were any the sum of the run is what counts. A number at most is no less than what is
    /// missing, and no more than what is gone of everybody's.
    pub(super) fn count(
        &mut self,
        group: &Group,
        missing: u64,
        unknown: u64,
        balance: &mut Balance,
    ) {
        let reported: u64 = group.gaps.iter().filter_map(|gap| gap.told()).sum();
        let exact = group.gaps.iter().all(|gap| gap.told().is_some());
        balance.reported += reported;
        balance.missing += missing;
        balance.unknown += unknown;
        balance.exact &= exact;
        let deletions = !self.history.deleted.is_empty();
        let too_many = reported > missing + unknown && !deletions;
        let too_few = exact
            && !group.gaps.is_empty()
            && reported < missing
            && !self.history.allowed.redis_loses;
        if too_many || too_few {
            let gaps = &group.gaps;
            self.violations
                .push(format!("{missing} are missing, and told are {reported}: {gaps:?}"));
        }
    }

    pub(super) fn close(&mut self, balance: &Balance) {
        let missing = balance.missing + balance.deleted;
        let short = balance.exact && balance.deleted > 0;
        let unreported =
            if short { missing.saturating_sub(balance.reported) } else { balance.unreported };
        if unreported > 0 {
            self.lost += usize::try_from(unreported).unwrap();
            self.violations.push(format!("{unreported} deleted entries were never told"));
        }
        if balance.reported > missing + balance.unknown {
            let reported = balance.reported;
            self.violations.push(format!("{missing} are missing in all, and told are {reported}"));
        }
    }
}
