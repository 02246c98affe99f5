//! `ssegate check`: every fault of the configuration at once, then the resources it may need, and what the
//! servers say to it.

use std::io::Write;
use std::process::ExitCode;

use super::budget::Budget;
use super::connect::{Findings, connect};
use super::exit::{BAD_CONFIG, FAILED};
use super::options::ConfigArgs;
use crate::config::Loaded;
use crate::limits::TooFewDescriptors;

/// What is printed, and the exit code.
pub(super) type Report = (String, ExitCode);

/// Loads the configuration, and prints what `describe` reports of it.
pub(super) fn check(
    args: &ConfigArgs,
    describe: impl FnOnce(&Loaded) -> Result<Report, TooFewDescriptors>,
) -> ExitCode {
    let loaded = match args.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let (text, code) = match describe(&loaded) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("{}: {error}", loaded.file);
            return ExitCode::from(BAD_CONFIG);
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::from(FAILED),
    }
}

/// The resources for `open_files`, and with `connects` what the servers say to it.
pub(super) fn resources(
    loaded: &Loaded,
    open_files: usize,
    json: bool,
    connects: bool,
) -> Result<Report, TooFewDescriptors> {
    let budget = Budget::new(&loaded.config, open_files)?;
    let findings = connects.then(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime without threads starts");
        runtime.block_on(connect(&loaded.config, &budget))
    });
    let code = findings.as_ref().map_or(ExitCode::SUCCESS, Findings::exit_code);
    if !json {
        let found = findings.map(|findings| findings.explain()).unwrap_or_default();
        return Ok((budget.explain(&loaded.file) + &found, code));
    }
    let mut resources = budget.json();
    if let Some(findings) = findings {
        resources["findings"] = findings.json();
    }
    Ok((format!("{resources:#}\n"), code))
}
