//! The PROXY protocol, versions 1 and 2: a proxy names its client once, at the beginning of a connection.
//! <https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt>
//!
//! A listener either requires the header or does not look for it; its presence is never guessed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::listener::Connection;
use super::rewind::Rewind;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, length.
const V2_HEAD_BYTES: usize = SIGNATURE.len() + 4;
/// The longest header of version 1, its line break included.
const V1_MAX_BYTES: usize = 107;
/// The longest header of version 2 that we accept; the largest value that a proxy adds is a client's
/// certificate.
const V2_MAX_BYTES: usize = 4096;

/// Why a connection has no valid header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The connection ended, or could not be read.
    #[error("it ended within the PROXY header: {0}")]
    Ended(io::Error),
    /// It begins with something else.
    #[error("no PROXY header")]
    Absent,
    /// It begins like a header.
    #[error("a malformed PROXY header: {0}")]
    Malformed(&'static str),
}

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    /// In bytes.
    length: usize,
    /// The client's address; `None`: the proxy connects for itself, or does not know it.
    source: Option<IpAddr>,
}

/// Reads and consumes the header that `connection` begins with; returns the client's address, if it has one.
pub async fn read<C: Connection>(
    connection: &mut Rewind<C>,
) -> Result<Option<IpAddr>, HeaderError> {
    loop {
        if let Some(header) = parse(connection.ahead())? {
            connection.consume(header.length);
            return Ok(header.source);
        }
        if connection.look_further(V2_MAX_BYTES).await.map_err(HeaderError::Ended)? == 0 {
            return Err(HeaderError::Ended(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// The header that `bytes` begin with; `None`: it is not whole yet.
fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    if begins(bytes, SIGNATURE) {
        return version_2(bytes);
    }
    if begins(bytes, b"PROXY ") {
        return version_1(bytes);
    }
    Err(HeaderError::Absent)
}

/// Whether `bytes` begin with `start`, as far as they go.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let length = bytes.len().min(start.len());
    bytes[..length] == start[..length]
}

fn version_1(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let within = &bytes[..bytes.len().min(V1_MAX_BYTES)];
    let Some(end) = within.windows(2).position(|two| two == b"\r\n") else {
        let is_too_long = within.len() == V1_MAX_BYTES;
        return if is_too_long { Err(HeaderError::Malformed("it does not end")) } else { Ok(None) };
    };
    let line =
        std::str::from_utf8(&within[..end]).map_err(|_| HeaderError::Malformed("not ASCII"))?;
    let words: Vec<&str> = line.split(' ').collect();
    let source = match *words.as_slice() {
        // The specification says to ignore the rest.
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", "TCP4", source, target, from, to] => {
            Some(ends::<Ipv4Addr>([source, target], [from, to])?.into())
        }
        ["PROXY", "TCP6", source, target, from, to] => {
            Some(ends::<Ipv6Addr>([source, target], [from, to])?.into())
        }
        _ => return Err(HeaderError::Malformed("it names neither TCP4, TCP6 nor UNKNOWN")),
    };
    Ok(Some(Header { length: end + 2, source }))
}

/// The source address, if both addresses and both ports are valid.
fn ends<A: std::str::FromStr>(addresses: [&str; 2], ports: [&str; 2]) -> Result<A, HeaderError> {
    let address = |text: &str| text.parse().map_err(|_| HeaderError::Malformed("not an address"));
    let is_port =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    if !ports.into_iter().all(is_port) {
        return Err(HeaderError::Malformed("not a port"));
    }
    let [source, target] = addresses.map(address);
    target.and(source)
}

fn version_2(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let Some(head) = bytes.get(SIGNATURE.len()..V2_HEAD_BYTES) else { return Ok(None) };
    let length = V2_HEAD_BYTES + usize::from(u16::from_be_bytes([head[2], head[3]]));
    if length > V2_MAX_BYTES {
        return Err(HeaderError::Malformed("it is too long"));
    }
    let is_local = match head[0] {
        0x20 => true,
        0x21 => false,
        _ => return Err(HeaderError::Malformed("its version or command is unknown")),
    };
    let Some(addresses) = bytes.get(V2_HEAD_BYTES..length) else { return Ok(None) };
    // The proxy's own connection, such as a health check: it has no client.
    let source = if is_local { None } else { source(head[1], addresses)? };
    Ok(Some(Header { length, source }))
}

/// The source address in a block of this family; further values may follow the addresses.
fn source(family: u8, addresses: &[u8]) -> Result<Option<IpAddr>, HeaderError> {
    // Two addresses and two ports, or two paths.
    let (block_bytes, address_bytes) = match family {
        0x00 => (0, 0),
        0x11 => (12, 4),
        0x21 => (36, 16),
        0x31 => (216, 0),
        _ => return Err(HeaderError::Malformed("its family is none of a stream's")),
    };
    if addresses.len() < block_bytes {
        return Err(HeaderError::Malformed("it is too short for its addresses"));
    }
    let address = &addresses[..address_bytes];
    let v4 = <[u8; 4]>::try_from(address).map(IpAddr::from);
    Ok(v4.or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from)).ok())
}

/// Any bytes are no header, the beginning of one, or a whole one: the same one whatever follows, and not
/// whole without its last byte.
#[cfg(any(test, fuzzing))]
pub fn fuzz(data: &[u8]) {
    if let Ok(Some(header)) = parse(data) {
        assert!(header.length <= V2_MAX_BYTES);
        assert_eq!(parse(&data[..header.length]).ok(), Some(Some(header)));
        assert!(matches!(parse(&data[..header.length - 1]), Ok(None)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    /// Both addresses and ports, and values of any type after them.
    fn block(source: IpAddr, values: &[u8]) -> (u8, Vec<u8>) {
        let (family, mut block) = match source {
            IpAddr::V4(address) => (0x11, [address.octets(), [9; 4]].concat()),
            IpAddr::V6(address) => (0x21, [address.octets(), [9; 16]].concat()),
        };
        block.extend([0x12, 0x34, 0, 80]);
        block.extend(values);
        (family, block)
    }

    fn source_of(bytes: &[u8]) -> Result<Option<IpAddr>, String> {
        match parse(bytes) {
            Ok(Some(header)) => Ok(header.source),
            Ok(None) => Err("more".into()),
            Err(fault) => Err(fault.to_string()),
        }
    }

    #[test]
    fn headers_without_a_client_name_no_address() {
        let unix = [0; 216];
        for bytes in [
            v2(0, 0x11, &[1; 12]),
            v2(0, 0xff, b"whatever"),
            v2(1, 0x00, b"values"),
            v2(1, 0x31, &unix),
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 :: 1 what else\r\n".to_vec(),
        ] {
            assert_eq!(source_of(&bytes), Ok(None), "{bytes:?}");
        }
    }

    #[test]
    fn invalid_headers_are_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX_BYTES));
        let version_3 = [SIGNATURE, &[0x31, 0x11, 0, 12], &[1; 12]].concat();
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\r\n\r\n\0\r\nQUIT\r",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 +2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY \xff\r\n",
            b"PROXY\r\n",
            long.as_bytes(),
            &version_3,
            &v2(2, 0x11, &[1; 12]),
            &v2(1, 0x12, &[1; 12]),
            &v2(1, 0x41, &[1; 12]),
            &v2(1, 0x11, &[1; 11]),
            &v2(1, 0x21, &[1; 35]),
            &v2(1, 0x31, &[1; 215]),
            &v2(1, 0x11, &[1; V2_MAX_BYTES]),
        ] {
            let fault = source_of(bytes).unwrap_err();
            assert!(
                fault.contains("PROXY header"),
                "{:?}: {fault}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    proptest! {
        #![proptest_config(crate::seed::cases())]

        #[test]
        fn a_whole_header_names_its_source_whatever_follows(
            source: IpAddr,
            values in proptest::collection::vec(any::<u8>(), 0..100),
            request in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let (family, block) = block(source, &values);
            let target = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let text = format!("PROXY {target} {source} {source} 1 65535\r\n");
            for header in [v2(1, family, &block), text.into_bytes()] {
                for length in 0..header.len() {
                    prop_assert!(parse(&header[..length]).unwrap().is_none());
                }
                let whole = Header { length: header.len(), source: Some(source) };
                let bytes = [header, request.clone()].concat();
                prop_assert_eq!(parse(&bytes).unwrap(), Some(whole));
            }
        }

        #[test]
        fn no_bytes_break_the_parser(
            start in prop_oneof![Just(SIGNATURE), Just(&b"PROXY TCP4 "[..]), Just(&b""[..])],
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, &bytes].concat();
            if let Ok(Some(header)) = parse(&bytes) {
                prop_assert!(header.length <= bytes.len());
            }
        }
    }
}
