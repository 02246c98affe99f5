//! How shards and catch-up subscribers behave; a reload exchanges all of it.

use std::time::{Duration, Instant};

use super::CLIENT_CLOSE_TIME;
use crate::config::{Config, Refuse};

/// The closes of a handover are spread over this at most, so that the last clients have time, too.
const HANDOVER_SPREAD: Duration = Duration::from_millis(1500);
/// Alone, a client that takes nothing keeps all others from the next gateway for this long at most.
const STRAGGLER_TIME: Duration = Duration::from_secs(5);
/// Clients of a gateway that was alone come back within these parts of `retry` after its end: from the time that
/// another start takes, to what spreads them.
const RETURN: (f64, f64) = (0.15, 0.35);
/// A next gateway that takes longer to start is not asked more often than that.
const SOONEST_RETURN: Duration = Duration::from_millis(200);

/// How shards and catch-up subscribers behave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A stream silent for this long gets a comment.
    pub keepalive: Duration,
    /// Base of the reconnection time.
    pub retry: Duration,
    /// Streams live for 80-100 % of this; zero: for ever.
    pub max_connection_age: Duration,
    /// How long after the beginning of a drain its last subscriber is closed.
    pub drain: Duration,
    /// Nobody else accepts clients during a drain: no public listener was handed over.
    pub alone: bool,
    /// A client that takes nothing for this long is cut.
    pub write_stall: Duration,
    /// A client whose next entry is older than this is cut; zero: never.
    pub max_lag: Duration,
    /// How clients are refused.
    pub refuse: Refuse,
    /// Shards per topic at most.
    pub workers: usize,
    /// Whether a shard's sends are handed to the kernel in one call.
    pub at_once: bool,
}

impl Settings {
    /// As the configuration has them, but for what the listeners and the kernel make of it: whether a drain
    /// leaves the clients to another gateway, and whether many sends are `at_once`.
    pub fn new(config: &Config, alone: bool, at_once: bool) -> Self {
        let longest = if alone { Duration::MAX } else { HANDOVER_SPREAD };
        Self {
            keepalive: config.server.keepalive,
            retry: config.server.retry,
            max_connection_age: config.server.max_connection_age,
            drain: config.server.drain.min(longest),
            alone,
            write_stall: config.limits.write_stall,
            max_lag: config.limits.max_lag,
            refuse: config.server.refuse,
            workers: config.server.workers,
            at_once,
        }
    }

    /// How long a drain may take: the last client is told at the end of `drain`, and has some time to take it.
    pub fn longest_drain(&self) -> Duration {
        self.drain + self.write_stall.min(STRAGGLER_TIME) + CLIENT_CLOSE_TIME
    }

    /// When to close a subscriber of a drain that has so much time left. Without a successor to go to it is late:
    /// within the last `retry`, and most of them near the end.
    pub(super) fn drain_close(&self, left: Duration) -> Duration {
        if self.alone {
            left.saturating_sub(left.min(self.retry).mul_f64(fastrand::f64().powi(4)))
        } else {
            left.mul_f64(fastrand::f64())
        }
    }

    /// A reconnection time for a client that a drain closes with so much of it left. Alone, it ends after the drain,
    /// and sooner for who has waited longer.
    pub(super) fn return_time(&self, left: Duration) -> Duration {
        if !self.alone {
            return self.reconnection_time();
        }
        let (from, to) = RETURN;
        let waited = left.div_duration_f64(self.retry).min(1.0);
        let spread = self.retry.mul_f64(from + (to - from) * (1.0 - waited) * fastrand::f64());
        left + spread.max(SOONEST_RETURN)
    }

    /// A reconnection time for one client: 1-3 times the base, so that they don't return at once.
    pub fn reconnection_time(&self) -> Duration {
        self.retry.mul_f64(1.0 + 2.0 * fastrand::f64())
    }

    /// A reconnection time for a client that cannot be served now: five times as long.
    pub fn long_reconnection_time(&self) -> Duration {
        self.reconnection_time() * 5
    }

    /// A reconnection time for a client that is refused for this reason.
    pub fn refusal_time(&self, reason: &str) -> Duration {
        if self.alone && reason == "drain" {
            return self.return_time(Duration::ZERO);
        }
        self.long_reconnection_time()
    }

    /// When a stream that begins now is closed.
    pub fn expiry(&self) -> Option<Instant> {
        let age = self.max_connection_age.mul_f64(0.8 + 0.2 * fastrand::f64());
        (!age.is_zero()).then(|| Instant::now() + age)
    }
}
