//! The manual pages and the completions of the package, made from the command line and from the comments
//! of gateway.toml. Tests compare `deploy/debian` with them; `UPDATE=1 cargo test --lib manual` rewrites
//! it.

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::Cli;

mod command;
mod configuration;
mod keys;
mod roff;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/debian");
const CHANGELOG: &str = include_str!("../../../deploy/debian/changelog");

/// Compares the file `name` of the package with `expected`, or rewrites it.
#[track_caller]
fn holds(name: &str, expected: &str) {
    let path = Path::new(FOLDER).join(name);
    if std::env::var_os("UPDATE").is_some() {
        return std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let first = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
    assert!(
        found == expected,
        "deploy/debian/{name} is out of date (UPDATE=1 cargo test --lib manual rewrites it); the \
         first difference is {first:?}; {} lines are expected, {} were found",
        expected.lines().count(),
        found.lines().count()
    );
}

/// The command line with the arguments that clap adds.
fn cli() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

/// Version and day of the newest entry of the package's changelog.
fn newest() -> (&'static str, String) {
    let (_, rest) = CHANGELOG.split_once("ssegate (").expect("an entry");
    let (version, rest) = rest.split_once('-').expect("a version with a revision");
    let trailer = rest.lines().find(|line| line.starts_with(" -- ")).expect("a trailer");
    let (_, when) = trailer.split_once(", ").expect("a day");
    let time = jiff::fmt::rfc2822::parse(when).expect("a time of RFC 2822");
    (version, time.date().to_string())
}

/// A page's template with each `@name@` line replaced.
fn fill(template: &str, parts: &[(&str, String)]) -> String {
    template
        .lines()
        .map(|line| match parts.iter().find(|(name, _)| line == format!("@{name}@")) {
            Some((_, text)) => text.clone(),
            None => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn the_completions_are_up_to_date() {
    for (shell, name) in
        [(Shell::Bash, "ssegate.bash"), (Shell::Zsh, "_ssegate"), (Shell::Fish, "ssegate.fish")]
    {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "ssegate", &mut script);
        holds(&format!("completions/{name}"), &String::from_utf8(script).unwrap());
    }
}

#[test]
fn the_package_has_the_version_of_the_crate() {
    assert_eq!(newest().0, env!("CARGO_PKG_VERSION"), "deploy/debian/changelog");
}
