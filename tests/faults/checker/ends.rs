//! Holds what a client heard against the end of its stream: it learns of it, where it is and not before, and
//! gets no stream afterwards. Nothing else may look like it.

use std::collections::HashMap;
use std::time::Duration;

use ssegate::sse::StreamId;

use super::{Client, Group};
use crate::history::{AMID_AN_EVENT, CUT, Ending, FINISHED, Gap, Heard, What};

/// What a client knows of the end, thing by thing.
struct Knowledge {
    ending: Ending,
    healed: Duration,
    marker_id: Option<StreamId>,
    /// It has the last entry that it gets, which ends the stream unless that one is withheld, or none was due.
    has_last: bool,
    /// It was told of a gap that covers it.
    lacks_last: bool,
    /// It was told of the end, in the stream or by 204.
    was_told: bool,
    /// Of that after the fault for the first time.
    over: Option<Duration>,
    /// It was told so on the connection that it has.
    is_ended: bool,
}

impl Client<'_> {
    /// Whether the stream may end here: at its end, or at the gap that takes the place of what is gone.
    pub(super) fn is_ended(&self, heard: &[Heard]) -> bool {
        let gone = self.history.ending.is_some_and(|ending| ending.gone.is_some());
        if self.is_part {
            return false;
        }
        let said =
            heard.iter().rev().find(|heard| !matches!(heard.what, What::Signal(_) | What::At(_)));
        said.is_some_and(|said| match &said.what {
            What::End(_) => true,
            What::Gap(_) => gone,
            _ => false,
        })
    }

    pub(super) fn check_end(&mut self, heard: &[Heard]) {
        let Some(ending) = self.history.ending else {
            let told =
                |heard: &&Heard| matches!(heard.what, What::End(_) | What::EndAtGap | What::Over);
            if let Some(told) = heard.iter().find(told) {
                self.violations.push(format!("{told:?}, and nothing ends"));
            }
            return;
        };
        let is_its_own = |number: &u64| {
            self.selection.admits(*number) && self.history.acknowledged(*number).is_some()
        };
        let last = (1..=ending.marker).rev().find(is_its_own).unwrap_or(0);
        let mut knowledge = Knowledge {
            ending,
            healed: self.history.healed,
            marker_id: self.history.acknowledged(ending.marker).map(|(id, _)| id),
            // What was written before it came is not due.
            has_last: last < self.history.due_from,
            lacks_last: false,
            was_told: false,
            over: None,
            is_ended: false,
        };
        for (index, Heard { at, what }) in heard.iter().enumerate() {
            knowledge.is_ended &= !matches!(what, What::Opened(_));
            match what {
                What::Entry(_, number) => knowledge.has_last |= *number == last,
                What::Gap(gap) => knowledge.lacks_last |= self.covers_last(gap, last),
                What::End(id) => self.hear_end(*id, *at, &mut knowledge),
                What::EndAtGap => self.hear_end_at_gap(*at, &mut knowledge),
                What::Over if self.is_part => {
                    self.violations.push(format!("204 at {at:.3?}, and the others go on"));
                }
                What::Over => self.hear_over(*at, was_cut(&heard[..index]), &mut knowledge),
                What::Opened(_)
                    if !self.is_part && knowledge.was_told && !knowledge.may_be_away(*at) =>
                {
                    self.violations.push(format!("it got a stream after the end, at {at:.3?}"));
                }
                What::Closed(why)
                    if why == FINISHED && (self.is_part || !ends_with_end(&heard[..index])) =>
                {
                    self.violations.push(format!("its body ended as if it was whole, at {at:.3?}"));
                }
                _ => {}
            }
        }
        self.close_end(&knowledge);
    }

    fn covers_last(&self, gap: &Gap, last: u64) -> bool {
        let mut alone = Group::after(0, None);
        alone.gaps.push(gap.clone());
        let id = self.history.acknowledged(last).map(|(id, _)| id);
        id.is_some_and(|id| alone.covers(last, id, &HashMap::new()))
    }

    /// Where others go on beside it, it is told so once on each connection.
    fn hear_end(&mut self, id: StreamId, at: Duration, knowledge: &mut Knowledge) {
        if !knowledge.has_last {
            self.violations.push("it was told of the end without having it".into());
        } else if Some(id) != knowledge.marker_id {
            self.violations.push(format!("it was told of the end at {id}"));
        }
        self.note_end(at, knowledge);
    }

    /// The key is gone, and what was told before says so.
    fn hear_end_at_gap(&mut self, at: Duration, knowledge: &mut Knowledge) {
        let is_gone = knowledge.ending.gone.is_some_and(|gone| at > gone);
        if !is_gone || !knowledge.lacks_last && !knowledge.has_last {
            self.violations.push(format!("an end at a gap that it was not told of, at {at:.3?}"));
        }
        self.note_end(at, knowledge);
    }

    fn note_end(&mut self, at: Duration, knowledge: &mut Knowledge) {
        if std::mem::replace(&mut knowledge.is_ended, true) {
            self.violations.push(format!("it was told of the end twice, at {at:.3?}"));
        }
        if self.is_part && at > knowledge.healed {
            knowledge.over.get_or_insert(at);
        }
        knowledge.was_told = true;
    }

    /// A key that is gone says nothing of what a client lacks that was away when it went, or was cut amid an event
    /// that could not be finished any more.
    fn hear_over(&mut self, at: Duration, was_cut: bool, knowledge: &mut Knowledge) {
        if at > knowledge.healed {
            knowledge.over.get_or_insert(at);
        }
        knowledge.was_told = true;
        if knowledge.has_last || knowledge.lacks_last || self.is_left_behind {
            return;
        }
        let is_gone = knowledge.ending.gone.is_some_and(|gone| at > gone);
        self.is_left_behind = is_gone && (was_cut || self.history.allowed.closes);
        if !self.is_left_behind {
            self.violations.push(format!("204 at {at:.3?}, and it lacks the end"));
        }
    }

    fn close_end(&mut self, knowledge: &Knowledge) {
        if self.is_part && !knowledge.is_ended {
            self.violations.push("it was not told of the end where it is now".into());
            return;
        }
        let over = match knowledge.over {
            Some(over) => over,
            None if self.is_part => knowledge.healed,
            None => {
                self.violations.push("it got no 204 after the fault".into());
                return;
            }
        };
        let limit = self.history.limit;
        self.recovery = over - knowledge.healed;
        self.late = self.recovery > limit;
        if self.late {
            let recovery = self.recovery;
            self.violations.push(format!("204 only {recovery:.1?} after the fault, not {limit:?}"));
        }
    }
}

impl Knowledge {
    /// Whether nobody can tell that the stream is over, for Redis is away.
    fn may_be_away(&self, at: Duration) -> bool {
        self.over.is_none() && self.ending.away.is_some_and(|away| at > away)
    }
}

/// Whether the body before broke off.
fn was_cut(heard: &[Heard]) -> bool {
    let closed = heard.last().map(|last| &last.what);
    matches!(closed, Some(What::Closed(why)) if [AMID_AN_EVENT, CUT].contains(&&**why))
}

/// Whether the stream was told to be over before the body ended.
fn ends_with_end(heard: &[Heard]) -> bool {
    heard.last().is_some_and(|last| matches!(last.what, What::End(_)))
}
