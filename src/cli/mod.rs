//! The command line: what the process is asked to do.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config;
use crate::gateway::process;
use crate::telemetry::version;

pub mod budget;
mod check;
mod connect;
mod exit;
#[cfg(test)]
mod manual;
mod options;
mod runtime;
mod serve;
mod signals;
pub mod tail;

use check::{check, resources};
use options::ConfigArgs;
use serve::serve;

/// Tails Redis Streams and fans each one out as Server-Sent Events.
#[derive(Parser)]
#[command(name = "ssegate", version = version::LONG, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    serve: ConfigArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Validate the configuration: every fault at once, then the resources it may need
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// Show each effective value and where it came from; secrets are masked
        #[arg(long)]
        print: bool,
        /// Print the resources, and the findings of --connect, as JSON
        #[arg(long, conflicts_with = "print")]
        json: bool,
        /// Compute the resources for N open files, as a unit allows, not for those allowed here
        #[arg(long, value_name = "N")]
        open_files: Option<usize>,
        /// Ask the servers as well: login, rights, settings that lose entries, keys, clocks
        #[arg(long, conflicts_with = "print")]
        connect: bool,
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

/// The whole process, from its command line to its exit code.
pub fn main() -> ExitCode {
    process::give_back_large_allocations();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
            // Where this fails there is nowhere left to print to.
            let _ = error.print();
            return code;
        }
    };
    match cli.command {
        None => serve(&cli.serve),
        Some(Command::Check { config, print: true, .. }) => {
            check(&config, |loaded| Ok((config::print::print(loaded), ExitCode::SUCCESS)))
        }
        Some(Command::Check { config, json, open_files, connect, .. }) => {
            check(&config, |loaded| {
                let open_files = open_files.unwrap_or_else(process::raise_descriptors);
                resources(loaded, open_files, json, connect)
            })
        }
        Some(Command::Tail { url, last_event_id }) => tail::command::follow(tail::Options {
            url,
            last_event_id,
            progress: std::io::stderr().is_terminal(),
        }),
    }
}
