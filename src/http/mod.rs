//! The public side: listeners, what a connection speaks, the router, the gate, and streams, whose sockets
//! leave hyper (HTTP/1) or stay with it (HTTP/2, TLS).

pub mod arrival;
pub mod cors;
pub mod forwarded;
pub mod head;
pub mod hosted;
pub mod inherited;
mod lingering_close;
pub mod listener;
mod meter;
pub mod peer;
pub mod proxy_header;
pub mod reauthorize;
pub mod rewind;
pub mod router;
pub mod start_param;
pub mod takeover;
mod visit;
