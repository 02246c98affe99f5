//! What fan-out costs, beside the least that it can cost. In each run the gateway and the floor
//! take turns on the same machine with the same Redis, the same clients and the same entries; the
//! table has the medians, the ratios, and the goals of the project.
//!
//! The binary starts itself again as the floor and as the clients, so that each has its own CPU
//! time. How to run it and how to read it: benches/README.md.

mod answers;
mod bare;
mod clients;
mod companions;
mod entry;
mod floor;
mod free;
mod latency;
mod many;
mod measure;
mod merged;
mod multiplexed;
mod ndjson;
mod opening;
mod processes;
mod publish;
mod redis;
mod rows;
mod scenario;
mod selecting;
mod slow;
mod states;
mod table;
mod tally;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use clap::builder::PossibleValuesParser;
use rustix::process::{Resource, Rlimit, Signal};

use free::Free;
use processes::Scratch;
use rows::{ROWS, Stage};
use table::{Figure, Row};

/// Deliveries, CPU, latency and memory of the gateway, beside a floor.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    /// Run this row only; repeat it for several.
    #[arg(long, value_parser = PossibleValuesParser::new(ROWS.map(|row| row.name)))]
    row: Vec<String>,
    #[command(flatten, next_help_heading = "A scenario instead of the rows")]
    free: Free,
    /// Runs of which the medians are taken.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// One short run of each: whether everything works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// An older gateway: it takes turns with this one, and each figure stands beside its.
    #[arg(long, value_name = "PROGRAM")]
    older: Option<PathBuf>,
    /// Write the table to this file, too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Passed by `cargo bench`, and not by `cargo test --all-targets`.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What the binary is when it starts itself.
#[derive(clap::Subcommand)]
#[command(hide = true)]
enum Role {
    Floor(floor::Settings),
    Bare(bare::Settings),
    Clients(clients::Crowd),
    Slow(slow::Settings),
    States {
        address: SocketAddr,
        clients: u64,
    },
    Past {
        address: SocketAddr,
        #[command(flatten)]
        past: scenario::Past,
        seconds: u64,
    },
}

fn main() -> ExitCode {
    match start(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fanout: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: Options) -> Result<()> {
    if options.role.is_some() {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    }
    match options.role {
        Some(Role::Floor(settings)) => floor::run(&settings),
        Some(Role::Bare(settings)) => bare::run(settings),
        Some(Role::Clients(crowd)) => clients::run(crowd),
        Some(Role::Slow(settings)) => slow::run(settings),
        Some(Role::States { address, clients }) => states::run(address, clients),
        Some(Role::Past { address, past, seconds }) => clients::come_back(address, past, seconds),
        None if options.bench => bench(&options),
        None => {
            println!("no measurement without --bench: run `cargo bench --bench fanout`");
            Ok(())
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    if options.free.is_asked_for() && !options.row.is_empty() {
        bail!("--row does not go with the options of a scenario");
    }
    // For us and for all that we start: as many clients as the hard limit allows.
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let older = options.older.as_deref().map(|older| Scratch::new(Some(older))).transpose()?;
    let scratches: Vec<_> = [Scratch::new(None)?].into_iter().chain(older).collect();
    let start_redis = |scratch: &Scratch| scratch.start_redis();
    let redises: Result<Vec<_>> = scratches.iter().map(start_redis).collect();
    let _redises = redises.context("redis-server must be in the PATH")?;
    let (rows, faults) = run_all(options, &scratches);
    table::print_header();
    rows.iter().for_each(Row::print);
    if let Some(path) = &options.json {
        let rows: serde_json::Value = rows.iter().map(Row::to_json).collect();
        std::fs::write(path, format!("{rows:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !faults.is_empty() {
        bail!("{} runs failed:\n{}", faults.len(), faults.join("\n"));
    }
    Ok(())
}

/// All that is asked for, and the faults that came up; one row's do not keep the next from running.
fn run_all(options: &Options, scratches: &[Scratch]) -> (Vec<Row>, Vec<String>) {
    let mut faults = Vec::new();
    let mut rows = Vec::new();
    let mut run = |name, once: &dyn Fn(&mut Stage<'_>) -> Result<Vec<Figure>>| {
        let stage = |scratch| Stage { scratch, quick: options.quick, notes: Vec::new() };
        let mut stages: Vec<_> = scratches.iter().map(stage).collect();
        let mut runs = Vec::new();
        for nth in 1..=if options.quick { 1 } else { options.runs } {
            let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
            eprintln!("{name}, run {nth}; load average {}", load.trim());
            let all: Result<Vec<_>> = stages.iter_mut().map(once).collect();
            match all {
                Ok(all) => runs.extend(all.into_iter().reduce(beside_older)),
                Err(error) => faults.push(format!("{name}, run {nth}: {error:#}")),
            }
        }
        let notes = stages.into_iter().flat_map(|stage| stage.notes).collect();
        rows.push(Row { name, runs, notes });
    };
    if options.free.is_asked_for() {
        run("scenario", &|stage| options.free.run(stage));
    } else {
        let wanted = |row: &&rows::Row| {
            options.row.is_empty() || options.row.iter().any(|name| name == row.name)
        };
        ROWS.iter().filter(wanted).for_each(|row| run(row.name, &row.run));
    }
    (rows, faults)
}

/// The gateway's figures with those of an older one beside them.
fn beside_older(figures: Vec<Figure>, older: Vec<Figure>) -> Vec<Figure> {
    let pairs = figures.into_iter().zip(older);
    pairs.map(|(figure, older)| figure.beside("older", older.value)).collect()
}
