//! One asks, all who ask the same at the same time share the answer, and those who ask a little later.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::source::Error;

/// How long an answer may be shared: after a restart clients come back in a herd. It counts from when the answer
/// came: where Redis is slow, the herd shares what it waited for.
const KEPT: Duration = Duration::from_secs(2);

/// Answers that are under way or were just given, by what was asked.
pub(super) struct SingleFlight<K, V> {
    kept: Duration,
    /// Locked for one look at a time.
    flights: Mutex<HashMap<K, Flight<V>>>,
}

/// An answer, once it is there, and when it came.
type Flight<V> = Arc<OnceCell<(Instant, Result<V, Error>)>>;

impl<K: Clone + Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// Keeps each answer for so long.
    pub(super) fn keeping(kept: Duration) -> Self {
        Self { kept, flights: Mutex::default() }
    }

    /// The answer for `key`, from `ask` unless somebody else is asking right now. All who wait share an
    /// error too; it is not kept for those who come later, and neither is an answer that `keep` refuses.
    pub(super) async fn get<F>(
        &self,
        key: K,
        ask: impl FnOnce() -> F,
        keep: impl FnOnce(&V) -> bool,
    ) -> Result<V, Error>
    where
        F: Future<Output = Result<V, Error>>,
    {
        self.get_unless(key, |_| false, ask, keep).await
    }

    /// The same, unless the answer that is kept `is_stale`. One that comes now may be stale as well, if it was asked for
    /// before.
    pub(super) async fn get_unless<F>(
        &self,
        key: K,
        is_stale: impl Fn(&V) -> bool,
        ask: impl FnOnce() -> F,
        keep: impl FnOnce(&V) -> bool,
    ) -> Result<V, Error>
    where
        F: Future<Output = Result<V, Error>>,
    {
        let flight = self.join(key.clone(), is_stale);
        let ask = async || {
            let answer = ask().await;
            (Instant::now(), answer)
        };
        let (_, answer) = flight.get_or_init(ask).await;
        if !answer.as_ref().is_ok_and(keep) {
            self.forget(&key, &flight);
        }
        answer.clone()
    }

    /// Drops the answers that nobody will share any more, and the flights that everybody has left.
    pub(super) fn forget_old(&self) {
        let wanted = |flight: &Flight<V>| flight.get().is_some() || Arc::strong_count(flight) > 1;
        self.flights().retain(|_, flight| wanted(flight) && !self.is_old(flight));
    }

    fn forget(&self, key: &K, left: &Flight<V>) {
        let mut flights = self.flights();
        // By now there may be another flight under this key.
        if flights.get(key).is_some_and(|flight| Arc::ptr_eq(flight, left)) {
            flights.remove(key);
        }
    }

    /// Drops the answers that are there and that nobody `wants` any more.
    pub(super) fn retain(&self, wants: impl Fn(&K, &V) -> bool) {
        self.flights().retain(|key, flight| match flight.get() {
            Some((_, Ok(answer))) => wants(key, answer),
            Some((_, Err(_))) => false,
            None => Arc::strong_count(flight) > 1,
        });
    }

    fn join(&self, key: K, is_stale: impl Fn(&V) -> bool) -> Flight<V> {
        let mut flights = self.flights();
        let flight = flights.entry(key).or_default();
        let is_useless = match flight.get() {
            Some((_, Ok(answer))) => is_stale(answer),
            _ => false,
        };
        if is_useless || self.is_old(flight) {
            *flight = Flight::default();
        }
        flight.clone()
    }

    /// A flight that is still under way is never old.
    fn is_old(&self, flight: &Flight<V>) -> bool {
        flight.get().is_some_and(|(came, _)| came.elapsed() >= self.kept)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<K, Flight<V>>> {
        self.flights.lock().expect("no holder of the lock panics")
    }
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { kept: KEPT, flights: Mutex::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ErrorClass;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn away() -> Error {
        Error { class: ErrorClass::Away, code: "IO", message: "away".into() }
    }

    #[tokio::test]
    async fn one_asks_for_all_that_ask_the_same() {
        let (shared, asked) = (SingleFlight::default(), AtomicU32::new(0));
        let (shared, asked) = (&shared, &asked);
        let ask = |key| {
            let answer = async move {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(key)
            };
            shared.get(key, || answer, |_| true)
        };
        let (a, b, c) = tokio::join!(ask(1), ask(1), ask(2));
        assert_eq!((a.unwrap(), b.unwrap(), c.unwrap()), (1, 1, 2));
        assert_eq!(ask(1).await.unwrap(), 1);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_flight_under_way_is_joined_however_long_it_takes() {
        let shared = SingleFlight { kept: Duration::ZERO, ..SingleFlight::default() };
        let (asked, redis) = (AtomicU32::new(0), tokio::sync::Semaphore::new(0));
        let (shared, asked, redis) = (&shared, &asked, &redis);
        let ask = || {
            let answer = async move {
                asked.fetch_add(1, Ordering::Relaxed);
                redis.acquire().await.unwrap().forget();
                Ok(())
            };
            shared.get(1, || answer, |()| true)
        };
        let later = async {
            shared.forget_old();
            let joined = ask();
            redis.add_permits(2);
            joined.await
        };
        let (first, second) = tokio::join!(ask(), later);
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        ask().await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2, "an answer is kept for no time here");
    }

    #[tokio::test]
    async fn an_answer_is_shared_for_a_time_from_when_it_came() {
        let kept = Duration::from_secs(1);
        // On a slow machine the test tries again.
        for _ in 0..10 {
            let shared = SingleFlight { kept, ..SingleFlight::default() };
            let asked = Instant::now();
            let slow = async || {
                while asked.elapsed() < kept {
                    tokio::task::yield_now().await;
                }
                Ok(1)
            };
            assert_eq!(shared.get(1, slow, |_| true).await.unwrap(), 1);
            let answered = Instant::now();
            let next = shared.get(1, async || Ok(2), |_| true).await.unwrap();
            if answered.elapsed() < kept / 2 {
                return assert_eq!(next, 1);
            }
        }
        panic!("no two questions within half a second");
    }

    #[tokio::test]
    async fn a_flight_that_nobody_waits_for_is_forgotten() {
        let shared = SingleFlight::default();
        let never = shared.get(1, std::future::pending::<Result<(), Error>>, |()| true);
        assert!(tokio::time::timeout(Duration::ZERO, never).await.is_err());
        shared.forget_old();
        assert!(shared.flights().is_empty());
    }

    #[tokio::test]
    async fn an_error_and_what_is_not_kept_are_asked_again() {
        let shared = SingleFlight::default();
        assert!(shared.get(1, async || Err(away()), |_| true).await.is_err());
        assert_eq!(shared.get(1, async || Ok(5), |_| false).await.unwrap(), 5);
        assert_eq!(shared.get(1, async || Ok(6), |_| true).await.unwrap(), 6);
    }
}
