//! Scenario builders: a real redis-server, the real binary, a client that speaks the wire.

pub mod address;
pub mod browser;
pub mod client;
pub mod cluster;
pub mod foreign;
pub mod front;
pub mod gateway;
pub mod haproxy;
pub mod history;
pub mod manager;
pub mod multiplexed;
pub mod nginx;
pub mod post;
pub mod program;
pub mod prometheus;
pub mod proxies;
pub mod redis;
pub mod reload;
pub mod seed;
pub mod sentinel;
pub mod stand_in;
pub mod swarm;
pub mod tls;
pub mod token;
pub mod viewer;
pub mod waiting;
pub mod wanderer;
pub mod wire;

use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process};

pub use waiting::{DEADLINE, eventually, pause_of_the_scenario, within};

/// Sends a signal, by its name, to a process that the test started.
pub fn signal(process: &Child, name: &str) {
    let signal = match name {
        "TERM" => Signal::TERM,
        "INT" => Signal::INT,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        "HUP" => Signal::HUP,
        "USR1" => Signal::USR1,
        other => panic!("no test sends SIG{other}"),
    };
    kill_process(Pid::from_child(process), signal).unwrap();
}

/// Whether the body of a stream, of which these bytes came last, ends between two events: after a blank line, or
/// after a comment, which has none.
pub fn ends_between_events(body: &[u8]) -> bool {
    let Some(lines) = body.strip_suffix(b"\n") else { return false };
    let last = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    body.ends_with(b"\n\n") || last.starts_with(b":")
}

/// One read; it is repeated if the process was stopped in the middle of it.
pub fn read(stream: &mut impl Read, bytes: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.read(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// A folder of this test's own, removed on drop.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("ssegate-{}-{count}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                // Of an earlier process with this number, which was killed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
