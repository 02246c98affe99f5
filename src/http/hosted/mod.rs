//! Streams that stay with hyper: over TLS, and over HTTP/2, where one connection carries many. There is no
//! socket to take; hyper writes the body of a response, and a catch-up subscriber fills it.
//!
//! ```text
//!  connection task         stream task, one for each HTTP/2 stream (`Streams::execute`)
//!  +---------------+       +----------------------------------------------------------+
//!  | hyper and h2: | DATA  |  hyper half          body slot          catch-up half    |
//!  | read requests,| <---- |  takes the piece <-- one piece of <---- puts a piece     |
//!  | write frames  |       |  (`Body`)            <= 16 KiB          (ring, source)   |
//!  +---------------+       |  polled second       no waker           polled first     |
//!                          +-------------------- `run_both` --------------------------+
//! ```
//!
//! HTTP/1 over TLS has one task: its hyper half is the connection itself.
//!
//! Because one task polls both halves, a delivery wakes one task, not two; and the catch-up half's clocks
//! (keepalive, deadlines, `write_stall`) run while hyper waits for a client that takes nothing, when it does
//! not poll the body. A stream ends in one of three ways:
//!
//! - The catch-up half ends the body after its closing frame: hyper has `write_stall` to write the rest, and
//!   sends `END_STREAM`.
//! - The catch-up half cuts the client: `run_both` drops the hyper half unfinished, for which h2 sends
//!   `RST_STREAM`, and HTTP/1 closes without the last chunk. So the client knows that the body is not whole.
//! - The client leaves: hyper drops the `Body`, the slot says so, and the catch-up half ends.
//!
//! hyper's executor gets only the hyper half. The service that opens a stream leaves the other half in the
//! [`Mailbox`](mailbox::Mailbox) of its task.

mod halves;
mod http1;
mod http2;
mod mailbox;
mod service;

pub(super) use http1::serve_http1;
pub(super) use http2::serve_http2;
