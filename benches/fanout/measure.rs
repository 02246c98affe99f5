//! One run: a fresh server, its clients, and the entries; and what all of that took.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::companions::{past_seconds, start_crowd, start_past, start_slow, start_states};
use crate::entry;
use crate::processes::{Cpu, Memory, Process, Scratch, free_address};
use crate::scenario::Scenario;
use crate::states;

/// Between the last client's arrival and the first entry: what a handshake allocated is given
/// back by then, or stays.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);

/// How often memory is looked at while entries flow.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// The slow client's socket is looked at with every so many samples: `ss` takes a core for milliseconds.
const SAMPLES_PER_SOCKET: usize = 10;

/// What memory is by then is compared with what it is at the end.
const EARLY: Duration = Duration::from_secs(10);

/// A server below this share of the rate had a backlog: then latencies show its length, and a
/// server that coalesces what is pending sends less often.
const KEPT_UP: f64 = 0.97;

/// What must be zero in a report of clients.
const FAULTS: [&str; 4] = ["missing", "doubled", "gaps", "closed"];

/// What serves the clients.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Server {
    Gateway,
    /// With so many threads.
    Floor(u64),
    /// hyper alone, over HTTP/2.
    Bare,
}

/// What one run of one server took.
pub(crate) struct Run {
    scenario: Scenario,
    report: Value,
    /// Entries of the past that were delivered meanwhile.
    replayed: f64,
    /// Of the slow clients, if there were some.
    slow_report: Value,
    /// Until all that came for a state had it, and how often Redis read it for them.
    pub(crate) state_seconds: f64,
    pub(crate) state_reads: f64,
    /// Of the server before any client came, and with all of them, idle.
    alone: Memory,
    with_clients: Memory,
    /// The most while entries flowed, if that was sampled.
    pub(crate) peak: Peak,
    pub(crate) arrival_seconds: f64,
    arrival_cpu: Cpu,
    hold_cpu: Cpu,
    delivery_cpu: Cpu,
    clients_cpu: Cpu,
}

/// The most that samples have seen, in bytes.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_field_names, reason = "the unit")]
pub(crate) struct Peak {
    pub(crate) server_bytes: f64,
    /// After ten seconds, and at the end.
    pub(crate) early_bytes: f64,
    pub(crate) last_bytes: f64,
    /// What the server's kernel socket towards the slow client holds.
    pub(crate) slow_socket_bytes: f64,
}

impl Run {
    fn reported(&self, name: &str) -> f64 {
        number_in(&self.report, name)
    }

    /// What each of the slow clients has read of all entries, in percent.
    pub(crate) fn slow_percent(&self) -> f64 {
        let written = self.scenario.lagging_clients * self.scenario.events_per_key();
        number_in(&self.slow_report, "delivered") * 100.0 / written as f64
    }

    pub(crate) fn p50_ms(&self) -> f64 {
        self.reported("p50_ms")
    }

    pub(crate) fn p99_ms(&self) -> f64 {
        self.reported("p99_ms")
    }

    pub(crate) fn p999_ms(&self) -> f64 {
        self.reported("p999_ms")
    }

    pub(crate) fn worst_key_p99_ms(&self) -> f64 {
        self.reported("worst_key_p99_ms")
    }

    pub(crate) fn deliveries_per_second(&self) -> f64 {
        self.reported("delivered") / self.reported("seconds")
    }

    /// Of the past, per second, while all clients of it were there.
    pub(crate) fn replayed_per_second(&self) -> f64 {
        self.replayed / past_seconds(&self.scenario) as f64
    }

    pub(crate) fn cpu_us_per_delivery(&self) -> f64 {
        self.delivery_cpu.total * 1e6 / self.reported("delivered")
    }

    pub(crate) fn user_us_per_delivery(&self) -> f64 {
        self.delivery_cpu.user * 1e6 / self.reported("delivered")
    }

    /// Of one core, by the clients' process.
    pub(crate) fn clients_cpu_percent(&self) -> f64 {
        self.clients_cpu.total * 100.0 / self.reported("seconds")
    }

    pub(crate) fn arrivals_per_second(&self) -> f64 {
        self.scenario.clients as f64 / self.arrival_seconds
    }

    pub(crate) fn cpu_us_per_arrival(&self) -> f64 {
        self.arrival_cpu.total * 1e6 / self.scenario.clients as f64
    }

    /// Of one core, while nothing happens.
    pub(crate) fn hold_cpu_percent(&self) -> f64 {
        self.hold_cpu.total * 100.0 / self.scenario.hold.as_secs_f64()
    }

    pub(crate) fn bytes_per_client(&self) -> f64 {
        (self.with_clients.bytes - self.alone.bytes) / self.scenario.clients as f64
    }

    pub(crate) fn anonymous_bytes_per_client(&self) -> f64 {
        (self.with_clients.anonymous_bytes - self.alone.anonymous_bytes)
            / self.scenario.clients as f64
    }

    /// What of the rate was delivered, in percent, if the server fell behind.
    pub(crate) fn fell_behind(&self) -> Option<f64> {
        let share = self.deliveries_per_second() / self.scenario.deliveries_per_second();
        (share < KEPT_UP).then_some(share * 100.0)
    }
}

/// Starts `server`, and measures it in `scenario`. That a client missed anything is an error.
pub(crate) fn measure(scratch: &Scratch, scenario: &Scenario, server: Server) -> Result<Run> {
    entry::clear(&scratch.redis())?;
    if let Some(past) = scenario.past {
        entry::write_past(&scratch.redis(), past)?;
    }
    if scenario.state_clients > 0 {
        states::write(&scratch.redis())?;
    }
    let address = free_address()?;
    let process = start(scratch, server, address, scenario)?;
    let run = with_clients(scratch, scenario, address, &process);
    run.with_context(|| format!("the {} said: {}", process.name, process.log()))
}

/// The gateway alone: how soon it is ready, and its memory then.
pub(crate) fn measure_alone(scratch: &Scratch) -> Result<(Duration, Memory)> {
    let process = scratch.start_gateway(free_address()?)?;
    thread::sleep(SETTLE);
    Ok((process.ready_after, process.memory()?))
}

/// What each of `count` connections costs the gateway that have sent `begin` and then nothing, in bytes.
pub(crate) fn measure_pending(scratch: &Scratch, count: u32, begin: &[u8]) -> Result<f64> {
    let address = free_address()?;
    let process = scratch.start_gateway(address)?;
    thread::sleep(SETTLE);
    let before = process.memory()?;
    let connect = |_| {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(begin)?;
        anyhow::Ok(stream)
    };
    let connections = (0..count).map(connect).collect::<Result<Vec<_>>>()?;
    thread::sleep(SETTLE);
    let with_them = process.memory()?;
    // None was closed: that would flatter it.
    for connection in &connections {
        connection.set_nonblocking(true)?;
        let mut answer = [0; 4096];
        while let Ok(length) = (&mut &*connection).read(&mut answer) {
            anyhow::ensure!(length > 0, "the gateway closed one");
        }
    }
    Ok((with_them.anonymous_bytes - before.anonymous_bytes) / f64::from(count))
}

fn start(
    scratch: &Scratch,
    server: Server,
    at: SocketAddr,
    scenario: &Scenario,
) -> Result<Process> {
    match server {
        Server::Gateway => scratch.start_gateway_of(at, free_address()?, &scenario.of_route()),
        Server::Floor(threads) => {
            scratch.start_floor(at, threads, scenario.keys, scenario.selects())
        }
        Server::Bare => scratch.start_bare(at),
    }
}

fn with_clients(
    scratch: &Scratch,
    scenario: &Scenario,
    address: SocketAddr,
    server: &Process,
) -> Result<Run> {
    let (alone, started_cpu) = (server.memory()?, server.cpu()?);
    let mut crowd = start_crowd(scratch, scenario, address)?;
    let arrival_seconds = crowd.says()?.as_f64().context("the clients must say a time")?;
    thread::sleep(SETTLE);
    let (with_clients, arrived_cpu) = (server.memory()?, server.cpu()?);
    thread::sleep(scenario.hold);
    let held_cpu = server.cpu()?;
    let mut slow = start_slow(scratch, scenario, address)?;
    let port = slow.as_mut().map(Process::says).transpose()?.and_then(|port| port.as_u64());
    let slow_port = port.filter(|_| scenario.slow_client);
    let mut past = start_past(scratch, scenario, address)?;
    past.as_mut().map(Process::says).transpose()?;
    let reads_before = states::reads(&scratch.redis())?;
    let mut of_state = start_states(scratch, scenario, address)?;
    let (before, crowd_before) = (server.cpu()?, crowd.cpu()?);
    let mut deliver = || {
        entry::write_all(&scratch.redis(), scenario)?;
        let report = crowd.says()?;
        anyhow::Ok((report, server.cpu()?.since(before), crowd.cpu()?.since(crowd_before)))
    };
    let (delivered, peak) = if scenario.sampled {
        while_sampled(server, slow_port, deliver)
    } else {
        (deliver(), Ok(Peak::default()))
    };
    let (report, delivery_cpu, clients_cpu) = delivered?;
    check(&report)?;
    let slow_report = slow.as_mut().map(Process::says).transpose()?;
    if let Some(report) = &slow_report {
        check(report).context("the slow clients")?;
    }
    let state_report = of_state.as_mut().map(Process::says).transpose()?;
    let replayed = past.as_mut().map(Process::says).transpose()?;
    if let Some(replayed) = &replayed {
        check(replayed).context("those that came back")?;
    }
    Ok(Run {
        scenario: *scenario,
        report,
        replayed: replayed.map_or(0.0, |report| number_in(&report, "delivered")),
        slow_report: slow_report.unwrap_or_default(),
        state_seconds: state_report.map_or(0.0, |report| number_in(&report, "seconds")),
        state_reads: states::reads(&scratch.redis())? - reads_before,
        alone,
        with_clients,
        peak: peak?,
        arrival_seconds,
        arrival_cpu: arrived_cpu.since(started_cpu),
        hold_cpu: held_cpu.since(arrived_cpu),
        delivery_cpu,
        clients_cpu,
    })
}

/// Fails if a client missed an entry, got one twice, got a gap, or was cut.
pub(crate) fn check(report: &Value) -> Result<()> {
    if FAULTS.iter().any(|name| report[*name] != 0) {
        bail!("not every client got every entry once, in order: {report}");
    }
    Ok(())
}

fn while_sampled<T>(
    server: &Process,
    slow_port: Option<u64>,
    work: impl FnOnce() -> T,
) -> (T, Result<Peak>) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let (mut peak, began) = (Peak::default(), Instant::now());
            for sample in 0_usize.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let bytes = server.memory()?.bytes;
                peak.server_bytes = peak.server_bytes.max(bytes);
                peak.last_bytes = bytes;
                if began.elapsed() <= EARLY {
                    peak.early_bytes = bytes;
                }
                if let Some(port) = slow_port.filter(|_| sample % SAMPLES_PER_SOCKET == 0) {
                    peak.slow_socket_bytes = peak.slow_socket_bytes.max(socket_bytes(port)?);
                }
                thread::sleep(SAMPLE_INTERVAL);
            }
            Ok(peak)
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let peak = sampler.join().unwrap_or_else(|_| bail!("the sampler panicked"));
        (worked, peak)
    })
}

/// The kernel's memory for what is queued towards local port `port`: `w` of `skmem` in ss(8).
fn socket_bytes(port: u64) -> Result<f64> {
    let filter = format!("dport = :{port}");
    let output = Command::new("ss").args(["-Htmn", &filter]).output();
    let output = output.context("ss (of iproute2) must be in the PATH")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let fields = text.split_once("skmem:(").map_or("", |(_, fields)| fields);
    let queued = fields.split(',').find_map(|field| field.strip_prefix('w'));
    let queued = queued.with_context(|| format!("ss must show the slow client: {text}"))?;
    Ok(queued.parse()?)
}

fn number_in(report: &Value, name: &str) -> f64 {
    report[name].as_f64().unwrap_or(f64::NAN)
}
