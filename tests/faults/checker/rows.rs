//! Holds what a client heard against what it asked for: it gets its own entries and no others, no gap counts what may be
//! others', and nothing that it lacks lies behind an `at`.

use ssegate::sse::StreamId;

use super::{Client, Group};
use crate::history::{Gap, Heard, What};

/// Up to where a client was told that it has everything.
#[derive(Debug)]
pub(super) struct At {
    id: StreamId,
    /// The number of the entry there.
    number: u64,
    /// So many gaps were told before, since the last entry.
    gaps: usize,
}

/// Where a client is, by what it was told.
#[derive(Default)]
pub(super) struct Place {
    /// Its last event id, by entries, gaps and `at`.
    pub(super) last_id: Option<StreamId>,
    /// The last `at`, of this generation of the stream.
    at: Option<StreamId>,
}

impl Client<'_> {
    /// Each thing heard, against where the client is.
    pub(super) fn check_place(&mut self, heard: &Heard, place: &mut Place) {
        match &heard.what {
            What::Entry(id, number) => {
                if !self.selection.admits(*number) {
                    self.violations.push(format!("number {number} ({id}) is not for it"));
                }
                if let Some(at) = place.at.filter(|at| at >= id) {
                    let late = format!("number {number} ({id}) came after it was told `at` {at}");
                    self.violations.push(late);
                }
                place.last_id = Some(*id);
            }
            What::Gap(gap) => {
                if gap.reason == "reset" {
                    place.at = None;
                }
                place.last_id = Some(gap.id);
            }
            What::At(id) => {
                if !self.selection.withholds() {
                    self.violations.push(format!("`at` {id}, and it gets every entry"));
                }
                self.check_at(*id, place);
            }
            What::Moved(to) => self.check_move(*to, place),
            What::Opened(after) => self.check_resume(after, place),
            _ => {}
        }
    }

    pub(super) fn check_at(&mut self, id: StreamId, place: &mut Place) {
        if let Some(last_id) = place.last_id.filter(|last_id| *last_id > id) {
            self.violations.push(format!("`at` {id} goes back from {last_id}"));
        }
        (place.last_id, place.at) = (Some(id), Some(id));
    }

    /// What is known here of an `at`; nothing where its id is no entry's.
    pub(super) fn at(&self, id: StreamId, group: &Group) -> Option<At> {
        let number = *self.numbers.get(&id)?;
        Some(At { id, number, gaps: group.gaps.len() })
    }

    /// What may be others' is not counted as lost; what is too large is its own.
    pub(super) fn check_count(&mut self, gap: &Gap) {
        let may_be_others = self.selection.withholds() && gap.reason != "oversize";
        if may_be_others != gap.at_most.is_some() || may_be_others && gap.lost.is_some() {
            self.violations.push(format!("a gap that counts what it may not: {gap:?}"));
        }
    }

    /// An entry that is missing here was told so before the client was told that it has everything up to there.
    pub(super) fn check_passed(&mut self, number: u64, id: StreamId, group: &Group) {
        let in_vain =
            |at: &&At| at.number >= number && !group.covers_by(number, id, self.numbers, at.gaps);
        if let Some(at) = group.ats.iter().find(in_vain) {
            let passed = format!("`at` {} passed number {number} ({id}) without a gap", at.id);
            self.violations.push(passed);
        }
    }
}
