//! The other end of a connection.

use std::net::IpAddr;

use crate::config::Trusted;

/// The other end of a connection, or the client that its PROXY header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// At this address.
    Tcp(IpAddr),
    /// A process of this machine, behind a unix socket.
    Unix,
}

impl Peer {
    /// The peer at this address; an IPv4 address in IPv6 form becomes IPv4.
    pub fn at(address: IpAddr) -> Self {
        Self::Tcp(address.to_canonical())
    }

    /// Its address, if it has one.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix => None,
        }
    }

    /// Whether it is a proxy that is trusted to name its clients.
    pub fn is_trusted(self, trusted: &Trusted) -> bool {
        match self {
            Self::Tcp(address) => trusted.contains(address),
            Self::Unix => trusted.unix,
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix => f.write_str("unix"),
        }
    }
}
