//! The options that name a configuration, and the configuration that they name.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::exit::BAD_CONFIG;
use crate::config::{self, Faults, Loaded};

#[derive(Args, Clone)]
pub(super) struct ConfigArgs {
    /// The configuration; without it ./gateway.toml, else /etc/ssegate/gateway.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// No file, no Redis: an embedded source with sample events, a page at /
    #[arg(long)]
    demo: bool,
}

impl ConfigArgs {
    /// Reads the configuration.
    pub(super) fn read(&self) -> Result<Loaded, Faults> {
        config::load(self.config.as_deref(), self.demo, &config::environment())
    }

    /// Reads the configuration, or prints its faults; the error is the exit code.
    pub(super) fn load(&self) -> Result<Loaded, ExitCode> {
        self.read().map_err(|faults| {
            eprintln!("{faults}");
            ExitCode::from(BAD_CONFIG)
        })
    }
}
