//! The open edge: raw sockets that play the attacker, and others that want no more than a stream.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Instant;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::{self, DEADLINE, eventually};

/// The client that proxies name.
mod forwarded;
/// The heads of requests, and how many may come, in all and from one address.
mod limits;
/// Connections that are no streams: thousands of half requests, idlers, clients that read nothing.
mod pending;
/// The PROXY protocol.
mod proxy_header;

/// Refused clients are told to come back soon.
fn setup() -> Setup {
    Setup::memory().set("server", "retry = \"1s\"")
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// A connection from another address of this machine.
fn connect_from(source: &str, address: &str) -> TcpStream {
    let source = SocketAddr::new(source.parse::<IpAddr>().unwrap(), 0);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&address.parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.into()
}

/// A request for a stream, with these header lines.
fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
}

/// The first control event of a stream that is asked for over `stream`: `live`, or why not.
fn outcome(stream: TcpStream, request: &str) -> (Client, String) {
    let mut client = Client::over(stream, request);
    let (control, _) = client.control();
    let answer = control["reason"].as_str().or(control["type"].as_str()).unwrap().to_owned();
    (client, answer)
}

/// Everything up to the end of the connection, which comes within the deadline.
#[track_caller]
fn rest(mut stream: impl Read) -> String {
    let (mut all, mut bytes) = (Vec::new(), [0; 4096]);
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < DEADLINE, "still open: {:?}", String::from_utf8_lossy(&all));
        match support::read(&mut stream, &mut bytes) {
            Ok(0) => break,
            Ok(length) => all.extend_from_slice(&bytes[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // A reset is an end as well.
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn rejected(gateway: &Gateway, reason: &str) -> f64 {
    let name = format!("ssegate_rejected_total{{reason=\"{reason}\"}} ");
    let text = gateway.admin_get("/metrics").body;
    let value = text.lines().find_map(|line| line.strip_prefix(&name));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// Waits until so many were refused for this reason, and no more.
#[track_caller]
fn were_rejected(gateway: &Gateway, reason: &str, count: u32) {
    eventually("it is counted", || rejected(gateway, reason) >= f64::from(count));
    assert_eq!(rejected(gateway, reason), f64::from(count), "{reason}");
}

/// The address that the log has for each stream that was opened.
fn logged_addresses(gateway: &Gateway) -> Vec<String> {
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let log = gateway.log();
    let lines = log.lines().map(parse).filter(|line| line["message"] == "stream opened");
    lines.map(|line| line["address"].as_str().unwrap_or("none").to_owned()).collect()
}

/// The log has these addresses, one for each stream that was opened, in order.
#[track_caller]
fn were_logged(gateway: &Gateway, addresses: &[&str]) {
    // It is written before the client has its answer, and read here by another thread.
    eventually("it is logged", || logged_addresses(gateway).len() >= addresses.len());
    assert_eq!(logged_addresses(gateway), addresses);
}
