//! A table of invented services: each change says all of one service, so that the newest of each are the table.

use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

use super::Sample;

/// The services of the table.
const NAMES: [&str; 6] = ["auth", "billing", "mail", "search", "storage", "web"];

/// How a service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Up,
    Degraded,
    Down,
}

/// One service after the other, for ever: a stream of the last few entries has all of them.
#[derive(Debug)]
pub struct Services {
    rng: Rng,
    health: [Health; NAMES.len()],
    told: usize,
}

impl Services {
    /// Services that fare otherwise in each run.
    pub fn new() -> Self {
        Self::from_rng(Rng::new())
    }

    fn from_rng(rng: Rng) -> Self {
        Self { rng, health: [Health::Up; NAMES.len()], told: 0 }
    }

    /// The name of a service, and how it does now.
    #[expect(clippy::should_implement_trait, reason = "endless: every caller would unwrap")]
    pub fn next(&mut self) -> (&'static str, Sample) {
        let index = self.told % NAMES.len();
        // All of them at once in the beginning.
        let wait = if self.told < NAMES.len() - 1 { 0 } else { self.rng.u64(300..=900) };
        self.told += 1;
        let health = self.health[index].after(self.rng.u8(..100));
        self.health[index] = health;
        let payload = json!({
            "id": NAMES[index],
            "state": health.name(),
            "latency_ms": health.latency_ms(&mut self.rng),
        });
        (NAMES[index], Sample { payload: payload.to_string(), wait: Duration::from_millis(wait) })
    }
}

impl Default for Services {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// What becomes of it, by a number below 100.
    fn after(self, chance: u8) -> Self {
        match (self, chance) {
            (Self::Up, 0..12) | (Self::Degraded, 45..70) | (Self::Down, 0..20) => Self::Degraded,
            (Self::Degraded, 0..20) | (Self::Down, 20..60) => Self::Down,
            (Self::Up | Self::Degraded | Self::Down, _) => Self::Up,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }

    /// `None`: it does not answer.
    fn latency_ms(self, rng: &mut Rng) -> Option<u32> {
        match self {
            Self::Up => Some(rng.u32(4..60)),
            Self::Degraded => Some(rng.u32(300..2000)),
            Self::Down => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_last_six_are_always_the_whole_table() {
        let mut services = Services::from_rng(Rng::with_seed(1));
        let all: Vec<_> = (0..600).map(|_| services.next()).collect();
        for last in all.windows(NAMES.len()) {
            assert_eq!(last.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), 6);
        }
        assert!(all[..5].iter().all(|(_, sample)| sample.wait.is_zero()));
        assert!(all[5..].iter().all(|(_, sample)| sample.wait >= Duration::from_millis(300)));
        let mut seen = HashSet::new();
        for (name, sample) in &all {
            let row: Value = serde_json::from_str(&sample.payload).unwrap();
            assert_eq!(row["id"], *name);
            assert_eq!(row["latency_ms"].is_null(), row["state"] == "down");
            seen.insert(row["state"].as_str().unwrap().to_owned());
        }
        assert_eq!(seen.len(), 3, "each of them fails at some time: {seen:?}");
    }
}
