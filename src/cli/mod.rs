//! The command line: what the process is told to do, and the exit codes that it ends with.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::config::{self, Faults, Loaded};
use crate::gateway::process;
use crate::telemetry::version;

pub mod budget;
mod check;
#[cfg(test)]
mod manual;
mod serve;
mod signals;
pub mod tail;

use budget::Budget;
use check::check;
use serve::serve;

/// Failure at run time: an address that cannot be had, a second signal.
const FAILED: u8 = 1;
/// `EX_USAGE` of sysexits.
const USAGE: u8 = 64;
/// `EX_CONFIG` of sysexits.
const BAD_CONFIG: u8 = 78;

/// Tails Redis Streams and fans each one out as Server-Sent Events.
#[derive(Parser)]
#[command(version = version::LONG, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    serve: ConfigArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Validate the configuration; every fault at once, then what it may come to need
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// Show each effective value and where it came from; secrets are masked
        #[arg(long)]
        print: bool,
        /// The budget as JSON
        #[arg(long, conflicts_with = "print")]
        json: bool,
        /// The budget with so many open files, as a unit allows, not with those allowed here
        #[arg(long, value_name = "N")]
        open_files: Option<usize>,
    },
    /// Follow a stream: print its events, reconnect, resume, show lag and gaps
    Tail {
        /// An http:// URL of a route
        url: String,
        /// Begin after this id
        #[arg(long, value_name = "ID")]
        last_event_id: Option<String>,
    },
}

#[derive(Args, Clone)]
struct ConfigArgs {
    /// The configuration; without it ./gateway.toml, else /etc/ssegate/gateway.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// No file, no Redis: an embedded source with sample events, a page at /
    #[arg(long)]
    demo: bool,
}

/// The whole process: what its command line says, and how it ends.
pub fn main() -> ExitCode {
    process::give_back_large_allocations();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            // Nobody is left to tell where this fails.
            let _ = error.print();
            return code;
        }
    };
    match cli.command {
        None => serve(&cli.serve),
        Some(Command::Check { config, print: true, .. }) => {
            check(&config, |loaded| Ok(config::print::print(loaded)))
        }
        Some(Command::Check { config, json, open_files, .. }) => check(&config, |loaded| {
            let open_files = open_files.unwrap_or_else(process::raise_descriptors);
            let budget = Budget::new(&loaded.config, open_files)?;
            Ok(if json { format!("{:#}\n", budget.json()) } else { budget.explain(&loaded.origin) })
        }),
        Some(Command::Tail { url, last_event_id }) => tail::command::follow(tail::Options {
            url,
            last_event_id,
            progress: std::io::stderr().is_terminal(),
        }),
    }
}

fn load(args: &ConfigArgs) -> Result<Loaded, ExitCode> {
    args.read().map_err(|faults| {
        eprintln!("{faults}");
        ExitCode::from(BAD_CONFIG)
    })
}

impl ConfigArgs {
    fn read(&self) -> Result<Loaded, Faults> {
        config::load(self.config.as_deref(), self.demo, &config::environment())
    }
}

fn runtime(workers: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
