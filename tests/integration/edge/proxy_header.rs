//! The PROXY protocol: required where the configuration says so, and never guessed.

use std::os::unix::net::UnixStream;

use super::*;
use crate::support::Folder;
use crate::support::address::own_address;
use crate::support::gateway::exchange;
use crate::support::haproxy::Haproxy;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const DEBUG: &str = "level = \"info,ssegate=debug\"";

/// A gateway whose public listener requires the header.
fn behind_proxy() -> Setup {
    setup().set("proxy", "protocol = [\"127.0.0.1:0\"]").set("log", DEBUG)
}

/// A header of version 2: its command, family, and what follows.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x20 | command, family], &length, rest].concat()
}

/// IPv4 addresses and ports, and a value of an unknown type.
fn from_192_0_2_7() -> Vec<u8> {
    v2(1, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80, 0xee, 0, 3, b'x', b'y', b'z'])
}

fn from_2001_db8() -> Vec<u8> {
    let mut rest = vec![0x20, 0x01, 0x0d, 0xb8];
    rest.resize(36, 0);
    v2(1, 0x21, &rest)
}

/// The first control event of a stream that is asked for after `header`.
fn ask(gateway: &Gateway, header: &[u8]) -> (Client, String) {
    let mut stream = connect(&gateway.address);
    stream.write_all(header).unwrap();
    outcome(stream, &get("/events/a", ""))
}

#[test]
fn the_client_that_a_header_names_is_logged_and_limited() {
    let gateway = behind_proxy().set("limits", "clients_per_ip = 1").start_ready();
    let mut held = Vec::new();
    let headers: [(&[u8], &str); 7] = [
        (&from_192_0_2_7(), "live"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n", "clients_per_ip"),
        (b"PROXY TCP4 192.0.2.8 10.0.0.1 4660 80\r\n", "live"),
        (&from_2001_db8(), "live"),
        (b"PROXY TCP6 2001:db8::9 2001:db8::1 4660 80\r\n", "clients_per_ip"),
        // The proxy's own, as for a health check, or of a client that it does not know.
        (&v2(0, 0x11, &[9; 12]), "live"),
        (b"PROXY UNKNOWN\r\n", "clients_per_ip"),
    ];
    for (header, expected) in headers {
        let (client, answer) = ask(&gateway, header);
        assert_eq!(answer, expected, "{header:?}");
        held.push(client);
    }
    let clients = ["192.0.2.7", "192.0.2.8", "2001:db8::", "127.0.0.1"];
    were_logged(&gateway, &clients);
}

#[test]
fn a_header_may_come_byte_by_byte_or_with_the_request() {
    let gateway = behind_proxy().start_ready();
    let text = b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n".to_vec();
    for header in [from_192_0_2_7(), text] {
        let mut stream = connect(&gateway.address);
        stream.set_nodelay(true).unwrap();
        let (begin, request) = (get("/events/a", "").into_bytes(), get("/events/a", ""));
        for byte in header.iter().chain(&begin[..begin.len() - 1]) {
            stream.write_all(&[*byte]).unwrap();
        }
        stream.write_all(b"\n").unwrap();
        assert_eq!(outcome(stream, "").1, "live");
        let whole = [&header[..], request.as_bytes()].concat();
        let mut stream = connect(&gateway.address);
        stream.write_all(&whole).unwrap();
        assert_eq!(outcome(stream, "").1, "live");
    }
    were_logged(&gateway, &["192.0.2.7"; 4]);
}

#[test]
fn without_a_good_header_a_connection_is_closed_without_an_answer() {
    let gateway = behind_proxy().start_ready();
    let request = get("/events/a", "").into_bytes();
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200)).into_bytes();
    let bad: [Vec<u8>; 8] = [
        request.clone(),
        b"PROXY TCP4 192.0.2.7\r\n".to_vec(),
        b"PROXY TCP4 evil 10.0.0.1 1 2\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00".to_vec(),
        long,
        v2(1, 0x11, &[9; 5]),
        v2(1, 0x11, &[9; 60_000]),
        v2(7, 0x11, &[9; 12]),
    ];
    let count = u32::try_from(bad.len()).unwrap();
    for header in bad {
        let mut stream = connect(&gateway.address);
        // It may be closed before all is written.
        let _ = stream.write_all(&[&header[..], &request].concat());
        assert_eq!(
            rest(stream),
            "",
            "{:?}",
            String::from_utf8_lossy(&header[..header.len().min(40)])
        );
    }
    were_rejected(&gateway, "proxy_header", count);
    let warnings = gateway
        .log()
        .matches("a connection is refused for its PROXY header (more are logged")
        .count();
    assert!((1..=2).contains(&warnings), "{warnings} lines for the operator");
    gateway.has_logged("send-proxy-v2");
    // A peer that only looks whether the gateway listens is no fault.
    drop(connect(&gateway.address));
    let (_client, answer) = ask(&gateway, &from_192_0_2_7());
    assert_eq!(answer, "live", "nobody else is disturbed");
    eventually("all have ended", || gateway.metric("ssegate_connections_pending") < 0.5);
    were_rejected(&gateway, "proxy_header", count);
}

#[test]
fn a_header_that_does_not_come_in_time_closes_the_connection() {
    let gateway = behind_proxy().set("limits", "header_timeout = \"300ms\"").start_ready();
    for begin in [&b""[..], b"PROXY TC", &from_192_0_2_7()[..20]] {
        let mut stream = connect(&gateway.address);
        stream.write_all(begin).unwrap();
        assert_eq!(rest(stream), "", "{begin:?}");
    }
    were_rejected(&gateway, "proxy_header", 3);
    // One that is whole, and half a request.
    let mut stream = connect(&gateway.address);
    stream.write_all(&[&from_192_0_2_7()[..], b"GET /"].concat()).unwrap();
    assert_eq!(rest(stream), "");
    were_rejected(&gateway, "header_timeout", 1);
}

#[test]
fn where_it_is_not_required_a_header_is_no_request() {
    let gateway = setup().set("proxy", "trusted = [\"127.0.0.1\"]").start_ready();
    for header in [&b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n"[..], &from_192_0_2_7()] {
        let mut stream = connect(&gateway.address);
        stream.write_all(&[header, get("/events/a", "").as_bytes()].concat()).unwrap();
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_eq!(rejected(&gateway, "malformed"), 2.0);
}

#[test]
fn the_client_that_a_header_names_is_the_peer_that_is_trusted_or_not() {
    let setup = behind_proxy().set("proxy", "trusted = [\"127.0.0.1\", \"10.0.0.0/8\"]");
    let gateway = setup.start_ready();
    let ask = |header: &[u8], lines: &str| {
        let mut stream = connect(&gateway.address);
        stream.write_all(header).unwrap();
        assert_eq!(outcome(stream, &get("/events/a", lines)).1, "live");
    };
    ask(&from_192_0_2_7(), "X-Forwarded-For: 6.6.6.6\r\n");
    ask(b"PROXY TCP4 10.0.0.9 10.0.0.1 1 2\r\n", "X-Forwarded-For: 192.0.2.9\r\n");
    were_logged(&gateway, &["192.0.2.7", "192.0.2.9"]);
}

#[test]
fn a_unix_socket_takes_it_and_one_listener_beside_it_does_not() {
    let folder = Folder::new();
    let path = folder.0.join("proxied.sock");
    let listen = format!("\"unix:{}\"", path.display());
    let gateway = setup()
        .set("server", &format!("listen = [\"127.0.0.1:0\", {listen}]"))
        .set("proxy", &format!("protocol = [{listen}]"))
        .set("log", DEBUG)
        .start_ready();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = get("/events/a", "");
    stream.write_all(&[&from_192_0_2_7()[..], request.as_bytes()].concat()).unwrap();
    eventually("the stream is open", || logged_addresses(&gateway) == ["192.0.2.7"]);
    let mut bare = UnixStream::connect(&path).unwrap();
    bare.write_all(request.as_bytes()).unwrap();
    bare.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(rest(bare), "");
    assert_eq!(exchange(&gateway.address, &get("/none", "Connection: close\r\n")).status, 404);
    assert_eq!(outcome(connect(&gateway.address), &request).1, "live");
}

#[test]
fn the_operators_listener_takes_it_where_it_is_listed() {
    let admin = own_address();
    let gateway = setup()
        .set("admin", &format!("listen = \"{admin}\""))
        .set("proxy", &format!("protocol = [\"{admin}\"]"))
        .start();
    let livez = "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let over = |header: &[u8]| {
        let mut stream = connect(&gateway.admin);
        stream.write_all(&[header, livez.as_bytes()].concat()).unwrap();
        rest(stream)
    };
    for header in [&from_192_0_2_7()[..], b"PROXY UNKNOWN\r\n", &v2(0, 0x11, &[9; 12])] {
        let answer = over(header);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{header:?}: {answer}");
    }
    assert_eq!(over(b""), "");
    gateway.has_logged("a connection is refused for its PROXY header");
    // Clients come without it.
    assert_eq!(exchange(&gateway.address, &get("/none", "Connection: close\r\n")).status, 404);
}

#[test]
fn behind_a_real_haproxy_each_client_is_known() {
    let setup = || behind_proxy().set("limits", "clients_per_ip = 1");
    let (one, two) = (setup().start_ready(), setup().start_ready());
    let request = get("/events/a", "");
    for (way, hosts) in [("send-proxy-v2", [21, 22]), ("send-proxy", [23, 24])] {
        let address = own_address().to_string();
        // It finds both ready: to the operator's listener it speaks in plain.
        let haproxy = Haproxy::start_naming_clients(&one, &two, way, &address);
        let host = |host: usize| format!("127.0.0.{host}");
        let ask = |at: usize| outcome(connect_from(&host(hosts[at]), &address), &request);
        // At one gateway each: HAProxy chooses the one with the fewest.
        let streams = [ask(0), ask(0), ask(1), ask(1)];
        assert!(streams.iter().all(|(_, answer)| answer == "live"), "{way}");
        assert_eq!(ask(0).1, "clients_per_ip", "{way}");
        for gateway in [&one, &two] {
            let addresses = hosts.map(host);
            eventually("it is logged", || {
                let logged = logged_addresses(gateway);
                logged.ends_with(&addresses) && logged.iter().all(|address| address != "127.0.0.1")
            });
            assert_eq!(rejected(gateway, "proxy_header"), 0.0);
        }
        drop((streams, haproxy));
        eventually("all have left", || {
            [&one, &two].iter().all(|gateway| gateway.metric("ssegate_clients") < 0.5)
        });
    }
}
