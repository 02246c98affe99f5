//! What the gateway reports about itself: metrics, the log, and its version.

pub mod histogram;
pub mod log;
pub mod metrics;
pub mod throttle;
pub mod version;
