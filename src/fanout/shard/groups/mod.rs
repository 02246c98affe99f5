//! The members of a shard that get only some entries, by what they get. Whom an entry is for is looked up by its values:
//! thousands of selections cost it what those who get it cost.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use slab::Slab;

use crate::fanout::{Subscriber, WireFormat};
use crate::sse::{RowValue, Selection};
use crate::stream::Batch;

/// A selection is looked up by no more combinations of values than this. It is compared as a whole after that, so
/// further columns need not be looked up.
const MOST_KEYS: usize = 64;

/// Members by what they get.
#[derive(Default)]
pub(super) struct Groups {
    all: Slab<Group>,
    by_view: HashMap<(WireFormat, Arc<Selection>), usize>,
    shapes: Vec<Shape>,
}

/// Members that get the same.
struct Group {
    format: WireFormat,
    selection: Arc<Selection>,
    slots: Vec<usize>,
}

/// Groups that are looked up by the same columns of the same rendering.
struct Shape {
    rendering: usize,
    columns: Vec<usize>,
    groups: HashMap<Box<[RowValue]>, Vec<usize>, BuildHasherDefault<RowHasher>>,
}

/// For keys that are hashes already, and whose values nobody outside can choose: it puts them together, and no more.
#[derive(Default)]
struct RowHasher(u64);

impl Hasher for RowHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = self.0.rotate_left(23) ^ value;
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What one write has for one group.
pub(super) struct Due {
    pub(super) format: WireFormat,
    pub(super) selection: Arc<Selection>,
    pub(super) slots: Vec<usize>,
    /// The items that they get.
    pub(super) seqs: Vec<u64>,
}

impl Groups {
    /// This subscriber is in this slot now.
    pub(super) fn insert(&mut self, slot: usize, subscriber: &Subscriber) {
        let Some((format, selection)) = view_of(subscriber) else { return };
        let found = match self.by_view.entry((format, selection.clone())) {
            Entry::Occupied(found) => *found.get(),
            Entry::Vacant(vacant) => {
                let slots = Vec::new();
                let group = self.all.insert(Group { format, selection, slots });
                vacant.insert(group);
                self.index(group);
                group
            }
        };
        self.all[found].slots.push(slot);
    }

    /// It has left the slot.
    pub(super) fn remove(&mut self, slot: usize, subscriber: &Subscriber) {
        let Some(view) = view_of(subscriber) else { return };
        let Some(&found) = self.by_view.get(&view) else { return };
        let slots = &mut self.all[found].slots;
        if let Some(at) = slots.iter().position(|known| *known == slot) {
            slots.swap_remove(at);
        }
        if slots.is_empty() {
            self.by_view.remove(&view);
            self.forget(found);
        }
    }

    /// Who gets what of the entries from `from_seq` on, in batches that concern nobody else.
    pub(super) fn due(&self, batches: &[Arc<Batch>], from_seq: u64) -> Vec<Due> {
        let mut found = Vec::new();
        for shape in &self.shapes {
            for batch in batches {
                shape.find(batch, from_seq, |group, seq, row| {
                    if self.all[group].selection.admits(row) {
                        found.push((group, seq));
                    }
                });
            }
        }
        found.sort_unstable();
        let of_group = found.chunk_by(|(group, _), (other, _)| group == other);
        of_group
            .map(|items| self.all[items[0].0].due(items.iter().map(|(_, seq)| *seq).collect()))
            .collect()
    }

    /// The same for each group in turn, in batches that may concern everybody.
    pub(super) fn due_of_all(&self, batches: &[Arc<Batch>], from_seq: u64) -> Vec<Due> {
        let due = |(_, group): (usize, &Group)| {
            let rendering = group.format.rendering.into();
            let made = batches.iter().filter(|batch| batch.has(rendering));
            let admitted = made.flat_map(|batch| {
                let seqs = batch.first_seq.max(from_seq)..batch.end_seq();
                seqs.filter(|seq| batch.admits(rendering, *seq, &group.selection))
            });
            group.due(admitted.collect())
        };
        self.all.iter().map(due).collect()
    }

    fn index(&mut self, group: usize) {
        let Group { format, selection, .. } = &self.all[group];
        let (rendering, (columns, keys)) = (format.rendering.into(), keys(selection));
        let is_same = |shape: &Shape| shape.rendering == rendering && shape.columns == columns;
        let known = self.shapes.iter().position(is_same).unwrap_or_else(|| {
            self.shapes.push(Shape { rendering, columns, groups: HashMap::default() });
            self.shapes.len() - 1
        });
        for key in keys {
            self.shapes[known].groups.entry(key).or_default().push(group);
        }
    }

    fn forget(&mut self, group: usize) {
        let Group { format, selection, .. } = self.all.remove(group);
        let (columns, keys) = keys(&selection);
        let rendering: usize = format.rendering.into();
        self.shapes.retain_mut(|shape| {
            if shape.rendering == rendering && shape.columns == columns {
                for key in &keys {
                    shape.forget(key, group);
                }
            }
            !shape.groups.is_empty()
        });
    }
}

impl Group {
    fn due(&self, seqs: Vec<u64>) -> Due {
        let Self { format, selection, slots } = self;
        Due { format: *format, selection: selection.clone(), slots: slots.clone(), seqs }
    }
}

impl Shape {
    /// The groups that may get an item, with its number and its row.
    fn find<'a>(
        &self,
        batch: &'a Batch,
        from_seq: u64,
        mut found: impl FnMut(usize, u64, &'a [Option<RowValue>]),
    ) {
        // Its members came after this batch, and have it by other means.
        if !batch.has(self.rendering) {
            return;
        }
        let mut key = Vec::with_capacity(self.columns.len());
        for seq in batch.first_seq.max(from_seq)..batch.end_seq() {
            let row = batch.row(self.rendering, seq);
            key.clear();
            key.extend(self.columns.iter().filter_map(|column| row[*column]));
            if key.len() < self.columns.len() {
                continue;
            }
            for group in self.groups.get(&key[..]).into_iter().flatten() {
                found(*group, seq, row);
            }
        }
    }

    fn forget(&mut self, key: &[RowValue], group: usize) {
        let Some(groups) = self.groups.get_mut(key) else { return };
        groups.retain(|known| *known != group);
        if groups.is_empty() {
            self.groups.remove(key);
        }
    }
}

fn view_of(subscriber: &Subscriber) -> Option<(WireFormat, Arc<Selection>)> {
    subscriber.selection().cloned().map(|selection| (subscriber.format, selection))
}

/// By which columns a selection is looked up, and by which of their values: those with the fewest values, as long as
/// there are few combinations.
fn keys(selection: &Selection) -> (Vec<usize>, Vec<Box<[RowValue]>>) {
    let mut wanted: Vec<_> = selection.wanted().iter().collect();
    wanted.sort_by_key(|(_, values)| values.len());
    let mut combinations = 1_usize;
    let few = wanted.iter().take_while(|(_, values)| {
        combinations = combinations.saturating_mul(values.len());
        combinations <= MOST_KEYS
    });
    let looked_up = few.count().max(1);
    let mut chosen: Vec<_> = wanted.into_iter().take(looked_up).collect();
    // In one order, so that equal columns are one shape.
    chosen.sort_unstable_by_key(|(column, _)| *column);
    let columns = chosen.iter().map(|(column, _)| *column).collect();
    let mut keys = vec![Vec::new()];
    for (_, values) in chosen {
        let longer = |key: &Vec<RowValue>| {
            let with = |value: &RowValue| [&key[..], &[*value]].concat();
            values.iter().map(with).collect::<Vec<_>>()
        };
        keys = keys.iter().flat_map(longer).collect();
    }
    (columns, keys.into_iter().map(Vec::into_boxed_slice).collect())
}

#[cfg(test)]
mod tests;
