//! The public side: listeners, the router, and the takeover of a stream's socket from hyper.

pub mod cors;
pub mod inherited;
pub mod listener;
pub mod router;
pub mod takeover;
