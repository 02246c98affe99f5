//! Tests that speak the wire against the real binary and a real redis-server. Each module is one
//! subject; `support` holds the scenario builders.

#![allow(unreachable_pub, missing_docs, reason = "a test crate has no outside")]
#![allow(clippy::pedantic, clippy::unwrap_used, reason = "a test fails where it is wrong")]

mod support;

/// The operator's listener.
mod admin;
/// Clients of other makes, for streams that end.
mod ai_clients;
/// Streams that end.
mod answers;
/// The command line: check, overrides, exit codes, tail, the demo.
mod cli;
/// Pages of other origins.
mod cors;
/// Thousands of clients, and clients that misbehave.
mod crowd;
/// The documents: their lengths, links and commands.
mod documents;
/// The end of a gateway: what its clients are sent, and that nothing is lost behind a proxy.
mod drain;
/// The open edge: floods, hostile heads, proxies, and the client that they name.
mod edge;
/// HTTP/2 and TLS: many streams to a connection.
mod h2;
/// Listening sockets that a service manager holds: upgrades and restarts.
mod handover;
/// Two gateways behind HAProxy.
mod haproxy;
/// Thousands that come back at once.
mod herd;
/// How the tests are written.
mod house;
/// Requests, heads, limits, listeners.
mod http;
/// Access to routes: tokens good, bad and forged.
mod jwt;
/// What is logged, and what never is.
mod logs;
/// Limits of memory.
mod memory;
/// Several streams on one connection.
mod merged;
/// The model of a stream, held against Redis.
mod model;
/// What Prometheus and Grafana are given: metrics, rules, dashboard.
mod monitoring;
/// The operator's page: its event streams and their guard, and the page in a real browser.
mod operator_page;
/// Redis going away, coming back, and refusing.
mod outage;
/// The demo's page in a real browser.
mod page;
/// What becomes of payloads that are hard to carry.
mod payloads;
/// Behind each proxy that `deploy/` has a configuration for.
mod proxies;
/// Publishing: from outside, through the admin listener, and its connections.
mod publishing;
/// What the README and docs/ show, done as it is written.
mod readme;
/// What Redis sees of the gateway.
mod redis;
/// The configuration, read again while streams run.
mod reload;
/// What the operator can see: why a reader waits, the state of the gateway.
mod report;
/// The rooms of src/, and which of them may use which.
mod rooms;
/// Paths, keys, and the first user's dashboard.
mod routes;
/// Clients that get only some entries.
mod rows;
/// Exactly once, in order, across the seam of replay and live.
mod seam;
/// Rows by token: which entries of a stream a client gets.
mod selections;
/// Readers that share connections.
mod sharing;
/// The state of a stream, and then the stream.
mod snapshots;
/// Servers that stand in for Redis, and odd answers.
mod stand_ins;
/// Both sources: starting, resuming, replaying, publishing.
mod streams;
/// Notifications to the service manager, and that the shipped units fit the binary.
mod systemd;
/// TLS, replicas, Sentinel, Cluster: how Redis may be laid out.
mod topologies;
