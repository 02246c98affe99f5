//! Addresses as written: where to listen, which hosts to answer, where Redis is.

use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::config::{Listen, Place, Secret};

/// Longest path that fits a unix socket's address on Linux, its final NUL apart.
const UNIX_PATH_MAX_BYTES: usize = 107;

const DEFAULT_REDIS_PORT: u16 = 6379;

/// Longest name of a socket that systemd hands over (`sd_pid_notify_with_fds(3)`).
const NAME_MAX_BYTES: usize = 255;

/// `HOST:PORT`, `unix:/path` or `systemd:NAME`. Of a host name with several addresses the first is taken.
pub(super) fn listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(Listen::Unix);
    }
    if let Some(name) = text.strip_prefix("systemd:") {
        return systemd_name(name).map(Listen::Systemd);
    }
    if let Ok(address) = text.parse() {
        return Ok(Listen::Tcp(address));
    }
    resolved(text).map(Listen::Tcp)
}

fn resolved(text: &str) -> Result<SocketAddr, String> {
    let wrong = || {
        String::from(
            "not an address; write \"HOST:PORT\" (every interface: \"0.0.0.0:PORT\" or \"[::]:PORT\"), \"unix:/path\" or \"systemd:NAME\"",
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(wrong());
    }
    let mut addresses =
        (host, port).to_socket_addrs().map_err(|error| format!("cannot be resolved: {error}"))?;
    addresses.next().ok_or_else(|| "resolves to no address; write one instead of a name".into())
}

fn systemd_name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii() && !c.is_ascii_control() && c != ':';
    if !name.is_empty() && name.len() <= NAME_MAX_BYTES && name.chars().all(allowed) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "not a socket's name; write that of FileDescriptorName= in the .socket unit, up to {NAME_MAX_BYTES} ASCII characters without \":\""
    ))
}

fn unix_path(path: &str) -> Result<PathBuf, String> {
    let fits = path.len() <= UNIX_PATH_MAX_BYTES && !path.contains('\0');
    if path.starts_with('/') && !path.ends_with('/') && fits {
        return Ok(PathBuf::from(path));
    }
    Err(format!(
        "not a socket's path; write an absolute one of at most {UNIX_PATH_MAX_BYTES} bytes, as in \"unix:/run/ssegate/http.sock\""
    ))
}

/// A host name or address without a port, as a router compares it: lower case, IPv6 in brackets.
pub(super) fn host(text: &str) -> Result<String, String> {
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.is_empty() || !text.chars().all(allowed) {
        return Err("not a host; write a name or an address, without scheme and port".into());
    }
    Ok(text.to_ascii_lowercase())
}

/// A source's URL as meant.
#[derive(Debug, PartialEq)]
pub(super) struct SourceUrl {
    pub(super) place: Place,
    /// Empty: none.
    pub(super) username: String,
    pub(super) password: Option<Secret>,
    /// The URL with its password masked.
    pub(super) shown: String,
}

/// `memory:`, `redis://[user[:password]@]host[:port][/database]`, `redis+unix:///path[?db=N]`.
///
/// What is wrong is told without the URL, which may hold a password.
pub(super) fn source(text: &str) -> Result<SourceUrl, String> {
    if text == "memory:" {
        let shown = text.to_owned();
        return Ok(SourceUrl {
            place: Place::Memory,
            username: String::new(),
            password: None,
            shown,
        });
    }
    let scheme = scheme(text).unwrap_or_default();
    match scheme.as_str() {
        "redis" => redis(&parsed(text)?),
        "redis+unix" => redis_unix(&parsed(text)?),
        "rediss" => Err(later("TLS to Redis", "use redis:// through a tunnel, or redis+unix://")),
        "redis-sentinel" | "redis-cluster" => {
            Err(later(&format!("{scheme}://"), "name one server with redis://"))
        }
        "memory" => Err("not a source; the embedded one is just \"memory:\"".into()),
        _ => {
            Err("not a source; write \"redis://HOST:PORT\", \"redis+unix:///path\" or \"memory:\""
                .into())
        }
    }
}

fn later(what: &str, instead: &str) -> String {
    format!("not built yet: this version does not speak {what}; {instead}")
}

/// What of a URL that cannot be read may be shown.
pub(super) fn scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once(':')?;
    let known = scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+' || c == '-');
    known.then(|| scheme.to_ascii_lowercase())
}

fn parsed(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| {
        format!(
            "not a URL: {error}; a \"/\", \"@\", \"?\" or \"#\" in a password is percent-encoded"
        )
    })?;
    if url.fragment().is_some() {
        return Err("has a fragment; \"#\" in a password is written %23".into());
    }
    Ok(url)
}

fn redis(url: &Url) -> Result<SourceUrl, String> {
    let host = url.host_str().unwrap_or_default();
    if host.is_empty() || host.contains('%') {
        return Err("has no host; write \"redis://HOST:PORT\"".into());
    }
    if url.query().is_some() {
        return Err(
            "has a query; redis:// takes none (the database is the path: \"redis://HOST:PORT/0\")"
                .into(),
        );
    }
    let place = Place::Tcp {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port().unwrap_or(DEFAULT_REDIS_PORT),
        database: database(url.path().trim_start_matches('/'))?,
    };
    let decoded = |text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(String::from("has a user or password that is not UTF-8 once decoded")),
    };
    let mut masked = url.clone();
    if url.password().is_some() {
        masked.set_password(Some("MASKED")).expect("a URL with a host takes a password");
    }
    Ok(SourceUrl {
        place,
        username: decoded(url.username())?,
        password: url.password().map(decoded).transpose()?.map(Secret::new),
        shown: masked.into(),
    })
}

fn redis_unix(url: &Url) -> Result<SourceUrl, String> {
    if url.host_str().is_some_and(|host| !host.is_empty()) {
        return Err(
            "has a host; a socket's path follows three slashes: \"redis+unix:///run/redis.sock\""
                .into(),
        );
    }
    let mut chosen = "0".to_owned();
    for (name, value) in url.query_pairs() {
        if name != "db" {
            return Err("has an unknown parameter; the only one is db, as in \"?db=1\"".into());
        }
        chosen = value.into_owned();
    }
    let path = percent_decode_str(url.path()).decode_utf8_lossy();
    Ok(SourceUrl {
        place: Place::Unix { path: unix_path(&path)?, database: database(&chosen)? },
        username: String::new(),
        password: None,
        shown: url.to_string(),
    })
}

fn database(text: &str) -> Result<u8, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| "has a database that is not a number from 0 to 255".into())
}
