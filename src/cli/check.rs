//! `ssegate check`: every fault of the configuration at once, then the resources it may need.

use std::io::Write;
use std::process::ExitCode;

use super::exit::{BAD_CONFIG, FAILED};
use super::options::ConfigArgs;
use crate::config::Loaded;
use crate::limits::TooFewDescriptors;

/// Loads the configuration, and prints the text that `describe` makes of it.
pub(super) fn check(
    args: &ConfigArgs,
    describe: impl FnOnce(&Loaded) -> Result<String, TooFewDescriptors>,
) -> ExitCode {
    let loaded = match args.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let text = match describe(&loaded) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{}: {error}", loaded.file);
            return ExitCode::from(BAD_CONFIG);
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}
