//! ssegate tails Redis Streams and fans each one out as Server-Sent Events.
//!
//! The crate's map, from the source of the entries to the clients; imports point upwards only:
//!
//! - [`event`]: stream ids, entries, and the SSE grammar
//! - [`histogram`]: histograms with fixed buckets
//! - [`jwk`]: keys that verify tokens
//! - [`config`]: gateway.toml, as written and as meant
//! - [`source`]: Redis, or the embedded source
//! - [`continuity`]: whether a read went on where the last one ended
//! - [`metrics`], [`limits`]: what is counted, what is refused
//! - [`shared`], [`sparingly`]: answers that many ask for at once, log lines that many would write
//! - [`standing`]: what each stream was let in by
//! - [`topic`]: ring and broadcast of one stream key
//! - [`reader`]: one task per stream key, from the source to the topic
//! - [`start`], [`replay`]: where a client begins, and reads of the past
//! - [`fanout`]: packs and followers, from the topic to the sockets
//! - [`state`]: all of these, joined
//! - [`report`]: what the gateway is doing, for the operator
//! - [`notify`]: what the service manager is told of it
//! - [`demo`]: the sample feed and its page
//! - [`http`], [`admin`]: the public side and the operator's
//! - `fuzz`, under test only: what hostile bytes may not do
//! - [`budget`]: what a configuration may come to need
//! - [`tail`], [`logging`], [`process`]: the reference client; the log; signals and limits
//! - [`version`]: what this binary is
//!
//! [`Gateway`] is the only place that joins them.

pub mod admin;
pub mod budget;
pub mod config;
pub mod continuity;
pub mod demo;
pub mod event;
pub mod fanout;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gateway;
pub mod histogram;
pub mod http;
pub mod jwk;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod process;
pub mod reader;
pub mod replay;
pub mod report;
/// Of the tests' random choices, here as in tests/.
#[cfg(test)]
#[allow(dead_code, reason = "tests/ uses the rest")]
#[path = "../tests/integration/support/seed.rs"]
mod seed;
pub mod shared;
pub mod source;
pub mod sparingly;
pub mod standing;
pub mod start;
pub mod state;
pub mod tail;
pub mod topic;
pub mod version;

pub use gateway::{BindError, Gateway, Reload};
