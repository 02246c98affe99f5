//! What the gateway tells of itself: metrics, the log, and which build it is.

pub mod histogram;
pub mod log;
pub mod metrics;
pub mod throttle;
pub mod version;
