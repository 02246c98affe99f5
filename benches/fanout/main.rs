//! What fan-out costs, beside the least that it can cost. In each run the gateway and the floor
//! take turns on the same machine with the same Redis, the same clients and the same entries; a
//! row is the medians, and the ratio of the two.
//!
//! The binary starts itself again as the floor and as the clients, so that each has its own CPU
//! time. How to run it and how to read it: benches/README.md.

mod clients;
mod entry;
mod floor;
mod latency;
mod processes;
mod redis;
mod report;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use rustix::process::{Resource, Rlimit, Signal};

use processes::{Process, Scratch};
use report::{Row, Run, Scenario};

/// Between the last client's arrival and the first entry: what a handshake allocated is given
/// back by then, or stays.
const SETTLE: Duration = Duration::from_secs(1);

/// Deliveries, CPU, latency and memory of the gateway, beside a floor.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    #[command(flatten)]
    scenario: Scenario,
    /// Runs of which the medians are taken.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Leave the other one out.
    #[arg(long)]
    only: Option<Server>,
    #[arg(long, default_value_t = 1)]
    floor_threads: u64,
    /// Write the table to this file, too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Passed by `cargo bench`, and not by `cargo test --all-targets`.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Server {
    Gateway,
    Floor,
}

/// What the binary is when it starts itself.
#[derive(clap::Subcommand)]
#[command(hide = true)]
enum Role {
    Floor { address: SocketAddr, threads: u64, redis: PathBuf },
    Clients { address: SocketAddr, clients: u64, events: u64 },
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
    match &options.role {
        Some(Role::Floor { address, threads, redis }) => floor::run(*address, redis, *threads),
        Some(Role::Clients { address, clients, events }) => {
            clients::run(*address, *clients, *events)
        }
        None if options.bench => bench(options),
        None => {
            println!("no measurement without --bench: run `cargo bench --bench fanout`");
            Ok(())
        }
    }
}

fn bench(options: Options) -> Result<()> {
    // For us and for all that we start: as many clients as the hard limit allows.
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let scratch = Scratch::new()?;
    let _redis = scratch.start_redis().context("redis-server must be in the PATH")?;
    let mut rows = Vec::new();
    for scenario in [options.scenario] {
        let mut row = Row { scenario, gateway: Vec::new(), floor: Vec::new() };
        for run in 1..=options.runs {
            let load = std::fs::read_to_string("/proc/loadavg")?;
            eprintln!("run {run} of {}; load average {}", options.runs, load.trim());
            if options.only != Some(Server::Floor) {
                let start = |address| scratch.start_gateway(address);
                row.gateway.push(measure(&scratch, &row.scenario, start)?);
            }
            if options.only != Some(Server::Gateway) {
                let start = |address| scratch.start_floor(address, options.floor_threads);
                row.floor.push(measure(&scratch, &row.scenario, start)?);
            }
        }
        row.print();
        rows.push(row);
    }
    if let Some(path) = options.json {
        let rows: serde_json::Value = rows.iter().map(Row::to_json).collect();
        std::fs::write(&path, format!("{rows:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let runs = rows.iter().flat_map(|row| row.gateway.iter().chain(&row.floor));
    let faults: Vec<_> = runs.filter_map(Run::fault).collect();
    if !faults.is_empty() {
        bail!("not every client got every entry once, in order:\n{}", faults.join("\n"));
    }
    Ok(())
}

/// One run: a fresh server, its clients, and the entries.
fn measure(
    scratch: &Scratch,
    scenario: &Scenario,
    start: impl Fn(SocketAddr) -> Result<Process>,
) -> Result<Run> {
    entry::clear(&scratch.redis())?;
    let address = processes::free_address()?;
    let server = start(address)?;
    let idle_bytes = server.memory_bytes()?;
    let mut clients = scratch.start_clients(address, scenario.clients, scenario.events())?;
    let stdout = clients.child.stdout.take().expect("the clients' output must be piped");
    let mut lines = BufReader::new(stdout).lines();
    let mut said = || {
        let line = lines.next().transpose()?;
        let logs = || format!("{}the server said: {}", clients.log(), server.log());
        line.with_context(logs)
    };
    said()?;
    std::thread::sleep(SETTLE);
    let connected_bytes = server.memory_bytes()?;
    let (before, clients_before) = (server.cpu()?, clients.cpu()?);
    entry::write_all(&scratch.redis(), scenario)?;
    let report = serde_json::from_str(&said()?)?;
    let spent = server.cpu()?.since(before);
    let by_clients = clients.cpu()?.since(clients_before);
    let client_bytes = (connected_bytes - idle_bytes) / scenario.clients as f64;
    Ok(Run::new(report, spent, by_clients, client_bytes))
}
