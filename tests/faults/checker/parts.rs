//! Holds where a client comes back against what it has heard, and what it heard of one of the streams of its connection
//! against what it heard of the others.

use ssegate::sse::StreamId;

use super::Client;
use super::rows::Place;
use crate::history::What;

impl Client<'_> {
    /// Whether its connection may end like this: for its own sake, or for that of another stream there.
    pub(super) fn may_close(&self, why: &str) -> bool {
        let for_others = self.is_part && self.history.allowed_to_merged.may_close(why);
        for_others || self.history.allowed.may_close(why)
    }

    /// Only what comes of a stream moves the client in it; before that, ids may tell where it begins. One that gets
    /// only some entries is moved as by an `at`.
    pub(super) fn check_move(&mut self, to: Option<StreamId>, place: &mut Place) {
        match (place.last_id, to) {
            (None, to) => place.last_id = to,
            (_, Some(to)) if self.selection.withholds() => self.check_at(to, place),
            (Some(last_id), to) => {
                let to = to.map_or("nowhere".into(), |to| to.to_string());
                let moved = format!("another stream moved it to {to}, and it is at {last_id}");
                self.violations.push(moved);
            }
        }
    }

    /// It goes on where it is; one that gets only some entries may have been moved, as by an `at`.
    pub(super) fn check_resume(&mut self, after: &str, place: &mut Place) {
        let resumed = after.parse::<StreamId>().ok();
        let Some(last_id) = place.last_id.filter(|last_id| resumed != Some(*last_id)) else {
            return;
        };
        match resumed {
            Some(after) if self.selection.withholds() => self.check_at(after, place),
            _ => {
                self.violations.push(format!("it came back after {after:?}, and was at {last_id}"))
            }
        }
    }

    /// What moves a client that gets only some entries, beside these.
    pub(super) fn moved_to(&self, what: &What) -> Option<StreamId> {
        match what {
            What::At(id) => Some(*id),
            What::Moved(to) if self.selection.withholds() => *to,
            What::Opened(after) if self.selection.withholds() => after.parse().ok(),
            _ => None,
        }
    }
}
