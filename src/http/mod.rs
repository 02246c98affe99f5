//! The public side: from listening sockets to streams.
//!
//! - `listener`, `inherited`: sockets, bound or handed over, and the accept loop
//! - `server`: what a connection speaks; uses `proxy_header`, `request_head`, `rewind`
//! - `router`, `plan`, `response`, `request`: what a request gets; uses `cors`, `forwarded`, `filter`, `start_param`
//! - `admission`: a stream's permit, topic and subscriber, or its refusal; `reauthorize`: the check after a reload
//! - `over`: whether there is a stream to give; `head`: what `HEAD` gets of one
//! - `publish`: what a `POST` adds
//! - `refused_heads`: what hyper refuses by itself, over HTTP/1
//! - `takeover`: streams whose socket leaves hyper (HTTP/1)
//! - `hosted`: streams that stay with hyper (HTTP/2, TLS); uses `frame_limit`, `lingering_close`

mod admission;
pub mod cors;
mod filter;
pub mod forwarded;
mod frame_limit;
mod head;
mod hosted;
pub mod inherited;
mod lingering_close;
pub mod listener;
mod merged;
mod merged_over;
mod merged_start;
pub mod over;
mod parts;
pub mod peer;
mod plan;
pub mod proxy_header;
pub mod publish;
pub mod reauthorize;
mod refused_heads;
mod request;
mod request_head;
pub mod response;
pub mod rewind;
pub mod router;
pub mod server;
pub mod start_param;
mod takeover;
