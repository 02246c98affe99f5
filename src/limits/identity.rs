//! Whom limits count, and which limit refused.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// A client as limits count it, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The real client's address.
    pub address: Option<IpAddr>,
    /// The principal that its token names.
    pub principal: Option<Arc<str>>,
}

/// Which limit refused; a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitExceeded(pub &'static str);

/// What counts as one address: an IPv4 address, or the /64 of one IPv6 customer.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}
