//! What gateway.toml and the environment are read as.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostics::Location;
use super::*;
use crate::sse::{Data, EventName};

mod cors;
mod environment;
mod identity;
mod jwt;
mod limits;
mod merge;
mod proxy;
mod publish;
mod refused;
mod rows;
mod rules;
mod source;

const SHIPPED: &str = include_str!("../../../gateway.toml");
const MINIMAL: &str = r#"
[source]
url = "redis://127.0.0.1:6379"
[[route]]
path = "/events/{name}"
key = "events:{name}"
access = "public"
"#;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn read(text: &str) -> Loaded {
    parse(text, "gateway.toml", &[], false).unwrap_or_else(|faults| panic!("{faults}"))
}

/// [`MINIMAL`] under the environment `pairs`.
fn under(pairs: &[(&str, &str)]) -> Result<Loaded, Faults> {
    parse(MINIMAL, "gateway.toml", &env(pairs), false)
}

/// A minimal configuration with this `[source]`.
fn with_source(source: &str) -> Result<Loaded, Faults> {
    let route = MINIMAL.split_once("[[route]]").unwrap().1;
    parse(&format!("[source]\n{source}\n[[route]]{route}"), "gateway.toml", &[], false)
}

/// A minimal configuration with `lines` in its route.
fn with_route(lines: &str) -> Result<Loaded, Faults> {
    parse(&format!("{MINIMAL}{lines}\n"), "gateway.toml", &[], false)
}

fn setting<'a>(loaded: &'a Loaded, section: &str, key: &str) -> &'a Setting {
    let wanted = |setting: &&Setting| setting.section == section && setting.key == key;
    loaded.settings.iter().find(wanted).unwrap()
}

/// A file in a directory of its own, for the test that calls itself `name`.
fn scratch_file(name: &str, content: &[u8]) -> PathBuf {
    let directory =
        std::env::temp_dir().join(format!("ssegate-config-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("file");
    std::fs::write(&path, content).unwrap();
    path
}

fn remove(file: &Path) {
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}

#[test]
fn the_shipped_file_holds_every_key_at_its_default() {
    let (shipped, minimal) = (read(SHIPPED), read(MINIMAL));
    assert_eq!(shipped.config, minimal.config);
    assert_eq!(shipped.warnings, []);
    let keys = |loaded: &Loaded| -> Vec<_> {
        loaded.settings.iter().map(|setting| (setting.section, setting.key)).collect()
    };
    assert_eq!(keys(&shipped), keys(&minimal));
    for setting in &shipped.settings {
        let written = matches!(setting.location, Location::File { .. });
        assert!(written, "{}.{} is not in the shipped file", setting.section, setting.key);
        let default = minimal.settings.iter().find(|s| s.key == setting.key).unwrap();
        assert!(setting.section != default.section || setting.value == default.value);
    }
}

#[test]
fn every_key_is_read() {
    let text = r#"
        [server]
        listen = ["127.0.0.1:0", "[::1]:8080", "unix:/run/ssegate.sock", "systemd:http"]
        keepalive = "5s"
        max_connection_age = "0s"
        refuse = "status"
        hosts = ["Example.org", "[::1]", "::2"]
        workers = 3
        [admin]
        listen = ""
        [source]
        url = "redis+unix:///run/redis.sock?db=3"
        max_entry = 1024
        [limits]
        clients_per_key = 7
        [log]
        format = "json"
        level = "warn,ssegate=debug"
        [[route]]
        path = "/a"
        key = "a"
        access = "public"
        event = { field = "type", otherwise = "other" }
        data = ["x", "y"]
        missing = false
        replay = "all"
        signals = "event"
    "#;
    let Config { server, admin, source, limits, log, routes, .. } = read(text).config;
    let unix = Listen::Unix("/run/ssegate.sock".into());
    let tcp = |address: &str| Listen::Tcp(address.parse().unwrap());
    let named = Listen::Systemd("http".into());
    assert_eq!(server.listen, [tcp("127.0.0.1:0"), tcp("[::1]:8080"), unix, named]);
    assert_eq!(
        (server.keepalive, server.max_connection_age),
        (Duration::from_secs(5), Duration::ZERO)
    );
    assert_eq!((server.refuse, server.workers), (Refuse::Status, 3));
    assert_eq!(server.hosts, ["example.org", "[::1]", "[::2]"]);
    assert_eq!(admin.listen, None);
    let address = Address::Unix("/run/redis.sock".into());
    assert_eq!(source.location, SourceLocation::Server { address, database: 3 });
    assert_eq!((source.max_entry_bytes, limits.clients_per_key), (1024, 7));
    assert_eq!((log.format, log.level.as_str()), (LogFormat::Json, "warn,ssegate=debug"));
    let route = &routes[0];
    let event = EventName::Field { field: "type".into(), otherwise: "other".into() };
    assert_eq!(route.rules.rendering.event, event);
    assert_eq!(route.rules.rendering.data, Data::Fields(vec!["x".into(), "y".into()]));
    assert_eq!(route.rules.rendering.missing, None);
    assert_eq!((route.replay, route.rules.signals), (Replay::All, Signals::Event));
}

#[test]
fn zero_workers_means_one_per_core() {
    let loaded = read(MINIMAL);
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(loaded.config.server.workers, cores);
    assert_eq!(setting(&loaded, "server", "workers").value, cores.to_string());
    assert_eq!(loaded.config.limits.clients, 0);
}

#[test]
fn sources_are_read() {
    let place =
        |url: &str| with_source(&format!("url = \"{url}\"")).unwrap().config.source.location;
    let at = |host: &str, port| Address::Tcp(host.into(), port);
    let server = |address, database| SourceLocation::Server { address, database };
    assert_eq!(place("memory:"), SourceLocation::Memory);
    assert_eq!(place("redis://redis"), server(at("redis", 6379), 0));
    assert_eq!(place("redis://[::1]:7000/2"), server(at("::1", 7000), 2));
    assert_eq!(place("redis+unix:///a%20b"), server(Address::Unix("/a b".into()), 0));
    let sentinels = vec![at("a", 26379), at("::1", 5), at("c", 26379)];
    let name = "my:master".to_owned();
    assert_eq!(
        place("redis-sentinel://a,[::1]:5,c/my%3Amaster/3"),
        SourceLocation::Sentinel { sentinels: sentinels.clone(), name, database: 3 }
    );
    let one = vec![at("a", 26379)];
    let name = "mine".to_owned();
    assert_eq!(
        place("redis-sentinel://a/mine"),
        SourceLocation::Sentinel { sentinels: one, name, database: 0 }
    );
    let nodes = vec![at("a", 6379), at("b", 7)];
    assert_eq!(
        place("redis-cluster://a,b:7"),
        SourceLocation::Cluster { nodes: nodes.clone(), database: 0 }
    );
    assert_eq!(place("redis-cluster://a,b:7/0"), SourceLocation::Cluster { nodes, database: 0 });
}

#[test]
fn a_login_goes_to_every_server_and_its_password_is_masked() {
    let loaded = with_source("url = \"redis-cluster://me:p%2C%40w@a:1,b:2\"").unwrap();
    let source = &loaded.config.source;
    let password = source.password.as_ref().unwrap().current();
    assert_eq!((source.username.as_str(), password.expose()), ("me", "p,@w"));
    let shown = &setting(&loaded, "source", "url").value;
    assert_eq!(shown, "\"redis-cluster://me:MASKED@a:1,b:2\"");
    assert_eq!(source.location.to_string(), "redis-cluster://a:1,b:2");
}

#[test]
fn the_environment_overrides_the_file() {
    let loaded = under(&[
        ("SSEGATE_SOURCE_URL", "memory:"),
        ("SSEGATE_SERVER_LISTEN", "127.0.0.1:1, unix:/a"),
        ("SSEGATE_SERVER_HOSTS", ""),
        ("SSEGATE_ADMIN_LISTEN", ""),
        ("SSEGATE_ADMIN_PUBLISH", "true"),
        ("SSEGATE_RING_ENTRIES", "5"),
        ("SSEGATE_RING_BYTES", "2097152"),
        ("SSEGATE_LOG_LEVEL", "debug"),
        ("SSEGATED", "is somebody else's"),
        ("HOME", "/"),
    ])
    .unwrap();
    let config = &loaded.config;
    assert_eq!(config.source.location, SourceLocation::Memory);
    let unix = Listen::Unix("/a".into());
    assert_eq!(config.server.listen, [Listen::Tcp("127.0.0.1:1".parse().unwrap()), unix]);
    assert_eq!((config.admin.listen.as_ref(), config.admin.publish), (None, true));
    assert_eq!((config.ring.entries, config.ring.bytes), (5, 2 << 20));
    assert_eq!(config.log.level, "debug");
    let url = Location::Variable("SSEGATE_SOURCE_URL".into());
    assert_eq!(setting(&loaded, "source", "url").location, url);
    assert_eq!(setting(&loaded, "source", "block").location, Location::Default);
}

#[test]
fn a_demo_needs_no_file() {
    let loaded = load(None, true, &[]).unwrap();
    let Config { server, admin, source, routes, demo, .. } = &loaded.config;
    assert_eq!(loaded.file, ConfigFile::Demo);
    assert_eq!(
        (source.location.clone(), admin.publish, *demo),
        (SourceLocation::Memory, true, true)
    );
    assert_eq!(server.hosts, ["localhost", "127.0.0.1", "[::1]"]);
    // The more specific first.
    assert_eq!(routes[1..], read(MINIMAL).config.routes);
    assert_eq!(routes[0].path.as_str(), "/events/services");
    assert!(routes[0].rules.snapshot.is_some());
    assert_eq!(setting(&loaded, "route", "path").location, Location::Demo);
}

#[test]
fn a_demo_adds_what_a_file_does_not_set() {
    let loaded = parse("[admin]\npublish = false", "f", &[], true).unwrap();
    assert!(!loaded.config.admin.publish);
    assert_eq!(loaded.config.source.location, SourceLocation::Memory);
}

#[test]
fn a_demo_never_writes_its_samples_into_redis() {
    let faults = parse(MINIMAL, "f", &[], true).unwrap_err().to_string();
    assert!(faults.contains("--demo fills its own embedded source"), "{faults}");
    let env = [("SSEGATE_SOURCE_URL".to_owned(), "redis://h".to_owned())];
    assert!(parse("", "", &env, true).is_err());
}

#[test]
fn a_named_file_is_read_or_a_fault() {
    let file = scratch_file("named", SHIPPED.as_bytes());
    let loaded = load(Some(&file), false, &[]).unwrap();
    assert_eq!(loaded.file, ConfigFile::At(file.clone()));
    remove(&file);
    let faults = load(Some(&file), false, &[]).unwrap_err().to_string();
    assert!(faults.contains("file: cannot be read: No such file"), "{faults}");
}

#[test]
fn secrets_come_from_files() {
    let file = scratch_file("secret", b"hunter2\r\n");
    let source = format!("url = \"redis://h\"\npassword_file = {:?}", file.to_str().unwrap());
    let loaded = with_source(&source).unwrap();
    let secret = |loaded: &Loaded| loaded.config.source.password.clone().unwrap().current();
    assert_eq!(secret(&loaded).expose(), "hunter2");
    assert!(!format!("{loaded:?}{}", print::print(&loaded)).contains("hunter2"));

    let directory = file.parent().unwrap().to_str().unwrap();
    let loaded =
        under(&[("CREDENTIALS_DIRECTORY", directory), ("SSEGATE_SOURCE_PASSWORD_FILE", "file")]);
    assert_eq!(secret(&loaded.unwrap()).expose(), "hunter2");
    remove(&file);
}

#[test]
fn one_trailing_line_break_is_dropped() {
    let file = scratch_file("breaks", b"a\n\n");
    let source = format!("url = \"redis://h\"\npassword_file = {:?}", file.to_str().unwrap());
    let password = with_source(&source).unwrap().config.source.password.unwrap().current();
    assert_eq!(password.expose(), "a\n");
    remove(&file);
}

#[test]
fn a_password_in_the_url_is_used_warned_about_and_masked() {
    let loaded = with_source(r#"url = "redis://me:hunter%202@h:1/4""#).unwrap();
    let source = &loaded.config.source;
    assert_eq!(
        (source.username.as_str(), source.password.as_ref().unwrap().current().expose()),
        ("me", "hunter 2")
    );
    let mut passwords = loaded.warnings.iter().filter(|w| w.message.contains("a password"));
    let (Some(warning), None) = (passwords.next(), passwords.next()) else {
        panic!("{:?}", loaded.warnings)
    };
    let begin = "gateway.toml:2:7: source.url = \"redis://me:MASKED@h:1/4\": a password in a URL";
    assert!(warning.to_string().starts_with(begin), "{warning}");
    assert_eq!(setting(&loaded, "source", "url").value, "\"redis://me:MASKED@h:1/4\"");
    assert!(!format!("{loaded:?}{}", print::print(&loaded)).contains("hunter"));
}

#[test]
fn each_unsafe_choice_is_warned_about_where_it_is_made() {
    let token = scratch_file("open-publish", b"secret");
    let admin = format!(
        "[admin]\nlisten = \"0.0.0.0:1\"\npublish = true\ntoken_file = {:?}\n",
        token.to_str().unwrap()
    );
    let redis = "redis-cluster://127.0.0.1:1,redis.example:1";
    let choices = [
        ("public_route", "server.listen", format!("[server]\nlisten = [\"0.0.0.0:80\"]{MINIMAL}")),
        ("cors_any_origin", "cors.origins", format!("[cors]\norigins = [\"*\"]{MINIMAL}")),
        ("open_publish", "admin.publish", admin + MINIMAL),
        ("query_token", "auth.jwt.from", format!("[auth.jwt]\nfrom = [\"query:t\"]{MINIMAL}")),
        ("plain_redis", "source.url", MINIMAL.replace("redis://127.0.0.1:6379", redis)),
    ];
    for (choice, setting, text) in choices {
        let loaded = parse(&text, "f", &[], false).unwrap();
        let made: Vec<_> = loaded.config.risks().iter().map(|risk| risk.choice).collect();
        assert_eq!(made, [choice]);
        let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
        assert!(warning.to_string().starts_with("f:") && warning.subject.starts_with(setting));
    }
    assert_eq!(parse(MINIMAL, "f", &[], false).unwrap().config.risks(), []);
    remove(&token);
}

#[test]
fn suspicious_settings_are_warned_about() {
    let warnings = |loaded: Result<Loaded, Faults>| -> Vec<String> {
        loaded.unwrap().warnings.iter().map(ToString::to_string).collect()
    };
    let open = warnings(with_route("event = \"open\""));
    assert!(
        open[0].starts_with("gateway.toml:8:9: route.event = \"open\": EventSource"),
        "{open:?}"
    );
    let error = warnings(with_route("event = { field = \"t\", otherwise = \"error\" }"));
    assert!(error[0].contains("its own events of the type \"error\""), "{error:?}");
    assert!(error[1].contains("a value of the field \"t\" may be"), "{error:?}");
    assert_eq!(error.len(), 2);
    assert_eq!(warnings(with_route("event = \"log\"")), [""; 0]);
    let unused = warnings(parse(&MINIMAL.replace("events:{name}", "fixed"), "f", &[], false));
    assert!(unused[0].contains("{name} is not used in the key"), "{unused:?}");
    let bare = warnings(parse(&MINIMAL.replace("events:{name}", "{name}"), "f", &[], false));
    assert!(bare[0].contains("name every Redis key"), "{bare:?}");
    let ring = warnings(under(&[("SSEGATE_RING_BYTES", "1KiB")]));
    assert!(
        ring[0].starts_with("environment: SSEGATE_RING_BYTES = \"1KiB\": less than"),
        "{ring:?}"
    );
}

#[test]
fn the_more_specific_route_comes_first() {
    let route =
        |path: &str| format!("[[route]]\npath = \"{path}\"\nkey = \"k\"\naccess = \"public\"\n");
    let text = ["/{a}/{b}", "/{a}/{b}/z", "/x/y", "/x/{b}", "/x"].map(route).concat();
    let routes = read(&format!("[source]\nurl = \"memory:\"\n{text}")).config.routes;
    let first = |path: &str| {
        let route = routes.iter().find(|route| route.path.matches(path).is_some());
        route.unwrap().path.as_str()
    };
    assert_eq!(
        ["/x/y", "/x/z", "/z/y", "/z/y/z"].map(first),
        ["/x/y", "/x/{b}", "/{a}/{b}", "/{a}/{b}/z"]
    );
}

#[test]
fn what_is_printed_reads_back_equal() {
    let text = format!("{MINIMAL}missing = \"a\\\"\\n\\u007F\\\\\"\nevent = {{ field = \"t\" }}\n");
    let text =
        format!("{text}[[route]]\npath = \"/b\"\nkey = \"b{{{{}}}}\"\naccess = \"public\"\n");
    let loaded = parse(&text, "gateway.toml", &env(&[("SSEGATE_SERVER_RETRY", "3s")]), false);
    let loaded = loaded.unwrap();
    let printed = print::print(&loaded);
    assert_eq!(read(&printed).config, loaded.config, "{printed}");
    for line in
        ["# SSEGATE_SERVER_RETRY", "# gateway.toml:3\n", "  # default\n", "read: gateway.toml\n"]
    {
        assert!(printed.contains(line), "{line} is not in:\n{printed}");
    }
}
