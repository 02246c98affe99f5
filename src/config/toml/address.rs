//! Parses addresses to listen on, and hosts to answer.

use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::config::Listen;

/// Longest path that fits a unix socket's address on Linux, its final NUL apart.
const UNIX_PATH_MAX_BYTES: usize = 107;

/// Longest name of a socket that systemd hands over (`sd_pid_notify_with_fds(3)`).
const NAME_MAX_BYTES: usize = 255;

/// `HOST:PORT`, `unix:/path` or `systemd:NAME`. A host name stands for its first address.
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
    addresses
        .next()
        .ok_or_else(|| "resolves to no address; write an address instead of a name".into())
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

pub(super) fn unix_path(path: &str) -> Result<PathBuf, String> {
    let fits = path.len() <= UNIX_PATH_MAX_BYTES && !path.contains('\0');
    if path.starts_with('/') && !path.ends_with('/') && fits {
        return Ok(PathBuf::from(path));
    }
    Err(format!(
        "not a socket's path; write an absolute one of at most {UNIX_PATH_MAX_BYTES} bytes, as in \"unix:/run/ssegate/http.sock\""
    ))
}

/// A host name or address without a port, as the router compares it: lower case, without the dot of the root,
/// IPv6 in brackets.
pub(super) fn host(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.is_empty() || !text.chars().all(allowed) {
        return Err("not a host; write a name or an address, without scheme and port".into());
    }
    Ok(text.to_ascii_lowercase())
}
