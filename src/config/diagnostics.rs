//! Faults of a configuration: what is wrong, where, and what would be right.

use std::fmt;

/// Where a value was written, or which default it is.
///
/// Its order is the order of faults in messages: from the top of the file down, then the environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// Nowhere: it is the built-in default.
    Default,
    /// Nowhere: it is the default of `--demo`.
    Demo,
    /// A file as a whole, where something is missing.
    Whole(String),
    /// A place in a file.
    File {
        /// Its name as the operator gave it.
        file: String,
        /// Counted from one.
        line: usize,
        /// In characters, counted from one.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
}

impl Location {
    /// The place at byte `offset` of `text`, the content of `file`.
    pub(super) fn in_text(file: &str, text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        Self::File {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// Whether both are on the same line of the same file.
    pub(super) fn shares_line(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { file, line, .. }, Self::File { file: f, line: l, .. }) => {
                file == f && line == l
            }
            _ => false,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Demo => f.write_str("--demo"),
            Self::Whole(file) => f.write_str(file),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong, or, as a warning, looks wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where.
    pub location: Location,
    /// A key with its value (`server.keepalive = "15x"`), or a section; may be empty.
    pub subject: String,
    /// Why it is wrong, and what would be right.
    pub message: String,
}

impl Fault {
    /// Where somebody wrote what is wrong; `None`: a default is wrong.
    pub fn written_at(&self) -> Option<&Location> {
        let is_written = !matches!(self.location, Location::Default | Location::Demo);
        is_written.then_some(&self.location)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Location::Variable(_) => f.write_str("environment")?,
            location => write!(f, "{location}")?,
        }
        if !self.subject.is_empty() {
            write!(f, ": {}", self.subject)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Everything that is wrong with a configuration, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn new(mut faults: Vec<Fault>) -> Self {
        debug_assert!(!faults.is_empty(), "Faults hold at least one");
        faults.sort();
        faults.dedup();
        Self(faults)
    }

    /// One fault of `file` as a whole.
    pub(super) fn whole(file: &str, message: String) -> Self {
        let location = Location::Whole(file.to_owned());
        Self::new(vec![Fault { location, subject: String::new(), message }])
    }

    /// Each fault.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// `; did you mean "…"?` with the candidate that looks most like `word`, or nothing.
pub(super) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    const ALIKE: f64 = 0.8;
    let alike = |candidate| (strsim::jaro_winkler(word, candidate), candidate);
    let nearest = candidates.into_iter().map(alike).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, candidate)) if likeness >= ALIKE => {
            format!("; did you mean \"{candidate}\"?")
        }
        _ => String::new(),
    }
}
