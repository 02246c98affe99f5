//! Limits repeated log lines: what happens to a thousand clients at once is logged once.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The same line is not logged again within this time.
const INTERVAL: Duration = Duration::from_secs(10);

/// Allows a line per kind and interval.
#[derive(Default)]
pub struct LogThrottle {
    /// What was logged within the interval. The lock is held briefly: there are few kinds.
    recent: Mutex<Vec<(&'static str, Instant)>>,
}

impl LogThrottle {
    /// Whether a line of this kind may be logged now; if so, it counts as logged.
    pub fn allows(&self, kind: &'static str) -> bool {
        let mut recent = self.recent.lock().expect("no holder of the lock panics");
        recent.retain(|(_, when)| when.elapsed() < INTERVAL);
        let is_new = recent.iter().all(|(known, _)| *known != kind);
        if is_new {
            recent.push((kind, Instant::now()));
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_allowed_once() {
        let throttle = LogThrottle::default();
        let allowed = ["IO", "IO", "ERR"].map(|code| throttle.allows(code));
        assert_eq!(allowed, [true, false, true]);
    }
}
