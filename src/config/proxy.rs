//! `[proxy]`: which proxies may say who a client is.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Listen;

/// `[proxy]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// Whose `X-Forwarded-For` and `Forwarded` are believed.
    pub trusted: Trusted,
    /// Public listeners whose connections begin with a PROXY header.
    pub protocol: Vec<Listen>,
}

/// Proxies whose headers are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// By their addresses.
    pub networks: Vec<IpNet>,
    /// Every peer of a unix socket.
    pub unix: bool,
}

impl Trusted {
    /// Whether the peer at this address is one.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}
