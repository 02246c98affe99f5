//! Clients that follow several streams on one connection: the one that a fault is about, and neighbours of it.

use std::sync::Arc;

use crate::following::Following;
use crate::record::Record;
use crate::scene::{Place, Scene};
use crate::selection::Selection;

/// So many of them.
pub const MERGED: usize = 5;
/// The streams of a route, by the names that it gives them: first the one that the fault is about.
const OF_ROUTE: &[&str] = &["a", "b0"];
/// And as clients choose them.
const CHOSEN: &[&str] = &["a", "b0", "b1"];
/// Of one client, which gets its own entries of each.
const SELECTS: usize = 2;

impl Scene {
    /// Clients of several streams come to one or the other of these paths; what each hears of the first of them.
    pub fn let_merged_in(&mut self, paths: [&str; 2]) -> Vec<Arc<Record>> {
        let began = self.began;
        let place = |index: usize| {
            let names = if index.is_multiple_of(2) { OF_ROUTE } else { CHOSEN };
            let selection =
                if index == SELECTS { Selection::Tenants(&[1, 2]) } else { Selection::All };
            let follows = Following::several(began, selection, names);
            Place { path: selection.at(paths[index % 2]), follows }
        };
        let mut records = Vec::new();
        for of_client in self.clients_at((0..MERGED).map(place).collect()) {
            for (beside, record) in self.beside.records.iter_mut().zip(&of_client[1..]) {
                beside.push(record.clone());
            }
            records.extend(of_client.into_iter().next());
        }
        self.records.extend(records.iter().cloned());
        records
    }
}
