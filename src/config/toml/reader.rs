//! The file and the environment while they are read: hands out sections, collects every fault, and
//! tells at the end what nobody asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Setting;
use super::section::{Found, Section};
use crate::config::diagnostics::{Fault, Location, did_you_mean};
use crate::config::units::{Item, Written, take};

const PREFIX: &str = "SSEGATE_";
/// The section that each route is.
const ROUTE: &str = "route";
/// The section that each key of tokens is.
const KEY: &str = "auth.jwt.keys";

/// The file and the environment while they are read.
pub(super) struct ConfigReader<'a> {
    text: &'a str,
    file: &'a str,
    pub(super) demo: bool,
    /// `SSEGATE_*` that nobody has asked for yet.
    variables: BTreeMap<&'a str, &'a str>,
    known_variables: Vec<String>,
    pub(super) credentials: Option<PathBuf>,
    faults: Vec<Fault>,
    /// Faults that a malformed line may be the cause of.
    missing: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
    pub(super) settings: Vec<Setting>,
}

impl<'a> ConfigReader<'a> {
    pub(super) fn new(
        text: &'a str,
        file: &'a str,
        env: &'a [(String, String)],
        demo: bool,
    ) -> Self {
        let pairs = || env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let credentials = pairs().find(|(name, _)| *name == "CREDENTIALS_DIRECTORY");
        Self {
            text,
            file,
            demo,
            variables: pairs().filter(|(name, _)| name.starts_with(PREFIX)).collect(),
            known_variables: Vec::new(),
            credentials: credentials.map(|(_, directory)| PathBuf::from(directory)),
            faults: Vec::new(),
            missing: Vec::new(),
            warnings: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Everything that is wrong, `malformed` lines included: what else is wrong with those is not
    /// told, nor is what may be missing, or at its default, because of them.
    pub(super) fn faults(&mut self, malformed: Vec<Fault>) -> Vec<Fault> {
        if malformed.is_empty() {
            self.faults.append(&mut self.missing);
        }
        let mut faults = std::mem::take(&mut self.faults);
        let may_follow = |fault: &Fault| {
            let is_default = fault.location == Location::Default && !malformed.is_empty();
            is_default || malformed.iter().any(|line| line.location.shares_line(&fault.location))
        };
        faults.retain(|fault| !may_follow(fault));
        faults.extend(malformed);
        faults
    }

    pub(super) fn location(&self, offset: usize) -> Location {
        Location::in_text(self.file, self.text, offset)
    }

    pub(super) fn whole(&self) -> Location {
        Location::Whole(self.file.to_owned())
    }

    pub(super) fn fault(&mut self, location: Location, subject: &str, message: impl Into<String>) {
        self.faults.push(Fault { location, subject: subject.into(), message: message.into() });
    }

    pub(super) fn warn(&mut self, found: &Found, message: impl Into<String>) {
        let (location, subject) = (found.location.clone(), found.subject.clone());
        self.warnings.push(Fault { location, subject, message: message.into() });
    }

    pub(super) fn missing(&mut self, location: Location, subject: &str, message: &str) {
        self.missing.push(Fault { location, subject: subject.into(), message: message.into() });
    }

    /// The section `name`, taken out of `root`; an empty one where the file has none.
    pub(super) fn section(&mut self, root: &mut Vec<Item>, name: &'static str) -> Section<'_, 'a> {
        let items = match take(root, name) {
            Some(Item { value: Written::Table(items), .. }) => items,
            Some(item) => {
                let message = format!("not a section; write [{name}] and its keys below");
                self.fault(self.location(item.name_at), name, message);
                Vec::new()
            }
            None => Vec::new(),
        };
        Section::new(self, name, items)
    }

    /// One `[[route]]`: a section that the environment has no part in.
    pub(super) fn route(&mut self, items: Vec<Item>) -> Section<'_, 'a> {
        Section::new(self, ROUTE, items)
    }

    /// One of `keys` in `[auth.jwt]`: a section that the environment has no part in, either.
    pub(super) fn key(&mut self, items: Vec<Item>) -> Section<'_, 'a> {
        Section::new(self, KEY, items)
    }

    /// The section `outer.inner`, taken out of `root`, and nothing else in `outer`; an empty one where
    /// the file has none.
    pub(super) fn section_within(
        &mut self,
        root: &mut Vec<Item>,
        (outer, inner): (&str, &str),
        path: &'static str,
    ) -> Section<'_, 'a> {
        let mut items = match take(root, outer) {
            Some(Item { value: Written::Table(items), name_at, .. }) => {
                if items.is_empty() {
                    let message = format!("unknown; the only section of it is [{path}]");
                    self.fault(self.location(name_at), &format!("[{outer}]"), message);
                }
                items
            }
            // Told as what it is: no section.
            Some(item) => {
                root.push(item);
                Vec::new()
            }
            None => Vec::new(),
        };
        let taken = take(&mut items, inner);
        for item in items {
            let (location, name) = (self.location(item.name_at), format!("{outer}.{}", item.name));
            self.fault(location, &name, format!("unknown; the only section of it is [{path}]"));
        }
        let mut inner: Vec<Item> =
            taken.map(|item| Item { name: path.to_owned(), ..item }).into_iter().collect();
        self.section(&mut inner, path)
    }

    /// Tells what is left in `root` once every section was taken.
    pub(super) fn end_of_file(&mut self, root: Vec<Item>, sections: &[&str]) {
        for item in root {
            let hint = did_you_mean(&item.name, sections.iter().copied());
            self.fault(self.location(item.name_at), &item.name, format!("unknown section{hint}"));
        }
    }

    /// Name and content of the variable that overrides `key` of `section`; routes have none.
    pub(super) fn variable(&mut self, section: &str, key: &str) -> Option<(String, &'a str)> {
        if section == ROUTE || section == KEY {
            return None;
        }
        let name = format!("{PREFIX}{section}_{key}").replace('.', "_").to_uppercase();
        self.known_variables.push(name.clone());
        let text = self.variables.remove(name.as_str())?;
        Some((name, text))
    }

    /// Tells which `SSEGATE_*` nobody asked for; their values stay out of it.
    pub(super) fn end_of_environment(&mut self) {
        for name in std::mem::take(&mut self.variables).into_keys() {
            let message = self.unknown_variable(name);
            self.fault(Location::Variable(name.to_owned()), name, message);
        }
    }

    fn unknown_variable(&self, name: &str) -> String {
        let bare = &name[PREFIX.len()..];
        let known = self.known_variables.iter().map(|name| &name[PREFIX.len()..]);
        let hint = did_you_mean(bare, known).replace('"', "").replace("mean ", "mean SSEGATE_");
        format!("unknown variable; it is SSEGATE_SECTION_KEY for a key of gateway.toml{hint}")
    }
}
