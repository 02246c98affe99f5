//! Answers that many ask for at once: one asks, all share it, for a little while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::source::Error;

/// An answer is kept this long for whoever asks the same: after a restart clients come in a herd.
const KEPT: Duration = Duration::from_secs(2);

/// Answers under way or just given, by what was asked.
pub(super) struct SingleFlight<K, V> {
    /// Held for one lookup at a time.
    kept: Mutex<HashMap<K, Answer<V>>>,
}

struct Answer<V> {
    since: Instant,
    answer: Cell<V>,
}

type Cell<V> = Arc<OnceCell<Result<V, Error>>>;

impl<K: Clone + Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// The answer to `asked`, by `ask` where nobody else asks it just now. An error is shared by
    /// those that wait for it, and not kept; neither is an answer that is not `lasting`.
    pub(super) async fn get<F>(
        &self,
        asked: K,
        ask: impl FnOnce() -> F,
        lasting: impl FnOnce(&V) -> bool,
    ) -> Result<V, Error>
    where
        F: Future<Output = Result<V, Error>>,
    {
        let cell = self.cell(asked.clone());
        let answer = cell.get_or_init(ask).await;
        if !answer.as_ref().is_ok_and(lasting) {
            self.forget(&asked, &cell);
        }
        answer.clone()
    }

    /// Gives back what nobody will share any more.
    pub(super) fn forget_old(&self) {
        self.kept().retain(|_, kept| !kept.is_old());
    }

    fn forget(&self, asked: &K, cell: &Cell<V>) {
        let mut kept = self.kept();
        // Another may be asking by now.
        if kept.get(asked).is_some_and(|kept| Arc::ptr_eq(&kept.answer, cell)) {
            kept.remove(asked);
        }
    }

    fn cell(&self, asked: K) -> Cell<V> {
        let mut kept = self.kept();
        let known = kept.entry(asked).or_default();
        if known.is_old() {
            *known = Answer::default();
        }
        known.answer.clone()
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<K, Answer<V>>> {
        self.kept.lock().expect("no holder of the lock panics")
    }
}

impl<V> Answer<V> {
    /// Asked so long ago that it is asked again.
    fn is_old(&self) -> bool {
        self.since.elapsed() >= KEPT
    }
}

impl<V> Default for Answer<V> {
    fn default() -> Self {
        Self { since: Instant::now(), answer: Cell::default() }
    }
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { kept: Mutex::default() }
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
    async fn an_error_and_what_does_not_last_are_asked_again() {
        let shared = SingleFlight::default();
        assert!(shared.get(1, async || Err(away()), |_| true).await.is_err());
        assert_eq!(shared.get(1, async || Ok(5), |_| false).await.unwrap(), 5);
        assert_eq!(shared.get(1, async || Ok(6), |_| true).await.unwrap(), 6);
    }
}
