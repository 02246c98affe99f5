//! What is counted per route: by its path, so that a route counts on wherever a reload puts it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};
use metrics::Counter;

/// What is counted per route.
#[derive(Clone)]
pub struct RouteMetrics {
    /// Events written, control events not counted.
    pub events: Counter,
    /// Bytes written, frames and control events counted.
    pub bytes: Counter,
}

/// A client names its route in so many bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there were more than 65536 paths of routes since the start, and each is counted; restart")]
pub struct TooManyRoutes;

/// Every route that there was since the start, in the order of their coming.
#[derive(Default)]
pub(super) struct Routes {
    /// Held while a configuration is taken.
    numbers: Mutex<HashMap<String, u16>>,
    all: ArcSwap<Vec<RouteMetrics>>,
}

impl Routes {
    pub(super) fn all(&self) -> Guard<Arc<Vec<RouteMetrics>>> {
        self.all.load()
    }

    /// The number of each path; what is counted of one that is new begins with `count`.
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
        // What was new has a number, whatever came after it.
        self.all.store(Arc::new(all));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(routes: &Routes, paths: &[&str]) -> Result<Vec<u16>, TooManyRoutes> {
        let count = |_: &str| RouteMetrics { events: Counter::noop(), bytes: Counter::noop() };
        routes.numbers(paths.iter().copied(), count)
    }

    #[test]
    fn a_path_keeps_its_number_wherever_it_stands_and_whether_it_was_gone() {
        let routes = Routes::default();
        assert_eq!(numbers(&routes, &["/a", "/b"]), Ok(vec![0, 1]));
        assert_eq!(numbers(&routes, &["/c", "/b"]), Ok(vec![2, 1]));
        assert_eq!(numbers(&routes, &["/a"]), Ok(vec![0]));
        assert_eq!(routes.all().len(), 3);
    }

    #[test]
    fn more_than_can_be_told_apart_are_refused_and_those_that_are_known_are_not() {
        let routes = Routes::default();
        let all: Vec<String> = (0..=u16::MAX).map(|number| format!("/{number}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert!(numbers(&routes, &all).is_ok());
        assert_eq!(numbers(&routes, &["/1", "/another"]), Err(TooManyRoutes));
        assert_eq!(numbers(&routes, &["/65535"]), Ok(vec![u16::MAX]));
    }
}
