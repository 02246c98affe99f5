//! What is logged, and what never is.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup, exchange};
use crate::support::program::{run, ssegate};
use crate::support::redis::Redis;
use crate::support::{Folder, eventually};

/// The access log, and the ids of connections in the log.
mod access;

const SECRET: &str = "s3cr3t-t0k3n";

/// Every line so far, parsed.
#[track_caller]
fn lines(gateway: &Gateway) -> Vec<serde_json::Value> {
    let parse =
        |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    gateway.log().lines().map(parse).collect()
}

#[test]
fn the_first_lines_say_what_was_read_and_what_listens() {
    let gateway = Setup::memory().start_ready();
    eventually("the log has the source", || gateway.log().contains("source answers"));
    let lines = lines(&gateway);
    let first = &lines[0];
    assert_eq!(first["message"], "ssegate starts", "{first}");
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(first["commit"], ssegate::telemetry::version::COMMIT);
    let file = gateway.folder.0.join("gateway.toml");
    assert_eq!(first["configuration"], file.to_str().unwrap(), "{first}");
    let address = |message: &str| {
        let line = lines.iter().find(|line| line["message"] == message);
        line.unwrap_or_else(|| panic!("{message} in {lines:?}"))["address"].clone()
    };
    assert_eq!(address("listening for clients"), gateway.address);
    assert_eq!(address("listening for the operator"), gateway.admin);
    for line in &lines {
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
}

#[test]
fn the_log_tells_of_start_drain_and_end_in_order() {
    let mut gateway = Setup::memory().set("server", "drain = \"0s\"").start_ready();
    eventually("it is ready", || gateway.log().contains("\"ready\""));
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    eventually("the log is whole", || gateway.log().contains("ssegate ends"));
    let lines = lines(&gateway);
    let at = |message: &str| {
        let is_it = |line: &serde_json::Value| {
            line["message"].as_str().is_some_and(|text| text.starts_with(message))
        };
        lines.iter().position(is_it).unwrap_or_else(|| panic!("{message} in {lines:?}"))
    };
    let beginning = ["ssegate starts", "listening for clients", "source answers", "ready"];
    let end = ["stopping", "draining", "drained", "ssegate ends"];
    let places: Vec<_> = beginning.into_iter().chain(end).map(at).collect();
    assert!(places.is_sorted(), "{lines:?}");
    assert_eq!(places.last(), Some(&(lines.len() - 1)), "the end is the end");
}

/// Where JOURNAL_STREAM says that journald listens, seen from a run that logs into a file.
#[derive(Clone, Copy)]
enum Journal {
    Nowhere,
    Elsewhere,
    ThatFile,
}

/// What a run that fails at once has logged: what starts, and what failed.
fn logged(format: &str, journal: Journal) -> Vec<String> {
    let folder = Folder::new();
    let file = folder.0.join("gateway.toml");
    let setup = Setup::memory().set("log", &format!("format = \"{format}\""));
    // No directory of this name: it cannot listen there.
    let setup = setup.set("server", "listen = [\"unix:/nowhere/at/all.sock\"]");
    std::fs::write(&file, setup.toml()).unwrap();
    let log = File::create(folder.0.join("log")).unwrap();
    let place = log.metadata().unwrap();
    let mut command = ssegate();
    match journal {
        Journal::Nowhere => &mut command,
        Journal::Elsewhere => command.env("JOURNAL_STREAM", "8:1"),
        Journal::ThatFile => {
            command.env("JOURNAL_STREAM", format!("{}:{}", place.dev(), place.ino()))
        }
    };
    let status = command.arg("--config").arg(&file).stderr(log).status().unwrap();
    let log = std::fs::read_to_string(folder.0.join("log")).unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    let lines: Vec<_> = log.lines().map(str::to_owned).collect();
    let last = lines.last().unwrap();
    assert!(lines[0].contains("ssegate starts") && last.contains("/nowhere/at/all.sock"), "{log}");
    lines
}

#[test]
fn the_log_has_the_format_that_is_set_and_else_the_one_that_its_reader_takes() {
    use Journal::{Elsewhere, Nowhere, ThatFile};
    let json = [("json", Nowhere), ("json", ThatFile), ("auto", Nowhere), ("auto", Elsewhere)];
    for line in json.into_iter().flat_map(|(format, journal)| logged(format, journal)) {
        let line: serde_json::Value = serde_json::from_str(&line).expect(&line);
        assert!(line["timestamp"].is_string() && line["message"].is_string(), "{line}");
    }
    for line in [Nowhere, ThatFile].into_iter().flat_map(|journal| logged("text", journal)) {
        let (time, rest) = line.split_once(' ').expect(&line);
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
        let level = rest.split_whitespace().next().unwrap();
        assert!(["INFO", "ERROR"].contains(&level) && !line.contains('\x1b'), "{line}");
    }
    // Where journald runs it gets the line itself (src/telemetry/log/journal.rs).
    if std::path::Path::new("/run/systemd/journal/socket").exists() {
        return;
    }
    for line in logged("auto", ThatFile) {
        assert!(line.starts_with("<6>") || line.starts_with("<3>"), "{line}");
    }
}

#[test]
fn no_line_is_written_per_event_or_client() {
    let gateway = Setup::memory().start_ready();
    eventually("the start is over", || gateway.log().contains("source answers"));
    // The first client of a key may be worth a line.
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    gateway.publish("events:a", "first");
    client.entry();
    let before = lines(&gateway).len();
    for number in 0..100 {
        gateway.publish("events:a", &number.to_string());
        let mut other = Client::open(&gateway.address, "/events/a");
        other.live();
        other.leave();
    }
    for number in 0..100 {
        assert_eq!(client.entry().data, number.to_string());
    }
    let after = lines(&gateway);
    assert!(after.len() < before + 5, "{:?}", &after[before..]);
}

#[test]
fn a_clients_token_is_never_logged_whatever_the_level() {
    for level in ["debug", "trace"] {
        let setup = Setup::memory().set("log", &format!("level = \"{level}\""));
        let mut gateway = setup.set("server", "drain = \"0s\"").start_ready();
        let bearer = format!("Bearer {SECRET}");
        let cookie = format!("session={SECRET}");
        let path = format!("/events/a?token={SECRET}");
        let headers = [("Authorization", bearer.as_str()), ("Cookie", cookie.as_str())];
        let mut client = Client::with(&gateway.address, &path, &headers);
        client.live();
        gateway.publish("events:a", &format!("a payload of {SECRET}"));
        client.entry();
        assert_eq!(gateway.get(&format!("/nothing?token={SECRET}")).status, 404);
        assert_eq!(gateway.get(&format!("/{SECRET}")).status, 404);
        assert_eq!(gateway.get(&format!("/events/a?since={SECRET}")).status, 400);
        let broken = format!("GET /events/a?token={SECRET} HTTP/1.1\r\nCookie: {SECRET}\0\r\n\r\n");
        assert_eq!(exchange(&gateway.address, &broken).status, 400);
        let large = SECRET.repeat(3000);
        let large = format!("GET /events/a HTTP/1.1\r\nCookie: {large}\r\n\r\n");
        assert_eq!(exchange(&gateway.address, &large).status, 431);
        let mut unknown = Client::resume(&gateway.address, "/events/a", SECRET);
        assert_eq!(unknown.control().0["reason"], "unknown");
        client.leave();
        unknown.leave();
        eventually("they left", || gateway.metric("ssegate_clients") < 0.5);
        gateway.signal("TERM");
        assert!(gateway.wait().success());
        eventually("the log is whole", || gateway.log().contains("drained"));
        assert!(lines(&gateway).iter().any(|line| line["level"] == "DEBUG"), "the level counts");
        assert!(!gateway.log().contains(SECRET), "{}", gateway.log());
    }
}

#[test]
fn the_sources_password_is_never_shown() {
    let redis = Redis::start();
    let password = format!(">{SECRET}");
    redis.run(&["ACL", "SETUSER", "gate", "on", &password, "~*", "+@all"]);
    let folder = Folder::new();
    let file = folder.0.join("password");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let setup = || {
        Setup::redis(&redis)
            .set("source", "username = \"gate\"")
            .set("source", &format!("password_file = {:?}", file.to_str().unwrap()))
            .set("log", "level = \"trace\"")
    };
    let gateway = setup().start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    redis.add("events:a", "one");
    assert_eq!(client.entry().data, "one");
    // A refused password is reported, but not its text.
    redis.run(&["ACL", "SETUSER", "gate", "resetpass", ">another"]);
    redis.run(&["CLIENT", "KILL", "USER", "gate"]);
    eventually("the refusal is logged", || gateway.log().contains("WRONGPASS"));
    lines(&gateway);
    assert!(!gateway.log().contains(SECRET), "{}", gateway.log());

    let written = folder.0.join("gateway.toml");
    std::fs::write(&written, setup().toml()).unwrap();
    let (code, out, stderr) =
        run(&["check", "--print", "--config", written.to_str().unwrap()], &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(!out.contains(SECRET) && !stderr.contains(SECRET), "{out}{stderr}");
}

#[test]
fn a_password_in_the_sources_url_is_never_logged() {
    // Port 1 has no listener: connecting fails, and the log says where.
    let url = format!("redis://gate:{SECRET}@127.0.0.1:1");
    let gateway = Setup::with_url(&url).set("log", "level = \"trace\"").start();
    eventually("the absence is logged", || gateway.log().contains("source does not answer"));
    let warned = lines(&gateway).iter().any(|line| line["level"] == "WARN");
    assert!(warned, "a password in a URL is easily seen");
    assert!(!gateway.log().contains(SECRET), "{}", gateway.log());
}
