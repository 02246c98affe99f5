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
    /// Where the entries are, for a try without a file: redis://HOST:PORT
    #[arg(long, value_name = "URL", requires = "route", conflicts_with = "demo")]
    source: Option<String>,
    /// A route, for a try without a file: /events/{name}=events:{name}; may be repeated
    #[arg(long, value_name = "PATH=KEY", conflicts_with = "demo")]
    route: Vec<String>,
}

impl ConfigArgs {
    /// Reads the configuration.
    pub(super) fn read(&self) -> Result<Loaded, Faults> {
        let mut env = config::environment();
        let source = self.source.clone().map(|url| ("SSEGATE_SOURCE_URL", url));
        let routes = (!self.route.is_empty()).then(|| ("SSEGATE_ROUTES", self.route.join(";")));
        for (name, value) in source.into_iter().chain(routes) {
            env.retain(|(known, _)| known != name);
            env.push((name.to_owned(), value));
        }
        if self.config.is_none() && !self.route.is_empty() {
            return config::without_file(&env, false);
        }
        config::load(self.config.as_deref(), self.demo, &env)
    }

    /// Reads the configuration, or prints its faults; the error is the exit code.
    pub(super) fn load(&self) -> Result<Loaded, ExitCode> {
        self.read().map_err(|faults| {
            eprintln!("{faults}");
            ExitCode::from(BAD_CONFIG)
        })
    }
}
