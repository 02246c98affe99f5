//! A real HAProxy with the configuration that is shipped, in front of two gateways.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::gateway::Gateway;
use super::{DEADLINE, Folder, eventually, signal};

const SHIPPED: &str = include_str!("../../../deploy/haproxy.cfg");

/// A running HAProxy, stopped on drop.
pub struct Haproxy {
    folder: Folder,
    process: Child,
}

impl Haproxy {
    /// Starts it in front of two gateways and waits until it finds both ready.
    pub fn start(one: &Gateway, two: &Gateway) -> Self {
        Self::start_with(one, two, |shipped| shipped)
    }

    /// The same, and it says to the gateways who its clients are, in a `way` such as `send-proxy-v2`;
    /// clients connect to `address` instead of a socket.
    pub fn start_saying_who(one: &Gateway, two: &Gateway, way: &str, address: &str) -> Self {
        Self::start_with(one, two, |text| {
            let text = text.replace(" check addr ", &format!(" {way} check addr "));
            let bind = text.lines().find(|line| line.contains("bind unix@")).unwrap().to_owned();
            text.replace(&bind, &format!("    bind {address}"))
        })
    }

    fn start_with(one: &Gateway, two: &Gateway, change: impl FnOnce(String) -> String) -> Self {
        let folder = Folder::new();
        let file = folder.0.join("haproxy.cfg");
        std::fs::write(&file, change(configuration(&folder, [one, two]))).unwrap();
        let log = std::fs::File::create(folder.0.join("log")).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null());
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

/// The shipped configuration with a test's own addresses.
fn configuration(folder: &Folder, gateways: [&Gateway; 2]) -> String {
    let here = folder.0.display();
    let mut text = SHIPPED.to_owned();
    let mut replace = |shipped: &str, own: String| {
        assert_eq!(text.matches(shipped).count(), 1, "{shipped:?} in deploy/haproxy.cfg");
        text = text.replace(shipped, &own);
    };
    replace("/run/haproxy/admin.sock", format!("{here}/admin.sock"));
    replace("bind :80\n", format!("bind unix@{here}/clients.sock\n"));
    for (shipped, gateway) in ["10.0.0.11", "10.0.0.12"].into_iter().zip(gateways) {
        let (host, port) = gateway.admin.rsplit_once(':').unwrap();
        let own = format!("{} check addr {host} port {port}", gateway.address);
        replace(&format!("{shipped}:8080 check addr {shipped} port 9464"), own);
    }
    text
}
