//! The gaps that a client got between two entries, and what they cover.

use std::collections::HashMap;

use ssegate::sse::StreamId;

use super::rows::At;
use crate::history::Gap;

/// The gaps between two entries.
#[derive(Debug)]
pub(super) struct Group {
    /// The number of the entry before.
    pub(super) after: u64,
    after_id: Option<StreamId>,
    /// The entry that ends it; `None`: it is the last group.
    pub(super) until: Option<(u64, StreamId)>,
    /// In their order.
    pub(super) gaps: Vec<Gap>,
    /// The same.
    pub(super) ats: Vec<At>,
}

impl Group {
    pub(super) fn after(after: u64, after_id: Option<StreamId>) -> Self {
        Self { after, after_id, until: None, gaps: Vec::new(), ats: Vec::new() }
    }

    /// Ended by this entry.
    pub(super) fn before(self, number: u64, id: StreamId) -> Self {
        Self { until: Some((number, id)), ..self }
    }

    fn resets(&self) -> bool {
        self.gaps.iter().any(|gap| gap.reason == "reset")
    }

    /// Whether the entry of this number and id, which lies between the two, is covered.
    pub(super) fn covers(
        &self,
        number: u64,
        id: StreamId,
        numbers: &HashMap<StreamId, u64>,
    ) -> bool {
        self.covers_by(number, id, numbers, self.gaps.len())
    }

    /// The same, by so many gaps alone.
    pub(super) fn covers_by(
        &self,
        number: u64,
        id: StreamId,
        numbers: &HashMap<StreamId, u64>,
        gaps: usize,
    ) -> bool {
        self.gaps.iter().take(gaps).any(|gap| match gap.next {
            // It covers the old generation; of the new one everything has to come from its first entry on.
            Some(next) if gap.reason == "reset" => {
                numbers.get(&next).is_none_or(|first| number < *first)
            }
            None if gap.reason == "reset" => true,
            next => gap.after.is_none_or(|after| after < id) && next.is_none_or(|next| id < next),
        })
    }

    /// What is wrong with the order of the gaps: ids grow unless the stream was recreated, and a gap's
    /// `next` comes next, unless it may be withheld.
    pub(super) fn out_of_place(
        &self,
        numbers: &HashMap<StreamId, u64>,
        withholds: bool,
    ) -> Option<String> {
        let (number, id) = self.until?;
        let grows = self.after_id.is_none_or(|before| before < id);
        if !grows && !self.resets() {
            let before = self.after_id;
            return Some(format!("number {number} has the id {id} after {before:?}, and no reset"));
        }
        let is_earlier = |next: StreamId| match numbers.get(&next) {
            Some(next) => *next < number,
            None => next < id,
        };
        let may_come = |next: StreamId| next == id || withholds && is_earlier(next);
        match &*self.gaps {
            [gap] if gap.next.is_some_and(|next| !may_come(next)) => {
                Some(format!("{id} comes after {gap:?}, which names another"))
            }
            _ => None,
        }
    }
}
