//! The selections that a topic's clients have: those who get the same share one, and only so many may differ.

use std::collections::HashMap;
use std::sync::Arc;

use crate::sse::Selection;

/// The selections of one topic, each with how many clients have it.
#[derive(Default)]
#[expect(
    clippy::box_collection,
    reason = "of ten thousand topics few have one, and an empty map takes 48 bytes"
)]
pub struct Selections(Option<Box<HashMap<Arc<Selection>, usize>>>);

/// The clients of a stream key have too many different selections already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManySelections;

impl Selections {
    /// The one that equals `selection`, for one more client. A new one is taken in while there are fewer than `most`.
    pub(super) fn enter(
        &mut self,
        selection: &Arc<Selection>,
        most: usize,
    ) -> Result<Arc<Selection>, TooManySelections> {
        let all = self.0.get_or_insert_default();
        if let Some((known, clients)) = all.get_key_value(selection) {
            let (known, clients) = (known.clone(), clients + 1);
            all.insert(known.clone(), clients);
            return Ok(known);
        }
        if all.len() >= most {
            return Err(TooManySelections);
        }
        all.insert(selection.clone(), 1);
        Ok(selection.clone())
    }

    /// A client has left.
    pub(super) fn leave(&mut self, selection: &Arc<Selection>) {
        let Some(all) = &mut self.0 else { return };
        let Some(clients) = all.get_mut(selection) else { return };
        *clients -= 1;
        if *clients == 0 {
            all.remove(selection);
        }
        if all.is_empty() {
            // The room of many goes with the last of them.
            self.0 = None;
        }
    }

    /// How many differ.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |all| all.len())
    }

    /// Whether every client gets everything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::RowValue;
    use crate::stream::Hub;

    fn selection(value: &str) -> Arc<Selection> {
        Arc::new(Selection::new([(0, vec![RowValue::of(value.as_bytes())])]))
    }

    #[test]
    fn equal_ones_are_shared_and_the_place_of_the_last_is_given_back() {
        let config = crate::config::parse("", "", &[], true).unwrap().config;
        let hub = Hub::new(config.ring, 10);
        let open = |value: Option<&str>, most| {
            let mut lease = hub.open("events:a", |_| ()).unwrap();
            value.map_or(Ok(()), |value| lease.select(&selection(value), most)).map(|()| lease)
        };
        let all = open(None, 1).unwrap();
        let distinct = || all.topic().state().selections.len();
        assert_eq!((all.selection(), distinct()), (None, 0));
        let (first, second) = (open(Some("a"), 1).unwrap(), open(Some("a"), 1).unwrap());
        assert!(Arc::ptr_eq(first.selection().unwrap(), second.selection().unwrap()));
        assert_eq!((open(Some("b"), 1).err(), distinct()), (Some(TooManySelections), 1));
        drop(first);
        assert_eq!(open(Some("b"), 1).err(), Some(TooManySelections), "one client still has it");
        drop(second);
        assert!(all.topic().state().selections.is_empty());
        let other = open(Some("b"), 1).unwrap();
        assert_eq!((open(Some("a"), 2).err(), distinct()), (None, 1), "its lease was dropped");
        // One that chooses anew gives its place back.
        let mut changed = other;
        changed.select(&selection("c"), 2).unwrap();
        assert_eq!(distinct(), 1);
    }
}
