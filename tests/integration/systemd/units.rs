//! deploy/systemd, held against the binary: no service manager runs here, so the binary is run as the units
//! say.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ssegate::config::{self, Listen};
use ssegate::fanout::Settings;

use crate::support::gateway::exchange;
use crate::support::manager::Manager;
use crate::support::program::{BINARY, run, with_sockets};
use crate::support::redis::Redis;
use crate::support::{Folder, eventually, signal};

const SERVICE: &str = include_str!("../../../deploy/systemd/ssegate.service");
const SOCKET: &str = include_str!("../../../deploy/systemd/ssegate.socket");
const SHIPPED: &str = include_str!("../../../gateway.toml");
/// Where the shipped configuration is.
const CONFIG: &str = "/etc/ssegate/gateway.toml";

/// Only root can become another user; any other user stays what it is.
const AS_ANOTHER_USER: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all";

type Sockets = Vec<(String, OwnedFd)>;

/// Every value of a setting, in the order of the file.
fn values(unit: &'static str, name: &str) -> Vec<&'static str> {
    let value =
        |line: &'static str| line.split_once('=').filter(|(n, _)| *n == name).map(|(_, v)| v);
    unit.lines().filter_map(value).collect()
}

#[track_caller]
fn value(unit: &'static str, name: &str) -> &'static str {
    let values = values(unit, name);
    assert_eq!(values.len(), 1, "{name}= in the unit");
    values[0]
}

fn seconds(unit: &'static str, name: &str) -> Duration {
    config::duration(value(unit, name)).unwrap()
}

fn shipped() -> config::Config {
    config::parse(SHIPPED, "gateway.toml", &[], false).unwrap().config
}

#[test]
fn the_longest_drain_fits_into_the_time_to_stop() {
    let config = shipped();
    let longest = Settings::new(&config, true, false).longest_drain();
    let allowed = seconds(SERVICE, "TimeoutStopSec");
    assert!(allowed >= longest + Duration::from_secs(5), "{allowed:?} for {longest:?}");
}

#[test]
fn a_start_that_cannot_succeed_is_not_repeated() {
    let folder = Folder::new();
    let bad = folder.0.join("gateway.toml");
    std::fs::write(&bad, "[server]\ndrain = \"soon\"\n").unwrap();
    let configuration = run(&["--config", bad.to_str().unwrap()], &[]).0;
    let usage = run(&["--no-such-option"], &[]).0;
    let failure = {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = taken.local_addr().unwrap().to_string();
        run(&["--demo"], &[("SSEGATE_SERVER_LISTEN", &listen), ("SSEGATE_ADMIN_LISTEN", "")]).0
    };
    assert_eq!(value(SERVICE, "Restart"), "on-failure");
    let prevented: Vec<i32> = value(SERVICE, "RestartPreventExitStatus")
        .split(' ')
        .map(|code| code.parse().unwrap())
        .collect();
    assert_eq!(prevented, [usage, configuration]);
    assert!(failure != 0 && !prevented.contains(&failure), "{failure}");
}

#[test]
fn the_sockets_are_where_the_shipped_configuration_listens_and_survive_the_service() {
    let listen = values(SOCKET, "ListenStream");
    let config = shipped();
    let [Listen::Tcp(address)] = config.server.listen[..] else {
        panic!("{:?}", config.server.listen)
    };
    assert!(listen.contains(&&*address.to_string()), "{listen:?}");
    let removed = format!("/run/{}/", value(SERVICE, "RuntimeDirectory"));
    assert!(listen.iter().all(|path| !path.starts_with(&removed)), "{listen:?}");
    assert!(
        SOCKET.contains(&format!("listen = [\"systemd:{}\"]", value(SOCKET, "FileDescriptorName")))
    );
}

#[test]
fn the_service_keeps_the_listeners_of_the_shipped_configuration_and_more() {
    let config = shipped();
    let own = config.server.listen.len() + usize::from(config.admin.listen.is_some());
    let room: usize = value(SERVICE, "FileDescriptorStoreMax").parse().unwrap();
    assert!(room >= 8 * own, "{room} for {own}");
    // Debian 12's would warn of it.
    assert!(values(SERVICE, "FileDescriptorStorePreserve").is_empty());
}

/// A gateway as the service manager runs it, killed on drop.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Service {
    /// Runs the binary as `ExecStart=` says, but for its own place and that of `config`: as another user,
    /// without capabilities, with the sockets and the environment that a service is given.
    fn start(folder: &Path, config: &str, manager: &Manager, sockets: Sockets) -> Self {
        let file = folder.join("gateway.toml");
        std::fs::write(&file, config).unwrap();
        let start = value(SERVICE, "ExecStart");
        assert!(start.contains(CONFIG), "{start}");
        let start = start.replace(CONFIG, file.to_str().unwrap());
        let mut words: Vec<&str> = start.split(' ').collect();
        assert_eq!(words[0], "/usr/bin/ssegate");
        // Where the built one is may be closed to other users.
        let binary = folder.join("ssegate");
        std::fs::copy(BINARY, &binary).unwrap();
        words[0] = binary.to_str().unwrap();
        if rustix::process::geteuid().is_root() {
            words.splice(0..0, AS_ANOTHER_USER.split(' '));
        }
        let mut command = with_sockets(&words, sockets);
        command.env("CREDENTIALS_DIRECTORY", folder.join("credentials"));
        command.env("NOTIFY_SOCKET", &manager.name);
        let watchdog = seconds(SERVICE, "WatchdogSec").as_micros();
        command.env("WATCHDOG_USEC", watchdog.to_string()).current_dir("/");
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }

    fn reload(&self) {
        let reload = value(SERVICE, "ExecReload").replace("$MAINPID", &self.0.id().to_string());
        let kill = reload.strip_prefix("/bin/").unwrap();
        assert!(Command::new("sh").args(["-c", kill]).status().unwrap().success());
    }
}

#[test]
fn as_the_units_say_it_starts_serves_reloads_and_ends() {
    let redis = Redis::with(&["--unixsocketperm", "777"]);
    redis.run(&["CONFIG", "SET", "requirepass", "right"]);
    let (folder, manager) = (Folder::new(), Manager::start());
    let credentials = folder.0.join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    let password = "ssegate.redis-password";
    // Only a bare name is looked for in /etc/credstore, and does not fail the start where there is none.
    let loaded = values(SERVICE, "LoadCredential");
    assert!(loaded.contains(&password) && loaded.iter().all(|name| !name.contains([':', '/'])));
    std::fs::write(credentials.join(password), "right\n").unwrap();

    let config = SHIPPED
        .replace("[\"127.0.0.1:8080\"]", "[\"systemd:public\"]")
        .replace("\"127.0.0.1:9464\"", "\"127.0.0.1:0\"")
        .replace("redis://127.0.0.1:6379\"\n", &format!("{}\"\n", redis.url()))
        .replace("\npassword_file      = \"\"", &format!("\npassword_file = \"{password}\""));
    let name = value(SOCKET, "FileDescriptorName");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, path) = (tcp.local_addr().unwrap().to_string(), folder.0.join("http.sock"));
    let unix = UnixListener::bind(&path).unwrap();
    let sockets = vec![(name.to_owned(), tcp.into()), (name.to_owned(), unix.into())];

    let mut service = Service::start(&folder.0, &config, &manager, sockets);
    manager.has_heard("READY=1");
    for address in [address, format!("unix:{}", path.display())] {
        let ask = "GET /no/such HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        assert_eq!(exchange(&address, ask).status, 404, "{address}");
    }
    // The password was right.
    manager.has_status("clients: 0, streams: 0, Redis up");
    manager.has_heard("WATCHDOG=1");
    service.reload();
    eventually("it has reloaded", || manager.count("READY=1") == 2);
    signal(&service.0, "TERM");
    assert_eq!(service.0.wait().unwrap().code(), Some(0));
    manager.has_heard("STOPPING=1");
}
