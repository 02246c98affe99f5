//! `[limits]`: how much there may be of what clients take.

use std::time::Duration;

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams in all; zero: as many as the open files allow.
    pub clients: usize,
    /// Streams per stream key; zero: no limit.
    pub clients_per_key: usize,
    /// Distinct selections of entries that the clients of a stream key have; never zero.
    pub selections_per_key: usize,
    /// Streams per client address (IPv6: per /64); zero: no limit.
    pub clients_per_ip: usize,
    /// Streams per principal (the subject of a token); zero: no limit.
    pub clients_per_principal: usize,
    /// New streams per second; zero: no limit.
    pub new_clients_per_second: usize,
    /// New streams per second and address (IPv6: /64); zero: no limit.
    pub new_clients_per_second_per_ip: usize,
    /// Stream keys with a reader.
    pub readers: usize,
    /// Stream keys that one address (IPv6: /64) may open; never zero here.
    pub readers_per_ip: usize,
    /// Stream keys that one principal may open; zero: no limit.
    pub readers_per_principal: usize,
    /// Connections that are no streams; zero: the open files that streams leave, up to a built-in bound.
    pub pending: usize,
    /// Concurrent reads from Redis for replay.
    pub replays: usize,
    /// The largest request head.
    pub header_bytes: usize,
    /// The longest time for a request head.
    pub header_timeout: Duration,
    /// A client whose socket takes nothing for this long is disconnected.
    pub write_stall: Duration,
    /// A client whose next entry is older than this is disconnected; zero: never.
    pub max_lag: Duration,
    /// `SO_SNDBUF` of a client's socket.
    pub send_buffer_bytes: usize,
}
