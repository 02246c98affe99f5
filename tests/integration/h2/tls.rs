//! TLS to clients: handshakes, certificates, and their exchange while streams are open.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::support::gateway::{Gateway, Setup};
use crate::support::multiplexed::{End, Session, Wire};
use crate::support::tls::{Authority, Identity};
use crate::support::{DEADLINE, eventually, swarm};

type Tls = StreamOwned<ClientConnection, TcpStream>;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// Connects and shakes hands.
fn connect(
    gateway: &Gateway,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    alpn: &[&[u8]],
) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(&gateway.address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).unwrap();
    }
    StreamOwned::new(connection, socket)
}

fn session(gateway: &Gateway, authority: &Authority) -> Session<Tls> {
    let tls = connect(gateway, authority, &rustls::version::TLS13, &[b"h2"]);
    Session::over(Wire::over(tls, &[]))
}

/// The certificate that a new connection is shown.
fn shown(gateway: &Gateway, authority: &Authority) -> Vec<u8> {
    let tls = connect(gateway, authority, &rustls::version::TLS13, &[]);
    tls.conn.peer_certificates().unwrap()[0].to_vec()
}

fn in_file(identity: &Identity) -> Vec<u8> {
    CertificateDer::from_pem_file(&identity.certificate).unwrap().to_vec()
}

/// Puts another identity into the files of this one.
fn exchange(identity: &Identity, other: &Identity) {
    std::fs::copy(&other.certificate, &identity.certificate).unwrap();
    std::fs::copy(&other.key, &identity.key).unwrap();
}

fn reload(gateway: &Gateway, says: &str) {
    let before = gateway.log().matches(says).count();
    gateway.signal("HUP");
    eventually("it says what came of it", || gateway.log().matches(says).count() > before);
}

#[test]
fn both_versions_and_both_protocols_are_spoken() {
    let authority = Authority::new();
    let gateway = Setup::memory().tls(&authority.sign("127.0.0.1")).start_ready();
    for version in VERSIONS {
        let mut tls = connect(&gateway, &authority, version, &[b"h2", b"http/1.1"]);
        assert_eq!(tls.conn.alpn_protocol(), Some(&b"h2"[..]));
        tls.flush().unwrap();
        let mut session = Session::over(Wire::over(tls, &[]));
        let id = session.stream("/events/a");
        session.live(id);
        for alpn in [&[&b"http/1.1"[..]][..], &[]] {
            let mut tls = connect(&gateway, &authority, version, alpn);
            assert_eq!(tls.conn.alpn_protocol(), alpn.first().copied());
            tls.write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut answer = String::new();
            tls.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        }
    }
}

/// Over HTTP/1 as well a stream ends as it should: the last chunk, then TLS' own end.
#[test]
fn a_drained_stream_of_http1_is_whole() {
    let authority = Authority::new();
    let mut gateway = Setup::memory().tls(&authority.sign("127.0.0.1")).start_ready();
    let mut tls = connect(&gateway, &authority, &rustls::version::TLS13, &[b"http/1.1"]);
    tls.write_all(b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\nmore than was asked for").unwrap();
    eventually("it is open", || gateway.metric("ssegate_clients") == 1.0);
    gateway.publish("events:a", "entry");
    gateway.signal("TERM");
    let mut answer = String::new();
    tls.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.contains("data: entry\n\n"), "{answer}");
    assert!(answer.contains("\"type\":\"drain\""), "{answer}");
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    assert_eq!(gateway.wait().code(), Some(0));
}

/// On a route with an end the head does not say that the connection closes, but no second stream comes over it.
#[test]
fn an_ended_stream_of_http1_is_whole_and_one_that_is_cut_is_not() {
    let authority = Authority::new();
    let route = "[[route]]\npath = \"/events/{name}\"\nkey = \"events:{name}\"\naccess = \"public\"\n\
        end = { field = \"payload\", equals = \"[END]\" }\n";
    let setup = Setup::memory().tls(&authority.sign("127.0.0.1")).routes(route);
    let gateway = setup.start_ready();
    let open = |path: &str| {
        let mut tls = connect(&gateway, &authority, &rustls::version::TLS13, &[b"http/1.1"]);
        tls.write_all(format!("GET /events/{path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .unwrap();
        tls
    };
    let (mut ended, mut cut) = (open("a"), open("b"));
    eventually("both are open", || gateway.metric("ssegate_clients") == 2.0);
    ended.write_all(b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    gateway.publish("events:a", "[END]");
    let mut answer = String::new();
    ended.read_to_string(&mut answer).unwrap();
    assert!(!answer.contains("connection: close"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(
        answer.contains("\"reason\":\"marker\"") && answer.ends_with("\r\n0\r\n\r\n"),
        "{answer}"
    );
    gateway.signal("TERM");
    let mut answer = Vec::new();
    let _ = cut.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.contains("\"type\":\"drain\"") && !answer.ends_with("\r\n0\r\n\r\n"),
        "{answer}"
    );
}

#[test]
fn a_client_that_leaves_http1_over_tls_has_left() {
    let authority = Authority::new();
    let gateway = Setup::memory().tls(&authority.sign("127.0.0.1")).start_ready();
    let mut tls = connect(&gateway, &authority, &rustls::version::TLS13, &[b"http/1.1"]);
    tls.write_all(b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("it is open", || gateway.metric("ssegate_clients") == 1.0);
    drop(tls);
    eventually("it has left", || gateway.metric("ssegate_clients") == 0.0);
    assert_eq!(gateway.metric("ssegate_client_disconnects_total{reason=\"client\"}"), 1.0);
}

#[test]
fn a_stream_of_http1_that_takes_nothing_is_cut() {
    let authority = Authority::new();
    let gateway = Setup::memory().tls(&authority.sign("127.0.0.1"));
    let gateway = gateway.set("limits", "write_stall = \"1s\"").start_ready();
    let mut tls = connect(&gateway, &authority, &rustls::version::TLS13, &[b"http/1.1"]);
    tls.write_all(b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("it is open", || gateway.metric("ssegate_clients") == 1.0);
    let large = "x".repeat(1 << 20);
    eventually("it is cut", || {
        gateway.publish("events:a", &large);
        gateway.metric("ssegate_client_disconnects_total{reason=\"slow\"}") == 1.0
    });
}

#[test]
fn a_certificate_is_exchanged_while_streams_are_open() {
    let authority = Authority::new();
    let identity = authority.sign("127.0.0.1");
    let gateway = Setup::memory().tls(&identity).start_ready();
    let first = in_file(&identity);
    assert_eq!(shown(&gateway, &authority), first);
    let mut before = session(&gateway, &authority);
    let stream = before.stream("/events/a");
    before.live(stream);

    exchange(&identity, &authority.sign_as("other", "127.0.0.1"));
    let second = in_file(&identity);
    assert_ne!(first, second);
    assert_eq!(shown(&gateway, &authority), first, "not before it is asked to");
    reload(&gateway, "configuration reloaded");
    assert_eq!(shown(&gateway, &authority), second);
    gateway.publish("events:a", "through it all");
    assert_eq!(before.event(stream).data, "through it all");
    let beside = before.stream("/events/b");
    before.live(beside);
}

#[test]
fn files_at_fault_leave_the_certificate_as_it_is() {
    let authority = Authority::new();
    let identity = authority.sign("127.0.0.1");
    let gateway = Setup::memory().tls(&identity).start_ready();
    let good = in_file(&identity);
    let mut before = session(&gateway, &authority);
    let stream = before.stream("/events/a");
    before.live(stream);
    let refused = "the reload was rejected";
    let other = authority.sign_as("other", "127.0.0.1");
    // The new certificate is there, and its key not yet.
    std::fs::copy(&other.certificate, &identity.certificate).unwrap();
    reload(&gateway, refused);
    gateway.has_logged("is not the key of the certificate");
    std::fs::write(&identity.certificate, "no certificate\n").unwrap();
    reload(&gateway, refused);
    std::fs::remove_file(&identity.certificate).unwrap();
    reload(&gateway, refused);
    gateway.has_logged("server.tls.certificate = ");
    assert_eq!(shown(&gateway, &authority), good);
    gateway.publish("events:a", "through it all");
    assert_eq!(before.event(stream).data, "through it all");
    exchange(&identity, &other);
    reload(&gateway, "configuration reloaded");
    assert_eq!(shown(&gateway, &authority), in_file(&other));
}

#[test]
fn tls_is_switched_on_and_off_while_streams_are_open() {
    let authority = Authority::new();
    let identity = authority.sign("127.0.0.1");
    let gateway = Setup::memory().start_ready();
    let (mut plain, id) = super::live(&gateway);
    gateway.write(&Setup::memory().tls(&identity));
    gateway.reload();
    assert_eq!(shown(&gateway, &authority), in_file(&identity));
    let mut encrypted = session(&gateway, &authority);
    let stream = encrypted.stream("/events/a");
    encrypted.live(stream);
    gateway.write(&Setup::memory());
    gateway.reload();
    assert_eq!(gateway.get("/nothing").status, 404);
    gateway.publish("events:a", "still here");
    assert_eq!(plain.event(id).data, "still here");
    assert_eq!(encrypted.event(stream).data, "still here");
}

#[test]
fn a_handshake_that_is_never_done_ends_in_time() {
    let authority = Authority::new();
    let gateway = Setup::memory().tls(&authority.sign("127.0.0.1"));
    let gateway = gateway.set("limits", "header_timeout = \"1s\"").start_ready();
    for said in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut socket = TcpStream::connect(&gateway.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(said).unwrap();
        let begin = Instant::now();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(begin.elapsed() < Duration::from_secs(5), "{said:?}");
        assert!(!answer.starts_with(b"HTTP"), "no plain answer where TLS is spoken");
    }
    let mut session = session(&gateway, &authority);
    let id = session.stream("/events/a");
    session.live(id);
}

#[test]
fn thousands_of_half_done_handshakes_hinder_no_new_client() {
    // Both ends are descriptors of processes of the test.
    let _raised = swarm::crowd();
    let authority = Authority::new();
    let gateway = Setup::memory().tls(&authority.sign("127.0.0.1"));
    let gateway = gateway.set("limits", "header_timeout = \"5m\"").set("limits", "pending = 200");
    let gateway = gateway.start_ready();
    let mut early = session(&gateway, &authority);
    let open = early.stream("/events/a");
    early.live(open);
    let half_done = |_| {
        let mut socket = TcpStream::connect(&gateway.address).unwrap();
        // The gateway may have closed it for the next ones.
        let _ = socket.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        socket
    };
    let _half: Vec<_> = (0..5_000).map(half_done).collect();
    let rejected = || gateway.metric("ssegate_rejected_total{reason=\"pending\"}");
    eventually("the oldest gave way", || rejected() > 4_799.5);
    let mut late = session(&gateway, &authority);
    let id = late.stream("/events/a");
    late.live(id);
    gateway.publish("events:a", "for both");
    assert_eq!(early.event(open).data, "for both");
    assert_eq!(late.event(id).data, "for both");
}

#[test]
fn a_drained_connection_says_that_it_goes_away() {
    let authority = Authority::new();
    let mut gateway = Setup::memory().tls(&authority.sign("127.0.0.1")).start_ready();
    let mut session = session(&gateway, &authority);
    let id = session.stream("/events/a");
    session.live(id);
    gateway.signal("TERM");
    assert_eq!(session.control(id).0["type"], "drain");
    assert_eq!(session.end(id), End::Whole);
    session.closed();
    assert_eq!(session.last_answered, Some(1));
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_malformed_request_is_counted_with_its_answer() {
    let authority = Authority::new();
    let gateway = Setup::memory().tls(&authority.sign("127.0.0.1")).start_ready();
    let mut tls = connect(&gateway, &authority, &rustls::version::TLS13, &[]);
    tls.write_all(b"GET / HTTP/7\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = tls.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    eventually("it is counted as refused", || {
        gateway.metric("ssegate_rejected_total{reason=\"malformed\"}") == 1.0
    });
    eventually("and as answered", || {
        gateway.metric("ssegate_http_responses_total{code=\"400\"}") == 1.0
    });
}

#[test]
fn over_tls_an_empty_body_in_a_chunk_of_its_own_is_none() {
    let authority = Authority::new();
    let gateway = Setup::memory().tls(&authority.sign("127.0.0.1")).start_ready();
    let head = "GET /events/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (end, status) in [("0\r\n\r\n", "200"), ("1\r\nx\r\n0\r\n\r\n", "400")] {
        let mut tls = connect(&gateway, &authority, &rustls::version::TLS13, &[]);
        tls.write_all(head.as_bytes()).unwrap();
        tls.flush().unwrap();
        tls.write_all(end.as_bytes()).unwrap();
        let mut said = [0; 12];
        tls.read_exact(&mut said).unwrap();
        assert_eq!(String::from_utf8_lossy(&said), format!("HTTP/1.1 {status}"));
    }
}

#[test]
fn a_probe_that_ends_before_its_first_byte_is_no_failed_handshake() {
    let authority = Authority::new();
    let gateway = Setup::memory().tls(&authority.sign("127.0.0.1")).start_ready();
    let refused = || gateway.metric("ssegate_rejected_total{reason=\"tls\"}");
    let pending = || gateway.metric("ssegate_connections_pending");
    for _ in 0..3 {
        drop(TcpStream::connect(&gateway.address).unwrap());
    }
    let mut other = TcpStream::connect(&gateway.address).unwrap();
    other.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    other.set_read_timeout(Some(DEADLINE)).unwrap();
    let _ = other.read(&mut [0; 100]);
    eventually("the other one is counted", || refused() >= 1.0 && pending() == 0.0);
    assert_eq!(refused(), 1.0);
}
