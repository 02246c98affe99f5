//! The command line: check, tail, --demo, and the exit codes.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::address::own_address;
use crate::support::client::Client;
use crate::support::gateway::{Setup, exchange};
use crate::support::program::{run, ssegate, ssegate_with_descriptors};
use crate::support::redis::Redis;
use crate::support::{Folder, eventually, signal};

/// What `check` says of a good configuration.
mod budget;
/// What the servers say to a configuration.
mod connect;
/// What `tail` shows on a terminal.
mod progress;
/// Where a cluster has the states.
mod slots;
/// A gateway whose configuration is in no file.
mod without_file;

const ROUTE: &str =
    "[[route]]\npath = \"/events/{name}\"\nkey = \"events:{name}\"\naccess = \"public\"\n";

/// A gateway.toml with this text.
struct File {
    _folder: Folder,
    path: String,
}

fn file(text: &str) -> File {
    let folder = Folder::new();
    let path = folder.0.join("gateway.toml");
    std::fs::write(&path, text).unwrap();
    File { path: path.to_str().unwrap().to_owned(), _folder: folder }
}

fn good() -> File {
    file(&Setup::memory().toml())
}

/// A run of the binary whose output is collected while it runs; killed on drop.
struct Running {
    process: Child,
    out: Arc<Mutex<String>>,
    notes: Arc<Mutex<String>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let out = collected(process.stdout.take().unwrap());
        let notes = collected(process.stderr.take().unwrap());
        Self { process, out, notes }
    }

    fn out(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    fn notes(&self) -> String {
        self.notes.lock().unwrap().clone()
    }

    fn signal(&self, name: &str) {
        signal(&self.process, name);
    }

    fn wait(&mut self) -> i32 {
        let mut status = None;
        eventually("it ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- stdout ---\n{}--- stderr ---\n{}", self.out(), self.notes());
        }
    }
}

fn collected(from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let collector = text.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut text = collector.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}

#[test]
fn check_reports_every_fault_at_once_with_its_line() {
    let text = "[server]\nkeepalive = \"15x\"\nkeepalve = \"15s\"\n\n[sorce]\nurl = \"memory:\"\n\n[ring]\nentries = 0\n";
    let file = file(text);
    let path = &file.path;
    for arguments in [vec!["check", "--config", path], vec!["--config", path]] {
        let (code, out, stderr) = run(&arguments, &[("SSEGATE_RING_BITES", "1")]);
        assert_eq!((code, out.as_str()), (78, ""), "{stderr}");
        let begins = [
            format!("{path}: [[route]]: missing"),
            format!("{path}: source.url: missing"),
            format!("{path}:2:13: server.keepalive = \"15x\": "),
            format!("{path}:3:1: server.keepalve: unknown key; did you mean \"keepalive\"?"),
            format!("{path}:5:2: sorce: unknown section; did you mean \"source\"?"),
            format!("{path}:9:11: ring.entries = 0: out of range"),
            "environment: SSEGATE_RING_BITES: unknown variable".to_owned(),
        ];
        for begin in &begins {
            assert!(stderr.lines().any(|line| line.starts_with(begin)), "{begin} in\n{stderr}");
        }
        assert_eq!(stderr.lines().count(), begins.len(), "{stderr}");
    }
}

#[test]
fn check_passes_a_good_file_and_the_shipped_one() {
    let file = good();
    let (code, out, stderr) = run(&["check", "--config", &file.path], &[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(out.starts_with(&format!("{}: no faults\n", file.path)), "{out}");
    let shipped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("gateway.toml");
    let (code, _, stderr) = run(&["check", "--config", shipped.to_str().unwrap()], &[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
}

#[test]
fn check_prints_values_with_their_origin_and_masks_secrets() {
    let text = format!("[source]\nurl = \"redis://gate:s3cr3t@127.0.0.1:6379/1\"\n\n{ROUTE}");
    let file = file(&text);
    let env = [("SSEGATE_SERVER_LISTEN", "127.0.0.1:1,127.0.0.1:2")];
    let (code, out, stderr) = run(&["check", "--print", "--config", &file.path], &env);
    assert_eq!(code, 0, "{stderr}");
    let printed = |begin: &str, origin: &str| {
        let line = out.lines().find(|line| line.starts_with(begin));
        let line = line.unwrap_or_else(|| panic!("{begin} in\n{out}"));
        assert!(line.ends_with(&format!("# {origin}")), "{line}");
    };
    printed("listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]", "SSEGATE_SERVER_LISTEN");
    printed("url = \"redis://gate:MASKED@127.0.0.1:6379/1\"", &format!("{}:2", file.path));
    printed("keepalive = \"15s\"", "default");
    printed("path = \"/events/{name}\"", &format!("{}:5", file.path));
    assert!(!out.contains("s3cr3t") && !stderr.contains("s3cr3t"), "{out}{stderr}");
    assert!(stderr.starts_with("warning: ") && stderr.contains("source.password_file"), "{stderr}");
}

#[test]
fn the_environment_overrides_the_file() {
    let file =
        file(&format!("[source]\nurl = \"redis://nowhere\"\n[log]\nlevel = \"off\"\n{ROUTE}"));
    let mut gateway = Running::start(
        ssegate()
            .args(["--config", &file.path])
            .env("SSEGATE_SOURCE_URL", "memory:")
            .env("SSEGATE_SERVER_LISTEN", "127.0.0.1:0,127.0.0.1:0")
            .env("SSEGATE_ADMIN_LISTEN", "")
            .env("SSEGATE_SERVER_DRAIN", "0s")
            .env("SSEGATE_LOG_LEVEL", "info"),
    );
    eventually("it listens twice and finds its source", || {
        let log = gateway.notes();
        log.matches("listening for clients").count() == 2 && log.contains("source answers")
    });
    assert!(!gateway.notes().contains("listening for the operator"));
    gateway.signal("INT");
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn each_class_of_failure_has_its_exit_code() {
    let good = good();
    for wrong in [vec!["--no-such-option"], vec!["no-such-command"], vec!["tail"], vec!["--config"]]
    {
        let (code, _, stderr) = run(&wrong, &[]);
        assert_eq!(code, 64, "{wrong:?}: {stderr}");
        assert!(!stderr.is_empty());
    }
    for wrong in ["ftp://x/", "nonsense", "https://x/"] {
        let (code, _, stderr) = run(&["tail", wrong], &[]);
        assert_eq!(code, 64, "{wrong}: {stderr}");
    }
    let (code, _, stderr) = run(&["--config", &good.path], &[("SSEGATE_SURVER_LISTEN", "x")]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("SSEGATE_SURVER_LISTEN"), "{stderr}");
    let (code, _, stderr) = run(&["check", "--config", "no/such/file.toml"], &[]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("no/such/file.toml"), "{stderr}");
    let without = file(ROUTE);
    let (code, _, stderr) = run(&["check", "--config", &without.path], &[]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("source.url: missing"), "{stderr}");
    assert_eq!(run(&["--help"], &[]).0, 0);
}

#[test]
fn the_version_names_the_commit_and_what_was_built_in() {
    let (code, printed, _) = run(&["--version"], &[]);
    assert_eq!(code, 0);
    let version = env!("CARGO_PKG_VERSION");
    let built = printed.strip_prefix(&format!("ssegate {version} (")).expect(&printed);
    assert!(built.contains("; io_uring, tls, h2"), "{printed}");
    let head = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "log", "-1", "--abbrev=10", "--format=%h%n%cs"])
        .output();
    // A crate's archive has no history to compare with.
    let Some(head) = head.ok().filter(|head| head.status.success()) else { return };
    let head = String::from_utf8(head.stdout).unwrap();
    let (commit, date) = head.trim().split_once('\n').expect("a commit and its day");
    let rest = built.strip_prefix(commit).expect(&printed);
    let rest = rest.strip_prefix("-dirty").unwrap_or(rest);
    assert!(rest.starts_with(&format!(" {date};")), "{printed}: of {date}");
}

#[test]
fn a_missing_configuration_names_the_places_searched() {
    let installed = std::path::Path::new("/etc/ssegate/gateway.toml");
    assert!(!installed.exists(), "move {installed:?} away: this test is about its absence");
    let folder = Folder::new();
    let mut gateway = Running::start(ssegate().current_dir(&folder.0));
    assert_eq!(gateway.wait(), 78);
    eventually("it says so", || {
        let notes = gateway.notes();
        notes.contains("gateway.toml, /etc/ssegate/gateway.toml") && notes.contains("--demo")
    });
}

#[test]
fn an_address_in_use_is_a_failure_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let good = good();
    for variable in ["SSEGATE_SERVER_LISTEN", "SSEGATE_ADMIN_LISTEN"] {
        let (code, _, stderr) = run(&["--config", &good.path], &[(variable, &address)]);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(&address), "{stderr}");
    }
}

#[test]
fn too_few_descriptors_are_a_fault_of_the_configuration() {
    let good = good();
    let start = |descriptors| {
        Running::start(ssegate_with_descriptors(descriptors).args(["--config", &good.path]))
    };
    let mut gateway = start(80);
    assert_eq!(gateway.wait(), 78);
    eventually("it says what to do", || {
        let notes = gateway.notes();
        notes.contains("80 descriptors leave room for 0 clients") && notes.contains("LimitNOFILE=")
    });
    let enough = start(200);
    eventually("a few more are enough", || enough.notes().contains("listening for clients"));
}

#[test]
fn a_demo_needs_no_file_and_no_redis() {
    let folder = Folder::new();
    let mut gateway = Running::start(
        ssegate()
            .arg("--demo")
            .current_dir(&folder.0)
            .env("SSEGATE_SERVER_LISTEN", "127.0.0.1:0")
            .env("SSEGATE_ADMIN_LISTEN", "127.0.0.1:0")
            .env("SSEGATE_SERVER_DRAIN", "0s"),
    );
    let mut address = String::new();
    eventually("it says where to look", || {
        let notes = gateway.notes();
        let rest = notes.split("curl -N http://").nth(1);
        let found = rest.and_then(|rest| rest.split_once("/events/demo\n"));
        address = found.map_or(String::new(), |(address, _)| address.to_owned());
        !address.is_empty()
    });
    let page = exchange(&address, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.head.to_ascii_lowercase().contains("content-type: text/html"), "{}", page.head);
    let request = "GET /events/demo HTTP/1.1\r\nHost: localhost:1\r\n\r\n";
    let mut client = Client::raw(&address, request);
    assert!(client.head.starts_with("HTTP/1.1 200 "), "{}", client.head);
    client.entry();
    let foreign =
        exchange(&address, "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_ne!(foreign.status, 200, "a foreign name for this machine: DNS rebinding");
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), 0);
}

#[test]
fn tail_prints_events_and_resumes_after_a_restart_of_the_gateway() {
    let redis = Redis::start();
    let setup = |listen: &str| {
        Setup::redis(&redis)
            .set("server", &format!("listen = [\"{listen}\"]"))
            .set("server", "retry = \"100ms\"")
            .set("server", "drain = \"0s\"")
    };
    let mut gateway = setup(&own_address().to_string()).start_ready();
    let address = gateway.address.clone();
    let mut tail = Running::start(ssegate().args(["tail", &format!("http://{address}/events/a")]));
    eventually("it is connected and live", || tail.notes().contains("live "));
    let mut ids = vec![redis.add("events:a", "one\ntwo")];
    eventually("the event is printed", || tail.out().lines().count() == 1);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    ids.push(redis.add("events:a", "meanwhile"));
    let _gateway = setup(&address).start_ready();
    eventually("it resumes", || tail.out().lines().count() == 2);
    ids.push(redis.add("events:a", "after"));
    eventually("it goes on", || tail.out().lines().count() == 3);
    tail.signal("INT");
    assert_eq!(tail.wait(), 0);
    let out = tail.out();
    let expected = ["one\\ntwo", "meanwhile", "after"];
    for (line, (id, data)) in out.lines().zip(ids.iter().zip(expected)) {
        assert!(line.starts_with(&format!("{id} +")), "{line}");
        assert!(line.ends_with(&format!("ms message {data}")), "{line}");
    }
    assert!(!tail.notes().contains("GAP"), "{}", tail.notes());
}

#[test]
fn tail_resumes_at_the_id_that_is_given() {
    let gateway = Setup::memory().start_ready();
    let first = gateway.publish("events:a", "one");
    gateway.publish("events:a", "two");
    let url = format!("http://{}/events/a", gateway.address);
    let mut tail = Running::start(ssegate().args(["tail", &url, "--last-event-id", &first]));
    eventually("the second is printed", || tail.out().ends_with(" message two\n"));
    assert_eq!(tail.out().lines().count(), 1);
    tail.signal("INT");
    assert_eq!(tail.wait(), 0);
}

#[test]
fn tail_fails_on_a_refusal_and_says_why() {
    let gateway = Setup::memory().start_ready();
    let url = format!("http://{}/nothing", gateway.address);
    let (code, out, stderr) = run(&["tail", &url], &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(stderr.contains("404") && stderr.contains("no such route"), "{stderr}");
}

#[test]
fn the_readmes_configuration_is_good() {
    let readme = include_str!("../../README.md");
    let (_, block) = readme.split_once("```toml\n").unwrap();
    let (toml, _) = block.split_once("```").unwrap();
    let folder = Folder::new();
    let file = folder.0.join("gateway.toml");
    std::fs::write(&file, toml).unwrap();
    let (code, _, stderr) = run(&["check", "--config", file.to_str().unwrap()], &[]);
    assert_eq!(code, 0, "{stderr}");
}
