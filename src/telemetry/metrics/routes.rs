//! Counters per route. A path keeps its counters, wherever a reload puts its route.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};
use metrics::Counter;

use crate::sse::EndReason;

/// The counters of one route.
#[derive(Clone)]
pub struct RouteMetrics {
    /// Events written, without control events.
    pub events: Counter,
    /// Bytes written, with frames and control events.
    pub bytes: Counter,
    /// Streams that ended because they are over, by [`EndReason::ALL`].
    pub ended: [Counter; EndReason::ALL.len()],
}

impl RouteMetrics {
    /// The counter of streams that are over for this reason.
    pub fn ended(&self, reason: EndReason) -> &Counter {
        &self.ended[reason as usize]
    }
}

/// A subscriber stores the number of its route in 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "reloads have added more than 65536 paths of routes since the start, and the gateway counts each; restart it"
)]
pub struct TooManyRoutes;

/// Every route since the start.
#[derive(Default)]
pub(super) struct Routes {
    /// Locked while a configuration is applied.
    numbers: Mutex<HashMap<String, u16>>,
    all: ArcSwap<Vec<RouteMetrics>>,
}

impl Routes {
    pub(super) fn all(&self) -> Guard<Arc<Vec<RouteMetrics>>> {
        self.all.load()
    }

    /// The number of each path; `count` makes the counters of a new one.
    pub(super) fn numbers<'a>(
        &self,
        paths: impl Iterator<Item = &'a str>,
        count: impl Fn(&str) -> RouteMetrics,
    ) -> Result<Vec<u16>, TooManyRoutes> {
        let mut numbers = self.numbers.lock().expect("no holder of the lock panics");
        let mut all = Vec::clone(&self.all.load());
        let mut number = |path: &str| {
            if let Some(known) = numbers.get(path) {
                return Ok(*known);
            }
            let number = u16::try_from(all.len()).map_err(|_| TooManyRoutes)?;
            all.push(count(path));
            numbers.insert(path.to_owned(), number);
            Ok(number)
        };
        let found = paths.map(&mut number).collect();
        // Also after an error: the new paths before it have their numbers.
        self.all.store(Arc::new(all));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(routes: &Routes, paths: &[&str]) -> Result<Vec<u16>, TooManyRoutes> {
        let none = Counter::noop;
        let count = |_: &str| RouteMetrics {
            events: none(),
            bytes: none(),
            ended: EndReason::ALL.map(|_| none()),
        };
        routes.numbers(paths.iter().copied(), count)
    }

    #[test]
    fn a_path_keeps_its_number_even_while_it_is_gone() {
        let routes = Routes::default();
        assert_eq!(numbers(&routes, &["/a", "/b"]), Ok(vec![0, 1]));
        assert_eq!(numbers(&routes, &["/c", "/b"]), Ok(vec![2, 1]));
        assert_eq!(numbers(&routes, &["/a"]), Ok(vec![0]));
        assert_eq!(routes.all().len(), 3);
    }

    #[test]
    fn a_path_too_many_is_refused_and_a_known_one_is_not() {
        let routes = Routes::default();
        let all: Vec<String> = (0..=u16::MAX).map(|number| format!("/{number}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert!(numbers(&routes, &all).is_ok());
        assert_eq!(numbers(&routes, &["/1", "/another"]), Err(TooManyRoutes));
        assert_eq!(numbers(&routes, &["/65535"]), Ok(vec![u16::MAX]));
    }
}
