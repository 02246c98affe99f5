//! Parses `source.url`: where Redis is, and which parts of the URL may be shown.

use percent_encoding::percent_decode_str;
use url::Url;

use super::address::unix_path;
use crate::config::{Address, Secret, SourceLocation};

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26379;

/// The parts of a source's URL.
#[derive(Debug, PartialEq)]
pub(super) struct SourceUrl {
    pub(super) location: SourceLocation,
    /// Whether the servers speak TLS.
    pub(super) tls: bool,
    /// Empty: none.
    pub(super) username: String,
    pub(super) password: Option<Secret>,
    /// The URL with its password masked, or its user where it has no password.
    pub(super) shown: String,
}

/// `memory:`, `redis+unix:///path[?db=N]`, or with TLS as `rediss…`:
/// `redis://[user[:password]@]host[:port][/database]`,
/// `redis-sentinel://[user[:password]@]host[:port],…/name[/database]`,
/// `redis-cluster://[user[:password]@]host[:port],…[/database]`.
///
/// Errors do not quote the URL, which may hold a password.
pub(super) fn source(text: &str) -> Result<SourceUrl, String> {
    if text == "memory:" {
        return Ok(SourceUrl {
            location: SourceLocation::Memory,
            tls: false,
            username: String::new(),
            password: None,
            shown: text.to_owned(),
        });
    }
    match scheme(text).unwrap_or_default().as_str() {
        "redis" | "rediss" => redis(text),
        "redis+unix" => redis_unix(&parsed(text)?),
        "redis-sentinel" | "rediss-sentinel" => sentinel(text),
        "redis-cluster" | "rediss-cluster" => cluster(text),
        "memory" => Err("not a source; the embedded one is just \"memory:\"".into()),
        _ => Err("not a source; write \"redis://HOST:PORT\" (with TLS: rediss://), \"redis+unix:///path\", \"redis-sentinel://HOST:PORT,HOST:PORT/NAME\", \"redis-cluster://HOST:PORT,HOST:PORT\" or \"memory:\"".into()),
    }
}

/// The scheme: the only part of an unreadable URL that may be shown.
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

fn redis(text: &str) -> Result<SourceUrl, String> {
    let url = parsed(text)?;
    let address = address(&url, DEFAULT_PORT)?;
    let database = database(url.path().trim_start_matches('/'))?;
    read(&url, &[], SourceLocation::Server { address, database })
}

fn sentinel(text: &str) -> Result<SourceUrl, String> {
    let (url, others) = list(text)?;
    let sentinels = addresses(&url, &others, DEFAULT_SENTINEL_PORT)?;
    let path = url.path();
    let mut path = path.strip_prefix('/').unwrap_or(path).split('/');
    let name = percent_decode_str(path.next().unwrap_or_default()).decode_utf8_lossy().into_owned();
    if name.is_empty() {
        return Err("has no name; write the name that the sentinels have for the primary, as in \"redis-sentinel://HOST:PORT,HOST:PORT/mymaster\"".into());
    }
    let database = database(path.next().unwrap_or_default())?;
    if path.next().is_some() {
        return Err(
            "has too long a path; write the name of the primary, then at most a database".into()
        );
    }
    read(&url, &others, SourceLocation::Sentinel { sentinels, name, database })
}

fn cluster(text: &str) -> Result<SourceUrl, String> {
    let (url, others) = list(text)?;
    let nodes = addresses(&url, &others, DEFAULT_PORT)?;
    // Which databases there are, the servers know.
    let database = database(url.path().trim_start_matches('/'))?;
    read(&url, &others, SourceLocation::Cluster { nodes, database })
}

/// The URL with the first of its hosts, and the other hosts.
fn list(text: &str) -> Result<(Url, Vec<Url>), String> {
    let (scheme, rest) = text.split_once("://").ok_or("not a URL: it has no host")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let hosts = authority.rfind('@').map_or(0, |at| at + 1);
    let (user, hosts) = authority.split_at(hosts);
    let mut hosts = hosts.split(',');
    let first = hosts.next().unwrap_or_default();
    let url = parsed(&format!("{scheme}://{user}{first}{path}"))?;
    let others = hosts.map(|host| parsed(&format!("{scheme}://{host}")));
    Ok((url, others.collect::<Result<_, _>>()?))
}

fn addresses(first: &Url, others: &[Url], default_port: u16) -> Result<Vec<Address>, String> {
    std::iter::once(first).chain(others).map(|url| address(url, default_port)).collect()
}

fn address(url: &Url, default_port: u16) -> Result<Address, String> {
    let host = url.host_str().unwrap_or_default();
    if host.is_empty() || host.contains(['%', ',']) {
        return Err("has no host, or an empty one; write \"HOST:PORT\" after \"://\"".into());
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Address::Tcp(host, url.port().unwrap_or(default_port)))
}

fn read(url: &Url, others: &[Url], location: SourceLocation) -> Result<SourceUrl, String> {
    if url.query().is_some() {
        return Err("has a query; it takes none (the database is the path's last part)".into());
    }
    let decoded = |text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(String::from("has a user or password that is not UTF-8 once decoded")),
    };
    let mut masked = url.clone();
    if url.password().is_some() {
        masked.set_password(Some("MASKED")).expect("a URL with a host takes a password");
    } else if !url.username().is_empty() {
        // A password in the user's place is a common slip.
        masked.set_username("MASKED").expect("a URL with a host takes a user");
    }
    let (head, path) = masked.as_str().split_at(masked[..url::Position::AfterPort].len());
    let others = others
        .iter()
        .map(|url| format!(",{}", &url[url::Position::BeforeHost..url::Position::AfterPort]));
    Ok(SourceUrl {
        location,
        tls: url.scheme().starts_with("rediss"),
        username: decoded(url.username())?,
        password: url.password().map(decoded).transpose()?.map(Secret::new),
        shown: format!("{head}{}{path}", others.collect::<String>()),
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
    let address = Address::Unix(unix_path(&path)?);
    Ok(SourceUrl {
        location: SourceLocation::Server { address, database: database(&chosen)? },
        tls: false,
        username: String::new(),
        password: None,
        shown: url.to_string(),
    })
}

fn database(text: &str) -> Result<u32, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| "has a path that is no number of a database".into())
}
