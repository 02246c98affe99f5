//! A model of a stream with lives, trims and deletes, and what the rule says of its replies.

use bytes::Bytes;
use proptest::prelude::*;

use super::{Continuity, Verdict};
use crate::event::{Entry, Gap, Reason, StreamId};
use crate::source::{Info, Reply, Seen};

/// A stream as Redis keeps it.
#[derive(Clone, Default)]
struct Model {
    exists: bool,
    ids: Vec<u64>,
    last: u64,
    added: u64,
    max_deleted: u64,
}

#[derive(Clone, Debug)]
enum Step {
    /// Adds so many entries, each this far from the last.
    Add(u64, u64),
    /// `XTRIM` down to so many.
    Trim(usize),
    /// `XDEL` of one by its place.
    Delete(usize),
    /// `DEL`.
    Drop,
    /// The reader reads up to so many.
    Read(usize),
}

fn id(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

impl Model {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Add(count, distance) => {
                self.exists = true;
                for _ in 0..count {
                    self.last += distance;
                    self.added += 1;
                    self.ids.push(self.last);
                }
            }
            Step::Trim(keep) => {
                let over = self.ids.len().saturating_sub(keep);
                self.ids.drain(..over);
            }
            Step::Delete(place) if !self.ids.is_empty() => {
                let deleted = self.ids.remove(place % self.ids.len());
                self.max_deleted = self.max_deleted.max(deleted);
            }
            Step::Drop => *self = Self::default(),
            Step::Delete(_) | Step::Read(_) => {}
        }
    }

    fn read(&self, after: StreamId, count: usize) -> Reply {
        let ahead = self.ids.iter().filter(|ms| id(**ms) > after).take(count);
        let field = (Bytes::from_static(b"payload"), Bytes::from_static(b"x"));
        let entries = ahead.map(|ms| Entry { id: id(*ms), fields: vec![field.clone()] }).collect();
        Reply { entries, seen: self.seen() }
    }

    fn seen(&self) -> Seen {
        if !self.exists {
            return Seen::Missing;
        }
        Seen::Stream(Info {
            length: self.ids.len() as u64,
            last_generated: id(self.last),
            first: self.ids.first().map(|ms| id(*ms)),
            max_deleted: id(self.max_deleted),
            entries_added: Some(self.added),
        })
    }
}

/// What a reader was told over a history.
#[derive(Default)]
struct Told {
    delivered: Vec<u64>,
    lost: u64,
    uncounted: bool,
    resets: u64,
}

impl Told {
    fn take(&mut self, continuity: &mut Continuity, reply: &Reply) {
        match continuity.check(reply) {
            Verdict::Whole => {}
            Verdict::Missing(gap) => match gap.lost {
                Some(lost) => self.lost += lost,
                None => self.uncounted = true,
            },
            Verdict::Reset(_) => {
                self.resets += 1;
                return;
            }
        }
        self.delivered.extend(reply.entries.iter().map(|entry| entry.id.ms));
    }

    fn read_to_the_end(&mut self, continuity: &mut Continuity, model: &Model) {
        for _ in 0..200 {
            let reply = model.read(continuity.cursor(), 3);
            let done = reply.entries.is_empty();
            let before = *continuity;
            self.take(continuity, &reply);
            if done && before == *continuity {
                return;
            }
        }
        panic!("reading does not come to an end");
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6_u64, 1..4_u64).prop_map(|(count, distance)| Step::Add(count, distance)),
        2 => (0..5_usize).prop_map(Step::Trim),
        1 => any::<usize>().prop_map(Step::Delete),
        4 => (1..5_usize).prop_map(Step::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Within one life: what was not delivered is counted, to the entry.
    #[test]
    fn lost_entries_are_counted_exactly(start in 0..5_u64, steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model::default();
        model.apply(&Step::Add(start, 1));
        let at_start = model.added;
        let info = match model.seen() { Seen::Stream(info) => Some(info), _ => None };
        let mut continuity = Continuity::at_tail(info.as_ref());
        let mut told = Told::default();
        for step in &steps {
            model.apply(step);
            if let Step::Read(count) = step {
                let reply = model.read(continuity.cursor(), *count);
                told.take(&mut continuity, &reply);
            }
        }
        told.read_to_the_end(&mut continuity, &model);
        prop_assert_eq!(told.resets, 0);
        prop_assert!(!told.uncounted);
        prop_assert_eq!(told.delivered.len() as u64 + told.lost, model.added - at_start);
        prop_assert!(told.delivered.windows(2).all(|pair| pair[0] < pair[1]));
    }

    /// Over several lives: whoever missed an entry was told of a gap or a reset, and the reader ends
    /// with everything that the last life still holds.
    #[test]
    fn a_new_life_is_told(lives in prop::collection::vec(prop::collection::vec(step(), 1..12), 2..4)) {
        let mut model = Model::default();
        let mut continuity = Continuity::at_tail(None);
        let mut told = Told::default();
        let mut missed = false;
        for steps in &lives {
            missed |= !model.ids.iter().all(|ms| told.delivered.contains(ms));
            // Ids are times: those of the next life are later ones.
            let last = model.last;
            model.apply(&Step::Drop);
            model.last = last;
            let from = told.delivered.len();
            for step in steps {
                model.apply(step);
                if let Step::Read(count) = step {
                    let reply = model.read(continuity.cursor(), *count);
                    told.take(&mut continuity, &reply);
                }
            }
            told.read_to_the_end(&mut continuity, &model);
            let delivered = &told.delivered[from..];
            prop_assert!(model.ids.iter().all(|ms| delivered.contains(ms)), "{:?} of {:?}", delivered, model.ids);
        }
        prop_assert!(!missed || told.resets > 0 || told.lost > 0);
    }
}

fn stream(ids: &[u64], last: u64, added: u64) -> Model {
    Model { exists: true, ids: ids.to_vec(), last, added, max_deleted: 0 }
}

#[test]
fn an_empty_reply_after_a_trim_to_nothing_is_a_gap() {
    let mut continuity = Continuity::at_tail(Some(&info(&stream(&[1, 2], 2, 2))));
    let gap = continuity.check(&stream(&[], 5, 5).read(id(2), 10));
    let expected = Gap { after: Some(id(2)), next: None, lost: Some(3), reason: Reason::Trimmed };
    assert_eq!(gap, Verdict::Missing(expected));
    assert_eq!(continuity.cursor(), id(5));
}

#[test]
fn ids_that_go_on_after_a_del_are_a_reset_all_the_same() {
    let mut continuity = Continuity::at_tail(Some(&info(&stream(&[1, 2], 2, 2))));
    let reply = stream(&[7], 7, 1).read(continuity.cursor(), 10);
    assert!(matches!(continuity.check(&reply), Verdict::Reset(_)));
    assert_eq!(continuity.cursor(), id(7).prev());
}

#[test]
fn a_key_that_is_gone_is_a_reset_once() {
    let mut continuity = Continuity::at_tail(Some(&info(&stream(&[1, 2], 2, 2))));
    let gone = Model::default().read(id(2), 10);
    assert!(matches!(continuity.check(&gone), Verdict::Reset(_)));
    assert_eq!(continuity.check(&gone), Verdict::Whole);
}

#[test]
fn an_entry_added_between_the_read_and_the_look_is_not_lost() {
    let mut continuity = Continuity::at_tail(Some(&info(&stream(&[], 2, 2))));
    let reply = Reply { entries: Vec::new(), seen: stream(&[3], 3, 3).seen() };
    assert_eq!(continuity.check(&reply), Verdict::Whole);
    assert_eq!(continuity.check(&stream(&[3], 3, 3).read(id(2), 10)), Verdict::Whole);
    assert_eq!(continuity.cursor(), id(3));
}

#[test]
fn entries_trimmed_between_the_read_and_the_look_were_read() {
    let mut continuity = Continuity::at_tail(Some(&info(&stream(&[4], 4, 4))));
    let read = stream(&[4, 5, 6, 7], 7, 7).read(id(4), 10);
    let reply = Reply { seen: stream(&[7], 7, 7).seen(), ..read };
    assert_eq!(continuity.check(&reply), Verdict::Whole);
}

#[test]
fn without_counts_a_trim_past_the_cursor_is_told_uncounted() {
    let mut continuity = Continuity::after(id(2));
    let mut reply = stream(&[5, 6], 6, 6).read(id(2), 10);
    if let Seen::Stream(info) = &mut reply.seen {
        info.entries_added = None;
    }
    let expected =
        Gap { after: Some(id(2)), next: Some(id(5)), lost: None, reason: Reason::Trimmed };
    assert_eq!(continuity.check(&reply), Verdict::Missing(expected));
}

#[test]
fn without_counts_a_trim_to_nothing_is_told_uncounted() {
    let mut continuity = Continuity::after(id(2));
    let gap = continuity.check(&stream(&[], 6, 6).read(id(2), 10));
    let expected = Gap { after: Some(id(2)), next: None, lost: None, reason: Reason::Trimmed };
    assert_eq!(gap, Verdict::Missing(expected));
    assert_eq!(continuity.cursor(), id(6));
}

fn info(model: &Model) -> Info {
    match model.seen() {
        Seen::Stream(info) => info,
        _ => panic!("the model's stream exists"),
    }
}
