//! Notifications to the service manager: when the gateway is up, its status, and that it is alive as long as
//! its fan-out really is.

use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, SOON, Setup};
use crate::support::manager::Manager;
use crate::support::program::run;
use crate::support::redis::Redis;
use crate::support::{Folder, eventually};

/// Listeners that are kept over a restart.
mod kept;
/// The shipped units, held against the binary.
mod units;

/// A watchdog that wants to hear of the gateway twice in this time.
const WATCHDOG: Duration = Duration::from_millis(400);

fn under(manager: &Manager, setup: Setup) -> Setup {
    setup.env("NOTIFY_SOCKET", &manager.name)
}

fn with_watchdog(manager: &Manager, setup: Setup) -> Setup {
    under(manager, setup).env("WATCHDOG_USEC", &WATCHDOG.as_micros().to_string())
}

fn pings(manager: &Manager) -> usize {
    manager.count("WATCHDOG=1")
}

/// As long as another gateway takes to say several times that it is alive.
fn while_another_is_alive() {
    let manager = Manager::start();
    let _gateway = with_watchdog(&manager, Setup::memory()).start();
    eventually("another gateway is alive", || pings(&manager) >= 6);
}

fn monotonic_usec() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

#[test]
fn ready_is_announced_once_clients_can_connect() {
    let folder = Folder::new();
    let path = folder.0.join("http.sock");
    let listen = format!("listen = [\"unix:{}\"]", path.display());
    let (connected, answers) = mpsc::channel();
    let manager = Manager::hearing(move |message| {
        if message.starts_with("READY=1") {
            connected.send(UnixStream::connect(&path).is_ok()).unwrap();
        }
    });
    // Redis is not there: that is no reason not to be up.
    let setup = Setup::with_url("redis://127.0.0.1:1").set("server", &listen);
    let gateway = under(&manager, setup).start();
    assert!(answers.recv_timeout(SOON).unwrap(), "it was ready before it listened");
    manager.has_status("clients: 0, streams: 0, Redis not reached yet");
    assert_eq!(manager.heard()[0], "READY=1");
    assert_eq!(manager.count("READY=1"), 1);
    assert!(!gateway.log().contains("service manager"), "{}", gateway.log());
}

#[test]
fn a_gateway_that_cannot_start_is_never_ready() {
    let manager = Manager::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    let file = folder.0.join("gateway.toml");
    let listen = format!("listen = [\"{}\"]", taken.local_addr().unwrap());
    for (code, setup) in [
        (1, Setup::memory().set("server", &listen)),
        (78, Setup::memory().set("server", "drain = \"soon\"")),
    ] {
        std::fs::write(&file, setup.toml()).unwrap();
        let env = [("NOTIFY_SOCKET", manager.name.as_str())];
        let (ended, _, stderr) = run(&["--config", file.to_str().unwrap()], &env);
        assert_eq!(ended, code, "{stderr}");
    }
    assert_eq!(manager.heard(), [""; 0]);
}

#[test]
fn a_reload_is_announced_with_its_time_and_ends_with_ready() {
    let manager = Manager::abstract_one();
    let gateway = under(&manager, Setup::memory()).start();
    manager.has_heard("READY=1");
    let before = monotonic_usec();
    gateway.signal("HUP");
    eventually("it is ready again", || manager.count("READY=1") == 2);
    let all = manager.heard();
    let reload = &all[manager.has_heard("RELOADING=1")];
    let at = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!((before..=monotonic_usec()).contains(&at), "{before} {reload}");
    let last_ready = all.iter().rposition(|message| message == "READY=1").unwrap();
    assert!(manager.has_heard("RELOADING=1") < last_ready, "{all:?}");
}

#[test]
fn the_status_follows_clients_streams_and_redis() {
    let begin = Instant::now();
    let manager = Manager::start();
    let mut redis = Redis::start();
    let gateway = under(&manager, Setup::redis(&redis)).start();
    manager.has_status("clients: 0, streams: 0, Redis up");
    let mut clients = ["/events/a", "/events/a", "/events/b"].map(|path| {
        let mut client = Client::open(&gateway.address, path);
        client.live();
        client
    });
    manager.has_status("clients: 3, streams: 2, Redis up");
    redis.kill();
    manager.has_status("clients: 3, streams: 2, Redis away");
    redis.launch();
    manager.has_status("clients: 3, streams: 2, Redis up");
    for client in &mut clients {
        assert!(!client.has_ended());
    }
    drop(clients);
    manager.has_status("clients: 0, streams: 0, Redis up");

    let heard = manager.heard();
    let statuses: Vec<_> = heard.iter().filter(|message| message.starts_with("STATUS=")).collect();
    assert!(
        statuses.windows(2).all(|two| two[0] != two[1]),
        "the same status is sent twice: {statuses:?}"
    );
    let most = begin.elapsed().as_secs() as usize + 2;
    assert!(statuses.len() <= most, "more than one a second: {statuses:?}");
}

#[test]
fn a_drain_is_announced_and_asks_for_time_while_it_lasts() {
    let manager = Manager::start();
    let setup = Setup::memory().set("server", "drain = \"1m\"");
    let mut gateway = under(&manager, setup).start();
    let mut clients: Vec<_> = (0..8).map(|_| Client::open(&gateway.address, "/events/a")).collect();
    clients.iter_mut().for_each(|client| drop(client.live()));
    manager.has_status("clients: 8, streams: 1, embedded source");
    assert_eq!(manager.count("EXTEND_TIMEOUT_USEC="), 0);
    gateway.signal("TERM");
    // As long as one is left, which is random; the wait for the third is two seconds.
    eventually("it asks for time, again and again", || {
        manager.count("EXTEND_TIMEOUT_USEC=10000000") >= 3
    });
    assert!(manager.has_heard("STOPPING=1") < manager.has_heard("EXTEND_TIMEOUT_USEC="));
    let draining = |message: &String| message.starts_with("STATUS=draining, clients: ");
    eventually("the status says so", || manager.heard().iter().any(draining));
    drop(clients);
    assert_eq!(gateway.wait().code(), Some(0));
    assert_eq!(manager.count("STOPPING=1"), 1);
    assert_eq!(manager.count("READY=1"), 1);
}

#[test]
fn the_watchdog_is_pinged_by_an_idle_gateway_and_a_busy_one() {
    let manager = Manager::start();
    let gateway = with_watchdog(&manager, Setup::memory()).start();
    eventually("an idle gateway is alive", || pings(&manager) >= 3);
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let before = pings(&manager);
    eventually("a busy one is, too", || {
        gateway.publish("events:a", "work");
        pings(&manager) >= before + 3
    });
    let before = pings(&manager);
    gateway.signal("TERM");
    manager.has_heard("STOPPING=1");
    assert!(pings(&manager) >= before);
}

#[test]
fn a_watchdog_for_another_process_is_not_pinged() {
    let manager = Manager::start();
    let setup = with_watchdog(&manager, Setup::memory()).env("WATCHDOG_PID", "1");
    let _gateway = setup.start();
    manager.has_heard("STATUS=");
    while_another_is_alive();
    assert_eq!(pings(&manager), 0);
}

/// One thread of a process, stopped as by a debugger; the others go on. It is released with the
/// debugger.
struct Held {
    debugger: Child,
    let_go: Option<ChildStdin>,
}

impl Held {
    fn thread(tid: u32) -> Self {
        const DEBUGGER: &str = "
import ctypes, os, sys
libc, tid = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
def ptrace(request):
    if libc.ptrace(request, tid, None, None):
        sys.exit(os.strerror(ctypes.get_errno()))
ptrace(0x4206)  # PTRACE_SEIZE
ptrace(0x4207)  # PTRACE_INTERRUPT
os.waitpid(tid, 0x40000000)  # __WALL
print('held', flush=True)
sys.stdin.read()
";
        let mut command = Command::new("python3");
        command.args(["-c", DEBUGGER, &tid.to_string()]);
        let mut debugger = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 5];
        debugger.stdout.take().unwrap().read_exact(&mut said).expect("it may be debugged");
        let let_go = debugger.stdin.take();
        Self { debugger, let_go }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.let_go.take());
        let _ = self.debugger.wait();
    }
}

/// The threads that run the fan-out.
fn workers(gateway: &Gateway) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let threads = threads.map(|thread| thread.unwrap());
    let is_worker = |thread: &std::fs::DirEntry| {
        let name = std::fs::read_to_string(thread.path().join("comm"));
        name.is_ok_and(|name| name.starts_with("tokio-"))
    };
    let tid = |thread: std::fs::DirEntry| thread.file_name().to_str().unwrap().parse().unwrap();
    threads.filter(is_worker).map(tid).collect()
}

#[test]
fn the_watchdog_is_not_pinged_while_the_fan_out_hangs() {
    let manager = Manager::start();
    let setup = Setup::memory().set("server", "workers = 1");
    let gateway = with_watchdog(&manager, setup).start();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    eventually("it is alive", || pings(&manager) >= 2);
    let held: Vec<_> = workers(&gateway).into_iter().map(Held::thread).collect();
    assert!(!held.is_empty());
    // The process runs on, and would answer a ping that came from anywhere else.
    let main = format!("/proc/{0}/task/{0}/stat", gateway.pid());
    let main = std::fs::read_to_string(main).unwrap();
    assert!(main.contains(") S "), "the process itself is stopped: {main}");
    let before = pings(&manager);
    while_another_is_alive();
    assert!(pings(&manager) <= before + 1, "a gateway that hangs is alive");
    drop(held);
    let before = pings(&manager);
    eventually("it is alive again", || pings(&manager) >= before + 2);
    gateway.publish("events:a", "after all");
    assert_eq!(client.entry().data, "after all");
}

#[test]
fn a_manager_that_is_not_there_or_does_not_read_hinders_nobody() {
    let folder = Folder::new();
    let nowhere = folder.0.join("nobody").to_str().unwrap().to_owned();
    let deaf = folder.0.join("deaf");
    let _never_reads = UnixDatagram::bind(&deaf).unwrap();
    let names = [nowhere, "@ssegate-test/nobody".into(), "vsock:2:1".into(), String::new()];
    for name in names.into_iter().chain([deaf.to_str().unwrap().to_owned()]) {
        // So often that a queue of messages is full at once.
        let setup = Setup::memory().env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "2000");
        let mut gateway = setup.start_ready();
        let mut client = Client::open(&gateway.address, "/events/a");
        client.live();
        let id = gateway.publish("events:a", "one");
        assert_eq!(client.entry().last_event_id, id);
        gateway.signal("HUP");
        let warnings = |gateway: &Gateway| gateway.log().matches("service manager").count();
        eventually("the log has it", || name.is_empty() || warnings(&gateway) > 0);
        assert!(warnings(&gateway) <= 2, "{}", gateway.log());
        drop(client);
        gateway.signal("TERM");
        assert_eq!(gateway.wait().code(), Some(0), "{name}");
    }
}
