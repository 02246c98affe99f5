//! What a client is told that comes back with an id, held against random histories of its stream: the
//! rule of a resume, the pages that follow it, and the deletions ahead. Others' commands come between any two
//! of ours, between a read and its look at the stream too.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::super::driver::Driver;
use super::tests::{hear, step};
use super::*;
use crate::config::Replay;
use crate::fanout::body::{Body, body};
use crate::fanout::testing::TestFanout;
use crate::fanout::writer::SubscriberWriter;
use crate::source::StreamInfo;
use crate::sse::parse::Parser;
use crate::sse::{CONTROL_EVENT, Entry};
use crate::stream::Lease;
use crate::stream::continuity::histories::{info, read};
use crate::stream::continuity::model::{Change, Command, Model, Stream, any_change, id};
use crate::stream::start::Start;

const CASES: u32 = 2_000;

/// The id that a client comes back with.
#[derive(Clone, Debug)]
enum Had {
    /// The id of an entry that was there when it left, or the one less that a gap before it carries.
    Entry { nth: usize, gap: bool },
    /// Any.
    Foreign(u64),
}

#[derive(Clone, Debug)]
struct Case {
    /// Redis 7, or one before.
    counts: bool,
    before: Vec<Change>,
    had: Had,
    away: Vec<Change>,
    /// Before each of the commands that we send then.
    between: Vec<Vec<Change>>,
    /// Entries in a page.
    read_count: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    let changes = |most| prop::collection::vec(any_change(), 0..most);
    let had = prop_oneof![
        3 => (any::<usize>(), any::<bool>()).prop_map(|(nth, gap)| Had::Entry { nth, gap }),
        1 => (0..40_u64).prop_map(Had::Foreign),
    ];
    let calm = prop_oneof![2 => Just(Vec::new()), 1 => changes(3)];
    let between = prop::collection::vec(calm, 0..12);
    (any::<bool>(), changes(8), had, changes(6), between, 1..4_usize).prop_map(
        |(counts, before, had, away, between, read_count)| Case {
            counts,
            before,
            had,
            away,
            between,
            read_count,
        },
    )
}

/// The stream, and what is to happen to it.
#[derive(Default)]
struct Scene {
    model: Model,
    next: u64,
    counts: bool,
    between: VecDeque<Vec<Change>>,
    /// What `XDEL` took in this generation.
    deleted: Vec<StreamId>,
    /// The stream as of each command, and its generation.
    looks: Vec<(u64, Option<Stream>)>,
}

impl Scene {
    fn play(&mut self, changes: &[Change]) {
        for change in changes {
            let generation = self.model.generation;
            for command in self.model.play(change, &mut self.next) {
                if let Command::Delete(ids) = command {
                    self.deleted.extend(ids);
                }
            }
            if self.model.generation != generation {
                self.deleted.clear();
            }
        }
    }

    /// What the next command finds.
    fn come(&mut self) -> Option<(Vec<Entry>, StreamInfo)> {
        let changes = self.between.pop_front().unwrap_or_default();
        self.play(&changes);
        self.looks.push((self.model.generation, self.model.stream.clone()));
        let info = info(self.model.stream.as_ref()?, self.counts);
        Some((read(&self.model, StreamId::ZERO, usize::MAX), info))
    }

    fn stream(&self) -> Stream {
        self.model.stream.clone().unwrap_or_default()
    }

    /// The entries that were after `id` and are gone.
    fn gone(&self, id: StreamId) -> Vec<StreamId> {
        let stream = self.stream();
        let given = stream.history.iter().copied();
        given.filter(|at| *at > id && !stream.entries.contains(at)).collect()
    }

    /// Whether at any of our looks `id` could not be told from one of this generation.
    fn looked_known(&self, id: StreamId) -> bool {
        let looked_known = |(_, stream): &(u64, Option<Stream>)| {
            let Some(stream) = stream else { return id == StreamId::ZERO };
            let info = info(stream, self.counts);
            let holds = |id| stream.entries.contains(&id);
            let held = holds(id) || id.next().is_some_and(holds);
            let deleted = info.first.is_some_and(|first| first <= id) && id <= info.max_deleted;
            held || deleted || id == info.last_generated || id == StreamId::ZERO
        };
        self.looks.iter().any(looked_known)
    }
}

/// A gap that was told.
#[derive(Clone, Copy, Debug)]
struct Told {
    gap: Gap,
    /// The last that was deleted until then.
    deleted: StreamId,
}

impl Told {
    /// Without a number a gap tells of what stands between its ids, and of deletions up to the last.
    fn covers(&self, id: StreamId, deleted: bool) -> bool {
        let Gap { after, next, lost, reason } = self.gap;
        let within = after.is_some_and(|after| after < id);
        let ahead = deleted && reason == Reason::Deleted && id <= self.deleted;
        lost.is_none() && within && (ahead || next.is_none_or(|next| id < next))
    }
}

/// A client's stream, and what it is told.
struct Session {
    scene: Arc<Mutex<Scene>>,
    driver: Driver,
    body: Body,
    parser: Parser,
    delivered: Vec<StreamId>,
    gaps: Vec<Told>,
    _lease: Lease,
}

impl Session {
    fn new(scene: Scene, read_count: usize, start: Start) -> Self {
        let test = TestFanout::of(&format!("[source]\nread_count = {read_count}"));
        let (mut subscriber, lease) = test.unattached("a");
        subscriber.format.framed = false;
        let (scene, others) = {
            let scene = Arc::new(Mutex::new(scene));
            (scene.clone(), Box::new(move || scene.lock().unwrap().come()))
        };
        test.source.leave_to("a", others);
        lease.topic().start_generation(StreamId::ZERO);
        lease.topic().state().ring.reaches_nowhere();
        let machine = CatchUp::begin(&subscriber, Replay::All, start, Vec::new());
        let (sink, body) = body();
        let writer = SubscriberWriter::Body(sink);
        let driver = Driver::new(test.fanout.clone(), writer, subscriber, machine);
        let (parser, delivered, gaps) = Default::default();
        Self { scene, driver, body, parser, delivered, gaps, _lease: lease }
    }

    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap()
    }

    /// One step, and what the client is told by then; whether the step did not wait.
    async fn step(&mut self) -> bool {
        let went_on = step(&mut self.driver).await;
        self.hear();
        went_on
    }

    fn hear(&mut self) {
        for event in hear(&mut self.body, &mut self.parser) {
            if event.event_type == CONTROL_EVENT {
                let told =
                    Told { gap: gap(&event.data), deleted: self.scene().stream().max_deleted };
                self.gaps.push(told);
            } else {
                self.delivered.push(event.last_event_id.parse().unwrap());
            }
        }
    }

    /// The id that the client goes on after, and the gap that it was told before that.
    async fn resume(&mut self) -> (StreamId, Option<Gap>) {
        while matches!(self.driver.machine.phase, Phase::Start { .. }) {
            self.step().await;
        }
        let Phase::Source(backfill) = &self.driver.machine.phase else {
            panic!("the source has it")
        };
        let after = backfill.from.cursor();
        while !self.driver.machine.unsent.is_empty() {
            self.step().await;
        }
        (after, self.gaps.first().map(|told| told.gap))
    }

    /// Whether it came to the end, and the stream was not recreated since the first look: that is for the
    /// reader to tell.
    async fn reads_to_the_end(&mut self) -> bool {
        let mut waits = 0;
        for _ in 0..500 {
            let (one_generation, calm) = {
                let scene = self.scene();
                let of_it = |(generation, _): &(u64, _)| *generation == scene.model.generation;
                (scene.looks.iter().all(of_it), scene.between.is_empty())
            };
            if !one_generation || (waits >= 3 && calm) {
                return one_generation;
            }
            waits = if self.step().await { 0 } else { waits + 1 };
        }
        panic!("reading does not come to an end");
    }

    /// Asserts that all entries after `id` were delivered, once and in order, and the rest told, but for what
    /// was `gone` before.
    fn is_complete(&self, id: StreamId, gone: &[StreamId]) {
        let scene = self.scene();
        let (stream, delivered) = (scene.stream(), &self.delivered);
        let there: Vec<_> = stream.after(id).filter(|at| !delivered.contains(at)).collect();
        assert_eq!(there, [], "of {stream:?}");
        assert!(delivered.is_sorted_by(|a, b| a < b), "{delivered:?}");
        let mut lost = scene.gone(id);
        lost.retain(|at| !delivered.contains(at));
        let counted: u64 = self.gaps.iter().filter_map(|told| told.gap.lost).sum();
        // `XSETID` back keeps the count of the generation before.
        let before_it = stream.entries_added.saturating_sub(stream.history.len() as u64);
        let most = lost.len() as u64 + before_it;
        assert!(counted <= most, "{counted} of {lost:?}: {:?}", self.gaps);
        let covered = |at: StreamId, deleted| self.gaps.iter().any(|t| t.covers(at, deleted));
        lost.retain(|at| {
            let deleted = scene.deleted.contains(at);
            // What never was, by `XSETID`, or was deleted before Redis 7, need not be told.
            let silent = stream.deleted.contains(at) && !(deleted && scene.counts);
            !silent && !gone.contains(at) && !covered(*at, deleted)
        });
        assert!(lost.len() as u64 <= counted, "{lost:?} {:?}", self.gaps);
    }
}

fn gap(data: &str) -> Gap {
    let told: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(told["type"], "gap");
    let id = |name| told[name].as_str().map(|id: &str| id.parse().unwrap());
    let reason = Reason::ALL.into_iter().find(|reason| told["reason"] == reason.as_str()).unwrap();
    Gap { after: id("after"), next: id("next"), lost: told["lost"].as_u64(), reason }
}

/// What the cases were about: a property that nothing comes to holds of anything.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    exact: usize,
    trimmed: usize,
    reset: usize,
    to_the_end: usize,
    deleted: usize,
    counted: usize,
}

impl Tally {
    fn add(&mut self, session: &Session, resumed: Option<Gap>, to_the_end: bool) {
        let resumed = resumed.map(|gap| gap.reason);
        self.exact += usize::from(resumed.is_none());
        self.trimmed += usize::from(resumed == Some(Reason::Trimmed));
        self.reset += usize::from(resumed == Some(Reason::Reset));
        self.to_the_end += usize::from(to_the_end);
        let told =
            |is: fn(&Gap) -> bool| usize::from(session.gaps.iter().any(|told| is(&told.gap)));
        self.deleted += told(|gap| gap.reason == Reason::Deleted && gap.lost.is_none());
        self.counted += told(|gap| gap.lost.is_some());
    }
}

async fn play(case: &Case, tally: &RefCell<Tally>) {
    let mut scene = Scene { next: 10, counts: case.counts, ..Scene::default() };
    scene.play(&case.before);
    let (left_in, entries) = (scene.model.generation, scene.stream().entries);
    let (id, known) = match case.had {
        Had::Entry { nth, gap } if !entries.is_empty() => {
            let entry = entries[nth % entries.len()];
            (if gap { entry.prev() } else { entry }, true)
        }
        Had::Entry { nth, .. } => (id(nth as u64 % 40), false),
        Had::Foreign(number) => (id(number), false),
    };
    scene.play(&case.away);
    scene.between = case.between.clone().into();
    let mut session = Session::new(scene, case.read_count, Start::After(id));
    let (after, told) = session.resume().await;
    let (origin, gone) = {
        let scene = session.scene();
        let same_generation = known && scene.model.generation == left_in;
        is_right(&scene, id, same_generation, told);
        if told.is_some() {
            let kept = scene.stream();
            let before_first = kept.entries.first().map_or(kept.last_generated, |id| id.prev());
            assert_eq!(after, before_first, "all that is kept comes");
        }
        if same_generation { (id, Vec::new()) } else { (after, scene.gone(after)) }
    };
    let to_the_end = session.reads_to_the_end().await;
    if to_the_end {
        session.is_complete(origin, &gone);
    }
    tally.borrow_mut().add(&session, told, to_the_end);
}

/// In the same generation only an id below the first entry is told of a gap; an id of another generation is,
/// where it can be told apart.
fn is_right(scene: &Scene, id: StreamId, same_generation: bool, told: Option<Gap>) {
    let stream = scene.stream();
    match told {
        Some(gap) if same_generation => {
            let below = stream.entries.first().is_none_or(|first| id < *first);
            // Before Redis 7 nothing tells a deleted id from one of another generation.
            let deleted = [Some(id), id.next()].into_iter().flatten();
            let unknown =
                !scene.counts && deleted.into_iter().any(|id| stream.deleted.contains(&id));
            let trimmed = gap.reason == Reason::Trimmed && below;
            assert!(trimmed || unknown, "{id} is {gap:?} of {stream:?}");
        }
        None if !same_generation => assert!(scene.looked_known(id), "{id} is none of {stream:?}"),
        _ => {}
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn a_resume_is_exact_or_says_so() {
    let runtime = runtime();
    let tally = RefCell::<Tally>::default();
    let played = TestRunner::new(crate::seed::cases_of(CASES)).run(&cases(), |case| {
        runtime.block_on(play(&case, &tally));
        Ok(())
    });
    played.unwrap();
    let tally = tally.into_inner();
    let Tally { exact, trimmed, reset, to_the_end, deleted, counted } = tally;
    assert!(exact.min(trimmed).min(reset) > CASES as usize / 10, "{tally:?}");
    assert!(to_the_end > CASES as usize / 2, "{tally:?}");
    assert!(deleted > CASES as usize / 40 && counted > CASES as usize / 200, "{tally:?}");
}

/// Redis says that one was added to this stream, which has no id.
#[test]
fn a_gap_that_leads_nowhere_is_sent_once() {
    let case = Case {
        counts: true,
        before: vec![Change::Create],
        had: Had::Foreign(0),
        away: vec![Change::SetCount(1)],
        between: Vec::new(),
        read_count: 1,
    };
    let tally = RefCell::<Tally>::default();
    runtime().block_on(play(&case, &tally));
    assert_eq!((tally.borrow().to_the_end, tally.borrow().counted), (1, 1));
}
