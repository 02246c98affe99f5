//! Reads every section but the source, the routes and a few others: each key with its default and bounds.

use super::reader::ConfigReader;
use super::rules::OtherSections;
use super::section::Section;
use super::{address, cors, identity, jwt, merge, proxy, routes, source};
use crate::config::diagnostics::did_you_mean;
use crate::config::units::{self, Item, WrittenValue};
use crate::config::{
    Admin, Config, Limits, Listen, Log, LogFormat, Refuse, Ring, Server, SourceLocation, secret,
};

/// The loopback names: no page of another site can make a browser send one as Host.
const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
const SECTIONS: [&str; 11] = [
    "server",
    "server.tls",
    "admin",
    "source",
    "ring",
    "limits",
    "log",
    "route",
    "auth.jwt",
    "cors",
    "proxy",
];
/// The upper bound of limits that may be as high as the operator likes.
const ANY: u32 = u32::MAX;

/// The whole configuration; after a fault it must not be used.
pub(super) fn config(reader: &mut ConfigReader<'_>, mut root: Vec<Item>) -> Config {
    let server = server(Section::take(reader, &mut root, "server"));
    let admin = admin(Section::take(reader, &mut root, "admin"), &server.listen);
    let source = source::source(Section::take(reader, &mut root, "source"));
    let ring = ring(Section::take(reader, &mut root, "ring"), source.max_entry_bytes);
    let limits = limits(Section::take(reader, &mut root, "limits"));
    let cors = cors::cors(Section::take(reader, &mut root, "cors"));
    let proxy = proxy::proxy(
        Section::take(reader, &mut root, "proxy"),
        &server.listen,
        admin.listen.as_ref(),
    );
    let log = log(Section::take(reader, &mut root, "log"));
    let (jwt, has_keys) =
        jwt::jwt(Section::take_within(reader, &mut root, ("auth", "jwt"), "auth.jwt"));
    let others = OtherSections {
        has_keys,
        tokens: &jwt.from,
        block: source.block,
        max_entry_bytes: source.max_entry_bytes,
        is_embedded: source.location == SourceLocation::Memory,
        is_cluster: matches!(source.location, SourceLocation::Cluster { .. }),
    };
    let routes = routes::routes(reader, &mut root, others);
    merge::check_tokens(reader, &jwt, &routes);
    reader.end_of_file(root, &SECTIONS);
    reader.end_of_environment();
    let demo = reader.demo;
    Config { server, admin, source, ring, limits, cors, proxy, log, jwt, routes, demo }
}

fn server(mut section: Section<'_, '_>) -> Server {
    let hosts: &[&str] = if section.reader.demo { &LOOPBACK_HOSTS } else { &[] };
    let listen = listeners(&mut section);
    let mut server = Server {
        listen,
        keepalive: section.duration("keepalive", "15s", "1s", "1d"),
        retry: section.duration("retry", "2s", "100ms", "1h"),
        max_connection_age: section.duration_or_never("max_connection_age", "1h", "1s", "365d"),
        drain: section.duration("drain", "20s", "0s", "1h"),
        refuse: section.word("refuse", &[("retry", Refuse::Retry), ("status", Refuse::Status)]).0,
        hosts: section.listed("hosts", hosts, address::host),
        workers: workers(&mut section),
        io_uring: section.flag("io_uring", true),
        tls: None,
    };
    server.tls = identity::identity(section.section("tls", "server.tls"), &server.listen);
    section.end();
    server
}

fn listeners(section: &mut Section<'_, '_>) -> Vec<Listen> {
    let found = section.found("listen", WrittenValue::list(["127.0.0.1:8080"]));
    section.show(&found, found.value.to_string());
    let listeners = section.list(&found, address::listen);
    if matches!(&found.value, WrittenValue::List(elements) if elements.is_empty()) {
        section.fault(
            &found,
            "nowhere to listen; write at least one address, as in [\"127.0.0.1:8080\"]",
        );
    }
    for (index, listener) in listeners.iter().enumerate() {
        if listeners[..index].iter().any(|earlier| collide(earlier, listener)) {
            section.fault(&found, "has the same address twice; remove one of them");
        }
    }
    listeners
}

/// Whether two listeners cannot both be bound; port 0 is another port each time.
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
    let read = |written: &WrittenValue| match units::text(written)?.as_str() {
        "" => Ok(None),
        text => address::listen(text).map(Some),
    };
    let (listen, found) = section.read("listen", "127.0.0.1:9464", read);
    let token = section.secret("token_file", secret::token);
    let publish = section.reader.demo;
    let publish = section.flag("publish", publish);
    if listen.as_ref().is_some_and(|listen| public.iter().any(|other| collide(listen, other))) {
        section.fault(&found, "is in server.listen too; the admin listener needs its own address");
    }
    if listen.as_ref().is_some_and(Listen::is_reachable) && token.is_none() {
        section.fault(
            &found,
            "is reachable from other machines and unguarded; set admin.token_file, or listen on 127.0.0.1 or \"unix:/path\"",
        );
    }
    section.end();
    Admin { listen, token, publish }
}

fn ring(mut section: Section<'_, '_>, max_entry_bytes: usize) -> Ring {
    let entries = section.count("entries", 10_000, 1, ANY);
    let (bytes, bytes_found) = section.size_bytes("bytes", "8MiB", "1KiB", "1024GiB");
    let (total_bytes, total_found) = section.size_bytes("total_bytes", "256MiB", "1KiB", "1024GiB");
    if total_bytes < bytes {
        section.warn(&total_found, "less than ring.bytes: no stream key can use that many");
    }
    if bytes < max_entry_bytes {
        section.warn(
            &bytes_found,
            "less than source.max_entry: entries of that size are not kept for replay",
        );
    }
    section.end();
    Ring { entries, bytes, total_bytes }
}

fn limits(mut section: Section<'_, '_>) -> Limits {
    let clients = section.count("clients", 0, 0, ANY);
    let clients_per_ip = section.count("clients_per_ip", 0, 0, ANY);
    let clients_per_principal = section.count("clients_per_principal", 0, 0, ANY);
    let clients_per_key = section.count("clients_per_key", 0, 0, ANY);
    let selections_per_key = section.count("selections_per_key", 10_000, 1, ANY);
    let new_clients_per_second = section.count("new_clients_per_second", 0, 0, ANY);
    let new_clients_per_second_per_ip = section.count("new_clients_per_second_per_ip", 0, 0, ANY);
    let readers = section.count("readers", 10_000, 1, ANY);
    let limits = Limits {
        clients,
        clients_per_ip,
        clients_per_principal,
        clients_per_key,
        selections_per_key,
        new_clients_per_second,
        new_clients_per_second_per_ip,
        readers,
        readers_per_ip: readers_per_ip(&mut section, readers),
        readers_per_principal: section.count("readers_per_principal", 0, 0, ANY),
        pending: section.count("pending", 0, 0, ANY),
        replays: section.count("replays", 8, 1, 10_000),
        header_bytes: section.size_bytes("header_bytes", "32KiB", "8KiB", "256KiB").0,
        header_timeout: section.duration("header_timeout", "10s", "100ms", "1h"),
        write_stall: section.duration("write_stall", "30s", "100ms", "1h"),
        max_lag: section.duration_or_never("max_lag", "0s", "100ms", "365d"),
        send_buffer_bytes: section.size_bytes("send_buffer", "128KiB", "4KiB", "256MiB").0,
    };
    section.end();
    limits
}

/// By default one address gets a quarter of the readers: it cannot use up all of them with invented names.
fn readers_per_ip(section: &mut Section<'_, '_>, readers: usize) -> usize {
    match section.count("readers_per_ip", 0, 0, ANY) {
        0 => {
            let share = readers.div_ceil(4);
            section.correct_shown(share.to_string());
            share
        }
        readers_per_ip => readers_per_ip,
    }
}

fn log(mut section: Section<'_, '_>) -> Log {
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    let (format, _) = section.word("format", &formats);
    let (level, _) = section.read("level", "info", |written| filter(units::text(written)?));
    let access = section.flag("access", false);
    section.end();
    Log { format, level, access }
}

/// A tracing filter. Its own parser takes a misspelt level for the name of a target.
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
