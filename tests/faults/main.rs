//! The fault machine: a writer that numbers its entries, clients that record what they hear, a
//! nemesis that runs one fault while both go on, and a checker that holds what was promised against
//! what the writer and the clients recorded. Nothing may be lost without a gap that says so, nothing come twice, out of
//! order or torn, and everything has to be level again soon. A client that asks for some tenants gets theirs and no
//! other's, and is told of its gaps and its place by that. A client that follows several streams is held against each of
//! them by itself.
//!
//! `cargo test --test faults` runs each fault once and shortly, `-- --shared` where fifty keys share two connections
//! to Redis; `-- --seeds 5` in earnest.

#![allow(unreachable_pub, missing_docs, reason = "a test crate has no outside")]
#![allow(clippy::pedantic, clippy::unwrap_used, reason = "a test fails where it is wrong")]

mod checker;
mod chunks;
mod client;
mod following;
mod history;
mod merged;
mod neighbours;
mod nemesis;
mod payload;
mod proxy;
mod publishers;
mod record;
mod run;
mod scene;
mod selection;
mod table;
mod writer;

/// The scenario builders of the integration tests.
#[path = "../integration"]
mod integration {
    #[allow(dead_code, reason = "the integration tests use the rest")]
    pub mod support;
}

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Mutex;

use clap::Parser;
use integration::support;
use tokio::runtime::Runtime;

use checker::proof;
use nemesis::{FAULTS, Fault};
use scene::Plan;
use table::Row;

/// Faults, one at a time, and what became of the promise.
#[derive(Parser)]
struct Options {
    /// Only faults whose names contain one of these.
    name: Vec<String>,
    /// Name the faults and run none.
    #[arg(long)]
    list: bool,
    /// Each fault with the seeds 1 to this; more than one are run in earnest, as with --long.
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    seeds: u64,
    /// Each fault with this seed, as it was told where one failed; SEED=N does the same.
    #[arg(long)]
    seed: Option<u64>,
    /// Faults last as long as they do in earnest, `block` is what it is by default, and some clients speak
    /// HTTP/2.
    #[arg(long)]
    long: bool,
    /// Fifty keys share two connections to Redis, and each is checked.
    #[arg(long)]
    shared: bool,
    /// Clients in each run.
    #[arg(long, default_value_t = 20)]
    clients: usize,
    /// Runs at a time.
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// What other test programs take; nothing is ever captured here.
    #[arg(long, hide = true)]
    nocapture: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let named = |fault: &&Fault| {
        options.name.is_empty() || options.name.iter().any(|name| fault.name.contains(&**name))
    };
    let faults: Vec<&Fault> = FAULTS.iter().filter(named).collect();
    if options.list {
        faults.iter().for_each(|fault| println!("{}", fault.name));
        return ExitCode::SUCCESS;
    }
    for (what, case) in proof::CASES {
        println!("the checker catches: {what}");
        case();
    }
    if inflict(&options, &faults) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Clients are late, and nothing else is wrong, where too much runs beside a fault, as the other faults do: then
/// it is run again, with nothing of ours beside it.
fn once_more(row: &mut Row, fault: &Fault, plan: Plan, runtime: &Runtime) {
    println!("{} was late; again, by itself:", row.name);
    for (seed, findings) in row.runs.iter_mut().filter(|(_, findings)| findings.only_late) {
        *findings = run::run(fault, Plan { seed: *seed, ..plan }, runtime.handle());
    }
    println!("{}", row.line());
}

/// Runs them all, some at a time, and prints each row when it is whole; whether everything held.
fn inflict(options: &Options, faults: &[&Fault]) -> bool {
    let seed = options.seed.or_else(support::seed::of_environment);
    let seeds: Vec<u64> = seed.map_or((1..=options.seeds).collect(), |seed| vec![seed]);
    let (clients, shared) = (options.clients, options.shared);
    let long = options.long || seeds.len() > 1;
    let runtime = support::swarm::runtime();
    let rows = faults.iter().map(|fault| Row { name: fault.name, runs: Vec::new() });
    let rows: Mutex<Vec<Row>> = Mutex::new(rows.collect());
    let order = (0..faults.len()).flat_map(|fault| seeds.iter().map(move |seed| (fault, *seed)));
    let waiting: Mutex<VecDeque<(usize, u64)>> = Mutex::new(order.collect());
    let work = || {
        while let Some((fault, seed)) = { waiting.lock().unwrap().pop_front() } {
            let plan = Plan { seed, clients, shared, long };
            let findings = run::run(faults[fault], plan, runtime.handle());
            let row = &mut rows.lock().unwrap()[fault];
            row.runs.push((seed, findings));
            if row.runs.len() == seeds.len() {
                row.runs.sort_by_key(|(seed, _)| *seed);
                println!("{}", row.line());
            }
        }
    };
    println!("\n{}", table::head());
    std::thread::scope(|scope| {
        (0..options.jobs.max(1)).for_each(|_| drop(scope.spawn(work)));
    });
    let mut rows = rows.into_inner().unwrap();
    let late = rows.iter_mut().zip(faults).filter(|(row, _)| row.is_only_late());
    late.for_each(|(row, fault)| {
        once_more(row, fault, Plan { seed: 0, clients, shared, long }, &runtime)
    });
    let failed: Vec<&Row> = rows.iter().filter(|row| !row.holds()).collect();
    let long = if long { " --long" } else { "" };
    let shared = if shared { " --shared" } else { "" };
    for row in &failed {
        let again =
            |seed| format!("cargo test --test faults -- {} --seed {seed}{long}{shared}", row.name);
        eprintln!("{}", row.complaint(again));
    }
    println!("\n{} of {} faults passed", rows.len() - failed.len(), rows.len());
    failed.is_empty()
}
