//! What happens to a thousand at once is told to the operator once.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The same is not told again for this long.
const SILENCE: Duration = Duration::from_secs(10);

/// What was told of late.
#[derive(Default)]
pub struct LogThrottle {
    /// Held for one look at a time; there are few kinds.
    told: Mutex<Vec<(&'static str, Instant)>>,
}

impl LogThrottle {
    /// Whether `what` is to be told now; it counts as told then.
    pub fn allows(&self, what: &'static str) -> bool {
        let mut told = self.told.lock().expect("no holder of the lock panics");
        told.retain(|(_, when)| when.elapsed() < SILENCE);
        let new = told.iter().all(|(known, _)| *known != what);
        if new {
            told.push((what, Instant::now()));
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_and_another_too() {
        let sparingly = LogThrottle::default();
        let told: Vec<_> = ["IO", "IO", "ERR"].map(|code| sparingly.allows(code)).into();
        assert_eq!(told, [true, false, true]);
    }
}
