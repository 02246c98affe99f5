//! Tests that speak the wire against the real binary and a real redis-server. Each module is one
//! subject; `support` holds the scenario builders.

#![allow(unreachable_pub, missing_docs, reason = "a test crate has no outside")]

mod support;

/// Both sources: starting, resuming, replaying, publishing.
mod streams;
