//! How many entries a principal, or an address, publishes in a time: a bucket that leaks (GCRA), so a time of
//! a holder is all that is kept.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::identity::{ClientIdentity, network};
use crate::config::publish::Rate;

/// Holders that are known at a time. Those beyond share one bucket: hostile ones take no memory.
const MOST_HOLDERS: usize = 1 << 16;
/// The holders that have nothing to wait for are looked for no more often than this.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The holder that stands for all beyond.
const OTHERS: u64 = 0;

/// The buckets of all routes.
pub struct Rates {
    hasher: RandomState,
    buckets: Mutex<Buckets>,
}

struct Buckets {
    /// When the bucket is empty again; those that are have no place.
    empty_at: HashMap<Holder, Instant>,
    swept: Instant,
}

/// Whose bucket, by the number of the route and a hash of the principal or the address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Holder {
    route: u16,
    who: u64,
}

impl Default for Rates {
    fn default() -> Self {
        let buckets = Buckets { empty_at: HashMap::new(), swept: Instant::now() };
        Self { hasher: RandomState::new(), buckets: Mutex::new(buckets) }
    }
}

impl Rates {
    /// Whose entries are counted: the principal's, or else the address's.
    pub fn holder(&self, route: u16, identity: &ClientIdentity) -> Holder {
        let who = match &identity.principal {
            Some(principal) => self.hasher.hash_one(principal),
            None => self.hasher.hash_one(identity.address.map(network)),
        };
        Holder { route, who: who.max(OTHERS + 1) }
    }

    /// Takes one entry, or says how long the holder has to wait for the next.
    pub fn take(&self, holder: Holder, rate: Rate) -> Result<(), Duration> {
        self.take_at(holder, rate, Instant::now())
    }

    /// Takes further entries of a request that was let in; the holder waits the longer for the next one.
    pub fn overdraw(&self, holder: Holder, rate: Rate, entries: usize) {
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        let mut buckets = self.buckets.lock().expect("no holder of the lock panics");
        let now = Instant::now();
        let (holder, empty_at) = buckets.of(holder, now);
        let until = empty_at + rate.per.saturating_mul(entries) / rate.entries;
        buckets.empty_at.insert(holder, until);
    }

    fn take_at(&self, holder: Holder, rate: Rate, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().expect("no holder of the lock panics");
        let (holder, empty_at) = buckets.of(holder, now);
        let of_one = rate.per / rate.entries;
        // A bucket holds what is allowed in one time.
        let room_for_one = rate.per.saturating_sub(of_one);
        let wait = empty_at.duration_since(now).saturating_sub(room_for_one);
        if !wait.is_zero() {
            return Err(wait);
        }
        buckets.empty_at.insert(holder, empty_at + of_one);
        Ok(())
    }
}

impl Buckets {
    /// The holder's bucket, and when it is empty; that of all others if there is no room for one more.
    fn of(&mut self, holder: Holder, now: Instant) -> (Holder, Instant) {
        if self.empty_at.len() >= MOST_HOLDERS && now - self.swept >= SWEEP_INTERVAL {
            self.swept = now;
            self.empty_at.retain(|_, empty_at| *empty_at > now);
        }
        let is_known = self.empty_at.contains_key(&holder);
        let has_room = is_known || self.empty_at.len() < MOST_HOLDERS;
        let holder = if has_room { holder } else { Holder { who: OTHERS, ..holder } };
        let empty_at = self.empty_at.get(&holder).copied().unwrap_or(now);
        (holder, empty_at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { entries: 4, per: Duration::from_secs(2) };

    fn named(principal: &str) -> ClientIdentity {
        ClientIdentity { address: None, principal: Some(principal.into()) }
    }

    fn at(address: &str) -> ClientIdentity {
        ClientIdentity { address: Some(address.parse().unwrap()), principal: None }
    }

    #[test]
    fn as_many_as_allowed_come_at_once_and_then_each_after_its_time() {
        let (rates, begin) = (Rates::default(), Instant::now());
        let holder = rates.holder(0, &named("a"));
        let take = |ms| rates.take_at(holder, RATE, begin + Duration::from_millis(ms));
        for _ in 0..4 {
            assert_eq!(take(0), Ok(()));
        }
        assert_eq!(take(100), Err(Duration::from_millis(400)));
        assert_eq!(take(500), Ok(()));
        assert_eq!(take(500), Err(Duration::from_millis(500)));
        // Another route, and another principal, have their own.
        let others = [rates.holder(1, &named("a")), rates.holder(0, &named("b"))];
        assert!(others.map(|holder| rates.take(holder, RATE)).iter().all(Result::is_ok));
    }

    #[test]
    fn what_a_batch_overdraws_is_waited_for() {
        let rates = Rates::default();
        let holder = rates.holder(0, &named("a"));
        rates.take(holder, RATE).unwrap();
        rates.overdraw(holder, RATE, 999);
        let wait = rates.take(holder, RATE).unwrap_err();
        assert!(wait > Duration::from_secs(497) && wait < Duration::from_secs(500), "{wait:?}");
    }

    #[test]
    fn without_a_principal_the_network_counts() {
        let rates = Rates::default();
        let holder = |address| rates.holder(0, &at(address));
        assert!(holder("2001:db8::1") == holder("2001:db8::2"));
        assert!(holder("2001:db8::1") != holder("2001:db8:0:1::1"));
        assert!(holder("10.0.0.1") != holder("10.0.0.2"));
        let unknown = rates.holder(0, &ClientIdentity::default());
        assert!(unknown != holder("10.0.0.1"));
    }

    #[test]
    fn holders_beyond_the_bound_share_a_bucket_until_others_have_nothing_to_wait_for() {
        let (rates, begin) = (Rates::default(), Instant::now());
        let holder = |number: usize| rates.holder(0, &named(&number.to_string()));
        let full = MOST_HOLDERS + 4;
        for number in 0..full {
            assert_eq!(rates.take_at(holder(number), RATE, begin), Ok(()), "{number}");
        }
        assert!(
            rates.take_at(holder(full), RATE, begin).is_err(),
            "the bucket of the others is full"
        );
        assert!(rates.take_at(holder(0), RATE, begin).is_ok(), "a known one has its own");
        assert!(rates.buckets.lock().unwrap().empty_at.len() <= MOST_HOLDERS + 1);
        let later = begin + 2 * RATE.per;
        assert!(rates.take_at(holder(full), RATE, later).is_ok());
        assert_eq!(rates.buckets.lock().unwrap().empty_at.len(), 1);
    }
}
