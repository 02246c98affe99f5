//! Reads `publish` of a route.

use std::time::Duration;

use super::access;
use super::section::{Found, Section};
use crate::config::publish::{BodyFields, Publish, Rate};
use crate::config::units::{self, WrittenValue};
use crate::config::{PathTemplate, Setting};

/// What other sections say, as far as it matters here.
#[derive(Clone, Copy)]
pub(super) struct Others {
    /// Whether there are keys that verify tokens.
    pub(super) has_keys: bool,
    /// `source.max_entry`
    pub(super) max_entry_bytes: usize,
}

/// Reads it; `None`: nobody publishes there, or it has a fault.
pub(super) fn publish(
    section: &mut Section<'_, '_>,
    path: Option<&PathTemplate>,
    others: Others,
) -> Option<Publish> {
    let found = section.found("publish", WrittenValue::Flag(false));
    let items = match &found.value {
        WrittenValue::Table(items) => items.clone(),
        value => {
            section.show(&found, value.to_string());
            if *value != WrittenValue::Flag(false) {
                section.fault(&found, "neither a table nor false; write { access = \"jwt\", match = { name = \"writes\" } }, or false");
            }
            return None;
        }
    };
    let before = section.reader.settings.len();
    let read = table(section.table("route.publish", items), &found, path, others);
    let effective = section.reader.settings.split_off(before);
    section.show(&found, inline(&effective));
    read
}

fn table(
    mut section: Section<'_, '_>,
    table: &Found,
    path: Option<&PathTemplate>,
    others: Others,
) -> Option<Publish> {
    let access = section.required(
        "access",
        None,
        &table.location,
        "there is no default; write access = \"jwt\", or access = \"public\" if everybody may add entries",
        access::access,
    );
    let access =
        access::rules(&mut section, access, path.map(|path| (path, None)), others.has_keys);
    let words = [("payload", BodyFields::Payload), ("json", BodyFields::Json)];
    let fields = section.word("fields", &words).0;
    let (max_bytes, found) = section.size_bytes("max_bytes", "64KiB", "1B", "16MiB");
    if max_bytes > others.max_entry_bytes {
        section.warn(
            &found,
            "larger than source.max_entry: such entries are added, and readers get a gap in their place; raise source.max_entry, or lower this",
        );
    }
    let rate = section.read("rate", "100/s", rate).0;
    let maxlen = section.count("maxlen", 10_000, 0, u32::MAX);
    let expire = section.duration_or_never("expire", "0s", "1s", "3650d");
    section.end();
    let expire = (!expire.is_zero()).then_some(expire);
    Some(Publish { access: access?, fields, max_bytes, rate, maxlen, expire })
}

/// `"100/s"`, `"100/m"`, `"100/h"`; `"0/s"`: any number.
fn rate(written: &WrittenValue) -> Result<Option<Rate>, String> {
    let wrong = || {
        String::from(
            "not a rate; write a number of entries and a time, as in \"100/s\", \"20/m\" or \"5/h\" (\"0/s\" is any number)",
        )
    };
    let text = units::text(written).map_err(|_| wrong())?;
    let (entries, per) = text.split_once('/').ok_or_else(wrong)?;
    let is_number = !entries.is_empty() && entries.bytes().all(|byte| byte.is_ascii_digit());
    let entries: u32 = entries.parse().ok().filter(|_| is_number).ok_or_else(wrong)?;
    let seconds = match per {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    Ok((entries > 0).then(|| Rate { entries, per: Duration::from_secs(seconds) }))
}

fn inline(settings: &[Setting]) -> String {
    let pair = |setting: &Setting| format!("{} = {}", setting.key, setting.value);
    format!("{{ {} }}", settings.iter().map(pair).collect::<Vec<_>>().join(", "))
}
