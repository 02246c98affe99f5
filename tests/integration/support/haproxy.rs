//! A real HAProxy with the configuration that is shipped, in front of two gateways.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::gateway::Gateway;
use super::proxies::{changed, without};
use super::{DEADLINE, Folder, eventually, signal};

const SHIPPED: &str = include_str!("../../../deploy/haproxy/haproxy.cfg");

/// Where its clients connect.
pub const BIND: &str = "bind :443 ssl crt /etc/haproxy/site.pem";

/// A running HAProxy, stopped on drop.
pub struct Haproxy {
    folder: Folder,
    process: Child,
}

impl Haproxy {
    /// Starts it in front of two gateways and waits until it finds both ready.
    pub fn start(one: &Gateway, two: &Gateway) -> Self {
        Self::start_with(one, two, |text, folder| {
            bound(&text, &format!("unix@{}/clients.sock", folder.display()))
        })
    }

    /// The same, and it names its clients to the gateways, in a `way` such as `send-proxy-v2`;
    /// clients connect to `address` instead of a socket.
    pub fn start_naming_clients(one: &Gateway, two: &Gateway, way: &str, address: &str) -> Self {
        Self::start_with(one, two, |text, _| {
            let text = text.replace(" check addr ", &format!(" {way} check addr "));
            bound(&without(&text, "set-header X-Forwarded-For"), address)
        })
    }

    fn start_with(
        one: &Gateway,
        two: &Gateway,
        change: impl FnOnce(String, &Path) -> String,
    ) -> Self {
        let folder = Folder::new();
        let file = folder.0.join("haproxy.cfg");
        std::fs::write(&file, change(configuration(&folder.0, [one, two]), &folder.0)).unwrap();
        let log = std::fs::File::create(folder.0.join("log")).unwrap();
        let mut command = command(file.to_str().unwrap());
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().expect("haproxy must be there");
        let haproxy = Self { folder, process };
        eventually("HAProxy finds both gateways ready", || {
            haproxy.state("one").starts_with("UP") && haproxy.state("two").starts_with("UP")
        });
        haproxy
    }

    /// Where its clients connect.
    pub fn socket(&self) -> PathBuf {
        self.folder.0.join("clients.sock")
    }

    /// What it thinks of a gateway, as in `UP` or `DOWN`.
    pub fn state(&self, server: &str) -> String {
        let Ok(mut stream) = UnixStream::connect(self.folder.0.join("admin.sock")) else {
            return String::new();
        };
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"show stat\n").unwrap();
        let mut table = String::new();
        stream.read_to_string(&mut table).unwrap();
        let field = |line: &str, at: usize| line.split(',').nth(at).unwrap().to_owned();
        let names = table.lines().next().unwrap().to_owned();
        let status = names.split(',').position(|name| name == "status").unwrap();
        let begin = format!("gateways,{server},");
        table
            .lines()
            .find(|line| line.starts_with(&begin))
            .map_or(String::new(), |line| field(line, status))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("log")).unwrap_or_default()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // Open streams would hold a gentle end up.
        signal(&self.process, "TERM");
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- HAProxy's log ---\n{}", self.log());
        }
    }
}

pub fn command(file: &str) -> Command {
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f", file]);
    command
}

/// Without TLS, at this address.
fn bound(text: &str, address: &str) -> String {
    changed(text, &[(&format!("{BIND} alpn h2,http/1.1"), &format!("bind {address}"))])
}

/// The shipped configuration with a test's own addresses, but for its clients'.
pub fn configuration(here: &Path, gateways: [&Gateway; 2]) -> String {
    let socket = here.join("admin.sock");
    let text = changed(
        SHIPPED,
        &[
            ("/run/haproxy/admin.sock", socket.to_str().unwrap()),
            // As many descriptors as a test has.
            ("maxconn 30000", "maxconn 2000"),
        ],
    );
    ["10.0.0.11", "10.0.0.12"].iter().zip(gateways).fold(text, |text, (shipped, gateway)| {
        let (host, port) = gateway.admin.rsplit_once(':').unwrap();
        let address = gateway.address.replace("unix:", "unix@");
        let own = format!("{address} check addr {host} port {port}");
        changed(&text, &[(&format!("{shipped}:8080 check addr {shipped} port 9464"), &own)])
    })
}
