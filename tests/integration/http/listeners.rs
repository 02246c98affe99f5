//! Listeners and what comes to them before it is a request.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::SockRef;

use super::{clients, connect, read_until};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup, exchange};
use crate::support::program::run;
use crate::support::{DEADLINE, Folder, eventually};

#[test]
fn a_unix_socket_is_served_and_its_file_comes_and_goes() {
    let folder = Folder::new();
    let path = folder.0.join("http.sock");
    // A socket file without a listener, as a crash leaves it.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listen = format!("listen = [\"unix:{}\"]", path.display());
    let setup = Setup::memory().set("server", &listen).set("server", "drain = \"0s\"");
    let mut gateway = setup.start_ready();
    assert_eq!(gateway.address, format!("unix:{}", path.display()));
    let mut stream = open_unix(&path);
    gateway.publish("events:a", "by file");
    read_until(&mut stream, "data: by file\n\n");
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    assert!(!path.exists(), "the socket's file is removed");
}

/// A live stream over a unix socket.
fn open_unix(path: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let head = read_until(&mut stream, "\"type\":\"live\",\"replayed\":0}\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    stream
}

#[test]
fn all_listeners_may_be_unix_sockets_and_a_drain_ends_their_streams_well() {
    let folder = Folder::new();
    let [public, admin] = ["public.sock", "admin.sock"].map(|name| folder.0.join(name));
    let mut gateway = Setup::memory()
        .set("server", &format!("listen = [\"unix:{}\"]", public.display()))
        .set("server", "drain = \"4s\"")
        .set("admin", &format!("listen = \"unix:{}\"", admin.display()))
        .start_ready();
    assert_eq!(gateway.admin, format!("unix:{}", admin.display()));
    let mut streams: Vec<_> = (0..10).map(|_| open_unix(&public)).collect();
    assert!((clients(&gateway) - 10.0).abs() < 0.5);
    let id = gateway.publish("events:a", "by file");
    for stream in &mut streams {
        read_until(stream, "data: by file\n\n\r\n");
    }
    gateway.signal("TERM");
    eventually("/readyz is 503", || gateway.admin_get("/readyz").status == 503);
    let drain = format!("id: {id}\nevent: ssegate\ndata: {{\"type\":\"drain\"}}\n\n\r\n0\r\n\r\n");
    for mut stream in streams {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with(&drain), "{rest:?}");
    }
    assert!(gateway.wait().success());
    assert!(!public.exists() && !admin.exists(), "the sockets' files are removed");
}

#[test]
fn a_unix_socket_in_use_is_left_alone() {
    let folder = Folder::new();
    let path = folder.0.join("http.sock");
    let _other = UnixListener::bind(&path).unwrap();
    let listen = format!("unix:{}", path.display());
    let env = [("SSEGATE_SERVER_LISTEN", listen.as_str()), ("SSEGATE_ADMIN_LISTEN", "127.0.0.1:0")];
    let (code, _, stderr) = run(&["--demo"], &env);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(&listen), "{stderr}");
    assert!(UnixStream::connect(&path).is_ok());
}

/// The gateway's end of this connection; `None` where the kernel does not hand it out.
fn other_end(gateway: &Gateway, stream: &TcpStream) -> Option<std::os::fd::OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(gateway.pid()).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let ours = stream.local_addr().unwrap();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).ok()? {
        let number = entry.ok()?.file_name().to_string_lossy().parse().ok()?;
        let Ok(fd) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else { continue };
        let peer = SockRef::from(&fd).peer_addr().ok().and_then(|peer| peer.as_socket());
        if peer == Some(ours) {
            return Some(fd);
        }
    }
    None
}

#[test]
fn a_clients_socket_sends_at_once_and_buffers_what_it_was_allowed() {
    let gateway = Setup::memory().set("limits", "send_buffer = \"32KiB\"").start_ready();
    let mut stream = connect(&gateway.address);
    stream.write_all(b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    read_until(&mut stream, "\"type\":\"live\",\"replayed\":0}\n");
    let socket = other_end(&gateway, &stream)
        .expect("pidfd_getfd must be allowed on a child (kernel 5.6, ptrace_scope below 2)");
    let socket = SockRef::from(&socket);
    assert!(socket.tcp_nodelay().unwrap(), "TCP_NODELAY is set");
    // The kernel doubles what is set.
    assert_eq!(socket.send_buffer_size().unwrap(), 64 << 10);
}

#[test]
fn a_slow_request_head_is_cut() {
    let setup = Setup::memory().set("limits", "header_timeout = \"500ms\"");
    let gateway = setup.start_ready();
    for begin in ["", "GET /events/a HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = connect(&gateway.address);
        stream.write_all(begin.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A reset is an end as well.
        let ended = stream.read_to_end(&mut answer);
        let timed_out = ended.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "still open after {DEADLINE:?}: {begin:?}");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{begin:?}");
    }
    // A stream is no request head.
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    assert!(client.next_within(Duration::from_millis(800)).is_none());
    gateway.publish("events:a", "still here");
    assert_eq!(client.entry().data, "still here");
}

#[test]
fn a_request_head_that_is_too_large_is_431() {
    let gateway = Setup::memory().start_ready();
    let large = "x".repeat(40 << 10);
    let request = format!("GET /events/a HTTP/1.1\r\nHost: x\r\nCookie: {large}\r\n\r\n");
    let response = exchange(&gateway.address, &request);
    assert_eq!(response.status, 431, "{response:?}");
    // A browser may send nothing of this kind.
    let usual = "x".repeat(24 << 10);
    Client::with(&gateway.address, "/events/a", &[("Cookie", &usual)]).live();
}

#[test]
fn only_the_allowed_hosts_are_answered() {
    let hosts = "hosts = [\"events.example\", \"::1\"]";
    let gateway = Setup::memory().set("server", hosts).start_ready();
    let ask = |host: &str| {
        let request = format!("HEAD /events/a HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        exchange(&gateway.address, &request).status
    };
    let served = [
        "Host: events.example\r\n",
        "Host: Events.Example:8443\r\n",
        "Host: [::1]:80\r\n",
        "Host: [::1]\r\n",
        "Host: events.example.\r\n",
        "Host: events.example.:8443\r\n",
    ];
    for host in served {
        assert_eq!(ask(host), 200, "{host}");
    }
    for host in ["", "Host: \r\n", "Host: evil.example\r\n", "Host: 127.0.0.1\r\n"] {
        let status = ask(host);
        assert!(matches!(status, 400 | 403 | 421), "{host}: {status}");
    }
    assert_eq!(ask("Host: events.example\r\nHost: evil.example\r\n"), 400);
}

#[test]
fn a_request_of_http_1_1_names_one_host() {
    let gateway = Setup::memory().start_ready();
    for (address, path) in [(&gateway.address, "/events/a"), (&gateway.admin, "/livez")] {
        let ask = |version: &str, hosts: &str| {
            let head = format!("HEAD {path} HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n");
            exchange(address, &head).status
        };
        for refused in ["", "Host: a\r\nHost: b\r\n", "Host: a\r\nHost: a\r\n", "Host: a b\r\n"] {
            assert_eq!(ask("1.1", refused), 400, "{path} {refused:?}");
        }
        for served in ["Host: a\r\n", "Host:\r\n", "Host: [::1]:80\r\n"] {
            assert_eq!(ask("1.1", served), 200, "{path} {served:?}");
        }
        assert_eq!(ask("1.0", ""), 200, "{path}");
    }
}

/// Clock ticks (of which there are 100 a second) that the process has used.
fn ticks(gateway: &Gateway) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
    // The name, in parentheses, may hold anything; user and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn without_descriptors_left_it_says_so_waits_and_serves_again() {
    const DESCRIPTORS: u64 = 120;
    let setup = Setup::memory().set("limits", "header_timeout = \"1m\"");
    let gateway = setup.start_ready();
    let mut early = Client::open(&gateway.address, "/events/a");
    early.live();
    gateway.limit_descriptors(DESCRIPTORS);
    let silent: Vec<TcpStream> = (0..DESCRIPTORS + 20).map(|_| connect(&gateway.address)).collect();
    eventually("it says so", || gateway.log().contains("cannot accept connections"));
    let (before, since) = (ticks(&gateway), Instant::now());
    assert!(early.next_within(Duration::from_secs(2)).is_none());
    let used = Duration::from_millis((ticks(&gateway) - before) * 10);
    assert!(used < since.elapsed() / 4, "it spins: {used:?} of {:?}", since.elapsed());
    let warnings = gateway.log().matches("cannot accept connections").count();
    assert!(warnings < 20, "logged {warnings} times");
    drop(silent);
    let mut late = Client::open(&gateway.address, "/events/a");
    late.live();
    gateway.publish("events:a", "again");
    assert_eq!((early.entry().data, late.entry().data), ("again".into(), "again".into()));
}
