//! `ssegate check`: every fault of the configuration at once, then what it may come to need.

use std::io::Write;
use std::process::ExitCode;

use super::{BAD_CONFIG, ConfigArgs, FAILED, load};
use crate::config::Loaded;
use crate::limits::TooFewDescriptors;

/// Loads the configuration, and prints what `words` makes of it.
pub(super) fn check(
    args: &ConfigArgs,
    words: impl FnOnce(&Loaded) -> Result<String, TooFewDescriptors>,
) -> ExitCode {
    let loaded = match load(args) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let text = match words(&loaded) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{}: {error}", loaded.origin);
            return ExitCode::from(BAD_CONFIG);
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}
