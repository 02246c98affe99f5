//! Who is at the other end of a connection, as far as it is known.

use std::net::IpAddr;

use crate::config::Trusted;

/// The other end of a connection, or who a PROXY header says is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// At this address.
    Tcp(IpAddr),
    /// A process of this machine, behind a unix socket.
    Unix,
}

impl Peer {
    /// At an address, of which there is one way to write it: an IPv4 address is none of IPv6.
    pub fn at(address: IpAddr) -> Self {
        Self::Tcp(address.to_canonical())
    }

    /// Where it is, if it has an address.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix => None,
        }
    }

    /// Whether it is a proxy whose word about its clients is taken.
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
