//! The rows of a batch: the values of its entries by which clients are told apart.

use super::item::Item;
use crate::sse::{Column, RowValue, row_of};

/// The rows of a batch, one for each item; none where its rendering has no columns.
#[derive(Debug, Default)]
pub(super) struct Rows {
    columns: usize,
    /// Row by row. That of a gap has no values.
    values: Box<[Option<RowValue>]>,
}

impl Rows {
    pub(super) fn of(items: &[Item], columns: &[Column]) -> Self {
        if columns.is_empty() {
            return Self::default();
        }
        let mut values = Vec::with_capacity(items.len() * columns.len());
        for item in items {
            match item.entry() {
                Some(entry) => values.extend(row_of(entry, columns)),
                None => values.resize(values.len() + columns.len(), None),
            }
        }
        Self { columns: columns.len(), values: values.into() }
    }

    /// The row of the item with this index.
    pub(super) fn row(&self, index: usize) -> &[Option<RowValue>] {
        &self.values[index * self.columns..][..self.columns]
    }

    pub(super) fn size_bytes(&self) -> usize {
        size_of_val(&*self.values)
    }
}
