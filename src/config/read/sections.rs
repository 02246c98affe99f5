//! Every section but the routes: each key with its default and its bounds, once.

use std::path::Path;

use super::reader::Reader;
use super::section::{Found, Section};
use super::{address, routes, secret};
use crate::config::fault::{Spot, did_you_mean};
use crate::config::value::{self, Item, Written};
use crate::config::{
    Admin, Config, Limits, Listen, Log, LogFormat, Refuse, Ring, Secret, Server, Source,
};

/// Loopback names: what a page on another site cannot make a browser send as Host.
const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
const SECTIONS: [&str; 10] =
    ["server", "admin", "source", "ring", "limits", "log", "route", "auth.jwt", "cors", "proxy"];
/// Any number: a limit that is as high as one likes.
const ANY: u32 = u32::MAX;

/// The whole configuration. Where there were faults it is not to be used.
pub(super) fn config(reader: &mut Reader<'_>, mut root: Vec<Item>) -> Config {
    let server = server(reader.section(&mut root, "server"));
    let admin = admin(reader.section(&mut root, "admin"), &server.listen);
    let source = source(reader.section(&mut root, "source"));
    let ring = ring(reader.section(&mut root, "ring"), source.max_entry_bytes);
    let limits = limits(reader.section(&mut root, "limits"));
    let log = log(reader.section(&mut root, "log"));
    let routes = routes::routes(reader, &mut root);
    reader.end_of_file(root, &SECTIONS);
    reader.end_of_environment();
    Config { server, admin, source, ring, limits, log, routes, demo: reader.demo }
}

fn server(mut section: Section<'_, '_>) -> Server {
    let hosts: &[&str] = if section.reader.demo { &LOOPBACK_HOSTS } else { &[] };
    let server = Server {
        listen: listeners(&mut section),
        keepalive: section.duration("keepalive", "15s", "1s", "1d"),
        retry: section.duration("retry", "2s", "100ms", "1h"),
        max_connection_age: section.duration_or_never("max_connection_age", "1h", "1s", "365d"),
        drain: section.duration("drain", "20s", "0s", "1h"),
        refuse: section.word("refuse", &[("retry", Refuse::Retry), ("status", Refuse::Status)]).0,
        hosts: section.listed("hosts", hosts, address::host),
        workers: workers(&mut section),
        io_uring: section.flag("io_uring", true),
    };
    section.refuse_later("tls", "server.tls");
    section.end();
    server
}

fn listeners(section: &mut Section<'_, '_>) -> Vec<Listen> {
    let found = section.found("listen", Written::list(["127.0.0.1:8080"]));
    section.show(&found, found.value.to_string());
    let listeners = section.list(&found, address::listen);
    if matches!(&found.value, Written::List(elements) if elements.is_empty()) {
        section.fault(&found, "nowhere to listen; write at least one, as in [\"127.0.0.1:8080\"]");
    }
    for (index, listener) in listeners.iter().enumerate() {
        if listeners[..index].iter().any(|earlier| collide(earlier, listener)) {
            section.fault(&found, "has the same address twice; remove one of them");
        }
    }
    listeners
}

/// Whether two listeners cannot both be bound. Port 0 is another one each time.
fn collide(a: &Listen, b: &Listen) -> bool {
    a == b && !matches!(a, Listen::Tcp(address) if address.port() == 0)
}

fn workers(section: &mut Section<'_, '_>) -> usize {
    const MOST: u32 = 1024;
    match section.count("workers", 0, 0, MOST) {
        0 => {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            section.correct_shown(cores.to_string());
            cores
        }
        workers => workers,
    }
}

fn admin(mut section: Section<'_, '_>, public: &[Listen]) -> Admin {
    let read = |written: &Written| match value::text(written)?.as_str() {
        "" => Ok(None),
        text => address::listen(text).map(Some),
    };
    let (listen, found) = section.read("listen", "127.0.0.1:9464", read);
    let token = secret_in(&mut section, "token_file", secret::token);
    let publish = section.reader.demo;
    let publish = section.flag("publish", publish);
    if listen.as_ref().is_some_and(|listen| public.iter().any(|other| collide(listen, other))) {
        section
            .fault(&found, "is in server.listen too; the admin listener has an address of its own");
    }
    if listen.as_ref().is_some_and(is_reachable) && token.is_none() {
        section.fault(
            &found,
            "is reachable from other machines and unguarded; set admin.token_file, or listen on 127.0.0.1 or \"unix:/path\"",
        );
    }
    section.end();
    Admin { listen, token, publish }
}

/// Whether others than this machine's users can connect.
fn is_reachable(listen: &Listen) -> bool {
    matches!(listen, Listen::Tcp(address) if !address.ip().to_canonical().is_loopback())
}

/// The secret in the file that `key` names; none where it names none.
fn secret_in(
    section: &mut Section<'_, '_>,
    key: &'static str,
    read: fn(&str, Option<&Path>) -> Result<Secret, String>,
) -> Option<Secret> {
    let (name, found) = section.text(key, "");
    if name.is_empty() {
        return None;
    }
    match read(&name, section.reader.credentials.as_deref()) {
        Ok(secret) => Some(secret),
        Err(why) => {
            section.fault(&found, why);
            None
        }
    }
}

fn source(mut section: Section<'_, '_>) -> Source {
    let (url, found) = source_url(&mut section);
    let (username, username_found) = section.text("username", "");
    let password = secret_in(&mut section, "password_file", secret::read);
    if !url.username.is_empty() && !username.is_empty() {
        section.fault(&username_found, "source.url names a user too; name it in one place");
    }
    if url.password.is_some() && password.is_some() {
        section
            .fault(&found, "holds a password although source.password_file is set; keep the file");
    } else if url.password.is_some() {
        section.reader.warn(
            &found,
            "a password in a URL is easily seen; put it in a file and name that in source.password_file",
        );
    }
    for key in ["ca_file", "client_certificate", "client_key"] {
        refuse_unless_empty(&mut section, key);
    }
    let (primary, read_from) = section.word("read_from", &[("primary", true), ("replica", false)]);
    if !primary {
        section.fault(&read_from, "not built yet: this version reads from the server of source.url only; write \"primary\"");
    }
    let source = Source {
        place: url.place,
        username: if username.is_empty() { url.username } else { username },
        password: password.or(url.password),
        read_count: section.count("read_count", 500, 1, 100_000) as u64,
        block: section.duration("block", "5s", "1ms", "1h"),
        max_entry_bytes: section.size_bytes("max_entry", "1MiB", "1B", "512MiB").0,
        linger: section.duration("linger", "30s", "0s", "1d"),
    };
    section.end();
    source
}

/// The one key without a default, and the one whose value may hold a secret.
fn source_url(section: &mut Section<'_, '_>) -> (address::SourceUrl, Found) {
    let embedded = Written::from("memory:");
    let mut found = section.found("url", embedded.clone());
    if found.spot == Spot::Default && !section.reader.demo {
        let whole = section.reader.whole();
        section.reader.missing(
            whole,
            "source.url",
            "missing, and there is no default; write [source] and url = \"redis://127.0.0.1:6379\", or set SSEGATE_SOURCE_URL",
        );
    }
    let read = |written: &Written| value::text(written).and_then(|text| address::source(&text));
    if section.reader.demo && found.spot != Spot::Default && found.value != embedded {
        section.fault(
            &found,
            "--demo fills its own embedded source and no other; leave --demo out, or this",
        );
    }
    let name = found.subject.split(" = ").next().unwrap_or_default().to_owned();
    let url = read(&found.value).map_err(|why| {
        let scheme = value::text(&found.value).ok().and_then(|text| address::scheme(&text));
        found.subject = match scheme {
            Some(scheme) => format!("{name} = \"{scheme}:…\""),
            None => name.clone(),
        };
        section.fault(&found, why);
    });
    let url = url.unwrap_or_else(|()| read(&embedded).expect("the embedded source is valid"));
    let shown = Written::from(url.shown.as_str()).to_string();
    found.subject = format!("{name} = {shown}");
    section.show(&found, shown);
    (url, found)
}

fn refuse_unless_empty(section: &mut Section<'_, '_>, key: &'static str) {
    let (file, found) = section.text(key, "");
    if !file.is_empty() {
        section.fault(
            &found,
            "not built yet: this version does not speak TLS to Redis; leave it empty",
        );
    }
}

fn ring(mut section: Section<'_, '_>, max_entry_bytes: usize) -> Ring {
    let entries = section.count("entries", 10_000, 1, ANY);
    let (bytes, bytes_found) = section.size_bytes("bytes", "8MiB", "1KiB", "1024GiB");
    let (total_bytes, total_found) = section.size_bytes("total_bytes", "256MiB", "1KiB", "1024GiB");
    if total_bytes < bytes {
        section
            .reader
            .warn(&total_found, "less than ring.bytes, which no stream key can reach then");
    }
    if bytes < max_entry_bytes {
        section
            .reader
            .warn(&bytes_found, "less than source.max_entry: such an entry is not kept for replay");
    }
    section.end();
    Ring { entries, bytes, total_bytes }
}

fn limits(mut section: Section<'_, '_>) -> Limits {
    let clients = section.count("clients", 0, 0, ANY);
    let clients_per_ip = section.count("clients_per_ip", 0, 0, ANY);
    refuse_per_principal(&mut section);
    let limits = Limits {
        clients,
        clients_per_ip,
        clients_per_key: section.count("clients_per_key", 0, 0, ANY),
        new_clients_per_second: section.count("new_clients_per_second", 0, 0, ANY),
        readers: section.count("readers", 1000, 1, ANY),
        readers_per_ip: section.count("readers_per_ip", 0, 0, ANY),
        replays: section.count("replays", 8, 1, 10_000),
        header_timeout: section.duration("header_timeout", "10s", "100ms", "1h"),
        write_stall: section.duration("write_stall", "30s", "100ms", "1h"),
        max_lag: section.duration_or_never("max_lag", "0s", "100ms", "365d"),
        send_buffer_bytes: section.size_bytes("send_buffer", "128KiB", "4KiB", "256MiB").0,
    };
    section.end();
    limits
}

fn refuse_per_principal(section: &mut Section<'_, '_>) {
    let read = |written: &Written| value::count(written);
    let (limit, found) = section.read("clients_per_principal", Written::Integer(0), read);
    if limit != 0 {
        section.fault(
            &found,
            "not built yet: this version knows no principals; write 0, and limit clients_per_ip",
        );
    }
}

fn log(mut section: Section<'_, '_>) -> Log {
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    let (format, _) = section.word("format", &formats);
    let (level, _) = section.read("level", "info", |written| filter(value::text(written)?));
    section.end();
    Log { format, level }
}

/// A tracing filter. To the filter's own parser a misspelt level is a target's name.
fn filter(text: String) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let wrong = |why: &str| {
        format!("not a filter: {why}; write a level, as in \"info\", or \"info,ssegate=debug\"")
    };
    if text.trim().is_empty() {
        return Err(wrong("it is empty"));
    }
    for part in text.split(',').map(str::trim) {
        let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part));
        let hint = did_you_mean(part, LEVELS);
        if !is_level && !hint.is_empty() {
            return Err(format!(
                "\"{part}\" is neither a level nor a target with one (as in \"ssegate=debug\"){hint}"
            ));
        }
    }
    match tracing_subscriber::EnvFilter::builder().parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(wrong(&error.to_string())),
    }
}
