//! A group: readers that share one connection. What its task has to ask, and what it tells them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::source::Error;
use crate::source::redis::tail::client::resp::Value;
use crate::sse::StreamId;

mod arming;

pub(crate) use arming::ToArm;
use arming::{Armed, Arming, OnWait};

/// Readers that share one connection.
pub(crate) struct Group {
    /// For the operator.
    pub(crate) id: u64,
    /// Locked for one look at a time, never across an await.
    state: Mutex<State>,
    /// A reader has come, or gone, or waits for news again.
    changed: Notify,
}

#[derive(Default)]
struct State {
    members: HashMap<u64, Member>,
    /// The readers of each key.
    by_key: HashMap<Arc<str>, Vec<u64>>,
    last_id: u64,
    /// Readers that were told something and have not come back yet.
    awaited: usize,
    /// Readers that wait for news, and are not part of the read that goes on; some may be gone.
    newcomers: Vec<u64>,
    arming: Arming,
    is_closed: bool,
}

struct Member {
    key: Arc<str>,
    after: StreamId,
    is_light: bool,
    /// How often its stream is looked at.
    pace: Duration,
    next_look: Instant,
    /// There while the reader waits for news.
    tell: Option<oneshot::Sender<News>>,
    is_awaited: bool,
    is_newcomer: bool,
    armed: Armed,
}

/// What a reader of a group is told.
pub(crate) enum News {
    /// Its stream holds entries that it has not read.
    Entries,
    /// Something has happened to its stream.
    Changed,
    /// A look at its stream is due, and is heavy.
    Due,
    /// The answer to `XINFO STREAM`, over a connection that was opened then.
    Look(Value, Instant),
    /// The shared connection failed.
    Lost(Error),
    /// It should look for another connection.
    Moved,
}

/// A reader that waits for news of its stream.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    id: u64,
    pub(crate) key: Arc<str>,
    pub(crate) after: StreamId,
    /// Whether a look at its stream is cheap.
    pub(crate) is_light: bool,
}

/// A reader's place in a group; dropping it gives it up.
pub(crate) struct Place {
    pub(crate) group: Arc<Group>,
    id: u64,
}

impl Group {
    pub(super) fn new(id: u64) -> Self {
        Self { id, state: Mutex::default(), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    pub(super) fn enter(self: &Arc<Self>, key: Arc<str>) -> Place {
        let mut state = self.state();
        state.last_id += 1;
        let id = state.last_id;
        state.by_key.entry(key.clone()).or_default().push(id);
        let member = Member {
            key,
            after: StreamId::ZERO,
            is_light: false,
            pace: Duration::ZERO,
            next_look: Instant::now(),
            tell: None,
            is_awaited: false,
            is_newcomer: false,
            armed: Armed::default(),
        };
        state.members.insert(id, member);
        Place { group: self.clone(), id }
    }

    /// Readers in the group.
    pub(crate) fn size(&self) -> usize {
        self.state().members.len()
    }

    /// Ends the group: its readers look for another connection.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.tell_all(|| News::Moved);
        self.changed.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Closes a group without readers; whether it is closed.
    pub(super) fn close_if_empty(&self) -> bool {
        let mut state = self.state();
        state.is_closed |= state.members.is_empty();
        state.is_closed
    }

    /// The streams to look at whose looks are due by then.
    pub(crate) fn looks(&self, by: Instant) -> Vec<Waiting> {
        let state = self.state();
        let due = state.members.iter().filter(|(_, member)| member.next_look <= by);
        due.filter_map(|(id, member)| member.waiting(*id)).collect()
    }

    /// The streams to read: all whose readers wait. They are no newcomers any more.
    pub(crate) fn reads(&self) -> Vec<Waiting> {
        let mut state = self.state();
        state.newcomers.clear();
        state.arming = Arming::default();
        let members = state.members.iter_mut();
        let waiting = members.filter_map(|(id, member)| {
            (member.is_newcomer, member.armed) = (false, Armed::default());
            member.waiting(*id)
        });
        waiting.collect()
    }

    /// Whether a reader waits for news.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.state().members.values().any(|member| member.tell.is_some())
    }

    /// Tells a reader, if it still waits for news after what was asked.
    pub(crate) fn tell(&self, of: &Waiting, news: News) {
        let mut state = self.state();
        let State { members, awaited, .. } = &mut *state;
        if let Some(member) = members.get_mut(&of.id).filter(|member| member.after == of.after) {
            *awaited += usize::from(member.tell(news));
        }
    }

    /// Tells all readers that wait.
    pub(crate) fn tell_all(&self, news: impl Fn() -> News) {
        self.state().tell_all(news);
    }

    /// How often the streams of this group are looked at; `None`: it has no readers that wait.
    pub(crate) fn pace(&self) -> Option<Duration> {
        let state = self.state();
        let waiting = state.members.values().filter(|member| member.tell.is_some());
        waiting.map(|member| member.pace).min()
    }

    /// Returns once something has changed: a reader has come or gone.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns once a reader waits that is not part of the read that goes on.
    pub(crate) async fn has_newcomers(&self) {
        loop {
            let changed = self.changed.notified();
            if self.state().is_to_be_asked_for() {
                return;
            }
            changed.await;
        }
    }

    /// Returns once all readers that were told something wait again, or are gone.
    pub(crate) async fn all_wait_again(&self) {
        loop {
            let changed = self.changed.notified();
            if self.state().awaited == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Those who were told something and do not wait yet are not waited for any longer.
    pub(crate) fn wait_for_nobody(&self) {
        let mut state = self.state();
        state.awaited = 0;
        for member in state.members.values_mut() {
            member.is_awaited = false;
        }
    }
}

impl State {
    fn is_to_be_asked_for(&self) -> bool {
        self.is_closed || !self.newcomers.is_empty() || self.arming.has_stale()
    }

    fn tell_all(&mut self, news: impl Fn() -> News) {
        for member in self.members.values_mut() {
            self.awaited += usize::from(member.tell(news()));
        }
    }

    fn forget_key(&mut self, key: &str, id: u64) {
        let Some(ids) = self.by_key.get_mut(key) else { return };
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            self.by_key.remove(key);
        }
    }
}

impl Member {
    /// What it waits for, if it does.
    fn waiting(&self, id: u64) -> Option<Waiting> {
        let Self { after, is_light, .. } = *self;
        self.tell.as_ref().map(|_| Waiting { id, key: self.key.clone(), after, is_light })
    }

    /// Whether it waited.
    fn tell(&mut self, news: News) -> bool {
        let Some(tell) = self.tell.take() else { return false };
        // Each read looks as well, so the next look has time; and one that came early is no reason for more.
        let is_look = matches!(news, News::Look(..) | News::Due);
        let now = Instant::now();
        self.next_look = if is_look { self.next_look.max(now) } else { now } + self.pace;
        self.is_awaited = tell.send(news).is_ok();
        // Its reader has begun to read before, or is gone.
        self.armed.has_missed |= !self.is_awaited;
        self.is_awaited
    }
}

impl Place {
    /// Whether Redis has told of its key, and not only of all keys, since this was last asked.
    pub(crate) fn was_told_of(&self) -> bool {
        let mut state = self.group.state();
        let member = state.members.get_mut(&self.id).expect("only a drop removes it");
        std::mem::take(&mut member.armed.was_told_of)
    }

    /// Waits for news of what comes after this id. `in_doubt`: its stream is to be looked at soon.
    pub(crate) fn wait(
        &self,
        after: StreamId,
        is_light: bool,
        pace: Duration,
        in_doubt: bool,
    ) -> oneshot::Receiver<News> {
        let (tell, told) = oneshot::channel();
        let mut state = self.group.state();
        if state.is_closed {
            let _ = tell.send(News::Moved);
            return told;
        }
        let State { members, awaited, newcomers, arming, .. } = &mut *state;
        let member = members.get_mut(&self.id).expect("only a drop removes it");
        if member.pace.is_zero() {
            // Its reader has looked just now; but not all streams are to be looked at at once.
            member.next_look = Instant::now() + pace.mul_f64(0.5 + fastrand::f64() / 2.0);
        }
        if in_doubt {
            member.next_look = Instant::now();
        }
        (member.after, member.is_light, member.pace) = (after, is_light, pace);
        member.tell = Some(tell);
        if std::mem::take(&mut member.is_awaited) {
            *awaited -= 1;
        }
        match arming.on_wait(self.id, &mut member.armed) {
            OnWait::Tell => *awaited += usize::from(member.tell(News::Changed)),
            OnWait::Ask if !std::mem::replace(&mut member.is_newcomer, true) => {
                newcomers.push(self.id);
            }
            OnWait::Ask | OnWait::Wait => {}
        }
        self.group.changed.notify_one();
        told
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.group.state();
        if let Some(member) = state.members.remove(&self.id) {
            state.awaited -= usize::from(member.is_awaited);
            if member.is_newcomer {
                state.newcomers.retain(|id| *id != self.id);
            }
            state.forget_key(&member.key, self.id);
        }
        self.group.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
