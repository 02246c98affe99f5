//! Stream keys by the thousand, whose readers share connections to Redis, beside a connection for each of them.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit};
use serde_json::Value;

use crate::companions::start_crowd;
use crate::entry;
use crate::measure::{SETTLE, Server, check};
use crate::opening::{self, Opening};
use crate::processes::{Memory, Process, Scratch, free_address};
use crate::redis;
use crate::rows::Stage;
use crate::scenario::Scenario;
use crate::table::{Figure, Goal};

/// Open files of the gateway for a stream key with one client: the client's.
const FILES_PER_KEY: u64 = 1;
/// Of the gateway besides.
const OTHER_FILES: u64 = 300;

/// `source.connections` and the shared ones, of which there are four.
const MOST_CONNECTIONS: f64 = 64.0 + 4.0;
const MEMORY_PER_KEY: f64 = 6.0 * 1024.0;
/// Below this share of its rate a run had a backlog.
const KEPT_UP: f64 = 0.97;

/// Who has a connection to Redis.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Connections {
    /// At most so many as by default, whatever the number of keys.
    Shared,
    /// Each key.
    Own,
}

/// Stream keys that a row has, with an entry now and then.
#[derive(Clone, Copy)]
struct Quiet {
    keys: u64,
    /// Entries per second of one key.
    rate: f64,
    seconds: u64,
}

/// CPU time of both in seconds: all of it so far, or in each second.
struct Cpu {
    gateway: f64,
    redis: f64,
}

/// What they have used, and when.
struct Used {
    cpu: Cpu,
    at: Instant,
}

/// What one gateway took.
struct Run {
    keys: f64,
    memory_bytes: f64,
    connections: f64,
    idle: Cpu,
    busy: Cpu,
    /// Of the crowds, in the order of their loads.
    reports: Vec<Value>,
}

/// The two that stand beside each other.
struct Pair {
    shared: Run,
    own: Run,
}

impl Connections {
    /// As many of `keys` as the open files allow, each with a client.
    fn fitting(self, keys: u64) -> u64 {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let of_reader = u64::from(self == Self::Own);
        keys.min(files.saturating_sub(OTHER_FILES) / (FILES_PER_KEY + of_reader)).max(1)
    }
}

impl Quiet {
    fn load(self, connections: Connections) -> Scenario {
        let keys = connections.fitting(self.keys);
        let rate = self.rate * keys as f64;
        Scenario { clients: keys, keys, rate, seconds: self.seconds, ..Scenario::default() }
    }

    fn of(stage: &Stage<'_>, keys: u64) -> Self {
        if stage.quick {
            Self { keys: 200, rate: 1.0, seconds: 2 }
        } else {
            Self { keys, rate: 0.1, seconds: 30 }
        }
    }
}

pub(crate) fn idle(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let hold = Duration::from_secs(if stage.quick { 2 } else { 30 });
    let quiet = Quiet::of(stage, 10_000);
    let pair = Pair::measure(stage, |connections| {
        // One entry for each client at the end.
        vec![Scenario { hold, rate: 2_000.0, seconds: 1, ..quiet.load(connections) }]
    })?;
    let clients = quiet.load(Connections::Shared).clients;
    let crowd = Scenario { clients, rate: 1.0, seconds: 1, ..Scenario::default() };
    let client_bytes = stage.measure(crowd, Server::Gateway)?.bytes_per_client();
    Ok(vec![
        pair.figure("stream keys", 0, |run| run.keys),
        pair.figure("connections to Redis", 0, |run| run.connections)
            .goal(Goal::AtMost(MOST_CONNECTIONS)),
        pair.figure("PSS bytes/key without its client", 0, |run| {
            run.memory_bytes / run.keys - client_bytes
        })
        .goal(Goal::AtMost(MEMORY_PER_KEY)),
        pair.figure("gateway's CPU us/key/s", 2, |run| per_key_us(run, run.idle.gateway)),
        pair.figure("Redis' CPU us/key/s", 2, |run| per_key_us(run, run.idle.redis))
            .goal(Goal::RatioAtMost(1.0)),
    ])
}

pub(crate) fn quiet(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let quiet = Quiet::of(stage, 10_000);
    let pair = Pair::measure(stage, |connections| vec![quiet.load(connections)])?;
    let written = write_alone(stage.scratch, quiet.load(Connections::Shared))?;
    let p99 = pair.latency("p99 ms", 0, "p99_ms");
    let absolute = Figure { beside: None, ..p99.clone() }.goal(Goal::AtMost(20.0));
    Ok(vec![
        pair.figure("stream keys", 0, |run| run.keys),
        pair.latency("p50 ms", 0, "p50_ms"),
        absolute,
        p99.goal(Goal::RatioAtMost(2.0)),
        pair.figure("gateway's CPU us/key/s", 1, |run| per_key_us(run, run.busy.gateway)),
        pair.figure("Redis' CPU us/key/s", 1, |run| per_key_us(run, run.busy.redis))
            .goal(Goal::RatioAtMost(1.5)),
        pair.figure("the same without its XADDs", 1, |run| {
            per_key_us(run, run.busy.redis) - written
        }),
    ])
}

pub(crate) fn mixed(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let quiet = Quiet::of(stage, 5_000);
    let (busy_keys, busy_rate) = if stage.quick { (5, 50.0) } else { (20, 200.0) };
    let pair = Pair::measure(stage, |connections| {
        let quiet = quiet.load(connections);
        let busy = Scenario {
            first_key: quiet.keys,
            keys: busy_keys,
            clients: busy_keys,
            rate: busy_rate * busy_keys as f64,
            ..quiet
        };
        vec![quiet, busy]
    })?;
    Ok(vec![
        pair.latency("busy keys, p50 ms", 1, "p50_ms"),
        pair.latency("busy keys, p99 ms", 1, "p99_ms").goal(Goal::RatioAtMost(1.2)),
        pair.latency("quiet keys, p50 ms", 0, "p50_ms"),
        pair.latency("quiet keys, p99 ms", 0, "p99_ms"),
        pair.figure("gateway's CPU % of a core", 1, |run| run.busy.gateway * 100.0),
        pair.figure("Redis' CPU % of a core", 1, |run| run.busy.redis * 100.0),
    ])
}

pub(crate) fn opening(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let (rate, seconds) = if stage.quick { (200, 2) } else { (3_000, 10) };
    let shared = opening::measure(stage.scratch, Connections::Shared, rate, seconds)?;
    let own = opening::measure(stage.scratch, Connections::Own, rate, seconds)?;
    for (name, run) in [("shared", &shared), ("own", &own)] {
        note_backlog(stage, name, run.keys_per_second / rate as f64);
    }
    let figure = |what, digits, of: fn(&Opening) -> f64| {
        Figure::new(what, digits, of(&shared)).beside("own", of(&own))
    };
    Ok(vec![
        figure("new keys/s", 0, |run| run.keys_per_second),
        figure("from connect to head, p50 ms", 2, |run| run.head_p50_ms),
        figure("from connect to head, p99 ms", 2, |run| run.head_p99_ms),
        figure("first entry, p50 ms", 2, |run| run.p50_ms),
        figure("first entry, p99 ms", 2, |run| run.p99_ms).goal(Goal::RatioAtMost(2.0)),
        figure("first entries later than 1 s", 0, |run| run.late),
        figure("gateway's CPU ms/key", 3, |run| run.gateway_ms_per_key),
        figure("Redis' CPU ms/key", 3, |run| run.redis_ms_per_key),
    ])
}

fn per_key_us(run: &Run, cpu: f64) -> f64 {
    cpu * 1e6 / run.keys
}

fn note_backlog(stage: &mut Stage<'_>, name: &str, share: f64) {
    if share < KEPT_UP {
        stage.notes.push(format!("{name}: fell behind, to {:.0} %", share * 100.0));
    }
}

/// What adding the entries of one key costs Redis, in microseconds of a second, while nobody reads.
fn write_alone(scratch: &Scratch, load: Scenario) -> Result<f64> {
    let load = Scenario { seconds: load.seconds.min(10), ..load };
    entry::clear(&scratch.redis())?;
    let (before, began) = (redis::cpu_seconds(&scratch.redis())?, Instant::now());
    entry::write_all(&scratch.redis(), &load)?;
    let seconds = redis::cpu_seconds(&scratch.redis())? - before;
    Ok(seconds * 1e6 / began.elapsed().as_secs_f64() / load.keys as f64)
}

impl Pair {
    fn measure(
        stage: &mut Stage<'_>,
        loads: impl Fn(Connections) -> Vec<Scenario>,
    ) -> Result<Self> {
        let mut one = |name, connections| {
            let loads = loads(connections);
            let run = Run::measure(stage.scratch, connections, &loads).context(name)?;
            let timed = loads.iter().zip(&run.reports).filter(|(load, _)| load.hold.is_zero());
            for (load, report) in timed {
                let number = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
                let share = number("delivered") / number("seconds") / load.rate;
                note_backlog(stage, name, share);
            }
            anyhow::Ok(run)
        };
        Ok(Self { shared: one("shared", Connections::Shared)?, own: one("own", Connections::Own)? })
    }

    fn figure(&self, what: &str, digits: usize, of: impl Fn(&Run) -> f64) -> Figure {
        Figure::new(what, digits, of(&self.shared)).beside("own", of(&self.own))
    }

    /// What the `nth` crowd reports.
    fn latency(&self, what: &str, nth: usize, name: &str) -> Figure {
        self.figure(what, 2, |run| run.reports[nth][name].as_f64().unwrap_or(f64::NAN))
    }
}

impl Run {
    fn measure(scratch: &Scratch, connections: Connections, loads: &[Scenario]) -> Result<Self> {
        entry::clear(&scratch.redis())?;
        let address = free_address()?;
        let gateway = scratch.start_gateway_of_many_keys(address, connections)?;
        let run = Self::observe(scratch, &gateway, address, loads);
        run.with_context(|| format!("the gateway said: {}", gateway.log()))
    }

    fn observe(
        scratch: &Scratch,
        gateway: &Process,
        address: SocketAddr,
        loads: &[Scenario],
    ) -> Result<Self> {
        let alone = gateway.memory()?;
        let mut crowds = Vec::new();
        for load in loads {
            let mut crowd = start_crowd(scratch, load, address)?;
            crowd.says().context("arriving")?;
            crowds.push(crowd);
        }
        thread::sleep(SETTLE);
        let Memory { bytes, .. } = gateway.memory()?;
        let arrived = Used::now(scratch, gateway)?;
        thread::sleep(loads.iter().map(|load| load.hold).max().unwrap_or_default());
        // Less the connection that asks.
        let connections = redis::info(&scratch.redis(), "connected_clients")? - 1.0;
        let held = Used::now(scratch, gateway)?;
        let reports = deliver(scratch, loads, &mut crowds)?;
        let delivered = Used::now(scratch, gateway)?;
        reports.iter().try_for_each(check)?;
        Ok(Self {
            keys: loads.iter().map(|load| load.keys).sum::<u64>() as f64,
            memory_bytes: bytes - alone.bytes,
            connections,
            idle: held.since(&arrived),
            busy: delivered.since(&held),
            reports,
        })
    }
}

/// Adds the entries of all loads at a time; what their crowds report.
fn deliver(scratch: &Scratch, loads: &[Scenario], crowds: &mut [Process]) -> Result<Vec<Value>> {
    thread::scope(|scope| {
        let write = |load| scope.spawn(move || entry::write_all(&scratch.redis(), load));
        let writers: Vec<_> = loads.iter().map(write).collect();
        for writer in writers {
            writer.join().expect("no panic")?;
        }
        crowds.iter_mut().map(Process::says).collect()
    })
}

impl Used {
    fn now(scratch: &Scratch, gateway: &Process) -> Result<Self> {
        let cpu =
            Cpu { gateway: gateway.cpu()?.total, redis: redis::cpu_seconds(&scratch.redis())? };
        Ok(Self { cpu, at: Instant::now() })
    }

    fn since(&self, before: &Self) -> Cpu {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let per_second = |of: fn(&Cpu) -> f64| (of(&self.cpu) - of(&before.cpu)) / seconds;
        Cpu { gateway: per_second(|cpu| cpu.gateway), redis: per_second(|cpu| cpu.redis) }
    }
}
