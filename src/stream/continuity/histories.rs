//! Random histories of a stream: what a reader tells is compared with what happened.
//!
//! Each step is a command. Other clients' commands come between any two of the reader's, also between a read
//! and its look at the stream.

use std::cell::RefCell;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::model::{Change, Model, Stream, any_change, change};
use super::{Continuity, Verdict};
use crate::source::{Reply, StreamInfo, StreamState};
use crate::sse::{Entry, Gap, Reason, StreamId};

/// How many histories each property is tried on.
const CASES: u32 = 2_000;

/// What happens next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Change(Change),
    Read(Read),
}

/// The reader reads up to `count` entries, others do `between`, and it looks at the stream.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    count: usize,
    between: Vec<Change>,
}

fn steps(
    change: impl Strategy<Value = Change> + Clone + 'static,
) -> impl Strategy<Value = Vec<Step>> {
    let between = prop_oneof![
        2 => Just(Vec::new()),
        1 => prop::collection::vec(change.clone(), 1..3)
    ];
    let read =
        (1..5_usize, between).prop_map(|(count, between)| Step::Read(Read { count, between }));
    prop::collection::vec(prop_oneof![change.prop_map(Step::Change), read], 1..25)
}

/// What `XINFO STREAM` answers: of Redis 7, or of an older one, which does not count.
pub(crate) fn info(stream: &Stream, counts: bool) -> StreamInfo {
    StreamInfo {
        length: stream.entries.len() as u64,
        last_generated: stream.last_generated,
        first: stream.entries.first().copied(),
        last: stream.entries.last().copied(),
        max_deleted: if counts { stream.max_deleted } else { StreamId::ZERO },
        entries_added: counts.then_some(stream.entries_added),
        may_have_holes: false,
    }
}

/// What `XREAD` answers.
pub(crate) fn read(model: &Model, after: StreamId, count: usize) -> Vec<Entry> {
    let fields = vec![(Bytes::from_static(b"payload"), Bytes::from_static(b"x"))];
    let entry = |id| Entry { id, fields: fields.clone() };
    model.stream.iter().flat_map(|stream| stream.after(after)).take(count).map(entry).collect()
}

/// A reader, and what it should tell.
struct Reader {
    model: Model,
    /// Where the next generation begins.
    next: u64,
    counts: bool,
    continuity: Continuity,
    /// The generation that it reads.
    generation: u64,
    /// A new generation could not be told apart: nothing exact can be expected until the next reset.
    blurred: bool,
    /// The last look, and the generation that it was at.
    looked: Option<(StreamInfo, u64)>,
    /// What it has to deliver: what was there when it began to read the generation,
    kept: Vec<StreamId>,
    /// and all of the generation's history from this index on.
    since: usize,
    delivered: Vec<StreamId>,
    gaps: Vec<Gap>,
    resets: usize,
    /// What it had lost and passed by the last read; `None` once it could not look at the stream.
    overdue: Option<u64>,
}

impl Reader {
    fn begin(changes: &[Change], counts: bool) -> Self {
        let (mut model, mut next) = (Model::default(), 10);
        for change in changes {
            model.play(change, &mut next);
        }
        let look = model.stream.as_ref().map(|stream| info(stream, counts));
        let mut reader = Self {
            continuity: Continuity::at_tail(look.as_ref()),
            generation: model.generation,
            blurred: false,
            looked: look.map(|look| (look, model.generation)),
            kept: Vec::new(),
            since: 0,
            delivered: Vec::new(),
            gaps: Vec::new(),
            resets: 0,
            overdue: Some(0),
            model,
            next,
            counts,
        };
        reader.begin_generation();
        reader.kept.clear();
        reader
    }

    fn begin_generation(&mut self) {
        let stream = self.model.stream.clone().unwrap_or_default();
        self.generation = self.model.generation;
        self.blurred = false;
        self.since = stream.history.len();
        self.kept = stream.entries;
        self.delivered.clear();
        self.gaps.clear();
        self.overdue = Some(0);
    }

    fn play(&mut self, change: &Change) {
        // XSETID takes no counts before Redis 7.
        let change = match *change {
            Change::SetCount(_) if !self.counts => return,
            Change::SetEnd { ahead, .. } if !self.counts => {
                &Change::SetEnd { ahead, added: None, deleted: false }
            }
            _ => change,
        };
        self.model.play(change, &mut self.next);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Change(change) => self.play(change),
            Step::Read(read) => self.read(read),
        }
    }

    fn read(&mut self, step: &Read) {
        let before = self.continuity;
        let entries = read(&self.model, before.cursor(), step.count);
        // The generation that the entries are of; ids alone do not tell.
        let read_in = self.model.generation;
        for change in &step.between {
            self.play(change);
        }
        let seen = match &self.model.stream {
            None => StreamState::Missing,
            Some(stream) => StreamState::Stream(info(stream, self.counts)),
        };
        let reply = Reply { entries, seen };
        let verdict = self.continuity.check(&reply);
        self.see(before, &reply, verdict);
        if let Verdict::Reset(gap) = verdict {
            assert_eq!((gap.after, gap.reason), (Some(before.cursor()), Reason::Reset));
            assert!(
                self.generation != self.model.generation || self.blurred,
                "no other generation has begun"
            );
            self.resets += 1;
            self.begin_generation();
            return;
        }
        assert!(self.continuity.cursor() >= before.cursor(), "the cursor went back");
        if read_in != self.generation || self.model.generation != self.generation {
            self.blurred = true;
        }
        self.deliver(&reply, verdict);
    }

    /// A new generation is told at the first look at it, unless it has outgrown the old one.
    fn see(&mut self, before: Continuity, reply: &Reply, verdict: Verdict) {
        let told = matches!(verdict, Verdict::Reset(_));
        match reply.seen {
            StreamState::Missing if reply.entries.is_empty() => {
                let known =
                    self.looked.is_some_and(|(look, _)| look.last_generated > StreamId::ZERO);
                assert!(told || !(known || before.cursor() > StreamId::ZERO), "the key is gone");
                self.looked = None;
            }
            StreamState::Stream(look)
                if reply.entries.last().is_none_or(|e| e.id <= look.last_generated) =>
            {
                if let Some((old, generation)) = self.looked {
                    let other = generation != self.model.generation && !has_outgrown(&old, &look);
                    assert!(told || !other, "another generation: {old:?}, now {look:?}");
                }
                self.looked = Some((look, self.model.generation));
            }
            _ => {}
        }
    }

    fn deliver(&mut self, reply: &Reply, verdict: Verdict) {
        let ids = reply.entries.iter().map(|entry| entry.id);
        if self.blurred {
            return;
        }
        if let Verdict::Missing(gap) = verdict {
            let first = reply.entries.first().map(|entry| entry.id);
            assert!(first.is_none() || gap.next == first, "{gap:?}");
            self.gaps.push(gap);
        }
        self.delivered.extend(ids);
        assert!(self.delivered.is_sorted_by(|a, b| a < b), "{:?}", self.delivered);
        if !self.counts {
            return;
        }
        let lost = self.lost().len() as u64;
        assert!(self.told() <= lost, "told {} of {lost}: {:?}", self.told(), self.gaps);
        // A gap may come later than with the next read only if something was deleted.
        let deleted = self.model.stream.as_ref().is_none_or(Stream::had_deletions);
        let cursor = self.continuity.cursor();
        let passed = self.lost().iter().filter(|id| **id <= cursor).count() as u64;
        let looked = matches!(reply.seen, StreamState::Stream(_)) && !deleted;
        self.overdue = self.overdue.filter(|_| looked).map(|overdue| {
            assert!(self.told() >= overdue, "{overdue} were lost: {:?}", self.gaps);
            passed
        });
    }

    fn told(&self) -> u64 {
        self.gaps.iter().map(|gap| gap.lost.expect("everything is counted")).sum()
    }

    /// What it has to deliver.
    fn due(&self) -> impl Iterator<Item = StreamId> {
        let history = self.model.stream.iter().flat_map(|stream| &stream.history[self.since..]);
        self.kept.iter().chain(history).copied()
    }

    fn holds(&self, id: StreamId) -> bool {
        self.model.stream.as_ref().is_some_and(|stream| stream.entries.binary_search(&id).is_ok())
    }

    /// What it had to deliver, did not, and cannot any more.
    fn lost(&self) -> Vec<StreamId> {
        self.due()
            .filter(|id| !self.holds(*id) && self.delivered.binary_search(id).is_err())
            .collect()
    }

    fn read_to_the_end(&mut self) {
        for _ in 0..200 {
            let before = self.continuity;
            self.read(&Read { count: 3, between: Vec::new() });
            let left = read(&self.model, self.continuity.cursor(), 1);
            if before == self.continuity && left.is_empty() {
                return;
            }
        }
        panic!("reading does not come to an end");
    }

    /// At the end of the stream: all of it was delivered, or told as missing.
    fn is_complete(&self) {
        let missed = |id: &StreamId| self.holds(*id) && !self.delivered.contains(id);
        assert_eq!(self.due().filter(missed).collect::<Vec<_>>(), []);
        let mut lost = self.lost();
        if self.counts {
            assert_eq!(self.told(), lost.len() as u64, "{lost:?} {:?}", self.gaps);
            return;
        }
        let covers = |gap: &Gap, id: StreamId| {
            gap.after.is_some_and(|after| after < id) && gap.next.is_none_or(|next| id < next)
        };
        let deleted = self.model.stream.iter().flat_map(|stream| &stream.deleted);
        let deleted: Vec<_> = deleted.collect();
        lost.retain(|id| !deleted.contains(&id) && !self.gaps.iter().any(|gap| covers(gap, *id)));
        assert_eq!(lost, [], "{:?}", self.gaps);
    }
}

/// A new generation that is behind the last look at the old one in nothing cannot be told apart: not in its
/// end, its first entry, how many entries were added and how many of these removed.
fn has_outgrown(old: &StreamInfo, new: &StreamInfo) -> bool {
    let first = |info: &StreamInfo| info.first.or(info.last_generated.next());
    let removed =
        |info: &StreamInfo| info.entries_added.map(|added| added.saturating_sub(info.length));
    let goes_on = new.last_generated > old.last_generated;
    let holds_old = new.first.is_some_and(|first| first <= old.last_generated);
    new.last_generated >= old.last_generated
        && first(new) >= first(old)
        && new.entries_added >= old.entries_added
        && removed(new) >= removed(old)
        && (goes_on || new.entries_added == old.entries_added)
        && (holds_old || removed(new) >= old.entries_added)
}

fn play(begin: &[Change], steps: &[Step], counts: bool) -> Reader {
    let mut reader = Reader::begin(begin, counts);
    for step in steps {
        reader.step(step);
    }
    reader.read_to_the_end();
    reader
}

/// What came up in the histories: a property that is never put to the test always holds.
#[derive(Debug, Default)]
struct Tally {
    blurred: usize,
    reset: usize,
    trimmed: usize,
    deleted: usize,
}

impl Tally {
    fn add(&mut self, reader: &Reader) {
        let told = |reason| reader.gaps.iter().any(|gap| gap.reason == reason);
        self.blurred += usize::from(reader.blurred);
        self.reset += usize::from(reader.resets > 0);
        self.trimmed += usize::from(told(Reason::Trimmed));
        self.deleted += usize::from(told(Reason::Deleted));
    }

    /// Many resets were told, and for most histories something exact could be expected at the end.
    fn has_resets(&self) {
        assert!(self.reset > CASES as usize / 4, "{self:?}");
        assert!(self.blurred < CASES as usize / 4, "{self:?}");
    }
}

/// Plays histories of such changes, each to its end; what was told is complete unless it is blurred.
fn play_all(change: impl Strategy<Value = Change> + Clone + 'static, counts: bool) -> Tally {
    let tally = RefCell::<Tally>::default();
    let begin = prop::collection::vec(change.clone(), 0..4);
    let played = TestRunner::new(crate::seed::cases_of(CASES)).run(
        &(begin, steps(change)),
        |(begin, steps)| {
            let reader = play(&begin, &steps, counts);
            if !reader.blurred {
                reader.is_complete();
            }
            tally.borrow_mut().add(&reader);
            Ok(())
        },
    );
    played.unwrap();
    tally.into_inner()
}

/// Within one generation exactly those entries are counted as missing that were not delivered.
#[test]
fn a_loss_is_reported() {
    let tally = play_all(change().boxed(), true);
    assert_eq!((tally.blurred, tally.reset), (0, 0), "{tally:?}");
    assert!(tally.trimmed.min(tally.deleted) > CASES as usize / 4, "{tally:?}");
}

/// A new generation is told, and all of it is delivered or counted.
#[test]
fn a_new_generation_is_reported() {
    let tally = play_all(any_change().boxed(), true);
    tally.has_resets();
    assert!(tally.trimmed.min(tally.deleted) > CASES as usize / 20, "{tally:?}");
}

/// Before Redis 7 nothing is counted: a trim is told, deletions are not.
#[test]
fn without_counts_a_trim_is_reported() {
    let tally = play_all(any_change().boxed(), false);
    tally.has_resets();
    assert!(tally.trimmed > CASES as usize / 4 && tally.deleted == 0, "{tally:?}");
}
