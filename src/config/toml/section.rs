//! One section of the file: typed getters for its keys, which record where each value was written and
//! what is wrong with it.

use std::path::Path;
use std::time::Duration;

use super::reader::ConfigReader;
use crate::config::Setting;
use crate::config::diagnostics::{Fault, Location, did_you_mean};
use crate::config::units::{self, Item, WrittenValue, take};

/// Sections that repeat: no variable of the environment can name a key of one of them.
const REPEATED: [&str; 3] = ["route", "route.publish", "auth.jwt.keys"];

/// Keys that have another default under `--demo`.
const DEMO: [(&str, &str); 3] = [("server", "hosts"), ("admin", "publish"), ("source", "url")];

/// A key's value and where it was found.
pub(super) struct Found {
    pub(super) key: &'static str,
    pub(super) value: WrittenValue,
    pub(super) location: Location,
    /// How faults name it: `server.keepalive = "15x"`.
    pub(super) subject: String,
}

/// A section, from which the known keys are taken one by one.
pub(super) struct Section<'r, 'a> {
    pub(super) reader: &'r mut ConfigReader<'a>,
    name: &'static str,
    items: Vec<Item>,
    known: Vec<&'static str>,
    /// Its items are written nowhere: `--demo` has them.
    is_built_in: bool,
}

impl<'r, 'a> Section<'r, 'a> {
    fn new(reader: &'r mut ConfigReader<'a>, name: &'static str, items: Vec<Item>) -> Self {
        Self { reader, name, items, known: Vec::new(), is_built_in: false }
    }

    /// The section `name`, taken out of `root`; an empty one where the file has none.
    pub(super) fn take(
        reader: &'r mut ConfigReader<'a>,
        root: &mut Vec<Item>,
        name: &'static str,
    ) -> Self {
        let items = match take(root, name) {
            Some(Item { value: WrittenValue::Table(items), .. }) => items,
            Some(item) => {
                let message = format!("not a section; write [{name}] and its keys below");
                reader.fault(reader.location(item.name_at), name, message);
                Vec::new()
            }
            None => Vec::new(),
        };
        Self::new(reader, name, items)
    }

    /// The section `outer.inner`, taken out of `root`, where `outer` may hold nothing else; an empty one
    /// where the file has none. `path` is its whole name.
    pub(super) fn take_within(
        reader: &'r mut ConfigReader<'a>,
        root: &mut Vec<Item>,
        (outer, inner): (&str, &str),
        path: &'static str,
    ) -> Self {
        let unknown = || format!("unknown; its only section is [{path}]");
        let mut items = match take(root, outer) {
            Some(Item { value: WrittenValue::Table(items), name_at, .. }) => {
                if items.is_empty() {
                    reader.fault(reader.location(name_at), &format!("[{outer}]"), unknown());
                }
                items
            }
            // The end of the file reports it as an unknown section.
            Some(item) => {
                root.push(item);
                Vec::new()
            }
            None => Vec::new(),
        };
        let taken = take(&mut items, inner);
        for item in items {
            let name = format!("{outer}.{}", item.name);
            reader.fault(reader.location(item.name_at), &name, unknown());
        }
        let named = taken.map(|item| Item { name: path.to_owned(), ..item });
        Self::take(reader, &mut named.into_iter().collect(), path)
    }

    /// One `[[route]]`.
    pub(super) fn route(reader: &'r mut ConfigReader<'a>, items: Vec<Item>) -> Self {
        Self::new(reader, "route", items)
    }

    /// One that `--demo` has.
    pub(super) fn built_in_route(reader: &'r mut ConfigReader<'a>, items: Vec<Item>) -> Self {
        Self { is_built_in: true, ..Self::route(reader, items) }
    }

    /// A table in this section, by its whole path.
    pub(super) fn table(&mut self, path: &'static str, items: Vec<Item>) -> Section<'_, 'a> {
        Section::new(self.reader, path, items)
    }

    /// One of `keys` in `[auth.jwt]`.
    pub(super) fn verifying_key(reader: &'r mut ConfigReader<'a>, items: Vec<Item>) -> Self {
        Self::new(reader, "auth.jwt.keys", items)
    }

    /// What is written for `key`: a variable of the environment comes before the file.
    pub(super) fn written(&mut self, key: &'static str, default: &WrittenValue) -> Option<Found> {
        self.known.push(key);
        let item = take(&mut self.items, key);
        if let Some(found) = self.variable(key, default) {
            return Some(found);
        }
        let Item { at, value, .. } = item?;
        let subject = format!("{}.{key} = {value}", self.name);
        let location = if self.is_built_in { Location::Demo } else { self.reader.location(at) };
        Some(Found { key, value, location, subject })
    }

    /// What this section has for `key`, which is read later.
    pub(super) fn peek(&self, key: &str) -> Option<&WrittenValue> {
        self.items.iter().find(|item| item.name == key).map(|item| &item.value)
    }

    fn variable(&mut self, key: &'static str, default: &WrittenValue) -> Option<Found> {
        if REPEATED.contains(&self.name) {
            return None;
        }
        let (name, text) = self.reader.variable(self.name, key)?;
        let value = WrittenValue::from_variable(text, default);
        let subject = format!("{name} = {}", WrittenValue::from(text));
        Some(Found { key, location: Location::Variable(name), value, subject })
    }

    /// The effective value of `key`: as written, or the default.
    pub(super) fn found(&mut self, key: &'static str, default: WrittenValue) -> Found {
        let changed = self.reader.demo && DEMO.contains(&(self.name, key));
        self.written(key, &default).unwrap_or_else(|| Found {
            key,
            location: if changed { Location::Demo } else { Location::Default },
            subject: format!("{}.{key} = {default}", self.name),
            value: default,
        })
    }

    /// Records the effective value for `check --print`.
    pub(super) fn show(&mut self, found: &Found, value: String) {
        let setting =
            Setting { section: self.name, key: found.key, value, location: found.location.clone() };
        self.reader.settings.push(setting);
    }

    /// Reads `key` with `read`, which accepts `default`; what it rejects is a fault.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        default: impl Into<WrittenValue>,
        read: impl Fn(&WrittenValue) -> Result<T, String>,
    ) -> (T, Found) {
        let default = default.into();
        let found = self.found(key, default.clone());
        self.show(&found, found.value.to_string());
        let value = read(&found.value).unwrap_or_else(|message| {
            self.fault(&found, message);
            read(&default).expect("the default is valid")
        });
        (value, found)
    }

    pub(super) fn fault(&mut self, found: &Found, message: impl Into<String>) {
        self.reader.fault(found.location.clone(), &found.subject, message);
    }

    pub(super) fn warn(&mut self, found: &Found, message: impl Into<String>) {
        let (location, subject) = (found.location.clone(), found.subject.clone());
        self.reader.warnings.push(Fault { location, subject, message: message.into() });
    }

    /// A fault of one element of `found`, which has its own place if it is in the file.
    pub(super) fn fault_in(&mut self, found: &Found, at: usize, element: &WrittenValue, why: &str) {
        let location = match &found.location {
            Location::File { .. } => self.reader.location(at),
            location => location.clone(),
        };
        let subject = match &location {
            Location::Variable(name) => format!("{name}: {element}"),
            _ => format!("{}.{}: {element}", self.name, found.key),
        };
        self.reader.fault(location, &subject, why);
    }

    pub(super) fn text(&mut self, key: &'static str, default: &str) -> (String, Found) {
        self.read(key, default, units::text)
    }

    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.read(key, WrittenValue::Flag(default), units::flag).0
    }

    /// A number from `least` to `most`.
    pub(super) fn count(
        &mut self,
        key: &'static str,
        default: u32,
        least: u32,
        most: u32,
    ) -> usize {
        self.count_found(key, default, least, most).0
    }

    pub(super) fn count_found(
        &mut self,
        key: &'static str,
        default: u32,
        least: u32,
        most: u32,
    ) -> (usize, Found) {
        let [default, least, most] =
            [default, least, most].map(|number| WrittenValue::Integer(number.into()));
        let read = |written: &WrittenValue| units::within(written, units::count, &least, &most);
        let (number, found) = self.read(key, default, read);
        (usize::try_from(number).expect("a number up to a u32 fits"), found)
    }

    pub(super) fn size_bytes(
        &mut self,
        key: &'static str,
        default: &str,
        least: &str,
        most: &str,
    ) -> (usize, Found) {
        let (least, most) = (least.into(), most.into());
        self.read(key, default, |written| units::within(written, units::size_bytes, &least, &most))
    }

    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: &str,
        least: &str,
        most: &str,
    ) -> Duration {
        self.duration_found(key, default, least, most).0
    }

    /// The same, and where it is written.
    pub(super) fn duration_found(
        &mut self,
        key: &'static str,
        default: &str,
        least: &str,
        most: &str,
    ) -> (Duration, Found) {
        let (least, most) = (least.into(), most.into());
        let read = |written: &WrittenValue| units::within(written, units::duration, &least, &most);
        self.read(key, default, read)
    }

    /// A duration within bounds, or zero for "never".
    pub(super) fn duration_or_never(
        &mut self,
        key: &'static str,
        default: &str,
        least: &str,
        most: &str,
    ) -> Duration {
        let (least, most) = (least.into(), most.into());
        let read = |written: &WrittenValue| match units::duration(written) {
            Ok(Duration::ZERO) => Ok(Duration::ZERO),
            _ => units::within(written, units::duration, &least, &most)
                .map_err(|message| format!("{message} (\"0s\" is never)")),
        };
        self.read(key, default, read).0
    }

    /// The secret in the file that `key` names; `None` if it names none, or on a fault.
    pub(super) fn secret<T>(
        &mut self,
        key: &'static str,
        read: fn(&str, Option<&Path>) -> Result<T, String>,
    ) -> Option<T> {
        let (name, found) = self.text(key, "");
        if name.is_empty() {
            return None;
        }
        let secret = read(&name, self.reader.credentials.as_deref());
        secret.map_err(|why| self.fault(&found, why)).ok()
    }

    /// One of a few words, of which the first is the default.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> (T, Found) {
        self.read(key, words[0].0, |written| {
            let chosen = words.iter().find(|(word, _)| *written == WrittenValue::from(*word));
            chosen.map(|&(_, meaning)| meaning).ok_or_else(|| {
                let words = words.iter().map(|(word, _)| format!("\"{word}\""));
                format!("unknown; write {}", words.collect::<Vec<_>>().join(" or "))
            })
        })
    }

    /// A list of texts, each read with `read`.
    pub(super) fn listed<T>(
        &mut self,
        key: &'static str,
        default: &[&str],
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let found = self.found(key, WrittenValue::list(default.iter().copied()));
        self.show(&found, found.value.to_string());
        self.list(&found, read)
    }

    /// The elements of `found`, each read with `read`; each that it rejects is a fault.
    pub(super) fn list<T>(
        &mut self,
        found: &Found,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let WrittenValue::List(elements) = &found.value else {
            self.fault(found, "not a list; write texts in brackets, as in [\"a\", \"b\"]");
            return Vec::new();
        };
        let mut accepted = Vec::with_capacity(elements.len());
        for (at, element) in elements {
            match units::text(element).and_then(|text| read(&text)) {
                Ok(value) => accepted.push(value),
                Err(why) => self.fault_in(found, *at, element, &why),
            }
        }
        accepted
    }

    /// A text without a default but for `built_in`, read with `read`. If it is missing, the fault is at
    /// the section's `header` and says what to `write`.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        built_in: Option<&'static str>,
        header: &Location,
        write: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<(T, Found)> {
        let found = match (self.written(key, &"".into()), built_in) {
            (Some(found), _) => found,
            (None, Some(default)) => self.found(key, default.into()),
            (None, None) => {
                let subject = format!("{}.{key}", self.name);
                self.reader.missing(header.clone(), &subject, &format!("missing; {write}"));
                return None;
            }
        };
        self.show(&found, found.value.to_string());
        match units::text(&found.value).and_then(|text| read(&text)) {
            Ok(value) => Some((value, found)),
            Err(why) => {
                self.fault(&found, why);
                None
            }
        }
    }

    /// Replaces the value that was recorded last: it stood for another one.
    pub(super) fn correct_shown(&mut self, value: String) {
        self.reader.settings.last_mut().expect("a key was just read").value = value;
    }

    /// The section `name` within this one, by its whole path; an empty one where the file has none.
    pub(super) fn section(&mut self, name: &str, path: &'static str) -> Section<'_, 'a> {
        let taken = take(&mut self.items, name);
        let named = taken.map(|item| Item { name: path.to_owned(), ..item });
        Section::take(self.reader, &mut named.into_iter().collect(), path)
    }

    /// Reports the keys that are left once all known ones were taken, without their values: they may be
    /// secrets.
    pub(super) fn end(self) {
        for item in self.items {
            let subject = format!("{}.{}", self.name, item.name);
            let hint = did_you_mean(&item.name, self.known.iter().copied());
            let location = self.reader.location(item.name_at);
            self.reader.fault(location, &subject, format!("unknown key{hint}"));
        }
    }
}
