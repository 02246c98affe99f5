//! Listening sockets that another process holds and hands over: what may listen on what, and that neither an
//! upgrade nor a restart refuses, resets or loses anything.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup, exchange};
use crate::support::program::ssegate_with_sockets;
use crate::support::redis::Redis;
use crate::support::swarm::{self, Address};
use crate::support::viewer::{Ends, Viewers, Writer};
use crate::support::waiting::up_to_three_times;
use crate::support::{DEADLINE, Folder, eventually, pause_of_the_scenario, within};

/// A debug build, which shares its cores with the viewers and with other tests, has time for fewer: whoever is not
/// gone two seconds after a handover is cut.
const VIEWERS: usize = if cfg!(debug_assertions) { 250 } else { 1_000 };
/// Likewise.
const ENTRIES_PER_SECOND: usize = if cfg!(debug_assertions) { 25 } else { 200 };
/// A drain takes no longer where the sockets were handed over.
const HANDOVER: Duration = Duration::from_secs(2);
/// And what a loaded machine adds.
const HANDED_OVER: Duration = HANDOVER.saturating_add(Duration::from_secs(8));
const HTTP1_ACCEPTED: &str = "ssegate_connections_accepted_total{proto=\"http1\"}";

fn tcp() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    listen(&socket);
    socket.into()
}

fn unix(path: &Path) -> UnixListener {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(path).unwrap()).unwrap();
    listen(&socket);
    socket.into()
}

/// As many may wait as systemd lets by default: a whole restart's.
fn listen(socket: &socket2::Socket) {
    socket.listen(4096).unwrap();
}

fn on(setup: Setup, socket: impl Into<OwnedFd>) -> Setup {
    setup.set("server", "listen = [\"systemd:http\"]").hand_over("http", socket)
}

fn under_load(redis: &Redis, socket: impl Into<OwnedFd>) -> Gateway {
    on(Setup::redis(redis), socket).set("server", "retry = \"200ms\"").start_ready()
}

/// Stops it, which has to be soon whatever `server.drain` says.
fn stop(gateway: &mut Gateway) {
    let begin = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(begin.elapsed() < HANDED_OVER, "drained in {:?}", begin.elapsed());
    assert!(!gateway.log().contains("cut clients"), "{}", gateway.log());
}

fn everybody_is_at(gateway: &Gateway, viewers: &Viewers) {
    within(DEADLINE * 2, "all viewers are at the new gateway", || {
        // A viewer ends early only by a fault, which its end reports.
        viewers.any_is_done() || gateway.metric("ssegate_clients") >= VIEWERS as f64
    });
}

/// All viewers saw everything, and changed gateways once: the old one refused none.
fn all_went_well(viewers: Viewers, writer: Writer, runtime: &tokio::runtime::Runtime) {
    writer.writes(ENTRIES_PER_SECOND);
    writer.stop();
    for journey in viewers.join(runtime) {
        let counts = (journey.connections, journey.drains, journey.refusals);
        assert_eq!(counts, (2, 1, 0), "connections, drains, refusals");
    }
}

fn writer(redis: &Redis) -> Writer {
    let writer = Writer::start(redis, ENTRIES_PER_SECOND / 20, Duration::from_millis(50));
    writer.writes(ENTRIES_PER_SECOND);
    writer
}

#[test]
fn an_upgrade_under_load_refuses_and_loses_nothing() {
    let runtime = swarm::crowd();
    let (redis, socket) = (Redis::start(), tcp());
    let mut old = under_load(&redis, socket.try_clone().unwrap());
    let address = Address::Tcp(socket.local_addr().unwrap().to_string());
    let viewers = Viewers::start(&runtime, &address, VIEWERS, Ends::Well);
    let writer = writer(&redis);
    // Both accept for a while.
    let new = under_load(&redis, socket);
    stop(&mut old);
    everybody_is_at(&new, &viewers);
    all_went_well(viewers, writer, &runtime);
}

#[test]
fn a_restart_under_load_refuses_and_loses_nothing() {
    let runtime = swarm::crowd();
    let (redis, folder) = (Redis::start(), Folder::new());
    let path = folder.0.join("http.sock");
    let socket = unix(&path);
    let mut old = under_load(&redis, socket.try_clone().unwrap());
    assert_eq!(old.address, format!("unix:{}", path.display()));
    let viewers = Viewers::start(&runtime, &Address::Unix(path.clone()), VIEWERS, Ends::Well);
    let writer = writer(&redis);
    stop(&mut old);
    assert!(path.exists(), "the file is not the gateway's to remove");
    within(DEADLINE, "all viewers wait where nobody accepts", || {
        viewers.any_is_done() || viewers.asking() == VIEWERS
    });
    let new = under_load(&redis, socket);
    everybody_is_at(&new, &viewers);
    all_went_well(viewers, writer, &runtime);
}

/// A connection that the gateway has accepted and that has not asked for anything, but for one byte.
fn silent(gateway: &Gateway) -> TcpStream {
    let accepted = || gateway.metric(HTTP1_ACCEPTED);
    let before = accepted();
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"G").unwrap();
    eventually("it is accepted", || accepted() > before);
    stream
}

#[test]
fn an_accepted_client_is_answered_and_a_later_one_is_the_successors() {
    up_to_three_times("one of each", an_accepted_client_and_a_later_one);
}

/// Plays it; `Err` where the old gateway was so fast, or this test so slow, that it is another scene.
fn an_accepted_client_and_a_later_one() -> Result<(), String> {
    const ASK: &[u8] = b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n";
    let socket = tcp();
    let mut old = on(Setup::memory(), socket.try_clone().unwrap()).start_ready();
    let (mut accepted, _never_asks) = (silent(&old), silent(&old));
    let begin = Instant::now();
    old.signal("TERM");
    eventually("it drains", || old.log().contains("draining"));
    let mut late = TcpStream::connect(&old.address).unwrap();
    late.set_read_timeout(Some(DEADLINE)).unwrap();
    late.write_all(ASK).unwrap();
    let slow = Duration::from_millis(500).saturating_sub(begin.elapsed());
    pause_of_the_scenario(slow, "the network is slow");
    if begin.elapsed() > HANDOVER / 2 {
        return Err(format!("{:?} have passed", begin.elapsed()));
    }
    if old.metric(HTTP1_ACCEPTED) > 2.5 {
        return Err("the old one accepted who came later".into());
    }
    accepted.write_all(&ASK[1..]).unwrap();
    let mut answer = String::new();
    accepted.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("drain"), "{answer}");
    assert_eq!(old.wait().code(), Some(0));
    assert!(begin.elapsed() < HANDED_OVER, "drained in {:?}", begin.elapsed());

    let new = on(Setup::memory(), socket).start_ready();
    let mut head = [0; 12];
    late.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    eventually("it is served", || new.metric("ssegate_clients") > 0.5);
    Ok(())
}

/// A client that takes nothing, and so cannot get a closing frame.
fn stalled(gateway: &Gateway) -> Client {
    let mut client = Client::with_small_window(&gateway.address, "/events/a");
    client.live();
    for _ in 0..20 {
        let id = gateway.publish("events:a", &"x".repeat(50_000));
        gateway.has_read("events:a", &id);
    }
    client
}

#[test]
fn a_client_that_takes_nothing_does_not_hold_the_successor_up() {
    let socket = tcp();
    let setup = on(Setup::memory(), socket).set("server", "drain = \"1m\"");
    let mut gateway = setup.set("limits", "write_stall = \"1m\"").start_ready();
    let _stalled = stalled(&gateway);
    let begin = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(begin.elapsed() < HANDED_OVER, "drained in {:?}", begin.elapsed());
}

#[test]
fn every_socket_of_a_name_is_served() {
    let folder = Folder::new();
    let path = folder.0.join("http.sock");
    let (tcp, unix) = (tcp(), unix(&path));
    let address = tcp.local_addr().unwrap().to_string();
    let gateway = on(on(Setup::memory(), tcp), unix).start_ready();
    let mut client = Client::open(&address, "/events/a");
    client.live();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    eventually("both are served", || gateway.metric("ssegate_clients") > 1.5);
    gateway.publish("events:a", "to both");
    assert_eq!(client.entry().data, "to both");
}

#[test]
fn each_socket_is_found_by_its_name_whatever_the_order() {
    let folder = Folder::new();
    let path = folder.0.join("internal.sock");
    let (public, internal) = (tcp(), unix(&path));
    let address = public.local_addr().unwrap().to_string();
    let setup = Setup::memory().hand_over("internal", internal).hand_over("public", public);
    let listen = "listen = [\"systemd:public\", \"systemd:internal\"]";
    let gateway = setup.set("server", listen).start_ready();
    assert_eq!(gateway.address, address);
    let ask = "GET /no/such HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(&format!("unix:{}", path.display()), ask).status, 404);
    assert_eq!(gateway.get("/no/such").status, 404);
    assert!(!gateway.log().contains("nobody accepts from"), "{}", gateway.log());
}

#[test]
fn a_handed_over_address_whose_name_is_not_configured_is_reported() {
    let socket = tcp();
    let address = socket.local_addr().unwrap();
    let setup = Setup::memory().set("server", &format!("listen = [\"{address}\"]"));
    let (code, stderr) = ends(&setup, vec![("public".into(), socket.into())]);
    assert_eq!(code, 1, "{stderr}");
    let hint = r#"a socket was handed over: write \"systemd:public\""#;
    assert!(
        stderr.contains(&format!("cannot listen on {address}: ")) && stderr.contains(hint),
        "{stderr}"
    );
}

#[test]
fn the_operators_listener_may_be_handed_over_too_if_it_is_safe() {
    let (public, admin) = (tcp(), tcp());
    let address = admin.local_addr().unwrap().to_string();
    let setup = on(Setup::memory(), public).set("admin", "listen = \"systemd:admin\"");
    let gateway = setup.hand_over("admin", admin).start_ready();
    assert_eq!(gateway.admin, address);

    let open = TcpListener::bind("0.0.0.0:0").unwrap();
    let setup = Setup::memory().set("admin", "listen = \"systemd:admin\"");
    let (code, stderr) = ends(&setup, vec![("admin".into(), open.into())]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("is reachable from other machines and unguarded"), "{stderr}");
}

#[test]
fn a_drain_takes_its_time_where_only_the_operators_listener_was_handed_over() {
    let setup = Setup::memory().set("admin", "listen = \"systemd:admin\"");
    let setup = setup.hand_over("admin", tcp()).set("server", "drain = \"4s\"");
    let mut gateway = setup.start_ready();
    let mut clients: Vec<_> =
        (0..40).map(|_| Client::open(&gateway.address, "/events/a")).collect();
    clients.iter_mut().for_each(|client| drop(client.live()));
    let begin = Instant::now();
    gateway.signal("TERM");
    for client in &mut clients {
        let closing = client.control().0;
        assert_eq!(closing["type"], "drain", "{closing}");
    }
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(begin.elapsed() > Duration::from_secs(2), "drained in {:?}", begin.elapsed());
    assert!(!gateway.log().contains("cut clients"), "{}", gateway.log());
}

#[test]
fn a_socket_that_no_listener_uses_is_reported() {
    let (used, unused) = (tcp(), tcp());
    let gateway = on(Setup::memory(), used).hand_over("metrics", unused).start_ready();
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("nobody accepts from")).unwrap();
    assert!(line.contains("WARN") && line.contains("\"metrics\""), "{line}");
    assert_eq!(log.matches("nobody accepts from").count(), 1, "{log}");
}

/// How a start fails: its exit code, and what it printed.
fn ends(setup: &Setup, sockets: Vec<(String, OwnedFd)>) -> (i32, String) {
    let folder = Folder::new();
    let file = folder.0.join("gateway.toml");
    std::fs::write(&file, setup.toml()).unwrap();
    let mut command = ssegate_with_sockets(sockets);
    let child = command.arg("--config").arg(&file).stderr(std::process::Stdio::piped());
    let output = child.spawn().unwrap().wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_socket_that_is_not_there_or_unfit_is_a_fault_of_the_configuration() {
    let setup = Setup::memory().set("server", "listen = [\"systemd:http\"]");
    let (code, stderr) = ends(&setup, vec![]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("systemd:http: no socket of that name was handed over"), "{stderr}");
    assert!(stderr.contains("handed over: nothing"), "{stderr}");

    let (code, stderr) = ends(&setup, vec![("htpp".into(), tcp().into())]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("handed over: htpp"), "{stderr}");

    let (datagrams, peers) = (UdpSocket::bind("127.0.0.1:0").unwrap(), tcp());
    let connected = TcpStream::connect(peers.local_addr().unwrap()).unwrap();
    let file = std::fs::File::open("Cargo.toml").unwrap();
    for unfit in [OwnedFd::from(datagrams), connected.into(), file.into()] {
        let (code, stderr) = ends(&setup, vec![("http".into(), unfit)]);
        assert_eq!(code, 78, "{stderr}");
        assert!(stderr.contains("is no listening TCP or unix stream socket"), "{stderr}");
    }
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let setup = Setup::memory().set("server", "listen = [\"systemd:http\"]");
    let folder = Folder::new();
    let file = folder.0.join("gateway.toml");
    std::fs::write(&file, setup.toml()).unwrap();
    let arguments = ["--config", file.to_str().unwrap()];
    let env = [("LISTEN_PID", "1"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "http")];
    let (code, _, stderr) = crate::support::program::run(&arguments, &env);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("handed over: nothing"), "{stderr}");
}

#[test]
fn a_listener_of_our_own_beside_one_that_was_handed_over_answers_to_the_end() {
    for (refuse, status) in [("retry", 200), ("status", 503)] {
        an_own_listener_answers(refuse, status);
    }
}

fn an_own_listener_answers(refuse: &str, status: u16) {
    let setup = Setup::memory().hand_over("http", tcp());
    let setup = setup.set("server", "listen = [\"127.0.0.1:0\", \"systemd:http\"]");
    let setup = setup.set("server", "retry = \"2s\"");
    let mut gateway = setup.set("server", &format!("refuse = {refuse:?}")).start_ready();
    // It keeps the drain from ending at once.
    let _stalled = stalled(&gateway);
    let begin = Instant::now();
    gateway.signal("TERM");
    eventually("it drains", || gateway.admin_get("/readyz").status == 503);
    let ask = "GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = exchange(&gateway.address, ask);
    assert_eq!(answer.status, status, "{answer:?}");
    if status == 200 {
        assert!(answer.body.contains("drain"), "{answer:?}");
    }
    // 503 has it as well: a long one.
    let wait = answer.head.to_ascii_lowercase().contains("retry-after: ");
    assert!(wait || answer.body.contains("retry: "), "{answer:?}");
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(begin.elapsed() < HANDED_OVER, "drained in {:?}", begin.elapsed());
}
