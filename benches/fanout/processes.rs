//! The processes of a run: started, waited for until ready, measured through `/proc`, and ended
//! on every way out.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::many::Connections;

const START_DEADLINE: Duration = Duration::from_secs(10);
/// How often a process is asked whether it is ready: what `ready_after` is known to.
const READY_INTERVAL: Duration = Duration::from_millis(1);

/// A folder for sockets, configuration and logs, gone with the value; and the gateway that is measured.
pub(crate) struct Scratch {
    folder: PathBuf,
    gateway: PathBuf,
}

impl Scratch {
    /// For the gateway that was built with this benchmark, or an `older` one.
    pub(crate) fn new(older: Option<&Path>) -> Result<Self> {
        let name = if older.is_some() { "ssegate-bench-older" } else { "ssegate-bench" };
        let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let gateway = older.unwrap_or(Path::new(env!("CARGO_BIN_EXE_ssegate"))).to_owned();
        Ok(Self { folder, gateway })
    }

    /// The socket of our Redis.
    pub(crate) fn redis(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    fn start(&self, name: &'static str, command: &mut Command) -> Result<Process> {
        let log = self.folder.join(name);
        let program = command.get_program().to_owned();
        let command = command.stderr(File::create(&log)?);
        let began = Instant::now();
        let child = command.spawn();
        let mut child = child.with_context(|| format!("cannot start {}", program.display()))?;
        let said = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Ok(Process { child, name, log, said, began, ready_after: Duration::ZERO })
    }

    /// A Redis of our own, on a unix socket, that writes nothing to disk.
    pub(crate) fn start_redis(&self) -> Result<Process> {
        let socket = self.redis();
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no"]);
        command.args(["--maxclients", "12000", "--unixsocket"]);
        command.arg(&socket).arg("--dir").arg(&self.folder).stdout(Stdio::null());
        let redis = self.start("redis", &mut command)?;
        redis.ready_when(|| UnixStream::connect(&socket).is_ok())
    }

    /// Ourselves in another role, named as it is.
    pub(crate) fn start_role(&self, role: &'static str, words: &[String]) -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(role).args(words).stdout(Stdio::piped());
        self.start(role, &mut command)
    }

    /// The floor, with `threads` threads.
    pub(crate) fn start_floor(
        &self,
        at: SocketAddr,
        threads: u64,
        keys: u64,
        selects: bool,
    ) -> Result<Process> {
        let redis = self.redis().display().to_string();
        let mut words = vec![at.to_string(), threads.to_string(), keys.to_string(), redis];
        words.extend(selects.then(|| "--selects".to_owned()));
        let floor = self.start_role("floor", &words)?;
        floor.ready_when(|| TcpStream::connect(at).is_ok())
    }

    /// A bare hyper server, over HTTP/2.
    pub(crate) fn start_bare(&self, at: SocketAddr) -> Result<Process> {
        let words = [at.to_string(), self.redis().display().to_string()];
        let bare = self.start_role("bare", &words)?;
        bare.ready_when(|| TcpStream::connect(at).is_ok())
    }

    /// The gateway as an operator would run it: one route, whose past is open, and all defaults but one,
    /// for all clients come from one host.
    pub(crate) fn start_gateway(&self, address: SocketAddr) -> Result<Process> {
        self.start_gateway_with(address, free_address()?, "", "")
    }

    /// The same, with publishing on.
    pub(crate) fn start_publishing_gateway(
        &self,
        address: SocketAddr,
        admin: SocketAddr,
    ) -> Result<Process> {
        self.start_gateway_with(address, admin, "admin.publish = true", "")
    }

    /// The same, with more keys of the route, or more routes.
    pub(crate) fn start_gateway_of(
        &self,
        address: SocketAddr,
        admin: SocketAddr,
        of_route: &str,
    ) -> Result<Process> {
        self.start_gateway_with(address, admin, "", of_route)
    }

    /// The same, with room for many stream keys at a time.
    pub(crate) fn start_gateway_of_many_keys(
        &self,
        address: SocketAddr,
        connections: Connections,
    ) -> Result<Process> {
        let connections = match connections {
            Connections::Shared => "",
            Connections::Own => "source.connections = 0",
        };
        let more = format!("limits.readers = 40000\nsource.linger = \"1s\"\n{connections}");
        self.start_gateway_with(address, free_address()?, &more, "")
    }

    fn start_gateway_with(
        &self,
        address: SocketAddr,
        admin: SocketAddr,
        more: &str,
        of_route: &str,
    ) -> Result<Process> {
        let redis = self.redis();
        let redis = redis.display();
        let config = self.folder.join("gateway.toml");
        let text = format!(
            r#"server.listen = ["{address}"]
            admin.listen = "{admin}"
            {more}
            source.url = "redis+unix://{redis}"
            limits.readers_per_ip = 40000
            [[route]]
            path = "/events/{{name}}"
            key = "events:{{name}}"
            access = "public"
            replay = "all"
            {of_route}"#
        );
        fs::write(&config, text)?;
        let mut command = Command::new(&self.gateway);
        command.arg("--config").arg(&config).stdout(Stdio::null());
        let ours = |name: &String| name.starts_with("SSEGATE_");
        for name in std::env::vars().map(|(name, _)| name).filter(ours) {
            command.env_remove(name);
        }
        let gateway = self.start("gateway", &mut command)?;
        gateway.ready_when(|| answers_ready(admin).unwrap_or(false))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{} stays behind: {error}", self.folder.display());
        }
    }
}

/// A child that does not outlive this value. Its standard error goes to a file, what it says on
/// standard output is read line by line.
pub(crate) struct Process {
    child: Child,
    pub(crate) name: &'static str,
    log: PathBuf,
    said: Option<Lines<BufReader<ChildStdout>>>,
    began: Instant,
    /// From its start until it was seen to be ready.
    pub(crate) ready_after: Duration,
}

impl Process {
    fn ready_when(mut self, ready: impl Fn() -> bool) -> Result<Self> {
        let deadline = Instant::now() + START_DEADLINE;
        while !ready() {
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("{} did not become ready; it said:\n{}", self.name, self.log());
            }
            thread::sleep(READY_INTERVAL);
        }
        self.ready_after = self.began.elapsed();
        Ok(self)
    }

    /// The next line of its standard output, which must be JSON; waits for it.
    pub(crate) fn says(&mut self) -> Result<Value> {
        let line = self.said.as_mut().and_then(Iterator::next).transpose()?;
        let line = line.with_context(|| format!("{} ended: {}", self.name, self.log()))?;
        serde_json::from_str(&line).with_context(|| format!("{} said {line}", self.name))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).with_context(|| format!("reading {path} of {}", self.name))
    }

    /// The proportional set size, whole and of it the anonymous part. The rest is the binary's
    /// pages, whose share falls when another process runs the same file.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let rollup = self.proc("smaps_rollup")?;
        let bytes = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next());
            let kib = kib.with_context(|| format!("smaps_rollup must have {name} (Linux 5.9)"))?;
            anyhow::Ok(kib.parse::<f64>()? * 1024.0)
        };
        Ok(Memory { bytes: bytes("Pss:")?, anonymous_bytes: bytes("Pss_Anon:")? })
    }

    /// CPU so far. `stat`, not the threads' `schedstat`: it still counts threads that have ended.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let stat = self.proc("stat")?;
        // The second field is the program's name in parentheses, and may contain anything.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<f64>);
        let user = ticks.next().context("stat must have utime")??;
        let system = ticks.next().context("stat must have stime")??;
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        Ok(Cpu { user: user / per_second, total: (user + system) / per_second })
    }
}

/// Proportional set size of a process.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) bytes: f64,
    pub(crate) anonymous_bytes: f64,
}

/// CPU seconds of a process.
#[derive(Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) total: f64,
}

impl Cpu {
    pub(crate) fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, total: self.total - before.total }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("{} may be left running: {error}", self.name);
        }
    }
}

/// An address whose port was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn answers_ready(admin: SocketAddr) -> std::io::Result<bool> {
    let mut socket = TcpStream::connect(admin)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    socket.read_exact(&mut status)?;
    Ok(status == *b"HTTP/1.1 200")
}
