//! Reads `[proxy]`: trusted networks, and listeners that require the PROXY protocol.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::address;
use super::section::Section;
use crate::config::units::WrittenValue;
use crate::config::{Listen, Proxy, Trusted};

/// The section, which may name a listener of clients or the operator's.
pub(super) fn proxy(
    mut section: Section<'_, '_>,
    public: &[Listen],
    admin: Option<&Listen>,
) -> Proxy {
    let found = section.found("trusted", WrittenValue::list([]));
    section.show(&found, found.value.to_string());
    let trusted = section.list(&found, trusted);
    let networks: Vec<IpNet> = trusted.iter().flatten().copied().collect();
    let unix = trusted.contains(&None);
    if networks.iter().any(|network| network.prefix_len() == 0) {
        let everybody =
            "trusts every client to state its own address; list the networks of your proxies";
        section.warn(&found, everybody);
    }

    let found = section.found("protocol", WrittenValue::list([]));
    section.show(&found, found.value.to_string());
    let protocol = section.list(&found, |text| listener(text, public, admin));
    if protocol.iter().any(Listen::is_reachable) {
        section.warn(
            &found,
            "is reachable from other machines, and any machine that connects can claim any address; let only the proxy connect there",
        );
    }
    section.end();
    Proxy { trusted: Trusted { networks, unix }, protocol }
}

/// A network or one address; `None`: unix sockets.
fn trusted(text: &str) -> Result<Option<IpNet>, String> {
    if text == "unix" {
        return Ok(None);
    }
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| {
        "not a network; write one as in \"10.0.0.0/8\" or \"fd00::/8\", an address, or \"unix\""
    })?;
    Ok(Some(canonical(network)))
}

/// An IPv4 network that is mapped to IPv6 becomes IPv4, as the addresses that it is compared with.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    let IpNet::V6(mapped) = network else { return network };
    match mapped.addr().to_ipv4_mapped() {
        Some(address) if mapped.prefix_len() >= MAPPED => {
            ipv4(address, mapped.prefix_len() - MAPPED)
        }
        _ => network,
    }
}

fn ipv4(address: Ipv4Addr, prefix: u8) -> IpNet {
    Ipv4Net::new(address, prefix).expect("an IPv6 prefix is 96 longer at most").into()
}

fn listener(text: &str, public: &[Listen], admin: Option<&Listen>) -> Result<Listen, String> {
    let listen = address::listen(text)?;
    if public.contains(&listen) || admin == Some(&listen) {
        return Ok(listen);
    }
    Err("not in server.listen, nor is it admin.listen; write it as there".into())
}
