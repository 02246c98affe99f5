//! The edge as meant: what is refused, and whose word about clients is taken.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::Listen;

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams in all; zero: as many as the descriptors allow.
    pub clients: usize,
    /// Streams per stream key; zero: no limit.
    pub clients_per_key: usize,
    /// Streams per client address (IPv6: per /64); zero: no limit.
    pub clients_per_ip: usize,
    /// Streams per principal (whom a token names); zero: no limit.
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
    /// Connections that are no streams; zero: what streams leave of the descriptors, within reason.
    pub pending: usize,
    /// Concurrent reads from Redis for replay.
    pub replays: usize,
    /// A request head takes no longer than this.
    pub header_timeout: Duration,
    /// A client that takes nothing for this long is cut.
    pub write_stall: Duration,
    /// A client whose next entry is older than this is cut; zero: never.
    pub max_lag: Duration,
    /// `SO_SNDBUF` of a client's socket.
    pub send_buffer_bytes: usize,
}

/// `[proxy]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// Whose `X-Forwarded-For` and `Forwarded` are believed.
    pub trusted: Trusted,
    /// Public listeners whose connections begin with a PROXY header.
    pub protocol: Vec<Listen>,
}

/// Proxies that are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// By their addresses.
    pub networks: Vec<IpNet>,
    /// Whoever connects to a unix socket.
    pub unix: bool,
}

impl Trusted {
    /// Whether the one at this address is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}
