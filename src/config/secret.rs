//! Reads secrets and certificates: each from a file of its own, or from the credentials of systemd.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::Secret;

/// More than any secret or list of authorities; a wrong path may name an endless file.
const MAX_BYTES: u64 = 1 << 20;

/// The secret in the file `name`: a path, or a bare name, which `credentials` may hold.
///
/// One trailing line break is dropped.
pub(super) fn read(name: &str, credentials: Option<&Path>) -> Result<Secret, String> {
    read_path(&path(name, credentials))
}

/// The secret in the file at `path`.
pub(super) fn read_path(path: &Path) -> Result<Secret, String> {
    let text = text_at(path)?;
    let secret =
        text.strip_suffix('\n').map_or(text.as_str(), |s| s.strip_suffix('\r').unwrap_or(s));
    if secret.is_empty() {
        return Err(format!("holds no secret: {} is empty", path.display()));
    }
    Ok(Secret::new(secret.to_owned()))
}

/// The content of the file `name`, found in the same way.
pub(super) fn text(name: &str, credentials: Option<&Path>) -> Result<String, String> {
    text_at(&path(name, credentials))
}

fn text_at(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| format!("cannot be read as {}: {error}", path.display()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!(
            "holds more than {MAX_BYTES} bytes; name a file that holds nothing else"
        ));
    }
    Ok(text)
}

/// A secret that comes in an HTTP header: one line of visible ASCII.
pub(super) fn token(name: &str, credentials: Option<&Path>) -> Result<Secret, String> {
    let secret = read(name, credentials)?;
    if secret.expose().bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(secret);
    }
    Err("holds no bearer token; write one line of visible ASCII characters without spaces".into())
}

/// Where the file `name` is.
pub(super) fn path(name: &str, credentials: Option<&Path>) -> PathBuf {
    let credential = credentials
        .filter(|_| !name.contains('/'))
        .map(|directory| directory.join(name))
        .filter(|path| path.exists());
    credential.unwrap_or_else(|| PathBuf::from(name))
}
