//! The public side: listeners, what a connection speaks, the router, the gate, and streams, whose sockets
//! leave hyper (HTTP/1) or stay with it (HTTP/2, TLS).

pub mod access;
pub mod again;
pub mod arrival;
pub mod asked;
pub mod cors;
pub mod forwarded;
pub mod head;
pub mod hosted;
pub mod inherited;
mod linger;
pub mod listener;
mod meter;
pub mod peer;
pub mod prefixed;
pub mod proxy_header;
pub mod router;
pub mod takeover;
pub mod tls;
mod visit;
