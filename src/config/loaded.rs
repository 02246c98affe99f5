//! A configuration that was read without faults, and where each of its values was written.

use std::fmt;
use std::path::PathBuf;

use super::Config;
use super::diagnostics::{Fault, Location};

/// A configuration without faults, and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file that was read.
    pub file: ConfigFile,
    /// Every key with its effective value.
    pub settings: Vec<Setting>,
    /// What is allowed but looks wrong.
    pub warnings: Vec<Fault>,
}

/// The file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigFile {
    /// The file at this path.
    At(PathBuf),
    /// None: `--demo` has its own defaults.
    Demo,
    /// None: the environment, or the command line, has all of it.
    None,
}

impl fmt::Display for ConfigFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(path) => write!(f, "{}", path.display()),
            Self::Demo => f.write_str("no file (--demo)"),
            Self::None => f.write_str("no file (the environment and the command line)"),
        }
    }
}

/// A key and its effective value, as shown to the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its section: `server`, `admin`, …; `route` for each route, whose first key is `path`.
    pub section: &'static str,
    /// Its name within the section.
    pub key: &'static str,
    /// Its value in TOML form, secrets masked.
    pub value: String,
    /// Where the value was written.
    pub location: Location,
}
