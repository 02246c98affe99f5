//! Connections that are no streams: there may be so many, and when there are, the one that has waited
//! longest for its client gives way to the next. So ten thousand that send half a request hinder nobody;
//! not even slow ones elsewhere, for an address that holds many gives way to itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::network;

/// Who holds one in so many of all places makes room for its next connection itself.
const SHARE_PART: usize = 4;

/// All of them.
pub struct Pending {
    most: Box<dyn Fn() -> usize + Send + Sync>,
    /// Held for one look at a time.
    open: Mutex<Open>,
    given_back: Notify,
}

#[derive(Default)]
struct Open {
    /// Those that were told to give way and have not done so are among them.
    count: usize,
    tickets: u64,
    /// Who gives way when asked to, the longest waiting first.
    waiting: BTreeMap<u64, Waiting>,
    /// Their turns, by where they are.
    by_address: HashMap<Option<IpAddr>, BTreeSet<u64>>,
}

struct Waiting {
    from: Option<IpAddr>,
    gives_way: oneshot::Sender<()>,
}

/// One connection's place; given back when it is dropped with its [`EvictionHandle`].
pub struct PendingSlot {
    eviction: Arc<EvictionHandle>,
    gives_way: oneshot::Receiver<()>,
}

/// When it is a connection's turn to give way.
pub struct EvictionHandle {
    pending: Arc<Pending>,
    number: AtomicU64,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingEnd {
    /// For another one.
    GaveWay,
    /// It took too long.
    Overdue,
}

impl PendingEnd {
    /// A metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GaveWay => "pending",
            Self::Overdue => "pending_timeout",
        }
    }
}

impl Pending {
    /// As many as `most` says at any time; at least one.
    pub fn new(most: impl Fn() -> usize + Send + Sync + 'static) -> Arc<Self> {
        let (open, given_back) = (Mutex::default(), Notify::new());
        Arc::new(Self { most: Box::new(most), open, given_back })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.open().count
    }

    /// A place for one more, `from` an address if it has one. Where there is none, the one that has waited
    /// longest gives way; this waits until that is done, so that there are never more descriptors than
    /// there may be.
    pub async fn slot(self: &Arc<Self>, from: Option<IpAddr>) -> PendingSlot {
        let from = from.map(network);
        loop {
            let mut given_back = pin!(self.given_back.notified());
            // From now on: several listeners may wait, and each of them is owed one that gives way.
            given_back.as_mut().enable();
            if let Some(slot) = self.free_slot(from) {
                return slot;
            }
            given_back.await;
        }
    }

    fn free_slot(self: &Arc<Self>, from: Option<IpAddr>) -> Option<PendingSlot> {
        let most = (self.most)().max(1);
        let mut open = self.open();
        if open.count >= most {
            let oldest = open.evicted_for(from, most);
            if let Some(oldest) = oldest.and_then(|number| open.take(number)) {
                // One that is ending already gives its place back as well.
                let _ = oldest.gives_way.send(());
            }
            return None;
        }
        open.count += 1;
        let (sender, gives_way) = oneshot::channel();
        let number = AtomicU64::new(open.queue(Waiting { from, gives_way: sender }));
        Some(PendingSlot {
            eviction: Arc::new(EvictionHandle { pending: self.clone(), number }),
            gives_way,
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("no holder of the lock panics")
    }
}

impl Open {
    fn queue(&mut self, waiting: Waiting) -> u64 {
        self.tickets += 1;
        self.by_address.entry(waiting.from).or_default().insert(self.tickets);
        self.waiting.insert(self.tickets, waiting);
        self.tickets
    }

    fn take(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        if let Some(tickets) = self.by_address.get_mut(&waiting.from) {
            tickets.remove(&number);
            if tickets.is_empty() {
                self.by_address.remove(&waiting.from);
            }
        }
        Some(waiting)
    }

    fn evicted_for(&self, from: Option<IpAddr>, most: usize) -> Option<u64> {
        let own = self.by_address.get(&from).filter(|own| own.len() * SHARE_PART >= most);
        match own {
            Some(own) => own.first().copied(),
            None => self.waiting.keys().next().copied(),
        }
    }
}

impl PendingSlot {
    /// Its turn, for whoever hears of its requests.
    pub fn eviction_handle(&self) -> Arc<EvictionHandle> {
        self.eviction.clone()
    }

    /// What `work` comes to, if that is before the connection has to give way and within `limit`.
    pub async fn until<T>(
        &mut self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, PendingEnd> {
        tokio::select! {
            biased;
            outcome = work => Ok(outcome),
            // Its sender is kept until it is told to.
            _ = &mut self.gives_way => Err(PendingEnd::GaveWay),
            () = tokio::time::sleep(limit) => Err(PendingEnd::Overdue),
        }
    }
}

impl EvictionHandle {
    /// A request came: all others give way before it.
    pub fn postpone(&self) {
        let mut open = self.pending.open();
        if let Some(waiting) = open.take(self.number.load(Ordering::Relaxed)) {
            self.number.store(open.queue(waiting), Ordering::Relaxed);
        }
    }
}

impl Drop for EvictionHandle {
    fn drop(&mut self) {
        let mut open = self.pending.open();
        open.take(self.number.load(Ordering::Relaxed));
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

    const LONG: Duration = Duration::from_secs(60);

    async fn is_told(slot: &mut PendingSlot) -> bool {
        let cut = tokio::time::timeout(Duration::ZERO, slot.until(LONG, pending::<()>())).await;
        cut == Ok(Err(PendingEnd::GaveWay))
    }

    #[tokio::test]
    async fn the_one_that_has_waited_longest_gives_way_and_one_that_has_asked_has_not() {
        let pending = Pending::new(|| 2);
        let (mut first, mut second) = (pending.slot(None).await, pending.slot(None).await);
        first.eviction_handle().postpone();
        let next = pending.slot(None);
        tokio::pin!(next);
        assert!(tokio::time::timeout(Duration::ZERO, &mut next).await.is_err(), "two are open");
        assert!(is_told(&mut second).await && !is_told(&mut first).await);
        assert_eq!(pending.count(), 2);
        drop(second);
        let _third = next.await;
        assert_eq!(pending.count(), 2);
        drop(first);
        assert_eq!(pending.count(), 1);
    }

    #[tokio::test]
    async fn each_of_several_that_wait_has_one_that_gives_way() {
        let pending = Pending::new(|| 2);
        let first = [pending.slot(None).await, pending.slot(None).await];
        let mut next = Box::pin(async { tokio::join!(pending.slot(None), pending.slot(None)) });
        assert!(tokio::time::timeout(Duration::ZERO, &mut next).await.is_err(), "two are open");
        // Both at once, before either is looked at again.
        for mut slot in first {
            assert!(is_told(&mut slot).await);
        }
        let second = tokio::time::timeout(LONG, next).await.expect("there is room for both");
        assert_eq!(pending.count(), 2);
        drop(second);
        assert_eq!(pending.count(), 0);
    }

    #[tokio::test]
    async fn whoever_holds_many_gives_way_to_itself_and_to_others() {
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
            assert!(is_told(flood.front_mut().unwrap()).await && !is_told(&mut slow).await);
            flood.pop_front();
            flood.push_back(next.await);
        }
        // Somebody else takes the place of whoever has waited longest.
        let mut next = pin!(pending.slot(address(3)));
        assert!(tokio::time::timeout(Duration::ZERO, &mut next).await.is_err(), "four are open");
        assert!(is_told(&mut slow).await);
        drop(slow);
        drop((next.await, flood));
        assert!(pending.count() == 0 && pending.open().by_address.is_empty());
    }

    #[tokio::test]
    async fn a_place_is_kept_for_no_longer_than_it_may_be() {
        let pending = Pending::new(|| 0);
        let mut slot = pending.slot(None).await;
        assert_eq!(slot.until(LONG, async { 5 }).await, Ok(5));
        let never = std::future::pending::<()>();
        assert_eq!(slot.until(Duration::from_millis(1), never).await, Err(PendingEnd::Overdue));
        drop(slot);
        assert_eq!(pending.count(), 0);
    }
}
