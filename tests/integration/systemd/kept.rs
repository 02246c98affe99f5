//! Listeners that the gateway binds itself and the service manager keeps: a restart refuses no connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::under;
use crate::support::address::own_addresses;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup, exchange};
use crate::support::manager::Manager;
use crate::support::redis::Redis;
use crate::support::swarm::{self, Address};
use crate::support::viewer::{Ends, Viewers, Writer, times_away};
use crate::support::{DEADLINE, Folder, eventually, within};

const CLIENTS: usize = 1_000;
const ASK: &[u8] = b"GET /no/such HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

fn at(setup: Setup, public: SocketAddr, admin: SocketAddr) -> Setup {
    setup
        .set("server", &format!("listen = [\"{public}\"]"))
        .set("admin", &format!("listen = \"{admin}\""))
}

/// Starts it as the manager does: with what it keeps.
fn start(manager: &Manager, setup: Setup) -> Gateway {
    let kept = manager.copies();
    let setup =
        kept.into_iter().fold(setup, |setup, (name, socket)| setup.hand_over(&name, socket));
    under(manager, setup).start_ready()
}

fn stop(gateway: &mut Gateway) {
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
}

fn name_of(address: SocketAddr) -> String {
    format!("ssegate-kept-{address}").replace(':', "_")
}

fn answer(mut stream: impl Read) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn who_connects_between_stop_and_start_is_served() {
    let (manager, [public, admin]) = (Manager::start(), own_addresses());
    let mut old = start(&manager, at(Setup::memory(), public, admin));
    let mut names = vec![name_of(public), name_of(admin)];
    names.sort();
    eventually("both are kept", || manager.kept() == names);
    assert!(manager.has_heard("FDSTORE=1") < manager.has_heard("READY=1"));
    for round in 0..3 {
        stop(&mut old);
        let asking = [public, admin].map(|address| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(ASK).unwrap();
            stream
        });
        old = start(&manager, at(Setup::memory(), public, admin));
        for stream in asking {
            let answer = answer(stream);
            assert!(answer.starts_with("HTTP/1.1 404 "), "round {round}: {answer}");
        }
        assert_eq!(manager.kept(), names, "each is kept once");
        assert!(!old.log().contains("WARN"), "{}", old.log());
    }
    assert_eq!(manager.count("FDSTOREREMOVE=1"), 0);
}

#[test]
fn what_fits_the_configuration_no_more_is_closed_and_its_address_is_free() {
    let (manager, [public, admin]) = (Manager::start(), own_addresses());
    stop(&mut start(&manager, at(Setup::memory(), public, admin)));
    // It could not be had while the other one listens.
    let any = SocketAddr::from(([0, 0, 0, 0], public.port()));
    let gateway = start(&manager, at(Setup::memory(), any, admin));
    gateway.has_logged("a listener that was kept over the restart is closed");
    manager.has_heard(&format!("FDSTOREREMOVE=1\nFDNAME={}", name_of(public)));
    let mut names = vec![name_of(any), name_of(admin)];
    names.sort();
    eventually("the new one is kept", || manager.kept() == names);
    assert_eq!(exchange(&public.to_string(), std::str::from_utf8(ASK).unwrap()).status, 404);
}

#[test]
fn a_socket_that_does_not_listen_any_more_is_bound_anew() {
    let (manager, [public, admin]) = (Manager::start(), own_addresses());
    let connected = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(connected.local_addr().unwrap()).unwrap();
    let setup = at(Setup::memory(), public, admin).hand_over(&name_of(public), connected);
    let gateway = start(&manager, setup);
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
}

/// Only systemd 254 and newer say that they keep sockets, and a file without its socket is of no use.
#[test]
fn a_unix_socket_is_kept_with_its_file_where_the_manager_says_that_it_keeps_it() {
    let (manager, folder, [_, admin]) = (Manager::start(), Folder::new(), own_addresses());
    let path = folder.0.join("http.sock");
    let setup = |room: &str| {
        let setup =
            Setup::memory().set("server", &format!("listen = [\"unix:{}\"]", path.display()));
        setup.set("admin", &format!("listen = \"{admin}\"")).env("FDSTORE", room)
    };
    let mut old = start(&manager, setup("4"));
    eventually("both are kept", || manager.kept().len() == 2);
    stop(&mut old);
    let mut waiting = UnixStream::connect(&path).unwrap();
    waiting.set_read_timeout(Some(DEADLINE)).unwrap();
    waiting.write_all(ASK).unwrap();
    let mut next = start(&manager, setup("4"));
    assert!(answer(waiting).starts_with("HTTP/1.1 404 "));
    stop(&mut next);

    // Its folder is removed with the service, say.
    std::fs::remove_file(&path).unwrap();
    let mut third = start(&manager, setup("4"));
    drop(UnixStream::connect(&path).unwrap());
    eventually("the new one is kept, the old one is not", || manager.kept().len() == 2);
    assert_eq!(manager.count("FDSTOREREMOVE=1"), 1);
    stop(&mut third);
    assert!(path.exists());
}

/// Plays a restart under load; `begin` starts each of the two gateways.
fn a_restart(ends: Ends, address: SocketAddr, begin: impl Fn(&Redis) -> Gateway) {
    let (runtime, redis) = (swarm::crowd(), Redis::start());
    let mut old = begin(&redis);
    let viewers = Viewers::start(&runtime, &Address::Tcp(address.to_string()), CLIENTS, ends);
    let writer = Writer::start(&redis, 1, Duration::from_millis(50));
    writer.writes(10);
    old.signal("TERM");
    within(DEADLINE, "the old one ends", || old.has_ended());
    let new = begin(&redis);
    within(DEADLINE * 2, "all are at the new gateway", || {
        viewers.any_is_done() || new.metric("ssegate_clients") >= CLIENTS as f64
    });
    writer.writes(10);
    writer.stop();
    let journeys = viewers.join(&runtime);
    // A debug build beside other tests: release builds are held to 1 s and 3 s by who reads the line.
    let (half, most) = times_away(&journeys);
    assert!(half < Duration::from_secs(5) && most < Duration::from_secs(15), "{half:?}, {most:?}");
    let counts = journeys.iter().map(|journey| (journey.drains, journey.refusals));
    // Without a manager a few may come while the old one waits for the last to leave.
    let is_odd = |&(drains, refusals): &(usize, usize)| {
        drains != refusals + 1 || (refusals > 0 && ends == Ends::Well)
    };
    let others: Vec<_> = counts.filter(is_odd).collect();
    assert_eq!(others, [], "drains and refusals of those who were closed twice");
    assert!(!old.log().contains("cut clients"), "{}", old.log());
}

fn with_redis(redis: &Redis, public: SocketAddr, admin: SocketAddr) -> Setup {
    at(Setup::redis(redis), public, admin).set("server", "drain = \"5s\"")
}

#[test]
fn a_thousand_clients_are_refused_by_no_restart_under_the_manager_and_lose_nothing() {
    let (manager, [public, admin]) = (Manager::start(), own_addresses());
    a_restart(Ends::Well, public, |redis| start(&manager, with_redis(redis, public, admin)));
}

#[test]
fn a_thousand_clients_lose_nothing_over_a_plain_stop_and_start() {
    let [public, admin] = own_addresses();
    let begin = |redis: &Redis| with_redis(redis, public, admin).start_ready();
    a_restart(Ends::WellAndRefused, public, begin);
}
