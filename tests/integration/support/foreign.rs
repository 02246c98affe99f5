//! A client that nobody here wrote, run by a small program of `tests/clients` that prints what it hears.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

use super::eventually;

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/");
/// Where `./test` installs the clients.
const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/ai-clients");

/// One client, killed on drop.
pub struct Foreign {
    process: Child,
    reader: Option<JoinHandle<()>>,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Foreign {
    /// Of npm.
    pub fn node(program: &str, arguments: &[&str]) -> Self {
        let program = std::fs::File::open(format!("{PROGRAMS}{program}")).unwrap();
        let mut command = Command::new("node");
        // A program of its standard input finds the packages of the folder that it runs in.
        command.args(["--input-type=module", "-"]).args(arguments).stdin(program);
        Self::run(command)
    }

    /// Of Python's registry.
    pub fn python(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command.arg(format!("{PROGRAMS}{program}")).args(arguments).stdin(Stdio::null());
        command.env("PYTHONPATH", "python").env("NO_PROXY", "*");
        Self::run(command)
    }

    fn run(mut command: Command) -> Self {
        assert!(Path::new(CLIENTS).exists(), "{CLIENTS} is missing; ./test NAME installs it");
        command.current_dir(CLIENTS).stdout(Stdio::piped());
        let mut process = command.spawn().expect("node (apt: nodejs) and python3 are installed");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let reader = collect(process.stdout.take().unwrap(), heard.clone());
        Self { process, reader: Some(reader), heard }
    }

    /// What it has heard so far.
    pub fn heard(&self) -> Vec<Value> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until it has heard this.
    #[track_caller]
    pub fn hears(&self, wanted: &Value) {
        eventually(&format!("it hears {wanted}"), || self.heard().contains(wanted));
    }

    /// All that it heard, once it has ended by itself.
    #[track_caller]
    pub fn end(mut self) -> Vec<Value> {
        eventually("the client ends", || self.process.try_wait().unwrap().is_some());
        self.reader.take().expect("it ends once").join().unwrap();
        self.heard()
    }
}

fn collect(stdout: impl Read + Send + 'static, heard: Arc<Mutex<Vec<Value>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
            heard.lock().unwrap().push(line);
        }
    })
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- what a client heard ---\n{:#?}", self.heard());
        }
    }
}
