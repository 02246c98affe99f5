//! Finds the commit that the crate is built from (src/telemetry/version.rs).
//!
//! In a checkout git knows it; in the archive of a published crate a file of cargo's holds it. Anywhere
//! else it is "unknown": a build never fails because of it.

use std::path::Path;
use std::process::Command;

/// What goes into the binary: only changes of these cause a build, or make it dirty.
const SOURCES: [&str; 4] = ["src", "build.rs", "Cargo.toml", "Cargo.lock"];
/// Written by `cargo package` into the archive.
const ARCHIVE: &str = ".cargo_vcs_info.json";
/// Digits of the hash: a fixed number, so that every clone shows the same.
const DIGITS: usize = 10;

fn main() {
    for source in SOURCES {
        rerun_if_changed(source);
    }
    let (commit, date) = archived().or_else(checked_out).unwrap_or_default();
    let commit = if commit.is_empty() { "unknown".to_owned() } else { commit };
    let built = if date.is_empty() { commit.clone() } else { format!("{commit} {date}") };
    // Not SSEGATE_*: `cargo run` also sets them for the gateway, which would take them for keys of gateway.toml.
    println!("cargo::rustc-env=BUILT_COMMIT={commit}");
    println!("cargo::rustc-env=BUILT_FROM={built}");
    let is_debug = std::env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    println!("cargo::rustc-env=BUILT_AS={}", if is_debug { "; debug" } else { "" });
}

/// Only for paths that exist: cargo reruns the build each time for a missing one.
fn rerun_if_changed(path: &str) {
    if Path::new(path).exists() {
        println!("cargo::rerun-if-changed={path}");
    }
}

/// The commit of a published crate, whose day is unknown.
fn archived() -> Option<(String, String)> {
    let info = std::fs::read_to_string(ARCHIVE).ok()?;
    let (_, hash) = info.split_once("\"sha1\"")?;
    let hash: String = hash
        .chars()
        .skip_while(|c| !c.is_ascii_hexdigit())
        .take_while(char::is_ascii_hexdigit)
        .collect();
    let dirty = if info.contains("\"dirty\": true") { "-dirty" } else { "" };
    Some((format!("{}{dirty}", hash.get(..DIGITS)?), String::new()))
}

/// The commit of a checkout, and its day.
fn checked_out() -> Option<(String, String)> {
    // The commit of another project that happens to contain this crate is not ours.
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    let abbreviate = format!("--abbrev={DIGITS}");
    let last = git(&["log", "-1", &abbreviate, "--format=%h %cs"])?;
    let (commit, date) = last.split_once(' ')?;
    // The files that a commit, a checkout or a reset changes.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for path in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        rerun_if_changed(&git(&["rev-parse", "--git-path", path])?);
    }
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--"];
    status.extend(SOURCES);
    let dirty = if git(&status)?.is_empty() { "" } else { "-dirty" };
    Some((format!("{commit}{dirty}"), date.to_owned()))
}

/// What git prints; `None` if it is missing or fails.
fn git(arguments: &[&str]) -> Option<String> {
    // Without locks, which could disturb a git command of the developer.
    let ran = Command::new("git").args(arguments).env("GIT_OPTIONAL_LOCKS", "0").output().ok()?;
    let printed = String::from_utf8(ran.stdout).ok()?;
    ran.status.success().then(|| printed.trim().to_owned())
}
