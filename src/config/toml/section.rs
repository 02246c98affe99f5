//! One section while its keys are taken: typed getters that remember what was known, where each
//! value came from and what is wrong with it.

use std::time::Duration;

use super::Setting;
use super::reader::ConfigReader;
use crate::config::diagnostics::{Location, did_you_mean};
use crate::config::units::{self, Item, Written, take};

/// Keys whose defaults `--demo` changes.
const DEMO: [(&str, &str); 6] = [
    ("server", "hosts"),
    ("admin", "publish"),
    ("source", "url"),
    ("route", "path"),
    ("route", "key"),
    ("route", "access"),
];

/// A key's value and where it was found.
pub(super) struct Found {
    pub(super) key: &'static str,
    pub(super) value: Written,
    pub(super) location: Location,
    /// How faults name it: `server.keepalive = "15x"`.
    pub(super) subject: String,
}

/// A section while its keys are taken.
pub(super) struct Section<'r, 'a> {
    pub(super) reader: &'r mut ConfigReader<'a>,
    name: &'static str,
    items: Vec<Item>,
    known: Vec<&'static str>,
}

impl<'r, 'a> Section<'r, 'a> {
    pub(super) fn new(
        reader: &'r mut ConfigReader<'a>,
        name: &'static str,
        items: Vec<Item>,
    ) -> Self {
        Self { reader, name, items, known: Vec::new() }
    }

    /// What was written for `key`: the environment's word first, then the file's.
    pub(super) fn written(&mut self, key: &'static str, default: &Written) -> Option<Found> {
        self.known.push(key);
        let item = take(&mut self.items, key);
        if let Some(found) = self.variable(key, default) {
            return Some(found);
        }
        let Item { at, value, .. } = item?;
        let subject = format!("{}.{key} = {value}", self.name);
        Some(Found { key, location: self.reader.location(at), value, subject })
    }

    fn variable(&mut self, key: &'static str, default: &Written) -> Option<Found> {
        let (name, text) = self.reader.variable(self.name, key)?;
        let value = Written::from_variable(text, default);
        let subject = format!("{name} = {}", Written::from(text));
        Some(Found { key, location: Location::Variable(name), value, subject })
    }

    /// What holds for `key`: written or default.
    pub(super) fn found(&mut self, key: &'static str, default: Written) -> Found {
        let changed = self.reader.demo && DEMO.contains(&(self.name, key));
        self.written(key, &default).unwrap_or_else(|| Found {
            key,
            location: if changed { Location::Demo } else { Location::Default },
            subject: format!("{}.{key} = {default}", self.name),
            value: default,
        })
    }

    /// Records `found` for those who ask what holds.
    pub(super) fn show(&mut self, found: &Found, value: String) {
        let setting =
            Setting { section: self.name, key: found.key, value, location: found.location.clone() };
        self.reader.settings.push(setting);
    }

    /// Reads `key` with `read`, which accepts `default`; tells what it doesn't accept.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        default: impl Into<Written>,
        read: impl Fn(&Written) -> Result<T, String>,
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

    /// Tells a fault of one element of `found`, at its own place where it has one.
    pub(super) fn fault_in(&mut self, found: &Found, at: usize, element: &Written, why: &str) {
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
        self.read(key, Written::Flag(default), units::flag).0
    }

    /// A number from `least` to `most`.
    pub(super) fn count(
        &mut self,
        key: &'static str,
        default: u32,
        least: u32,
        most: u32,
    ) -> usize {
        let [default, least, most] =
            [default, least, most].map(|number| Written::Integer(number.into()));
        let read = |written: &Written| units::within(written, units::count, &least, &most);
        let (number, _) = self.read(key, default, read);
        usize::try_from(number).expect("a number up to a u32 fits")
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
        let (least, most) = (least.into(), most.into());
        let read = |written: &Written| units::within(written, units::duration, &least, &most);
        self.read(key, default, read).0
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
        let read = |written: &Written| match units::duration(written) {
            Ok(Duration::ZERO) => Ok(Duration::ZERO),
            _ => units::within(written, units::duration, &least, &most)
                .map_err(|message| format!("{message} (\"0s\" is never)")),
        };
        self.read(key, default, read).0
    }

    /// One of a few words, of which the first is the default.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> (T, Found) {
        self.read(key, words[0].0, |written| {
            let chosen = words.iter().find(|(word, _)| *written == Written::from(*word));
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
        let found = self.found(key, Written::list(default.iter().copied()));
        self.show(&found, found.value.to_string());
        self.list(&found, read)
    }

    /// The elements of `found`, each read with `read`; tells each that it doesn't accept.
    pub(super) fn list<T>(
        &mut self,
        found: &Found,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Written::List(elements) = &found.value else {
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

    /// A text without a default, read with `read`, or else `built_in`; tells where it is missing,
    /// with what to `write`, at the section's `header`.
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

    /// Corrects what was recorded last to the value that it stands for.
    pub(super) fn correct_shown(&mut self, value: String) {
        self.reader.settings.last_mut().expect("a key was just read").value = value;
    }

    /// The section `name` within this one, by its whole path; an empty one where the file has none.
    pub(super) fn section(&mut self, name: &str, path: &'static str) -> Section<'_, 'a> {
        let taken = take(&mut self.items, name);
        let named = taken.map(|item| Item { name: path.to_owned(), ..item });
        self.reader.section(&mut named.into_iter().collect(), path)
    }

    /// Tells what is left once every key was taken; values stay out of it, for they may be secrets.
    pub(super) fn end(self) {
        for item in self.items {
            let subject = format!("{}.{}", self.name, item.name);
            let hint = did_you_mean(&item.name, self.known.iter().copied());
            let location = self.reader.location(item.name_at);
            self.reader.fault(location, &subject, format!("unknown key{hint}"));
        }
    }
}
