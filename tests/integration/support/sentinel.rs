//! A primary with two replicas, and three sentinels that watch them.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::address::own_ip;
use super::redis::{Answer, Connection, PORT, Redis, server};
use super::{DEADLINE, Folder, eventually, signal};

/// What the sentinels call the primary.
pub const NAME: &str = "mine";
const SENTINEL_PORT: u16 = 26379;

/// Servers and their sentinels.
pub struct Trio {
    /// The first is the primary at first.
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Sentinel>,
}

/// A sentinel, killed on drop.
pub struct Sentinel {
    process: Child,
    _folder: Folder,
    pub address: String,
}

impl Trio {
    pub fn start() -> Self {
        Self::with(&|_| Vec::new(), &|_| String::new())
    }

    /// With further arguments for the server of an address, and lines for the file of a sentinel.
    pub fn with(arguments: &dyn Fn(&str) -> Vec<String>, lines: &dyn Fn(&str) -> String) -> Self {
        let servers: Vec<_> = (0..3).map(|_| Redis::on_tcp_with(arguments)).collect();
        servers[1..].iter().for_each(|replica| replica.follow(&servers[0]));
        let sentinels = (0..3).map(|_| Sentinel::start(&servers[0], lines)).collect();
        let trio = Self { servers, sentinels };
        for sentinel in &trio.sentinels {
            eventually("the sentinel knows the replicas and the other sentinels", || {
                let table = sentinel.table();
                let is = |name, value| table.get(name).is_some_and(|found| found == value);
                is("num-slaves", "2") && is("num-other-sentinels", "2") && is("flags", "master")
            });
        }
        trio
    }

    /// The `[source] url` of it.
    pub fn url(&self) -> String {
        let sentinels: Vec<_> = self.sentinels.iter().map(|s| s.address.as_str()).collect();
        format!("redis-sentinel://{}/{NAME}", sentinels.join(","))
    }

    /// The address of the primary, as the first sentinel has it.
    pub fn primary(&self) -> String {
        self.sentinels[0].primary().expect("the sentinel answers")
    }

    /// The server of this address.
    pub fn at(&self, address: &str) -> &Redis {
        self.servers.iter().find(|server| server.address() == address).unwrap()
    }
}

impl Sentinel {
    fn start(primary: &Redis, lines: &dyn Fn(&str) -> String) -> Self {
        let (folder, ip) = (Folder::new(), own_ip());
        let file = folder.0.join("sentinel.conf");
        let text = format!(
            "bind {ip}\nport {SENTINEL_PORT}\nprotected-mode no\nsentinel announce-ip {ip}\n\
             sentinel monitor {NAME} {} {PORT} 2\nsentinel down-after-milliseconds {NAME} 1000\n\
             sentinel failover-timeout {NAME} 6000\n{}\n",
            primary.ip,
            lines(&ip)
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(server());
        command.arg(&file).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.current_dir(&folder.0).spawn().unwrap();
        let address = format!("{ip}:{SENTINEL_PORT}");
        Self { process, _folder: folder, address }
    }

    pub fn run(&self, command: &[&str]) -> Option<Answer> {
        Connection::to(&self.address, DEADLINE)?.run(command)
    }

    pub fn signal(&self, name: &str) {
        signal(&self.process, name);
    }

    /// The address of the primary, as it has it.
    pub fn primary(&self) -> Option<String> {
        primary_at(&mut Connection::to(&self.address, Duration::from_secs(1))?)
    }

    fn table(&self) -> HashMap<String, String> {
        let connection = Connection::to(&self.address, DEADLINE);
        connection.and_then(|mut connection| table_at(&mut connection)).unwrap_or_default()
    }
}

/// The primary, as the sentinel has it that knows of the latest failover.
pub fn newest_primary(sentinels: &[String]) -> Option<String> {
    let views = sentinels.iter().filter_map(|address| {
        let mut connection = Connection::to(address, Duration::from_millis(300))?;
        let primary = primary_at(&mut connection)?;
        let table = table_at(&mut connection)?;
        Some((table.get("config-epoch")?.parse::<u64>().ok()?, primary))
    });
    views.max_by_key(|(epoch, _)| *epoch).map(|(_, primary)| primary)
}

fn primary_at(connection: &mut Connection) -> Option<String> {
    match connection.run(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])? {
        Answer::List(pair) => match &pair[..] {
            [Answer::Text(host), Answer::Text(port)] => Some(format!("{host}:{port}")),
            _ => None,
        },
        _ => None,
    }
}

fn table_at(connection: &mut Connection) -> Option<HashMap<String, String>> {
    let Answer::List(words) = connection.run(&["SENTINEL", "MASTER", NAME])? else { return None };
    let text = |answer: &Answer| match answer {
        Answer::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    Some(words.chunks(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect())
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
