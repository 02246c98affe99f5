//! The client of a request, as trusted proxies name it: `X-Forwarded-For`, or `Forwarded` (RFC 7239). Only
//! limits and the log use it, never authorization.
//!
//! The headers are read from the right, where the nearest proxy wrote. A trusted proxy is believed about the
//! address that came to it; the first address that is no trusted proxy's is the client. With both headers,
//! `X-Forwarded-For` counts: most proxies write it, and pass on any `Forwarded` that their client made up.

use std::net::{IpAddr, Ipv6Addr};

use hyper::header::{FORWARDED, GetAll, HeaderMap, HeaderName, HeaderValue};

use super::peer::Peer;
use crate::config::Trusted;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address: the peer's, or the one that trusted proxies name. `None`: the request came through a
/// unix socket, and no proxy named a client.
pub fn client(trusted: &Trusted, peer: Peer, headers: &HeaderMap) -> Option<IpAddr> {
    if !peer.is_trusted(trusted) {
        return peer.address();
    }
    let address = peer.address();
    let mut hops = from_the_right(headers.get_all(X_FORWARDED_FOR), false).peekable();
    if hops.peek().is_some() {
        return walk(trusted, address, hops.map(node));
    }
    walk(trusted, address, from_the_right(headers.get_all(FORWARDED), true).map(forwarded_for))
}

/// Whether a proxy may have named the client.
pub fn is_present(headers: &HeaderMap) -> bool {
    let is_said = |name| headers.get_all(name).iter().any(|line| !line.is_empty());
    is_said(X_FORWARDED_FOR) || is_said(FORWARDED)
}

/// The last address that a trusted proxy named; a hop without an address ends the walk.
fn walk(
    trusted: &Trusted,
    peer: Option<IpAddr>,
    hops: impl Iterator<Item = Option<IpAddr>>,
) -> Option<IpAddr> {
    let mut client = peer;
    for hop in hops {
        let Some(address) = hop else { break };
        client = Some(address);
        if !trusted.contains(address) {
            break;
        }
    }
    client
}

/// The elements of all lines, the last one first. What is to the left of an element, such as an open quote,
/// does not change where the element begins.
fn from_the_right(lines: GetAll<'_, HeaderValue>, quotes: bool) -> impl Iterator<Item = &[u8]> {
    let lines = lines.into_iter().rev();
    let elements = lines.flat_map(move |line| FromTheRight { rest: Some(line.as_bytes()), quotes });
    // Empty ones say nothing (RFC 9110, 5.6.1.2).
    elements.filter(|element| !element.is_empty())
}

struct FromTheRight<'a> {
    rest: Option<&'a [u8]>,
    quotes: bool,
}

impl<'a> Iterator for FromTheRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let mut quoted = false;
        for at in (0..rest.len()).rev() {
            match rest[at] {
                b'"' if self.quotes && !is_escaped(&rest[..at]) => quoted = !quoted,
                b',' if !quoted => {
                    self.rest = Some(&rest[..at]);
                    return Some(rest[at + 1..].trim_ascii());
                }
                _ => {}
            }
        }
        Some(rest.trim_ascii())
    }
}

/// Whether the next byte is escaped; backslashes escape each other.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The address in an element of `Forwarded`, which is a list of parameters.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    let mut rest = std::str::from_utf8(element).ok()?;
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = value(after)?;
        if name.trim().eq_ignore_ascii_case("for") && found.replace(value).is_some() {
            return None;
        }
        rest = match after.trim_start() {
            "" => "",
            more => more.strip_prefix(';')?,
        };
    }
    node(found?.as_bytes())
}

/// A token or a quoted string, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ' ', '\t', '"']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !escaped => return Some((value, &quoted[at + 1..])),
            '\\' if !escaped => escaped = true,
            c => {
                value.push(c);
                escaped = false;
            }
        }
    }
    None
}

/// The address of a node: with a port or without, IPv6 in brackets or not; `unknown` and `_names` have none.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let address = address.parse::<Ipv6Addr>().ok()?;
        return is_port(port).then_some(IpAddr::from(address).to_canonical());
    }
    let address = match text.split_once(':') {
        Some((address, port)) if !port.contains(':') => {
            // The port itself is not needed.
            is_port(&text[address.len()..]).then_some(address)?
        }
        _ => text,
    };
    address.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Nothing, or a colon and a number or an obfuscated port.
fn is_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else { return text.is_empty() };
    let name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match port.strip_prefix('_') {
        Some(obfuscated) => !obfuscated.is_empty() && obfuscated.bytes().all(name),
        None => port.parse::<u16>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trusted() -> Trusted {
        Trusted { networks: vec!["10.0.0.0/8".parse().unwrap()], unix: true }
    }

    fn headers(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    /// The client, if the proxy at 10.0.0.1 sends this.
    fn behind_proxy(lines: &[(&'static str, &str)]) -> String {
        let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let peer = Peer::Tcp("10.0.0.1".parse().unwrap());
        client(&trusted(), peer, &headers(&lines)).unwrap().to_string()
    }

    const XFF: &str = "x-forwarded-for";
    const FWD: &str = "forwarded";

    #[test]
    fn only_trusted_proxies_are_believed() {
        let forged = headers(&[(XFF, b"192.0.2.1"), (FWD, b"for=192.0.2.2")]);
        let untrusted = Peer::Tcp("11.0.0.1".parse().unwrap());
        assert_eq!(client(&trusted(), untrusted, &forged), untrusted.address());
        let nobody = Trusted::default();
        assert_eq!(client(&nobody, Peer::Unix, &forged), None);
        assert_eq!(client(&trusted(), Peer::Unix, &forged), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(client(&trusted(), Peer::Unix, &HeaderMap::new()), None);
        let mapped = Peer::Tcp("::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(client(&trusted(), mapped, &forged), Some("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn hops_are_followed_from_the_right_to_the_first_that_is_not_trusted() {
        for (lines, expected) in [
            (&[][..], "10.0.0.1"),
            (&[(XFF, "192.0.2.1")], "192.0.2.1"),
            (&[(XFF, "6.6.6.6, 192.0.2.1")], "192.0.2.1"),
            (&[(XFF, "6.6.6.6,192.0.2.1 , 10.0.0.2,10.0.0.3")], "192.0.2.1"),
            (&[(XFF, "6.6.6.6, 192.0.2.1"), (XFF, "10.0.0.2")], "192.0.2.1"),
            (&[(XFF, "6.6.6.6"), (XFF, "192.0.2.1")], "192.0.2.1"),
            (&[(XFF, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            (&[(XFF, "192.0.2.1:4711")], "192.0.2.1"),
            (&[(XFF, "2001:db8::1")], "2001:db8::1"),
            (&[(XFF, "[2001:db8::1]")], "2001:db8::1"),
            (&[(XFF, "[2001:db8::1]:4711")], "2001:db8::1"),
            (&[(XFF, "::ffff:192.0.2.1")], "192.0.2.1"),
            (&[(FWD, "for=192.0.2.1")], "192.0.2.1"),
            (&[(FWD, "For=\"192.0.2.1:80\";proto=https;by=10.0.0.1")], "192.0.2.1"),
            (&[(FWD, "proto=http; for=\"[2001:db8::1]:_p\"")], "2001:db8::1"),
            (
                &[(FWD, "for=6.6.6.6;host=\"a,b;for=7.7.7.7\", for=192.0.2.1, for=10.0.0.2")],
                "192.0.2.1",
            ),
            (&[(FWD, "for=6.6.6.6, for=192.0.2.1;host=\"x\\\",for=7.7.7.7\"")], "192.0.2.1"),
            (&[(FWD, "for=6.6.6.6"), (XFF, "192.0.2.1")], "192.0.2.1"),
        ] {
            assert_eq!(behind_proxy(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_hop_without_an_address_ends_the_walk() {
        for last in [
            "unknown",
            "_hidden",
            "192.0.2.1 192.0.2.2",
            "192.0.2.256",
            "[2001:db8::1",
            "::1]",
            "[192.0.2.1]",
            "192.0.2.1:",
            "192.0.2.1:65536",
            "192.0.2.1:x",
            "fe80::1%eth0",
            "\"192.0.2.1",
            "[::1]x",
        ] {
            let list = format!("6.6.6.6, {last}, 10.0.0.2");
            assert_eq!(behind_proxy(&[(XFF, &list)]), "10.0.0.2", "{last:?}");
            let list = format!("for=6.6.6.6, for={last}, for=10.0.0.2");
            assert_eq!(behind_proxy(&[(FWD, &list)]), "10.0.0.2", "{last:?}");
        }
        for empty in ["", " ", ", ,"] {
            let list = format!("6.6.6.6, {empty}, 10.0.0.2,");
            assert_eq!(behind_proxy(&[(XFF, &list)]), "6.6.6.6", "{empty:?}");
            let list = format!("for=6.6.6.6, {empty}, for=10.0.0.2,");
            assert_eq!(behind_proxy(&[(FWD, &list)]), "6.6.6.6", "{empty:?}");
            let both = [(XFF, empty), (FWD, "for=6.6.6.6")];
            assert_eq!(behind_proxy(&both), "6.6.6.6", "{empty:?}");
        }
        assert_eq!(behind_proxy(&[(FWD, "for=6.6.6.6, for=, for=10.0.0.2")]), "10.0.0.2");
        for element in
            ["by=192.0.2.1", "for", "for=192.0.2.1;for=192.0.2.2", "for=192.0.2.1 x", "=;"]
        {
            let list = format!("for=6.6.6.6, {element}");
            assert_eq!(behind_proxy(&[(FWD, &list)]), "10.0.0.1", "{element:?}");
        }
    }

    proptest! {
        #![proptest_config(crate::seed::cases())]

        #[test]
        fn nothing_to_the_left_of_a_proxys_element_changes_it(
            made_up in proptest::collection::vec(0x20..0x7f_u8, 0..60),
            tail in "[\"\\\\,;= ]{0,5}",
            v6: bool,
        ) {
            let forged = [made_up, tail.into_bytes()].concat();
            let (address, node) = if v6 { ("2001:db8::1", "[2001:db8::1]:80") } else { ("192.0.2.1", "192.0.2.1:80") };
            let peer = Peer::Tcp("10.0.0.1".parse().unwrap());
            let x_forwarded_for = [&forged[..], b", ", node.as_bytes()].concat();
            let forwarded = [&forged[..], format!(", for=\"{node}\"").as_bytes()].concat();
            for line in [(XFF, &x_forwarded_for[..]), (FWD, &forwarded[..])] {
                let found = client(&trusted(), peer, &headers(&[line]));
                prop_assert_eq!(found, Some(address.parse().unwrap()));
            }
        }
    }
}
