//! The state of the reading: the file and the environment, the faults so far, and the variables that no
//! key has asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::ROUTES;
use super::variables::is_of_kubernetes;
use crate::config::Setting;
use crate::config::diagnostics::{Fault, Location, did_you_mean};
use crate::config::units::Item;

const PREFIX: &str = "SSEGATE_";

fn is_variable(name: &str) -> bool {
    name.starts_with(PREFIX) && name != ROUTES
}

/// The file and the environment while they are read.
pub(super) struct ConfigReader<'a> {
    text: &'a str,
    file: &'a str,
    pub(super) demo: bool,
    /// The routes of the environment, as a document of their own: they come in place of the file's.
    pub(super) routes: Option<&'a str>,
    /// `SSEGATE_*` that no key has asked for yet.
    variables: BTreeMap<&'a str, &'a str>,
    known_variables: Vec<String>,
    pub(super) credentials: Option<PathBuf>,
    faults: Vec<Fault>,
    /// Faults that a malformed line may have caused.
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
            routes: None,
            variables: pairs().filter(|(name, _)| is_variable(name)).collect(),
            known_variables: Vec::new(),
            credentials: credentials.map(|(_, directory)| PathBuf::from(directory)),
            faults: Vec::new(),
            missing: Vec::new(),
            warnings: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// All faults, with those of `malformed` lines; without other faults of these lines, and without what
    /// may be missing, or at its default, only because of them.
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

    /// What is read from now on stands in the routes of the environment; returns what was read so far, for
    /// [`Self::go_back_to`].
    pub(super) fn go_to(&mut self, routes: &'a str) -> (&'a str, &'a str) {
        let before = (self.text, self.file);
        (self.text, self.file) = (routes, ROUTES);
        before
    }

    pub(super) fn go_back_to(&mut self, (text, file): (&'a str, &'a str)) {
        (self.text, self.file) = (text, file);
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

    pub(super) fn has_no_fault(&self) -> bool {
        self.faults.is_empty() && self.missing.is_empty()
    }

    pub(super) fn missing(&mut self, location: Location, subject: &str, message: &str) {
        self.missing.push(Fault { location, subject: subject.into(), message: message.into() });
    }

    /// Reports the sections that are left in `root` once all known ones were taken.
    pub(super) fn end_of_file(&mut self, root: Vec<Item>, sections: &[&str]) {
        for item in root {
            let hint = did_you_mean(&item.name, sections.iter().copied());
            self.fault(self.location(item.name_at), &item.name, format!("unknown section{hint}"));
        }
    }

    /// Name and content of the variable that overrides `key` of `section`.
    pub(super) fn variable(&mut self, section: &str, key: &str) -> Option<(String, &'a str)> {
        let name = format!("{PREFIX}{section}_{key}").replace('.', "_").to_uppercase();
        self.known_variables.push(name.clone());
        let text = self.variables.remove(name.as_str())?;
        Some((name, text))
    }

    /// Reports the `SSEGATE_*` that no key has asked for, without their values: they may be secrets.
    pub(super) fn end_of_environment(&mut self) {
        let mut of_kubernetes = Vec::new();
        for (name, value) in std::mem::take(&mut self.variables) {
            if is_of_kubernetes(name, value) {
                of_kubernetes.push(name);
                continue;
            }
            let message = self.unknown_variable(name);
            self.fault(Location::Variable(name.to_owned()), name, message);
        }
        let Some(first) = of_kubernetes.first() else { return };
        let message = format!(
            "not for ssegate: Kubernetes sets it, {} in all, for a Service of this name; write enableServiceLinks: false in the pod's spec to be rid of them",
            of_kubernetes.len()
        );
        let location = Location::Variable((*first).to_owned());
        self.warnings.push(Fault { location, subject: (*first).to_owned(), message });
    }

    fn unknown_variable(&self, name: &str) -> String {
        let bare = &name[PREFIX.len()..];
        let known = self.known_variables.iter().map(|name| &name[PREFIX.len()..]);
        let hint = did_you_mean(bare, known).replace('"', "").replace("mean ", "mean SSEGATE_");
        format!("unknown variable; it is SSEGATE_SECTION_KEY for a key of gateway.toml{hint}")
    }
}
