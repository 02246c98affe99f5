//! Where Redis tells of keys that have changed (`CLIENT TRACKING`): which it was asked to tell of. It tells of a key
//! once, and is asked again. What has happened before it was asked, it does not tell: so the reader reads after that.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Group, Member, News, State, Waiting};
use crate::sse::StreamId;

/// A key of which Redis could not be asked to tell is tried again after this.
const TRIED_AGAIN: Duration = Duration::from_millis(20);
/// So many newcomers at a time: those whose streams have changed shall not wait long.
const NEWCOMERS: usize = 64;

/// Whether Redis was asked to tell of a reader's key.
#[derive(Default)]
pub(super) struct Armed {
    step: Step,
    /// Something has happened that its reader may not have read.
    pub(super) has_missed: bool,
    /// Redis has told of this very key, which its reader was not told yet.
    pub(super) was_told_of: bool,
    /// It is among those to be armed again.
    is_stale: bool,
    /// Its reader was told of what came after this.
    told_after: Option<StreamId>,
    /// It could not be armed, and is not to be tried before.
    paused_until: Option<Instant>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Unarmed,
    Asked,
    Armed,
}

/// The keys that are to be armed.
#[derive(Default)]
pub(super) struct Arming {
    /// Of readers that wait, and have missed something; some may be gone.
    stale: Vec<u64>,
    /// Those that could not be armed, by when they are tried again.
    paused: VecDeque<(Instant, u64)>,
}

/// What is to be done for a reader that waits again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OnWait {
    /// It has missed something.
    Tell,
    /// It is to be asked for.
    Ask,
    Wait,
}

/// The streams whose keys are to be armed.
#[derive(Debug, Default)]
pub(crate) struct ToArm {
    /// Their readers are to read then.
    pub(crate) stale: Vec<Waiting>,
    /// What has happened since their readers have read is not known.
    pub(crate) newcomers: Vec<Waiting>,
}

impl Arming {
    pub(super) fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    pub(super) fn on_wait(&mut self, id: u64, armed: &mut Armed) -> OnWait {
        match armed.step {
            Step::Armed if armed.has_missed => {
                armed.has_missed = false;
                OnWait::Tell
            }
            Step::Unarmed if armed.paused_until.is_some_and(|until| until > Instant::now()) => {
                self.paused.extend(armed.paused_until.take().map(|until| (until, id)));
                OnWait::Wait
            }
            Step::Unarmed if armed.has_missed => {
                self.add_stale(id, armed);
                OnWait::Wait
            }
            Step::Unarmed => OnWait::Ask,
            Step::Asked | Step::Armed => OnWait::Wait,
        }
    }

    fn add_stale(&mut self, id: u64, armed: &mut Armed) {
        if !std::mem::replace(&mut armed.is_stale, true) {
            self.stale.push(id);
        }
    }
}

impl Group {
    /// Nothing is armed over a connection that is new.
    pub(crate) fn disarm_all(&self) {
        let mut state = self.state();
        let State { members, newcomers, arming, .. } = &mut *state;
        (*arming, *newcomers) = (Arming::default(), Vec::new());
        for (id, member) in members {
            member.armed = Armed::default();
            member.is_newcomer = member.tell.is_some();
            if member.is_newcomer {
                newcomers.push(*id);
            }
        }
    }

    /// The streams whose keys are to be armed now; some at a time.
    pub(crate) fn to_arm(&self, now: Instant) -> ToArm {
        let mut state = self.state();
        let State { members, newcomers: come, arming, .. } = &mut *state;
        let mut changed = std::mem::take(&mut arming.stale);
        while arming.paused.front().is_some_and(|(until, _)| *until <= now) {
            changed.extend(arming.paused.pop_front().map(|(_, id)| id));
        }
        let first = come.len().saturating_sub(NEWCOMERS);
        let newcomers: Vec<_> = come.drain(first..).collect();
        let mut ask = |ids: Vec<u64>| {
            let asked = ids.into_iter().filter_map(|id| members.get_mut(&id)?.ask(id));
            asked.collect::<Vec<_>>()
        };
        ToArm { stale: ask(changed), newcomers: ask(newcomers) }
    }

    /// When keys are to be armed at the latest.
    pub(crate) fn next_arming(&self) -> Option<Instant> {
        self.state().arming.paused.front().map(|(until, _)| *until)
    }

    /// Redis tells of this key from now on. Its reader is told `news`, or to read if it has missed something or reads
    /// already.
    pub(crate) fn armed(&self, of: &Waiting, news: News) {
        let mut state = self.state();
        let State { members, awaited, .. } = &mut *state;
        let Some(member) = members.get_mut(&of.id) else { return };
        if member.armed.step != Step::Asked {
            return;
        }
        member.armed.step = Step::Armed;
        if member.tell.is_none() {
            // It may have begun to read before.
            member.armed.has_missed = true;
            return;
        }
        let is_about_now = member.after == of.after && !member.armed.has_missed;
        member.armed.has_missed = false;
        let news = if is_about_now { news } else { News::Changed };
        *awaited += usize::from(member.tell(news));
    }

    /// Redis refused to tell of this key: its reader finds out why.
    pub(crate) fn not_armed(&self, of: &Waiting) {
        let mut state = self.state();
        let State { members, awaited, .. } = &mut *state;
        let Some(member) = members.get_mut(&of.id) else { return };
        member.armed.step = Step::Unarmed;
        member.armed.paused_until = Some(Instant::now() + TRIED_AGAIN);
        member.armed.has_missed = member.tell.is_none();
        *awaited += usize::from(member.tell(News::Changed));
    }

    /// Redis has told that this key has changed.
    pub(crate) fn note_change(&self, key: &[u8]) {
        let mut state = self.state();
        let State { members, by_key, arming, .. } = &mut *state;
        let readers = std::str::from_utf8(key).ok().and_then(|key| by_key.get(key));
        for id in readers.into_iter().flatten() {
            let member = members.get_mut(id).expect("who goes leaves its key as well");
            member.armed.was_told_of = true;
            member.note_change(*id, arming);
        }
    }

    /// Redis has told that all keys may have changed.
    pub(crate) fn note_change_of_all(&self) {
        let mut state = self.state();
        let State { members, arming, .. } = &mut *state;
        for (id, member) in members {
            member.note_change(*id, arming);
        }
    }

    /// Tells a reader what a look shows, unless it is to read soon anyway.
    pub(crate) fn tell_look(&self, of: &Waiting, news: News) {
        let mut state = self.state();
        let State { members, awaited, .. } = &mut *state;
        let member = members.get_mut(&of.id).filter(|member| member.after == of.after);
        if let Some(member) = member.filter(|member| member.armed.step == Step::Armed) {
            *awaited += usize::from(member.tell(news));
        }
    }

    /// A look shows a stream whose last entry is this, and everything that Redis told before was noted. Whether Redis
    /// should have told of it.
    pub(crate) fn note_look(&self, of: &Waiting, last: Option<StreamId>) -> bool {
        let mut state = self.state();
        let member = state.members.get_mut(&of.id).filter(|member| member.tell.is_some());
        let Some(member) = member.filter(|member| member.after == of.after) else { return false };
        let is_behind = last.is_some_and(|last| last > of.after);
        let was_told = member.armed.told_after == Some(of.after);
        if is_behind {
            member.armed.told_after = Some(of.after);
        }
        is_behind && !was_told && member.armed.step == Step::Armed
    }
}

impl Member {
    /// Has its key armed, if it waits and its key is not.
    fn ask(&mut self, id: u64) -> Option<Waiting> {
        (self.is_newcomer, self.armed.is_stale) = (false, false);
        let waiting = self.waiting(id).filter(|_| self.armed.step == Step::Unarmed)?;
        self.armed.step = Step::Asked;
        Some(waiting)
    }

    fn note_change(&mut self, id: u64, arming: &mut Arming) {
        self.armed.has_missed = true;
        self.armed.told_after = Some(self.after);
        if self.armed.step == Step::Armed {
            self.armed.step = Step::Unarmed;
        }
        if self.armed.step == Step::Unarmed && self.tell.is_some() {
            arming.add_stale(id, &mut self.armed);
        }
    }
}
