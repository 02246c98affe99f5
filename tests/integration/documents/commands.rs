//! The commands that are cheap to run are run here as the documents have them, with other addresses.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use super::{block, commands, read};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::program::{BINARY, run, ssegate};
use crate::support::redis::{Answer, Redis};
use crate::support::token::SECRET;
use crate::support::{Folder, eventually};

/// A process whose output is collected while it runs; killed on drop.
struct Running {
    process: Child,
    said: Arc<Mutex<String>>,
}

impl Running {
    /// What it prints on its standard output, or, where `errors`, on the other one.
    fn start(command: &mut Command, errors: bool) -> Self {
        command.stdin(Stdio::null());
        let said = Arc::new(Mutex::new(String::new()));
        let process = if errors {
            let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            collect(process.stderr.take().unwrap(), said.clone());
            process
        } else {
            let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            collect(process.stdout.take().unwrap(), said.clone());
            process
        };
        Self { process, said }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn collect(output: impl std::io::Read + Send + 'static, said: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut said = said.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    });
}

/// A command in a shell that finds this `ssegate`.
fn shell(command: &str) -> Command {
    let programs = Path::new(BINARY).parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    // The command itself, so that its end is the process's.
    shell.args(["-c", &format!("exec {command}")]).env("PATH", path);
    shell
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The only command of a document that begins so.
#[track_caller]
fn command(page: &str, beginning: &str) -> String {
    let all = commands(&read(page));
    let mut found = all.into_iter().filter(|command| command.starts_with(beginning));
    let command = found.next().expect(beginning);
    assert_eq!(found.next(), None, "{page} has one command {beginning}");
    command
}

/// The `ssegate --demo` of the documents, at addresses of its own.
struct Demo {
    _process: Running,
    address: String,
    admin: String,
}

impl Demo {
    fn start() -> Self {
        let process = Running::start(
            ssegate()
                .arg("--demo")
                .env("SSEGATE_SERVER_LISTEN", "127.0.0.1:0")
                .env("SSEGATE_ADMIN_LISTEN", "127.0.0.1:0"),
            true,
        );
        let mut addresses = Vec::new();
        eventually("the demo listens", || {
            let said = process.said();
            let lines = said.lines().filter(|line| line.contains("listening for"));
            let found = lines.filter_map(|line| line.split("\"address\":\"").nth(1));
            addresses = found.map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
            addresses.len() == 2
        });
        let [address, admin] = addresses.try_into().unwrap();
        Self { _process: process, address, admin }
    }

    /// A command of a document, with the demo's addresses.
    fn here(&self, command: &str) -> Command {
        let command = command.replace("127.0.0.1:8080", &self.address);
        shell(&command.replace("127.0.0.1:9464", &self.admin))
    }
}

#[test]
fn the_demo_answers_to_the_commands_that_are_shown() {
    let demo = Demo::start();
    let stream = Running::start(&mut demo.here(&command("README.md", "curl -N")), false);
    let tail = Running::start(&mut demo.here(&command("docs/clients.md", "ssegate tail")), false);
    eventually("both receive the sample events", || {
        stream.said().contains("\ndata: ") && tail.said().contains(" message ")
    });
    let publish = command("README.md", "curl -d");
    succeeds(&demo.here(&publish).output().unwrap());
    let message = publish.split('\'').nth(1).unwrap();
    eventually("both receive the event that was added", || {
        let arrived = [stream.said(), tail.said()];
        arrived.iter().all(|said| said.contains(message))
    });
}

/// A gateway with the README's route.
fn readme_gateway(setup: Setup) -> Gateway {
    let toml = block("README.md", "Redis in one minute", "toml");
    let (_, route) = toml.split_once("[[route]]").unwrap();
    setup.routes(&format!("[[route]]{route}")).start_ready()
}

#[test]
fn an_entry_arrives_as_the_readme_shows_it() {
    let redis = Redis::start();
    let gateway = readme_gateway(Setup::redis(&redis));
    let mut client = Client::open(&gateway.address, "/v1/logs/stream");
    client.live();
    let cli = format!("redis-cli -s {}", redis.socket().display());
    let add = command("README.md", "redis-cli XADD").replace("redis-cli", &cli);
    let id = succeeds(&shell(&add).output().unwrap());
    let entry = client.entry();
    let shown = read("README.md");
    let (_, shown) = shown.split_once("```text\nid: ").expect("what arrives");
    let (_, shown) = shown.split_once('\n').unwrap();
    let (shown, _) = shown.split_once("\n```").unwrap();
    assert_eq!(shown, format!("event: {}\ndata: {}", entry.event_type, entry.data));
    assert_eq!(id.trim(), entry.last_event_id);
}

#[test]
fn the_access_rights_that_are_shown_are_enough() {
    let redis = Redis::start();
    let readme = read("README.md");
    let (_, rights) = readme.split_once("```text\nACL ").expect("the rights");
    let (rights, _) = rights.split_once("\n```").unwrap();
    let words: Vec<_> = std::iter::once("ACL").chain(rights.split_whitespace()).collect();
    assert_eq!(redis.run(&words), Answer::Text("OK".into()));
    let credentials = Folder::new();
    std::fs::write(credentials.0.join("redis-password"), "password").unwrap();
    let setup = Setup::redis(&redis)
        .set("source", "username = \"gateway\"")
        .set("source", "password_file = \"redis-password\"")
        .credentials(credentials);
    let gateway = readme_gateway(setup);
    let first = redis.add("siem:logs", "before");
    let mut client = Client::resume(&gateway.address, "/v1/logs/stream", "0-1");
    redis.add("siem:logs", "after");
    let data = [client.entry().data, client.entry().data];
    assert_eq!(data, ["before", "after"], "from {first} on");
}

/// A folder with the README's configuration, to which its password belongs.
fn configured() -> (Folder, Folder) {
    let (folder, credentials) = (Folder::new(), Folder::new());
    std::fs::write(credentials.0.join("ssegate.redis-password"), "password").unwrap();
    let toml = block("README.md", "Redis in one minute", "toml");
    let secret = "[source]\nusername = \"gateway\"\npassword_file = \"ssegate.redis-password\"";
    std::fs::write(folder.0.join("gateway.toml"), toml.replace("[source]", secret)).unwrap();
    (folder, credentials)
}

#[test]
fn the_checks_that_are_shown_find_nothing_wrong() {
    let (folder, credentials) = configured();
    let credentials = credentials.0.to_str().unwrap();
    let all = commands(&read("docs/operate.md"));
    let checks: Vec<_> = all.iter().filter(|command| command.contains("ssegate check")).collect();
    assert!(checks.len() >= 5, "{checks:?}");
    for check in checks {
        let script = check.replace("/etc/credstore", credentials);
        let output = shell("sh -c \"$0\"")
            .arg(&script)
            .current_dir(&folder.0)
            .env("CREDENTIALS_DIRECTORY", credentials)
            .output()
            .unwrap();
        assert!(!succeeds(&output).is_empty(), "{check}");
    }
}

#[test]
fn the_configuration_for_tokens_is_good() {
    let folder = Folder::new();
    std::fs::write(folder.0.join("jwt.secret"), SECRET).unwrap();
    let tokens = block("docs/security.md", "Tokens", "toml");
    let file = folder.0.join("gateway.toml");
    std::fs::write(&file, format!("[source]\nurl = \"memory:\"\n{tokens}")).unwrap();
    let credentials = folder.0.to_str().unwrap();
    let variables = [("CREDENTIALS_DIRECTORY", credentials)];
    let (code, _, stderr) = run(&["check", "--config", file.to_str().unwrap()], &variables);
    assert_eq!(code, 0, "{stderr}");
}
