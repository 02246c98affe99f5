//! Which readers have a connection of their own, and which share one. It decides, and opens none.
//!
//! As long as a server's readers are no more than `source.connections`, each has its own. Then the busy ones keep
//! theirs, and the others enter groups, each of which has one for all its readers.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Address;

mod allotment;
mod busy;
mod group;
mod tracking;

pub(crate) use allotment::reading_links;
pub(crate) use busy::Tally;
pub(crate) use group::{Group, News, Place, ToArm, Waiting};

use allotment::{Allotment, most_busy};
use busy::Pace;
use tracking::Tracking;

/// How busy the readers are is judged this often.
const JUDGED: Duration = Duration::from_secs(1);

/// So many groups are closed together, where connections are wanted for busy readers.
const CLOSED_AT_ONCE: usize = 8;
/// More readers than this there cannot be.
const UNLIMITED: usize = 1 << 20;

/// The connections to all servers.
pub(super) struct Seats {
    /// To each server.
    connections: usize,
    /// More groups for a server are of no use.
    most_groups: usize,
    servers: Mutex<HashMap<Address, Arc<ServerSeats>>>,
}

/// The connections to one server.
pub(crate) struct ServerSeats {
    connections: usize,
    most_groups: usize,
    /// One for each connection of a reader or a group.
    permits: Arc<Semaphore>,
    /// Locked for one decision at a time, never across an await.
    state: Mutex<State>,
}

struct State {
    readers: HashMap<u64, Occupant>,
    groups: Vec<Arc<Group>>,
    last_id: u64,
    /// Readers with a connection of their own that were not told to move.
    own: usize,
    /// Keys whose readers should have one.
    busy: HashSet<Arc<str>>,
    judged: Instant,
    /// When a group was closed last.
    closed: Instant,
    tracking: Tracking,
}

struct Occupant {
    key: Arc<str>,
    tally: Arc<Tally>,
    pace: Pace,
    has_own: bool,
}

/// A reader's right to a connection; dropping it gives it up.
pub(crate) struct Seat {
    pub(super) server: Arc<ServerSeats>,
    /// The number of its connection, unless it shares one.
    pub(crate) id: u64,
    pub(crate) tally: Arc<Tally>,
    pub(crate) kind: SeatKind,
}

pub(crate) enum SeatKind {
    /// A connection of its own.
    Own { _permit: OwnedSemaphorePermit },
    /// A place in a group.
    Shared(Place),
}

/// How many connections are in use for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeatCounts {
    /// By readers that have their own.
    pub(crate) own: usize,
    /// By groups of readers.
    pub(crate) groups: usize,
}

impl Seats {
    /// `connections`: to each server; 0: one for each reader; not 1, for what is shared takes two.
    pub(super) fn new(connections: usize, most_groups: usize) -> Self {
        let connections = if connections == 0 { UNLIMITED } else { connections };
        Self { connections, most_groups, servers: Mutex::default() }
    }

    /// A seat at a server for the reader of `key`; and a group that is new, whose task is to be started.
    pub(super) fn take(&self, server: &Address, key: &str) -> (Seat, Option<Arc<Group>>) {
        let mut servers = self.servers.lock().expect("no holder of the lock panics");
        if !servers.contains_key(server) {
            servers.retain(|_, seats| !seats.is_unused());
        }
        let (connections, most_groups) = (self.connections, self.most_groups);
        let new = || Arc::new(ServerSeats::new(connections, most_groups));
        servers.entry(server.clone()).or_insert_with(new).take(key)
    }

    pub(super) fn counts(&self) -> SeatCounts {
        let servers = self.servers.lock().expect("no holder of the lock panics");
        servers.values().fold(SeatCounts::default(), |sum, seats| {
            let state = seats.state();
            SeatCounts { own: sum.own + state.own, groups: sum.groups + state.groups.len() }
        })
    }
}

impl ServerSeats {
    fn new(connections: usize, most_groups: usize) -> Self {
        let state = State {
            readers: HashMap::new(),
            groups: Vec::new(),
            last_id: 0,
            own: 0,
            busy: HashSet::new(),
            judged: Instant::now(),
            closed: Instant::now(),
            tracking: Tracking::Possible,
        };
        let permits = Arc::new(Semaphore::new(connections));
        Self { connections, most_groups, permits, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    fn is_unused(&self) -> bool {
        let state = self.state();
        let are_back = self.permits.available_permits() == self.connections;
        state.readers.is_empty() && state.groups.is_empty() && are_back
    }

    /// How many groups share connections to it.
    pub(crate) fn groups(&self) -> usize {
        self.state().groups.len()
    }

    fn take(self: &Arc<Self>, key: &str) -> (Seat, Option<Arc<Group>>) {
        let mut state = self.state();
        let allotment = self.allotment(&state, state.readers.len() + 1);
        state.fit(allotment);
        let key: Arc<str> = key.into();
        let is_room = state.own < allotment.own && state.quiet_own() < state.most_quiet(allotment);
        let may_have_own = is_room || state.busy.contains(&key);
        let permit = may_have_own.then(|| self.permits.clone().try_acquire_owned().ok()).flatten();
        let (kind, new_group) = if let Some(permit) = permit {
            (SeatKind::Own { _permit: permit }, None)
        } else {
            let (group, is_new) = state.group(allotment);
            (SeatKind::Shared(group.enter(key.clone())), is_new.then_some(group))
        };
        let has_own = matches!(kind, SeatKind::Own { .. });
        state.own += usize::from(has_own);
        state.last_id += 1;
        let (id, tally) = (state.last_id, Arc::<Tally>::default());
        let pace = Pace::of_newcomer(state.busy.contains(&key));
        let occupant = Occupant { key, tally: tally.clone(), pace, has_own };
        state.readers.insert(id, occupant);
        (Seat { server: self.clone(), id, tally, kind }, new_group)
    }

    fn allotment(&self, state: &State, readers: usize) -> Allotment {
        let most_groups = match state.tracking {
            // A group that is told of its keys may be of any size.
            Tracking::Possible => 1,
            Tracking::Forgone { .. } => self.most_groups,
        };
        Allotment::of(self.connections, readers, state.busy.len(), most_groups)
    }

    /// The right to a group's connection; it may have to wait until a reader has given up its own.
    pub(crate) async fn permit(&self) -> OwnedSemaphorePermit {
        let permit = self.permits.clone().acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// Closes a group without readers; whether it is closed.
    pub(crate) fn end(&self, group: &Arc<Group>) -> bool {
        let mut state = self.state();
        if group.close_if_empty() {
            state.groups.retain(|other| !Arc::ptr_eq(other, group));
            return true;
        }
        false
    }

    /// Judges, once in a while, which readers are busy, and has some change places.
    pub(crate) fn judge(&self, now: Instant) {
        let mut state = self.state();
        let since = now.saturating_duration_since(state.judged);
        if since < JUDGED {
            return;
        }
        state.judged = now;
        state.weigh(since, most_busy(self.connections));
        let allotment = self.allotment(&state, state.readers.len());
        state.close_groups(allotment, now);
        state.fit(allotment);
        let free = allotment.own.saturating_sub(state.own).min(self.permits.available_permits());
        state.promote(free);
    }
}

impl State {
    /// The group to enter: the smallest, or a new one.
    fn group(&mut self, allotment: Allotment) -> (Arc<Group>, bool) {
        let smallest = self.groups.iter().min_by_key(|group| group.size());
        if let Some(smallest) = smallest
            && self.groups.len() >= allotment.groups
        {
            return (smallest.clone(), false);
        }
        self.last_id += 1;
        let group = Arc::new(Group::new(self.last_id));
        self.groups.push(group.clone());
        (group, true)
    }

    /// Closes groups, if there are too many. Not when a reader comes: it would find none, open another one, and come
    /// back for that one's new connection.
    fn close_groups(&mut self, allotment: Allotment, now: Instant) {
        // A group's readers all come back at once.
        let is_too_soon = now.saturating_duration_since(self.closed) < JUDGED;
        let most = match allotment.groups {
            0 => usize::MAX,
            _ if is_too_soon => 0,
            _ => CLOSED_AT_ONCE,
        };
        for _ in 0..self.groups.len().saturating_sub(allotment.groups).min(most) {
            self.closed = now;
            let last = self.groups.pop().expect("there are more than none");
            last.close();
        }
    }

    /// Has readers give up their own connections, if there are too many.
    fn fit(&mut self, allotment: Allotment) {
        let too_many = self.own.saturating_sub(allotment.own);
        let too_quiet = self.quiet_own().saturating_sub(self.most_quiet(allotment));
        for _ in 0..too_many.max(too_quiet) {
            let own = self.readers.values_mut().filter(|reader| reader.has_own);
            let quietest = own.min_by_key(|reader| (self.busy.contains(&reader.key), reader.pace));
            let Some(quietest) = quietest else { return };
            quietest.has_own = false;
            self.own -= 1;
            quietest.tally.set_to_move();
        }
    }

    /// Readers that have their own connection and are not busy,
    fn quiet_own(&self) -> usize {
        if self.busy.is_empty() {
            return self.own;
        }
        let own = self.readers.values().filter(|reader| reader.has_own);
        own.filter(|reader| !self.busy.contains(&reader.key)).count()
    }

    /// and how many may: the busy ones find room.
    fn most_quiet(&self, allotment: Allotment) -> usize {
        allotment.own.saturating_sub(self.busy.len())
    }

    fn weigh(&mut self, since: Duration, most_busy: usize) {
        for reader in self.readers.values_mut() {
            reader.pace.learn(&reader.tally, since);
        }
        let is_busy = |reader: &&Occupant| reader.pace.is_busy(self.busy.contains(&reader.key));
        let mut busy: Vec<_> = self.readers.values().filter(is_busy).collect();
        // Of two alike, the one that has its own keeps it.
        busy.sort_by_key(|reader| Reverse((reader.pace, reader.has_own)));
        self.busy = busy.into_iter().take(most_busy).map(|reader| reader.key.clone()).collect();
    }

    /// Tells up to so many readers, the busy ones first, to take a connection of their own.
    fn promote(&mut self, free: usize) {
        if free == 0 {
            return;
        }
        let mut shared: Vec<_> = self.readers.values().filter(|reader| !reader.has_own).collect();
        shared.sort_by_key(|reader| Reverse((self.busy.contains(&reader.key), reader.pace)));
        for reader in shared.into_iter().take(free) {
            reader.tally.set_to_move();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.server.state();
        if let Some(reader) = state.readers.remove(&self.id) {
            state.own -= usize::from(reader.has_own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(connections: usize) -> Arc<ServerSeats> {
        Arc::new(ServerSeats::new(connections, usize::MAX))
    }

    fn take(seats: &Arc<ServerSeats>, key: usize) -> Seat {
        seats.take(&format!("key {key}")).0
    }

    fn is_own(seat: &Seat) -> bool {
        matches!(seat.kind, SeatKind::Own { .. })
    }

    /// Each reader that was told to move gives its seat up and takes another one.
    fn move_those_told(seats: &Arc<ServerSeats>, taken: &mut [Option<Seat>]) {
        for (key, place) in taken.iter_mut().enumerate() {
            if place.as_ref().is_some_and(|seat| seat.tally.is_to_move()) {
                *place = None;
                *place = Some(take(seats, key));
            }
        }
    }

    fn connections_in_use(seats: &ServerSeats) -> usize {
        let state = seats.state();
        state.own + state.groups.len()
    }

    #[test]
    fn readers_share_once_there_are_more_of_them_than_connections() {
        let seats = seats(4);
        let mut taken: Vec<_> = (0..4).map(|key| Some(take(&seats, key))).collect();
        assert!(taken.iter().flatten().all(is_own));
        taken.push(Some(take(&seats, 4)));
        move_those_told(&seats, &mut taken);
        assert_eq!(taken.iter().flatten().filter(|seat| is_own(seat)).count(), 2);
        taken.extend((5..1_000).map(|key| Some(take(&seats, key))));
        move_those_told(&seats, &mut taken);
        assert!(connections_in_use(&seats) <= 3, "one more reads");
        taken.clear();
        assert_eq!(seats.state().own, 0);
    }

    #[test]
    fn a_busy_reader_gets_a_connection_of_its_own_and_a_quiet_one_gives_it_up() {
        let seats = seats(8);
        let mut taken: Vec<_> = (0..100).map(|key| Some(take(&seats, key))).collect();
        move_those_told(&seats, &mut taken);
        let mut now = Instant::now();
        for _ in 0..5 {
            for seat in taken[90..92].iter().flatten() {
                seat.tally.add_weight(100);
            }
            now += JUDGED;
            seats.judge(now);
            // A closed group's task gives its connection up.
            move_those_told(&seats, &mut taken);
        }
        let busy: Vec<_> = taken[90..92].iter().flatten().map(is_own).collect();
        assert_eq!(busy, [true, true]);
        assert!(connections_in_use(&seats) <= 7);
    }
}
