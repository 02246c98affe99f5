//! Every proxy that `deploy/` has a configuration for, with that file and a test's own addresses in it, in
//! front of one gateway. Around it is what could do harm: compression of everything.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::address::own_address;
use super::gateway::Gateway;
use super::tls::{Authority, Identity};
use super::waiting::holds_by;
use super::{Folder, eventually, haproxy, nginx, signal};

const CADDY: &str = include_str!("../../../deploy/caddy/Caddyfile");
const APACHE: &str = include_str!("../../../deploy/apache/ssegate.conf");
const LATER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/apache/ssegate-later.asis");
const ENVOY: &str = include_str!("../../../deploy/envoy/envoy.yaml");
/// How long a proxy may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(3);
/// What all of them serve.
pub const HOST: &str = "events.example.org";
/// `./test` puts it there.
const ENVOY_PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/envoy/envoy/_bin/envoy");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Caddy,
    Haproxy,
    Apache,
    Envoy,
}

/// A running proxy, stopped on drop.
pub struct Proxy {
    process: Child,
    folder: Folder,
    pub authority: Authority,
    /// Where its clients connect, over TLS.
    pub address: SocketAddr,
}

/// What a test puts into a shipped configuration.
struct Own<'a> {
    here: &'a Path,
    address: SocketAddr,
    identity: Identity,
    gateway: &'a Gateway,
}

impl Proxy {
    pub fn start(kind: Kind, gateway: &Gateway) -> Self {
        let (folder, authority) = (Folder::new(), Authority::new());
        let (address, identity) = (own_address(), authority.sign(HOST));
        let own = Own { here: &folder.0, address, identity, gateway };
        let mut command = match kind {
            Kind::Nginx => own.nginx(),
            Kind::Caddy => own.caddy(),
            Kind::Haproxy => own.haproxy(),
            Kind::Apache => own.apache(),
            Kind::Envoy => own.envoy(),
        };
        let output = std::fs::File::create(folder.0.join("output")).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let missing = |error| panic!("{kind:?} must be there (./test installs it): {error}");
        let process = command.spawn().unwrap_or_else(missing);
        let mut proxy = Self { process, folder, authority, address };
        eventually("the proxy listens", || {
            let ended = proxy.process.try_wait().unwrap();
            assert!(ended.is_none(), "{kind:?} ended");
            TcpStream::connect(address).is_ok()
        });
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Those with workers have to end them. Some wait for their clients, which may be here for longer.
        signal(&self.process, "TERM");
        holds_by(Instant::now() + ENDS_WITHIN, || self.process.try_wait().unwrap().is_some());
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            for log in ["output", "error.log"] {
                let log = std::fs::read_to_string(self.folder.0.join(log)).unwrap_or_default();
                eprintln!("--- the proxy's log ---\n{log}");
            }
        }
    }
}

impl Own<'_> {
    /// Writes a file into the proxy's folder; its path.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.here.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The gateway's unix socket, if that is where it listens.
    fn socket(&self) -> Option<&str> {
        self.gateway.address.strip_prefix("unix:")
    }

    fn admin_port(&self) -> &str {
        self.gateway.admin.rsplit_once(':').unwrap().1
    }

    fn nginx(&self) -> Command {
        let text = changed(
            nginx::SHIPPED,
            &[
                ("listen 443 ssl http2;", &format!("listen {} ssl http2;", self.address)),
                ("/etc/ssl/certs/events.example.org.pem", &self.identity.certificate),
                ("/etc/ssl/private/events.example.org.key", &self.identity.key),
            ],
        );
        nginx::write(self.here, &text, &self.gateway.address);
        nginx::command(self.here)
    }

    fn caddy(&self) -> Command {
        let Identity { certificate, key } = &self.identity;
        let (ip, port) = (self.address.ip(), self.address.port());
        let site = format!("{HOST}:{port} {{\n\tbind {ip}\n\ttls {certificate} {key}");
        let mut text = changed(
            CADDY,
            &[
                (&format!("{HOST} {{"), &site),
                ("\tgrace_period", "\tadmin off\n\tauto_https disable_redirects\n\tgrace_period"),
            ],
        );
        let upstream = "\treverse_proxy /events/* 127.0.0.1:8080 {\n";
        if let Some(path) = self.socket() {
            let socket = "#reverse_proxy /events/* unix//run/ssegate/http.sock {";
            let own = socket[1..].replace("/run/ssegate/http.sock", path);
            text = changed(&text, &[(upstream, &format!("\t{own}\n")), (socket, "")]);
            let is_check = |line: &&str| line.trim_start().starts_with("health_");
            text = text.lines().filter(|line| !is_check(line)).collect::<Vec<_>>().join("\n");
        } else {
            let own = upstream.replace("127.0.0.1:8080", &self.gateway.address);
            let port = format!("health_port {}", self.admin_port());
            text = changed(&text, &[(upstream, &own), ("health_port 9464", &port)]);
        }
        let file = self.file("Caddyfile", &text);
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config", &file]);
        command.env("HOME", self.here).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
        command
    }

    fn haproxy(&self) -> Command {
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        let Identity { certificate, key } = &self.identity;
        let site = self.file("site.pem", &(read(certificate) + &read(key)));
        let text = haproxy::configuration(self.here, [self.gateway, self.gateway]);
        let all = "mode http\n    compression algo gzip\n    compression type text/event-stream\n";
        let text = changed(
            &text,
            &[
                (haproxy::BIND, &format!("bind {} ssl crt {site}", self.address)),
                ("mode http\n", all),
            ],
        );
        haproxy::command(&self.file("haproxy.cfg", &text))
    }

    fn apache(&self) -> Command {
        const UPSTREAM: &str = "http://127.0.0.1:8080/events/";
        let site = changed(
            APACHE,
            &[
                ("<VirtualHost *:443>", &format!("<VirtualHost {}>", self.address)),
                ("/etc/ssl/certs/events.example.org.pem", &self.identity.certificate),
                ("/etc/ssl/private/events.example.org.key", &self.identity.key),
                ("/etc/apache2/ssegate-later.asis", LATER),
            ],
        );
        let site = match self.socket() {
            Some(path) => changed(
                &without(&site, UPSTREAM).replace("#ProxyPass", "ProxyPass"),
                &[("/run/ssegate/http.sock", path)],
            ),
            None => {
                changed(&site, &[(UPSTREAM, &format!("http://{}/events/", self.gateway.address))])
            }
        };
        let here = self.here.display();
        let advised: Vec<_> = advised(APACHE).collect();
        let enabled = advised.iter().find_map(|line| line.strip_prefix("a2enmod ")).unwrap();
        let enabled = enabled.split(" && ").next().unwrap().split(' ');
        // What Debian enables by itself, as far as it has a part in this.
        let debian = "authz_core deflate env filter mpm_event reqtimeout setenvif socache_shmcb";
        let modules = debian.split(' ').chain(enabled).map(|name| {
            format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
        });
        let modules: String = modules.collect();
        let threads = advised.iter().filter(|line| line.starts_with(char::is_uppercase));
        let threads: String = threads.map(|line| format!("{line}\n")).collect();
        let text = format!(
            "ServerRoot {here}\nDefaultRuntimeDir {here}\nPidFile {here}/pid\nMutex file:{here}\n\
             ErrorLog {here}/error.log\nServerName x\nUser www-data\nGroup www-data\n\
             {modules}{threads}Listen {}\nSetOutputFilter DEFLATE\n{site}",
            self.address
        );
        let file = self.file("apache.conf", &text);
        let mut command = Command::new("apache2");
        command.args(["-D", "FOREGROUND", "-f", &file]);
        command
    }

    fn envoy(&self) -> Command {
        let front =
            format!("{{ address: {}, port_value: {} }}", self.address.ip(), self.address.port());
        let upstream = "address: { socket_address: { address: 127.0.0.1, port_value: 8080 } }";
        let own = match self.socket() {
            Some(path) => format!("address: {{ pipe: {{ path: {path} }} }}"),
            None => {
                upstream.replace("127.0.0.1, port_value: 8080", &of_envoy(&self.gateway.address))
            }
        };
        let text = changed(
            ENVOY,
            &[
                ("{ address: 0.0.0.0, port_value: 443 }", &front),
                ("/etc/envoy/site.pem", &self.identity.certificate),
                ("/etc/envoy/site.key", &self.identity.key),
                (upstream, &own),
                ("127.0.0.1, port_value: 9464", &of_envoy(&self.gateway.admin)),
            ],
        );
        let file = self.file("envoy.yaml", &text);
        let mut command = Command::new(ENVOY_PROGRAM);
        command.args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning", "-c", &file]);
        command
    }
}

/// `HOST:PORT`, as Envoy wants it.
fn of_envoy(address: &str) -> String {
    address.replace(':', ", port_value: ")
}

/// A shipped file with a test's own words, each in place of one that stands there once.
pub fn changed(shipped: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(shipped.to_owned(), |text, (old, new)| {
        assert_eq!(text.matches(old).count(), 1, "{old:?} in\n{text}");
        text.replace(old, new)
    })
}

/// A shipped file without the one line that has this.
pub fn without(shipped: &str, part: &str) -> String {
    let line = shipped.lines().find(|line| line.contains(part)).expect("the line is there");
    changed(shipped, &[(&format!("{line}\n"), "")])
}

/// What a file's head says is to be written elsewhere: its indented lines.
pub fn advised(shipped: &str) -> impl Iterator<Item = &str> {
    let head = shipped.lines().take_while(|line| line.starts_with('#'));
    head.filter_map(|line| line.strip_prefix("#    "))
}
