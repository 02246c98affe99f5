//! Connections of either direction: how we connect, and the certificates that clients are shown.

pub mod certificates;
