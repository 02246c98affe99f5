//! One asks, all who ask the same at the same time share the answer, and those who ask a little later.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::source::Error;

/// How long an answer may be shared: after a restart clients come back in a herd.
const KEPT: Duration = Duration::from_secs(2);

/// Answers that are under way or were just given, by what was asked.
pub(super) struct SingleFlight<K, V> {
    /// Locked for one look at a time.
    flights: Mutex<HashMap<K, Flight<V>>>,
}

struct Flight<V> {
    since: Instant,
    answer: Answer<V>,
}

type Answer<V> = Arc<OnceCell<Result<V, Error>>>;

impl<K: Clone + Eq + Hash, V: Clone> SingleFlight<K, V> {
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
        let shared = self.join(key.clone());
        let answer = shared.get_or_init(ask).await;
        if !answer.as_ref().is_ok_and(keep) {
            self.forget(&key, &shared);
        }
        answer.clone()
    }

    /// Drops the answers that nobody will share any more.
    pub(super) fn forget_old(&self) {
        self.flights().retain(|_, flight| !flight.is_old());
    }

    fn forget(&self, key: &K, answer: &Answer<V>) {
        let mut flights = self.flights();
        // By now there may be another flight under this key.
        if flights.get(key).is_some_and(|flight| Arc::ptr_eq(&flight.answer, answer)) {
            flights.remove(key);
        }
    }

    fn join(&self, key: K) -> Answer<V> {
        let mut flights = self.flights();
        let flight = flights.entry(key).or_default();
        if flight.is_old() {
            *flight = Flight::default();
        }
        flight.answer.clone()
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<K, Flight<V>>> {
        self.flights.lock().expect("no holder of the lock panics")
    }
}

impl<V> Flight<V> {
    fn is_old(&self) -> bool {
        self.since.elapsed() >= KEPT
    }
}

impl<V> Default for Flight<V> {
    fn default() -> Self {
        Self { since: Instant::now(), answer: Answer::default() }
    }
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { flights: Mutex::default() }
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
    async fn an_error_and_what_is_not_kept_are_asked_again() {
        let shared = SingleFlight::default();
        assert!(shared.get(1, async || Err(away()), |_| true).await.is_err());
        assert_eq!(shared.get(1, async || Ok(5), |_| false).await.unwrap(), 5);
        assert_eq!(shared.get(1, async || Ok(6), |_| true).await.unwrap(), 6);
    }
}
