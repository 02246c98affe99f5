//! Keys beside the one that a fault is about: two for those who follow several streams; many where keys share
//! connections to Redis, most of them quiet, one of them perhaps the busiest of all. Each has a client of its own. What a fault does to them is checked like the rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::history::History;
use crate::record::Record;
use crate::run::remember;
use crate::scene::{Place, Plan, Scene};
use crate::selection::Selection;
use crate::support::eventually;
use crate::support::redis::Redis;
use crate::support::waiting::holds_by;
use crate::writer::{Writer, Writing};

/// So many, where keys share connections,
pub const NEIGHBOURS: usize = 49;
/// and where they do not.
pub const FEW_NEIGHBOURS: usize = 2;
/// Writes a second to all of them together.
const RATE: u32 = 20;
/// Entries at once, of the busy one: more than the key that the fault is about gets.
const BURST: u64 = 12;

/// They, their writers and their clients.
pub struct Neighbours {
    pub writing: Writing<Vec<Writer>>,
    /// Whether the first is busy, so that the key that the fault is about has no connection of its own.
    is_first_busy: bool,
    /// By key: what each of its clients has heard so far,
    pub records: Vec<Vec<Arc<Record>>>,
    /// and the number of the first entry that they have to hear of.
    pub due_from: Vec<u64>,
}

impl Neighbours {
    /// As many as the plan has.
    pub fn new(plan: Plan, began: Instant, rng: &mut fastrand::Rng, redis: &Redis) -> Self {
        let mut writer = |number: usize| {
            Writer::new(began, rng.fork(), &format!("events:b{number}"), redis.socket())
        };
        let writers = (0..plan.neighbours()).map(&mut writer).collect();
        let is_first_busy = plan.shared && rng.bool();
        let writing = Writing::new(writers);
        Self { writing, is_first_busy, records: Vec::new(), due_from: Vec::new() }
    }
}

impl Scene {
    /// A client comes to each of the neighbours.
    pub fn let_clients_in_beside(&mut self) {
        for writer in &mut *self.beside.writing.lock() {
            for _ in 0..self.rng.u64(0..3) {
                assert!(writer.add(), "Redis takes an entry");
            }
        }
        let began = self.began;
        let place = |number| Place::one(began, &format!("/beside/{number}"), Selection::All);
        self.beside.records = self.clients_at((0..self.plan.neighbours()).map(place).collect());
    }

    /// Their writers write.
    pub fn begin_beside(&mut self) {
        self.beside.due_from = self.beside.writing.lock().iter().map(Writer::next).collect();
        let (rng, is_first_busy) = (self.rng.fork(), self.beside.is_first_busy);
        self.beside.writing.begin(RATE, rng, move |writers, rng| {
            if is_first_busy && rng.bool() {
                return writers[0].burst(BURST, None);
            }
            let writer = rng.usize(..writers.len());
            writers[writer].add_some(rng)
        });
    }

    /// Each neighbour gets an entry now; when that began.
    pub fn add_beside(&self) -> Duration {
        let began = self.began.elapsed();
        for writer in &mut *self.beside.writing.lock() {
            eventually("Redis takes an entry", || writer.add());
        }
        began
    }

    /// What happened to each neighbour, by key.
    pub fn histories_beside(&self) -> Vec<(String, History)> {
        let writers = self.beside.writing.lock();
        let clients = self.beside.due_from.iter().zip(&self.beside.records);
        let history = |(writer, (due_from, records)): (&Writer, (&u64, &Vec<_>))| {
            let history = remember(self, writer, *due_from, records);
            (writer.key().to_owned(), history)
        };
        writers.iter().zip(clients).map(history).collect()
    }

    /// Each neighbour gets its last entries, and its clients have until then to hear of them.
    pub fn end_beside(&mut self, deadline: Instant) {
        self.beside.writing.end();
        // The second of them ends everything: what comes twice comes before it.
        for _ in 0..2 {
            self.add_beside();
            let writers = self.beside.writing.lock();
            let each = || writers.iter().zip(&self.beside.records);
            let are_level = |(writer, records): (&Writer, &Vec<Arc<Record>>)| {
                records.iter().all(|record| record.is_level(writer))
            };
            holds_by(deadline, || each().all(are_level));
        }
    }
}
