//! Reads `[source]`: where Redis is, how to log in, and which of its servers to read from.

use std::time::Duration;

use super::section::{Found, Section};
use super::{source_url, tls};
use crate::config::diagnostics::Location;
use crate::config::password::Password;
use crate::config::units::{self, WrittenValue};
use crate::config::{ReadFrom, Secret, Source, SourceLocation, Tls, secret};

/// Connections that are silent for longer than this are dropped by much of what stands between servers.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

pub(super) fn source(mut section: Section<'_, '_>) -> Source {
    let (url, found) = source_url(&mut section);
    let (username, password) = login(&mut section, &url, &found);
    let (sentinel_username, sentinel_password) = sentinel_login(&mut section, &url.location);
    let tls = tls(&mut section, url.tls);
    let words = [("primary", ReadFrom::Primary), ("replica", ReadFrom::Replica)];
    let (read_from, read_from_found) = section.word("read_from", &words);
    if url.location == SourceLocation::Memory && read_from == ReadFrom::Replica {
        section.fault(&read_from_found, "the embedded source has no replica; write \"primary\"");
    }
    let (block, block_found) = section.duration_found("block", "5s", "1ms", "1h");
    if block > LONGEST_SILENCE {
        section.warn(
            &block_found,
            "a connection is silent for so long while nothing is added, and balancers and firewalls drop silent connections, many after a minute; write 60s or less",
        );
    }
    let (connections, connections_found) = section.count_found("connections", 64, 0, 100_000);
    if connections == 1 {
        section.fault(
            &connections_found,
            "over one connection the gateway waits for entries, over another it reads them; write 2 or more, or 0 for one to each stream key",
        );
    }
    let source = Source {
        location: url.location,
        username,
        password,
        sentinel_username,
        sentinel_password,
        tls,
        read_from,
        connections,
        read_count: section.count("read_count", 500, 1, 100_000) as u64,
        block,
        max_entry_bytes: section.size_bytes("max_entry", "1MiB", "1B", "512MiB").0,
        linger: section.duration("linger", "30s", "0s", "1d"),
    };
    section.end();
    source
}

fn login(
    section: &mut Section<'_, '_>,
    url: &source_url::SourceUrl,
    found: &Found,
) -> (String, Option<Password>) {
    let (username, username_found) = section.text("username", "");
    let password = section.secret("password_file", Password::in_file);
    if !url.username.is_empty() && !username.is_empty() {
        section.fault(&username_found, "source.url names a user too; keep one of them");
    }
    if url.password.is_some() && password.is_some() {
        section
            .fault(found, "holds a password although source.password_file is set; keep the file");
    } else if url.password.is_some() && found.key == "url" {
        section.warn(
            found,
            "a password in a URL is easily seen; put it into a file and name that in source.password_file",
        );
    }
    let from_url = username.is_empty();
    let username = if from_url { url.username.clone() } else { username };
    let password = password.or(url.password.clone().map(Password::fixed));
    let found = if from_url { found } else { &username_found };
    let password = named_login(section, &username, password, found, "source.password_file");
    (username, password)
}

/// A user without a password logs in with an empty one: to be logged in as another user, silently, would be worse.
fn named_login(
    section: &mut Section<'_, '_>,
    username: &str,
    password: Option<Password>,
    found: &Found,
    setting: &str,
) -> Option<Password> {
    if username.is_empty() || password.is_some() {
        return password;
    }
    let message = format!(
        "names a user without a password, so the login sends an empty one, which only a user with nopass may have; name a file in {setting} (a password without a user is written redis://:PASSWORD@HOST)"
    );
    section.warn(found, message);
    Some(Password::fixed(Secret::new(String::new())))
}

fn sentinel_login(
    section: &mut Section<'_, '_>,
    location: &SourceLocation,
) -> (String, Option<Password>) {
    let (username, found) = section.text("sentinel_username", "");
    let password = section.secret("sentinel_password_file", Password::in_file);
    let is_set = !username.is_empty() || password.is_some();
    if is_set && !matches!(location, SourceLocation::Sentinel { .. }) {
        section.fault(
            &found,
            "sentinels have a login here, but source.url names no sentinels; leave sentinel_username and sentinel_password_file empty",
        );
    }
    let setting = "source.sentinel_password_file";
    let password = named_login(section, &username, password, &found, setting);
    (username, password)
}

fn tls(section: &mut Section<'_, '_>, speaks: bool) -> Option<Tls> {
    let files = tls::Files::named(section);
    if speaks {
        return files.read(section);
    }
    files.without_tls(section);
    None
}

/// The one key without a default, and the one whose value may hold a secret.
fn source_url(section: &mut Section<'_, '_>) -> (source_url::SourceUrl, Found) {
    let embedded = WrittenValue::from("memory:");
    let mut found = section.found("url", embedded.clone());
    let from_file = url_in_file(section, &found);
    let is_in_file = from_file.is_some();
    found = from_file.unwrap_or(found);
    if found.location == Location::Default && !section.reader.demo {
        let whole = section.reader.whole();
        section.reader.missing(
            whole,
            "source.url",
            "missing, and there is no default; write [source] and url = \"redis://127.0.0.1:6379\", or set SSEGATE_SOURCE_URL",
        );
    }
    let read =
        |written: &WrittenValue| units::text(written).and_then(|text| source_url::source(&text));
    if section.reader.demo && found.location != Location::Default && found.value != embedded {
        section.fault(
            &found,
            "--demo fills its own embedded source and no other; remove --demo or this setting",
        );
    }
    let name = found.subject.split(" = ").next().unwrap_or_default().to_owned();
    let url = read(&found.value).map_err(|why| {
        let scheme = units::text(&found.value).ok().and_then(|text| source_url::scheme(&text));
        found.subject = match scheme {
            Some(scheme) => format!("{name} = \"{scheme}:…\""),
            None => name.clone(),
        };
        section.fault(&found, why);
    });
    let url = url.unwrap_or_else(|()| read(&embedded).expect("the embedded source is valid"));
    let shown = WrittenValue::from(url.shown.as_str()).to_string();
    found.subject = format!("{name} = {shown}");
    // What is printed reads back equal: the file's name stands for the URL.
    let shown = if is_in_file { "\"\"".to_owned() } else { shown };
    section.show(&found, shown);
    (url, found)
}

/// The URL in the file that `url_file` names, for platforms that give it whole, with a password.
fn url_in_file(section: &mut Section<'_, '_>, url: &Found) -> Option<Found> {
    let credentials = section.reader.credentials.clone();
    let (name, found) = section.text("url_file", "");
    if name.is_empty() {
        return None;
    }
    if url.location != Location::Default && units::text(&url.value).is_ok_and(|url| !url.is_empty())
    {
        section.fault(&found, "source.url is set, too; keep one of them");
        return None;
    }
    match secret::text(&name, credentials.as_deref()) {
        Ok(text) => Some(Found { value: text.trim().into(), ..found }),
        Err(why) => {
            section.fault(&found, why);
            None
        }
    }
}
