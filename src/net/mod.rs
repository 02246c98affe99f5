//! Connections in both directions: how the gateway connects, and the certificates that it shows to clients.

pub mod certificates;
pub mod dial;
