//! The public side: listeners, the router, the gate, and the takeover of a stream's socket from hyper.

pub mod access;
pub mod arrival;
pub mod cors;
pub mod forwarded;
pub mod head;
pub mod inherited;
pub mod listener;
pub mod peer;
pub mod prefixed;
pub mod proxy_header;
pub mod router;
pub mod takeover;
