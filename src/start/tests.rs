//! The rule of a resume and the pages that follow it, held against random histories of a stream.
//! Other commands come between any two of theirs.

use proptest::prelude::*;

use super::{Base, absent, known};
use crate::continuity::histories::{info, read};
use crate::continuity::model::{Change, Command, Model, Stream, any_change, id};
use crate::continuity::{Continuity, Verdict};
use crate::event::{Gap, Reason, StreamId};
use crate::source::{Info, Reply, Seen};

/// What a client comes back with.
#[derive(Clone, Debug)]
enum Had {
    /// The id of an entry that was there when it left, or the one less that a gap before it carries.
    Entry { place: usize, gap: bool },
    /// Any.
    Foreign(u64),
}

#[derive(Clone, Debug)]
struct Resume {
    /// Redis 7, or one before.
    counts: bool,
    before: Vec<Change>,
    had: Had,
    away: Vec<Change>,
    /// Between the steps of the rule.
    between: [Vec<Change>; 2],
    pages: Vec<(usize, Vec<Change>)>,
}

fn resume() -> impl Strategy<Value = Resume> {
    let changes = |most| prop::collection::vec(any_change(), 0..most);
    let had = prop_oneof![
        3 => (any::<usize>(), any::<bool>()).prop_map(|(place, gap)| Had::Entry { place, gap }),
        1 => (0..40_u64).prop_map(Had::Foreign),
    ];
    let page = (1..4_usize, changes(3));
    let between = [changes(2), changes(2)];
    let pages = prop::collection::vec(page, 0..5);
    (any::<bool>(), changes(8), had, changes(6), between, pages).prop_map(
        |(counts, before, had, away, between, pages)| Resume {
            counts,
            before,
            had,
            away,
            between,
            pages,
        },
    )
}

/// A stream that changes while a client comes back to it.
struct Scene {
    model: Model,
    next: u64,
    counts: bool,
}

impl Scene {
    fn play(&mut self, changes: &[Change]) {
        for change in changes {
            self.model.play(change, &mut self.next);
        }
    }

    fn info(&self) -> Option<Info> {
        self.model.stream.as_ref().map(|stream| info(stream, self.counts))
    }

    fn stream(&self) -> Stream {
        self.model.stream.clone().unwrap_or_default()
    }

    /// The same steps as [`super::resume`] takes.
    fn resume(&mut self, id: StreamId, between: &[Vec<Change>; 2]) -> Base {
        if let Some(base) = known(id, self.info().as_ref()) {
            return base;
        }
        self.play(&between[0]);
        if [Some(id), id.next()].into_iter().flatten().any(|id| self.holds(id)) {
            return Base::exact(id);
        }
        self.play(&between[1]);
        absent(id, self.info().as_ref())
    }

    fn holds(&self, id: StreamId) -> bool {
        self.model.stream.as_ref().is_some_and(|stream| stream.entries.contains(&id))
    }

    /// A page, as [`crate::replay`] reads it.
    fn page(
        &mut self,
        from: &mut Continuity,
        count: usize,
        between: &[Change],
    ) -> (Reply, Verdict) {
        let anchor = from.anchor();
        let count = count.max(if anchor.is_some() { 2 } else { 1 });
        let mut entries = read(&self.model, anchor.unwrap_or(from.cursor()), count);
        self.play(between);
        let first = entries.first().map(|entry| entry.id);
        let anchored = anchor.is_some() && first == Some(from.cursor());
        if anchored {
            entries.remove(0);
        }
        let reply = Reply { entries, seen: self.info().map_or(Seen::Missing, Seen::Stream) };
        let verdict = from.check_from(&reply, anchored);
        (reply, verdict)
    }
}

/// What was trimmed, or never seen again, of the entries after `id`.
fn trimmed(stream: &Stream, after: StreamId) -> Vec<StreamId> {
    let gone = |id: &StreamId| *id > after && !stream.entries.contains(id);
    let history = stream.history.iter().copied();
    history.filter(|id| gone(id) && !stream.deleted.contains(id)).collect()
}

/// In the same life: exact where nothing after the id was trimmed, told where it is below what is
/// kept.
fn is_right(scene: &Scene, id: StreamId, base: &Base) {
    let stream = scene.stream();
    let Some(gap) = base.gap else {
        assert_eq!(trimmed(&stream, id), [], "after {id} of {stream:?}");
        return;
    };
    let below = stream.entries.first().is_none_or(|first| id < *first);
    // Before Redis 7 nothing tells a deleted id from one of another life.
    let unknown = !scene.counts && gap.reason == Reason::Reset && stream.deleted.contains(&id);
    let unknown = unknown || !scene.counts && stream.deleted.iter().any(|d| id.next() == Some(*d));
    assert!(unknown || (gap.reason == Reason::Trimmed && below), "{id} is {gap:?} of {stream:?}");
}

/// The ids that cannot be told from one of this life.
fn looks_known(scene: &Scene, id: StreamId) -> bool {
    let Some(info) = scene.info() else { return id == StreamId::ZERO };
    let deleted = info.first.is_some_and(|first| first <= id) && id <= info.max_deleted;
    let held = scene.holds(id) || id.next().is_some_and(|next| scene.holds(next));
    held || deleted || id == info.last_generated || id == StreamId::ZERO
}

/// Follows a client from `base` on to the end, in one life; what is there is delivered, what was
/// trimmed meanwhile is told.
fn follow(scene: &mut Scene, base: &Base, pages: &[(usize, Vec<Change>)]) {
    let (life, since) = (scene.model.life, trimmed(&scene.stream(), base.after));
    let mut from = Continuity::after(base.after);
    let (mut delivered, mut gaps): (Vec<StreamId>, Vec<Gap>) = Default::default();
    let (nothing, mut pages) = (Vec::new(), pages.iter());
    for _ in 0..100 {
        let (count, between) =
            pages.next().map_or((3, &nothing), |(count, between)| (*count, between));
        let before = from;
        let (reply, verdict) = scene.page(&mut from, count, between);
        if scene.model.life != life {
            // That is for the reader to tell.
            return;
        }
        if let Verdict::Missing(gap) = verdict {
            let first = scene.stream().entries.first().copied();
            let below = first.is_none_or(|first| first > before.cursor());
            assert!(below || gap.lost.is_some(), "{gap:?} though {first:?} is there");
            gaps.push(gap);
        }
        assert!(!matches!(verdict, Verdict::Reset(_)), "no other life has begun");
        delivered.extend(reply.entries.iter().map(|entry| entry.id));
        if pages.len() == 0 && reply.entries.is_empty() && before == from {
            break;
        }
    }
    let stream = scene.stream();
    let there: Vec<_> = stream.after(base.after).collect();
    assert!(there.iter().all(|id| delivered.contains(id)), "{delivered:?} of {there:?}");
    assert!(delivered.is_sorted_by(|a, b| a < b), "{delivered:?}");
    let covers = |gap: &Gap, id: &StreamId| {
        gap.after.is_some_and(|after| after < *id) && gap.next.is_none_or(|next| *id < next)
    };
    let mut lost = trimmed(&stream, base.after);
    lost.retain(|id| !since.contains(id) && !delivered.contains(id));
    lost.retain(|id| !gaps.iter().any(|gap| covers(gap, id)));
    let counted: u64 = gaps.iter().filter_map(|gap| gap.lost).sum();
    assert!(lost.len() as u64 <= counted, "{lost:?} {gaps:?}");
}

fn play(case: &Resume) {
    let mut scene = Scene { model: Model::default(), next: 10, counts: case.counts };
    scene.play(&case.before);
    let left_in = scene.model.life;
    let (id, known_life) = match case.had {
        Had::Entry { place, gap } if !scene.stream().entries.is_empty() => {
            let entries = scene.stream().entries;
            let entry = entries[place % entries.len()];
            (if gap { entry.prev() } else { entry }, true)
        }
        Had::Entry { place, .. } => (id(place as u64 % 40), false),
        Had::Foreign(number) => (id(number), false),
    };
    scene.play(&case.away);
    let base = scene.resume(id, &case.between);
    if known_life && scene.model.life == left_in {
        is_right(&scene, id, &base);
    } else if base.gap.is_none() {
        assert!(looks_known(&scene, id), "{id} is none of {:?}", scene.model.stream);
    }
    if base.gap.is_some() {
        let kept = scene.stream();
        let before_first = kept.entries.first().map_or(kept.last_generated, |first| first.prev());
        assert_eq!(base.after, before_first, "all that is kept comes");
    }
    follow(&mut scene, &base, &case.pages);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_resume_is_exact_or_says_so(case in resume()) {
        play(&case);
    }
}

fn at(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

fn add(ids: &[u64]) -> Model {
    let mut model = Model::default();
    for ms in ids {
        assert!(model.run(&Command::Add(at(*ms), None)));
    }
    model
}

fn look(model: &Model) -> Option<Info> {
    model.stream.as_ref().map(|stream| info(stream, true))
}

#[test]
fn an_id_deleted_since_the_first_look_is_exact() {
    let mut model = add(&[10, 20, 30]);
    assert!(known(at(20), look(&model).as_ref()).is_none(), "the stream is to be asked for it");
    model.run(&Command::Delete(vec![at(20)]));
    assert_eq!(absent(at(20), look(&model).as_ref()), Base::exact(at(20)));
}

#[test]
fn an_id_trimmed_since_the_first_look_is_told() {
    let mut model = add(&[10, 20, 30]);
    model.run(&Command::TrimLength(1));
    let base = absent(at(10), look(&model).as_ref());
    let gap = Gap { after: Some(at(10)), next: Some(at(30)), lost: None, reason: Reason::Trimmed };
    assert_eq!(base, Base { after: at(30).prev(), gap: Some(gap) });
}

#[test]
fn an_id_that_was_never_there_is_a_reset_though_nothing_was_removed() {
    // After 100, 200, 300 and a DEL.
    let info = look(&add(&[50, 150, 350]));
    assert!(known(at(300), info.as_ref()).is_none());
    let reset = Base::first(Some(at(300)), info.as_ref(), Reason::Reset);
    assert_eq!(absent(at(300), info.as_ref()), reset);
}

#[test]
fn the_end_of_an_emptied_stream_is_exact_and_nothing_else_of_it() {
    let mut model = add(&[10, 20, 30]);
    model.run(&Command::TrimLength(0));
    assert_eq!(known(at(30), look(&model).as_ref()), Some(Base::exact(at(30))));
    assert_eq!(known(at(20), look(&model).as_ref()), None);
}

#[test]
fn whoever_has_nothing_is_told_of_what_was_trimmed() {
    let mut model = add(&[10, 20, 30]);
    let all = Base::exact(at(10).prev());
    assert_eq!(known(StreamId::ZERO, look(&model).as_ref()), Some(all));
    model.run(&Command::TrimLength(1));
    assert_eq!(known(StreamId::ZERO, look(&model).as_ref()), None);
    let gap = absent(StreamId::ZERO, look(&model).as_ref()).gap.unwrap();
    assert_eq!((gap.next, gap.reason), (Some(at(30)), Reason::Trimmed));
}
