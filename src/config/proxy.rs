//! `[proxy]`: which proxies may say who a client is.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Config, Listen};

/// `[proxy]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// Whose `X-Forwarded-For` and `Forwarded` are believed.
    pub trusted: Trusted,
    /// Listeners whose connections begin with a PROXY header.
    pub protocol: Vec<Listen>,
}

impl Config {
    /// Whether each connection of the operator's listener begins with a PROXY header. A name that is in
    /// server.listen too, as that of any port, is the one there.
    pub fn is_admin_behind_proxy(&self) -> bool {
        let is_named =
            |listen| self.proxy.protocol.contains(listen) && !self.server.listen.contains(listen);
        self.admin.listen.as_ref().is_some_and(is_named)
    }
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
