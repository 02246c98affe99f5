//! How shards and catch-up subscribers behave; a reload exchanges all of it.

use std::time::{Duration, Instant};

use super::CLIENT_CLOSE_TIME;
use crate::config::{Config, Refuse};

/// How shards and catch-up subscribers behave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A stream silent for this long gets a comment.
    pub keepalive: Duration,
    /// Base of the reconnection time.
    pub retry: Duration,
    /// Streams live for 80-100 % of this; zero: for ever.
    pub max_connection_age: Duration,
    /// Closes are spread over this when the server stops.
    pub drain: Duration,
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
    /// As the configuration has them, but for what the listeners and the kernel make of it: how long a
    /// drain takes, and whether many sends are `at_once`.
    pub fn new(config: &Config, drain: Duration, at_once: bool) -> Self {
        Self {
            keepalive: config.server.keepalive,
            retry: config.server.retry,
            max_connection_age: config.server.max_connection_age,
            drain,
            write_stall: config.limits.write_stall,
            max_lag: config.limits.max_lag,
            refuse: config.server.refuse,
            workers: config.server.workers,
            at_once,
        }
    }

    /// How long a drain may take: the last client is told at the end of `drain`, and has `write_stall`
    /// to take it.
    pub fn longest_drain(&self) -> Duration {
        self.drain + self.write_stall + CLIENT_CLOSE_TIME
    }

    /// A reconnection time for one client: 1-3 times the base, so that they don't return at once.
    pub fn reconnection_time(&self) -> Duration {
        self.retry.mul_f64(1.0 + 2.0 * fastrand::f64())
    }

    /// A reconnection time for a client that cannot be served now: five times as long.
    pub fn long_reconnection_time(&self) -> Duration {
        self.reconnection_time() * 5
    }

    /// When a stream that begins now is closed.
    pub fn expiry(&self) -> Option<Instant> {
        let age = self.max_connection_age.mul_f64(0.8 + 0.2 * fastrand::f64());
        (!age.is_zero()).then(|| Instant::now() + age)
    }
}
