//! Answers that many ask for at once: one asks, all share it, for a little while.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::source::Error;

/// An answer is kept this long for whoever asks the same: after a restart clients come in a herd.
const KEPT: Duration = Duration::from_secs(2);
/// So many answers are kept at most.
const ANSWERS_KEPT: usize = 64;

/// Answers under way or just given, by what was asked.
pub struct Shared<K, V> {
    /// Held for one lookup at a time.
    kept: Mutex<Vec<Kept<K, V>>>,
}

struct Kept<K, V> {
    asked: K,
    since: Instant,
    answer: Cell<V>,
}

type Cell<V> = Arc<OnceCell<Result<V, Error>>>;

impl<K: PartialEq, V: Clone> Shared<K, V> {
    /// The answer to `asked`, by `ask` where nobody else asks it just now. An error is shared by
    /// those that wait for it, and not kept; neither is an answer that is not `lasting`.
    pub async fn get<F>(
        &self,
        asked: K,
        ask: impl FnOnce() -> F,
        lasting: impl FnOnce(&V) -> bool,
    ) -> Result<V, Error>
    where
        F: Future<Output = Result<V, Error>>,
    {
        let cell = self.cell(asked);
        let answer = cell.get_or_init(ask).await;
        if !answer.as_ref().is_ok_and(lasting) {
            self.kept().retain(|kept| !Arc::ptr_eq(&kept.answer, &cell));
        }
        answer.clone()
    }

    /// Gives back what nobody will share any more.
    pub fn forget_old(&self) {
        self.kept().retain(|kept| kept.since.elapsed() < KEPT);
    }

    fn cell(&self, asked: K) -> Cell<V> {
        self.forget_old();
        let mut kept = self.kept();
        if let Some(known) = kept.iter().find(|kept| kept.asked == asked) {
            return known.answer.clone();
        }
        if kept.len() >= ANSWERS_KEPT {
            kept.remove(0);
        }
        let answer = Cell::default();
        kept.push(Kept { asked, since: Instant::now(), answer: answer.clone() });
        answer
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept<K, V>>> {
        self.kept.lock().expect("no holder of the lock panics")
    }
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self { kept: Mutex::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Class;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn away() -> Error {
        Error { class: Class::Away, code: "IO", message: "away".into() }
    }

    #[tokio::test]
    async fn one_asks_for_all_that_ask_the_same() {
        let (shared, asked) = (Shared::default(), AtomicU32::new(0));
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
        let shared = Shared::default();
        assert!(shared.get(1, async || Err(away()), |_| true).await.is_err());
        assert_eq!(shared.get(1, async || Ok(5), |_| false).await.unwrap(), 5);
        assert_eq!(shared.get(1, async || Ok(6), |_| true).await.unwrap(), 6);
    }
}
