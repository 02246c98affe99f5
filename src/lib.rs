//! ssegate tails Redis Streams and fans each one out as Server-Sent Events.
//!
//! The crate's rooms, from what everything uses to what uses everything; each imports only those above it
//! (ARCHITECTURE.md, "Rooms"; a test holds it):
//!
//! - [`sse`]: ids, entries, rendering, control events, and the parser
//! - [`config`]: gateway.toml, as written and as meant
//! - [`telemetry`]: metrics and the log
//! - [`net`]: how we connect, and the certificates that clients are shown
//! - [`source`]: where entries come from: Redis, or the embedded source
//! - [`limits`], [`auth`]: who is refused, and who may read
//! - [`stream`]: one stream key: reader, ring, replay, where a client begins
//! - [`fanout`]: from a topic to its subscribers
//! - [`demo`]: the sample feed and its page
//! - [`state`]: the parts, joined
//! - [`http`], [`admin`]: the public side and the operator's
//! - [`gateway`]: the life of the gateway
//! - [`cli`]: the command line
//! - `fuzz`, under test only: what hostile bytes may not do

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod demo;
pub mod fanout;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod gateway;
pub mod http;
pub mod limits;
pub mod net;
/// Of the tests' random choices, here as in tests/.
#[cfg(test)]
#[allow(dead_code, reason = "tests/ uses the rest")]
#[path = "../tests/integration/support/seed.rs"]
mod seed;
pub mod source;
pub mod sse;
pub mod state;
pub mod stream;
pub mod telemetry;
