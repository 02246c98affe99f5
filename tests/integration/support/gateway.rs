//! The real binary with a configuration of a test's own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::program::{ssegate_with_descriptors, ssegate_with_sockets};
use super::redis::Redis;
use super::tls::Identity;
use super::{DEADLINE, Folder, eventually, signal};

/// How a gateway is to run.
pub struct Setup {
    source: String,
    sections: Vec<(String, String)>,
    routes: String,
    handed_over: Vec<(String, OwnedFd)>,
    env: Vec<(String, String)>,
    credentials: Option<Folder>,
    descriptors: Option<usize>,
}

/// A running gateway, killed on drop.
pub struct Gateway {
    process: Child,
    log: Arc<Mutex<String>>,
    pub folder: Folder,
    /// `host:port` of the first public listener, or `unix:path`.
    pub address: String,
    /// `host:port` of the admin listener, or `unix:path`.
    pub admin: String,
}

/// An ordinary response, read to its end.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Setup {
    /// The embedded source, with publishing.
    pub fn memory() -> Self {
        Self::with_url("memory:")
    }

    pub fn redis(redis: &Redis) -> Self {
        Self::with_url(&redis.url())
    }

    pub fn with_url(url: &str) -> Self {
        let setup = Self {
            source: url.to_owned(),
            sections: Vec::new(),
            routes: "[[route]]\npath = \"/events/{name}\"\nkey = \"events:{name}\"\naccess = \"public\"\n".into(),
            handed_over: Vec::new(),
            env: Vec::new(),
            credentials: None,
            descriptors: None,
        };
        setup
            .set("server", "listen = [\"127.0.0.1:0\"]")
            .set("admin", "listen = \"127.0.0.1:0\"")
            .set("admin", "publish = true")
            .set("server", "drain = \"1s\"")
            .set(
                "server",
                &format!("io_uring = {}", std::env::var_os("WITHOUT_IO_URING").is_none()),
            )
    }

    /// Sets a key of a section; the last setting of a key counts.
    pub fn set(mut self, section: &str, line: &str) -> Self {
        let key = |line: &str| line.split('=').next().unwrap().trim().to_owned();
        self.sections.retain(|(s, l)| s != section || key(l) != key(line));
        self.sections.push((section.to_owned(), line.to_owned()));
        self
    }

    /// Replaces the routes by these `[[route]]` tables.
    pub fn routes(mut self, routes: &str) -> Self {
        routes.clone_into(&mut self.routes);
        self
    }

    /// Hands it a listening socket under this name, as systemd does; two at most.
    pub fn hand_over(mut self, name: &str, socket: impl Into<OwnedFd>) -> Self {
        self.handed_over.push((name.to_owned(), socket.into()));
        self
    }

    /// Speaks TLS, as this.
    pub fn tls(self, identity: &Identity) -> Self {
        self.set("server.tls", &format!("certificate = {:?}", identity.certificate))
            .set("server.tls", &format!("key = {:?}", identity.key))
    }

    /// Sets a variable of its environment.
    #[allow(dead_code, reason = "tests/faults does it")]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Hands it the files of this folder as credentials, as systemd does.
    #[allow(dead_code, reason = "tests/faults shares this")]
    pub fn credentials(mut self, folder: Folder) -> Self {
        self.env.push(("CREDENTIALS_DIRECTORY".into(), folder.0.to_str().unwrap().into()));
        self.credentials = Some(folder);
        self
    }

    /// Allows it no more open files than these.
    #[allow(dead_code, reason = "tests/faults does it")]
    pub fn descriptors(self, count: usize) -> Self {
        Self { descriptors: Some(count), ..self }
    }

    /// The gateway.toml of it.
    pub fn toml(&self) -> String {
        let mut text = String::new();
        let sections = [
            "server",
            "server.tls",
            "admin",
            "source",
            "ring",
            "limits",
            "cors",
            "proxy",
            "auth.jwt",
            "log",
        ];
        for section in sections {
            text += &format!("[{section}]\n");
            if section == "source" {
                text += &format!("url = {:?}\n", self.source);
            }
            for (_, line) in self.sections.iter().filter(|(s, _)| s == section) {
                text += &format!("{line}\n");
            }
        }
        text + &self.routes
    }

    /// Starts it and waits until it listens.
    pub fn start(self) -> Gateway {
        let folder = Folder::new();
        let file = folder.0.join("gateway.toml");
        std::fs::write(&file, self.toml()).unwrap();
        let mut command = match self.descriptors {
            Some(count) => ssegate_with_descriptors(count),
            None => ssegate_with_sockets(self.handed_over),
        };
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.arg("--config").arg(&file).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        // It has the sockets that were handed over.
        drop(command);
        let log = Arc::new(Mutex::new(String::new()));
        collect(process.stderr.take().unwrap(), log.clone());
        let mut gateway =
            Gateway { process, log, folder, address: String::new(), admin: String::new() };
        eventually("the gateway listens", || {
            let ended = gateway.process.try_wait().unwrap();
            assert!(ended.is_none(), "the gateway ended: {}", gateway.log());
            gateway.log().contains("listening for the operator")
        });
        // They were read.
        drop(self.credentials);
        gateway.address = gateway.logged("listening for clients");
        gateway.admin = gateway.logged("listening for the operator");
        gateway
    }

    /// Starts it and waits until the source has answered as well.
    pub fn start_ready(self) -> Gateway {
        let gateway = self.start();
        eventually("the gateway is ready", || gateway.admin_get("/readyz").status == 200);
        gateway
    }
}

fn collect(stderr: impl Read + Send + 'static, log: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
}

impl Gateway {
    /// Everything logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until this is in its log: what the gateway does may be seen before what it says of that.
    #[track_caller]
    pub fn has_logged(&self, text: &str) {
        eventually(&format!("it logs {text:?}"), || self.log().contains(text));
    }

    fn logged(&self, message: &str) -> String {
        let log = self.log();
        let line = log.lines().find(|line| line.contains(message)).unwrap();
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["address"].as_str().unwrap().to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn signal(&self, name: &str) {
        signal(&self.process, name);
    }

    /// Allows it so many open files from now on.
    pub fn limit_descriptors(&self, count: u64) {
        let limit = Rlimit { current: Some(count), maximum: Some(count) };
        prlimit(Some(Pid::from_child(&self.process)), Resource::Nofile, limit).unwrap();
    }

    /// What an admin page answers, in every state of the gateway.
    fn state(&self, path: &str) -> String {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(&self.admin)?;
            stream.set_read_timeout(Some(SOON))?;
            stream.write_all(request.as_bytes())?;
            let mut said = String::new();
            stream.read_to_string(&mut said)?;
            Ok(said)
        };
        ask().unwrap_or_else(|error| format!("{path}: {error}\n"))
    }

    /// Its peak of resident memory so far.
    pub fn peak_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the gateway ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub fn admin_get(&self, path: &str) -> Response {
        exchange(
            &self.admin,
            &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
        )
    }

    pub fn get(&self, path: &str) -> Response {
        exchange(
            &self.address,
            &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        )
    }

    /// Publishes through the admin listener; the entry's id.
    pub fn publish(&self, key: &str, payload: &str) -> String {
        let response = self.post(key, payload);
        assert_eq!(response.status, 200, "{response:?}");
        let answer: serde_json::Value = serde_json::from_str(&response.body).unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }

    /// `POST /publish/{key}`.
    pub fn post(&self, key: &str, payload: &str) -> Response {
        let length = payload.len();
        exchange(
            &self.admin,
            &format!(
                "POST /publish/{key} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{payload}"
            ),
        )
    }

    /// The value of a metric, by its name and labels as they are rendered.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.admin_get("/metrics").body;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no metric {name} in\n{text}")).parse().unwrap()
    }

    /// Waits until the reader of `key`, if there is one, has read up to `id`.
    pub fn has_read(&self, key: &str, id: &str) {
        eventually("the reader has read it", || {
            let streams = self.streams();
            let stream = streams.as_array().unwrap().iter().find(|stream| stream["key"] == key);
            stream.is_none_or(|stream| stream["last_id"] == id)
        });
    }

    /// `/state`, parsed.
    pub fn report(&self) -> serde_json::Value {
        serde_json::from_str(&self.admin_get("/state").body).unwrap()
    }

    /// `/streams`, parsed.
    pub fn streams(&self) -> serde_json::Value {
        serde_json::from_str(&self.admin_get("/streams").body).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let state = ["/readyz", "/streams", "/metrics"].map(|path| self.state(path));
            eprintln!("--- the gateway's state ---\n{}", state.concat());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ---\n{}", self.log());
        }
    }
}

/// Sends raw bytes and reads to the end of the connection.
pub fn exchange(address: &str, request: &str) -> Response {
    if let Some(path) = address.strip_prefix("unix:") {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        return exchange_over(stream, request);
    }
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    exchange_over(stream, request)
}

fn exchange_over(mut stream: impl Read + Write, request: &str) -> Response {
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Response { status, head: head.to_owned(), body: body.to_owned() }
}

/// Short enough for a test, long enough for a loaded machine.
pub const SOON: Duration = Duration::from_secs(5);
