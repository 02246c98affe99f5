//! Reads gateway.toml and the environment into the configuration. A fault never stops the reading: the
//! operator gets all faults at once.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::diagnostics::{Fault, Faults, Location};
use super::{ConfigFile, Loaded, Risk, Setting, units};
use reader::ConfigReader;

pub use identity::{Identity, IdentityError, LoadedIdentity};

mod access;
mod address;
mod cors;
mod event;
mod headers;
mod identity;
mod jwt;
mod merge;
mod named_verifier;
mod proxy;
mod publish;
mod reader;
mod routes;
mod rows;
mod rules;
mod section;
mod sections;
mod snapshot;
mod source;
mod source_url;
mod tls;
mod variables;

/// Where the file is looked for, in this order, unless the command line names one.
const FILES: [&str; 2] = ["gateway.toml", "/etc/ssegate/gateway.toml"];

/// Routes in place of the file's.
const ROUTES: &str = "SSEGATE_ROUTES";

/// The process's environment, for [`load`]; a name that is not Unicode is none of our variables.
pub fn environment() -> Vec<(String, String)> {
    let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    };
    std::env::vars_os().filter_map(unicode).collect()
}

/// Reads the file at `path`, or else `./gateway.toml`, or else `/etc/ssegate/gateway.toml`.
///
/// Without `path` no file is read with `demo`, and none has to be there where the environment has the routes.
pub fn load(path: Option<&Path>, demo: bool, env: &[(String, String)]) -> Result<Loaded, Faults> {
    let found = match path {
        Some(path) => Some((path.to_owned(), content(path)?)),
        None if demo => None,
        None => {
            let candidates = FILES.map(Path::new);
            let found = first_of(&candidates)?;
            if found.is_none() && routes_in(env).is_none() {
                return Err(no_file(&candidates));
            }
            found
        }
    };
    match found {
        Some((path, text)) => parse(&text, &path.to_string_lossy(), env, demo),
        None => without_file(env, demo),
    }
}

/// Reads the environment alone.
pub fn without_file(env: &[(String, String)], demo: bool) -> Result<Loaded, Faults> {
    let file = if demo { ConfigFile::Demo } else { ConfigFile::None };
    let name = if demo { "" } else { "the environment" };
    parse("", name, env, demo).map(|loaded| Loaded { file, ..loaded })
}

/// What `SSEGATE_ROUTES` holds; one that is empty holds nothing.
fn routes_in(env: &[(String, String)]) -> Option<&str> {
    let found = env.iter().find(|(name, _)| name == ROUTES);
    found.map(|(_, text)| text.as_str()).filter(|text| !text.trim().is_empty())
}

/// The first of these files that is there.
fn first_of(candidates: &[&Path]) -> Result<Option<(PathBuf, String)>, Faults> {
    for &path in candidates {
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            read => {
                let text = read.map_err(|error| unreadable(path, &error))?;
                return Ok(Some((path.to_owned(), text)));
            }
        }
    }
    Ok(None)
}

fn no_file(candidates: &[&Path]) -> Faults {
    let names: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
    let message = "no such file; write one of them, name another with --config, set SSEGATE_ROUTES and SSEGATE_SOURCE_URL, or try --demo";
    Faults::whole(&names.join(", "), message.into())
}

fn content(path: &Path) -> Result<String, Faults> {
    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Faults {
    Faults::whole(&path.to_string_lossy(), format!("cannot be read: {error}"))
}

/// Reads `text`, the content of `file`; the environment `env` overrides it.
pub fn parse(
    text: &str,
    file: &str,
    env: &[(String, String)],
    demo: bool,
) -> Result<Loaded, Faults> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let malformed: Vec<Fault> = errors
        .iter()
        .map(|error| Fault {
            location: Location::in_text(file, text, error.span().map_or(0, |span| span.start)),
            subject: String::new(),
            message: format!("not TOML: {}", error.message()),
        })
        .collect();
    let root = units::items(table.get_ref());
    let routes = routes_in(env).map(variables::routes_toml);
    let mut reader = ConfigReader::new(text, file, env, demo);
    reader.routes = routes.as_deref();
    let config = sections::config(&mut reader, root);
    let faults = reader.faults(malformed);
    if !faults.is_empty() {
        return Err(Faults::new(faults));
    }
    let (settings, mut warnings) = (reader.settings, reader.warnings);
    warnings.extend(config.risks().into_iter().map(|risk| warning(&risk, &settings)));
    warnings.sort();
    let file = ConfigFile::At(PathBuf::from(file));
    Ok(Loaded { config, file, settings, warnings })
}

/// The warning about a risk, at the place of the setting that makes it.
fn warning(risk: &Risk, settings: &[Setting]) -> Fault {
    let (section, key) = risk.setting;
    let is_it = |setting: &&Setting| {
        // Of the routes, the one that makes it.
        let makes_it = section != "route" || setting.value.contains("access = \"public\"");
        (setting.section, setting.key) == (section, key) && makes_it
    };
    let setting = settings.iter().find(is_it);
    let setting = setting.expect("every key of a section is shown");
    Fault {
        location: setting.location.clone(),
        subject: format!("{section}.{key} = {}", setting.value),
        message: risk.message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_a_fault_that_says_what_to_do() {
        let candidates = [Path::new("no/such.toml"), Path::new("nor/this.toml")];
        assert_eq!(first_of(&candidates), Ok(None));
        let told = no_file(&candidates).to_string();
        assert!(told.starts_with("no/such.toml, nor/this.toml: no such file; "), "{told}");
        assert!(told.ends_with("or try --demo"), "{told}");
    }

    #[test]
    fn the_first_file_that_exists_is_read() {
        let found = first_of(&[Path::new("no/such.toml"), Path::new("Cargo.toml")]).unwrap();
        let (path, _) = found.expect("tests run beside Cargo.toml");
        assert_eq!(path, Path::new("Cargo.toml"));
    }
}
