//! Pending connections: those that are no streams (yet). Their number is bounded; beyond it, the connection
//! that has waited longest is evicted for the next one. So ten thousand half-sent requests keep no new
//! client out. An address with many pending connections evicts its own, so it does not hurt slow clients
//! elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::identity::network;

/// An address with one in so many of all slots evicts a connection of its own for its next one.
const SHARE_PART: usize = 4;

/// All pending connections.
pub struct Pending {
    most: Box<dyn Fn() -> usize + Send + Sync>,
    /// Locked for one look at a time.
    open: Mutex<Open>,
    given_back: Notify,
}

#[derive(Default)]
struct Open {
    /// Includes those that were told to end and have not ended yet.
    count: usize,
    last_ticket: u64,
    /// Connections that can be evicted, by ticket: the one that has waited longest first.
    waiting: BTreeMap<u64, Waiting>,
    /// Tickets of those that were told to end and have not ended yet.
    leaving: BTreeSet<u64>,
    /// Tickets of those that are waiting, by address.
    by_address: HashMap<Option<IpAddr>, BTreeSet<u64>>,
}

struct Waiting {
    from: Option<IpAddr>,
    evict: oneshot::Sender<()>,
}

/// One connection's slot; given back when it is dropped, with all of its [`EvictionHandle`]s.
pub struct PendingSlot {
    eviction: Arc<EvictionHandle>,
    evicted: oneshot::Receiver<()>,
}

/// A connection's place in the order of eviction.
pub struct EvictionHandle {
    pending: Arc<Pending>,
    ticket: AtomicU64,
    /// Since when it has its time; `None`: from the beginning.
    prolonged: Mutex<Option<Instant>>,
}

/// Why a pending connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingEnd {
    /// It was evicted for another one.
    Evicted,
    /// It took too long.
    Overdue,
}

impl PendingEnd {
    /// A metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "pending",
            Self::Overdue => "pending_timeout",
        }
    }
}

impl Pending {
    /// As many slots as `most` returns at the time; at least one.
    pub fn new(most: impl Fn() -> usize + Send + Sync + 'static) -> Arc<Self> {
        let (open, given_back) = (Mutex::default(), Notify::new());
        Arc::new(Self { most: Box::new(most), open, given_back })
    }

    /// How many pending connections there are.
    pub fn count(&self) -> usize {
        self.open().count
    }

    /// A slot for one more connection, `from` an address if it has one. If none is free, one is evicted, and
    /// this waits until it has ended: so there are never more descriptors than allowed.
    pub async fn slot(self: &Arc<Self>, from: Option<IpAddr>) -> PendingSlot {
        let (from, mut evicted) = (from.map(network), None);
        loop {
            let mut given_back = pin!(self.given_back.notified());
            // Enabled before the look: several listeners may wait, and each of them evicts one.
            given_back.as_mut().enable();
            if let Some(slot) = self.free_slot(from, &mut evicted) {
                return slot;
            }
            given_back.await;
        }
    }

    /// A free slot, or else one is `evicted`: not another one while that has not ended.
    fn free_slot(
        self: &Arc<Self>,
        from: Option<IpAddr>,
        evicted: &mut Option<u64>,
    ) -> Option<PendingSlot> {
        let most = (self.most)().max(1);
        let mut open = self.open();
        if open.count >= most {
            if !evicted.is_some_and(|ticket| open.leaving.contains(&ticket)) {
                *evicted = open.evict_for(from, most);
            }
            return None;
        }
        open.count += 1;
        let (evict, evicted) = oneshot::channel();
        let ticket = AtomicU64::new(open.queue(Waiting { from, evict }));
        Some(PendingSlot {
            eviction: Arc::new(EvictionHandle {
                pending: self.clone(),
                ticket,
                prolonged: Mutex::default(),
            }),
            evicted,
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("no holder of the lock panics")
    }
}

impl Open {
    fn queue(&mut self, waiting: Waiting) -> u64 {
        self.last_ticket += 1;
        self.by_address.entry(waiting.from).or_default().insert(self.last_ticket);
        self.waiting.insert(self.last_ticket, waiting);
        self.last_ticket
    }

    fn take(&mut self, ticket: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&ticket)?;
        if let Some(tickets) = self.by_address.get_mut(&waiting.from) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.by_address.remove(&waiting.from);
            }
        }
        Some(waiting)
    }

    /// Evicts one for a connection from this address; its ticket.
    fn evict_for(&mut self, from: Option<IpAddr>, most: usize) -> Option<u64> {
        let ticket = self.evicted_for(from, most)?;
        // A connection that is ending anyway gives its slot back as well.
        let _ = self.take(ticket)?.evict.send(());
        self.leaving.insert(ticket);
        Some(ticket)
    }

    /// Which one to evict for a connection from this address.
    fn evicted_for(&self, from: Option<IpAddr>, most: usize) -> Option<u64> {
        let own = self.by_address.get(&from).filter(|own| own.len() * SHARE_PART >= most);
        match own {
            Some(own) => own.first().copied(),
            None => self.waiting.keys().next().copied(),
        }
    }
}

impl PendingSlot {
    /// For what sees the connection's requests.
    pub fn eviction_handle(&self) -> Arc<EvictionHandle> {
        self.eviction.clone()
    }

    /// The output of `work`, unless the connection is evicted or `limit` passes before.
    pub async fn until<T>(
        &mut self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, PendingEnd> {
        tokio::select! {
            biased;
            outcome = work => Ok(outcome),
            // Its sender is dropped only after it was used.
            _ = &mut self.evicted => Err(PendingEnd::Evicted),
            () = self.eviction.overdue(limit) => Err(PendingEnd::Overdue),
        }
    }
}

impl EvictionHandle {
    /// Gives it its whole time from now on, for it does something that is not a stream.
    pub fn prolong(&self) {
        *self.prolonged.lock().expect("no holder of the lock panics") = Some(Instant::now());
    }

    /// Returns once it has had so long since it was prolonged.
    async fn overdue(&self, limit: Duration) {
        let mut until = Instant::now().checked_add(limit);
        loop {
            let Some(end) = until else { return std::future::pending().await };
            sleep_until(end).await;
            let prolonged = *self.prolonged.lock().expect("no holder of the lock panics");
            match prolonged.and_then(|since| since.checked_add(limit)) {
                Some(later) if later > Instant::now() => until = Some(later),
                _ => return,
            }
        }
    }

    /// Puts it behind all others, for a request has come.
    pub fn postpone(&self) {
        let mut open = self.pending.open();
        if let Some(waiting) = open.take(self.ticket.load(Ordering::Relaxed)) {
            self.ticket.store(open.queue(waiting), Ordering::Relaxed);
        }
    }
}

impl Drop for EvictionHandle {
    fn drop(&mut self) {
        let mut open = self.pending.open();
        let ticket = self.ticket.load(Ordering::Relaxed);
        open.take(ticket);
        open.leaving.remove(&ticket);
        open.count -= 1;
        drop(open);
        self.pending.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::future::pending;
    use std::sync::atomic::AtomicUsize;

    const LONG: Duration = Duration::from_secs(60);

    impl Open {
        fn is_empty(&self) -> bool {
            self.waiting.is_empty() && self.by_address.is_empty() && self.leaving.is_empty()
        }
    }

    async fn is_evicted(slot: &mut PendingSlot) -> bool {
        let end = tokio::time::timeout(Duration::ZERO, slot.until(LONG, pending::<()>())).await;
        end == Ok(Err(PendingEnd::Evicted))
    }

    #[tokio::test]
    async fn the_one_that_has_waited_longest_is_evicted_and_a_request_starts_its_wait_again() {
        let pending = Pending::new(|| 2);
        let (mut first, mut second) = (pending.slot(None).await, pending.slot(None).await);
        first.eviction_handle().postpone();
        let next = pending.slot(None);
        tokio::pin!(next);
        assert!(tokio::time::timeout(Duration::ZERO, &mut next).await.is_err(), "two are open");
        assert!(is_evicted(&mut second).await && !is_evicted(&mut first).await);
        assert_eq!(pending.count(), 2);
        drop(second);
        let _third = next.await;
        assert_eq!(pending.count(), 2);
        drop(first);
        assert_eq!(pending.count(), 1);
    }

    #[tokio::test]
    async fn each_waiting_connection_evicts_one() {
        let pending = Pending::new(|| 2);
        let first = [pending.slot(None).await, pending.slot(None).await];
        let mut next = Box::pin(async { tokio::join!(pending.slot(None), pending.slot(None)) });
        assert!(tokio::time::timeout(Duration::ZERO, &mut next).await.is_err(), "two are open");
        // Both at once, before either is looked at again.
        for mut slot in first {
            assert!(is_evicted(&mut slot).await);
        }
        let second = tokio::time::timeout(LONG, next).await.expect("there is room for both");
        assert_eq!(pending.count(), 2);
        drop(second);
        assert_eq!(pending.count(), 0);
    }

    /// A slot that came back while there were more than allowed makes room for nobody.
    #[tokio::test]
    async fn one_connection_evicts_one_after_a_reload_to_fewer_slots() {
        let most = Arc::new(AtomicUsize::new(3));
        let slots = most.clone();
        let pending = Pending::new(move || slots.load(Ordering::Relaxed));
        let mut first = pending.slot(None).await;
        let (mut second, third) = (pending.slot(None).await, pending.slot(None).await);
        most.store(2, Ordering::Relaxed);
        drop(third);
        let mut next = pin!(pending.slot(None));
        assert!(tokio::time::timeout(Duration::ZERO, &mut next).await.is_err(), "two are open");
        assert!(is_evicted(&mut first).await && !is_evicted(&mut second).await);
        drop(first);
        let _next = tokio::time::timeout(LONG, next).await.expect("there is room");
        assert!(!is_evicted(&mut second).await && pending.count() == 2);
    }

    #[tokio::test]
    async fn an_address_with_many_evicts_its_own_and_makes_room_for_others() {
        let pending = Pending::new(|| 4);
        let address = |last| Some(IpAddr::from([192, 0, 2, last]));
        let mut slow = pending.slot(address(1)).await;
        let mut flood: VecDeque<PendingSlot> = VecDeque::new();
        for _ in 0..3 {
            flood.push_back(pending.slot(address(2)).await);
        }
        for _ in 0..10 {
            let mut next = pin!(pending.slot(address(2)));
            assert!(
                tokio::time::timeout(Duration::ZERO, &mut next).await.is_err(),
                "four are open"
            );
            assert!(is_evicted(flood.front_mut().unwrap()).await && !is_evicted(&mut slow).await);
            flood.pop_front();
            flood.push_back(next.await);
        }
        // Another address evicts the one that has waited longest.
        let mut next = pin!(pending.slot(address(3)));
        assert!(tokio::time::timeout(Duration::ZERO, &mut next).await.is_err(), "four are open");
        assert!(is_evicted(&mut slow).await);
        drop(slow);
        drop((next.await, flood));
        assert!(pending.count() == 0 && pending.open().is_empty());
    }

    #[tokio::test]
    async fn a_slot_is_held_no_longer_than_its_limit() {
        let pending = Pending::new(|| 0);
        let mut slot = pending.slot(None).await;
        assert_eq!(slot.until(LONG, async { 5 }).await, Ok(5));
        let never = std::future::pending::<()>();
        assert_eq!(slot.until(Duration::from_millis(1), never).await, Err(PendingEnd::Overdue));
        drop(slot);
        assert_eq!(pending.count(), 0);
    }
}
