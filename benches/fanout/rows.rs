//! The rows of the benchmark: what is measured in each, and what it has to reach.

use std::time::Duration;

use anyhow::Result;

use crate::many;
use crate::measure::{Run, Server, measure, measure_alone, measure_pending};
use crate::merged;
use crate::processes::Scratch;
use crate::scenario::{Past, Scenario};
use crate::selecting;
use crate::table::{Figure, Goal};

/// Seconds of entries in a smoke run.
const QUICK_SECONDS: u64 = 2;

/// With 15 s between keepalives, each idle client gets four.
const IDLE: Duration = Duration::from_secs(60);
const QUICK_IDLE: Duration = Duration::from_secs(5);

/// Twice `limits.send_buffer`, for the kernel counts its own bookkeeping too, and a last segment.
const SLOW_SOCKET_KIB: f64 = 2.0 * 128.0 + 64.0;

/// Of streams that begin and end.
const ANSWERS_SECONDS: u64 = 60;

const MIB: f64 = 1024.0 * 1024.0;

/// A row: its name and one run of it.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Stage<'_>) -> Result<Vec<Figure>>,
}

pub(crate) const ROWS: [Row; 27] = [
    Row { name: "deliver-1k", run: |stage| deliver(stage, 1_000, 100.0) },
    Row { name: "deliver-10k", run: |stage| deliver(stage, 10_000, 10.0) },
    Row { name: "h2", run: multiplexed },
    Row { name: "idle-memory", run: idle_memory },
    Row { name: "pending", run: pending },
    Row { name: "process", run: process },
    Row { name: "overload", run: overload },
    Row { name: "publish", run: publish },
    Row { name: "ndjson", run: ndjson },
    Row { name: "answers", run: answers },
    Row { name: "keys", run: keys },
    Row { name: "many-idle", run: many::idle },
    Row { name: "many-quiet", run: many::quiet },
    Row { name: "mixed", run: many::mixed },
    Row { name: "opening", run: many::opening },
    Row { name: "arrival", run: arrival },
    Row { name: "idle", run: idle },
    Row { name: "slow-client", run: slow_client },
    Row { name: "growth", run: growth },
    Row { name: "herd", run: |stage| replay(stage, HERD) },
    Row { name: "herd-same-key", run: |stage| replay(stage, Past { same_key: true, ..HERD }) },
    Row {
        name: "long-past",
        run: |stage| replay(stage, Past { clients: 100, entries: 10_000_000, ..HERD }),
    },
    Row { name: "snapshot-herd", run: snapshot_herd },
    Row { name: "conflate", run: conflate },
    Row { name: "tenants", run: selecting::tenants },
    Row { name: "filters", run: selecting::filters },
    Row { name: "merged", run: merged::merged },
];

/// Where rows are run, and what they have to report beside their figures.
pub(crate) struct Stage<'a> {
    pub(crate) scratch: &'a Scratch,
    pub(crate) quick: bool,
    pub(crate) notes: Vec<String>,
}

impl Stage<'_> {
    pub(crate) fn measure(&mut self, scenario: Scenario, server: Server) -> Result<Run> {
        let seconds =
            if self.quick { QUICK_SECONDS.min(scenario.seconds) } else { scenario.seconds };
        measure(self.scratch, &Scenario { seconds, ..scenario }, server)
    }

    /// As [`Self::measure`], where a backlog would make the figures mean something else.
    pub(crate) fn measure_on_time(&mut self, scenario: Scenario, server: Server) -> Result<Run> {
        let run = self.measure(scenario, server)?;
        if let Some(percent) = run.fell_behind() {
            let Scenario { clients, .. } = scenario;
            let name = server.name();
            self.notes.push(format!("{name}, {clients} clients: fell behind, to {percent:.0} %"));
        }
        Ok(run)
    }
}

impl Server {
    /// As it stands in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Floor(1) => "floor",
            Self::Floor(_) => "wide floor",
            Self::Bare => "bare hyper",
        }
    }
}

/// As many threads as the gateway has workers.
fn wide_floor() -> Server {
    Server::Floor(std::thread::available_parallelism().map_or(1, |count| count.get() as u64))
}

fn deliver(stage: &mut Stage<'_>, clients: u64, rate: f64) -> Result<Vec<Figure>> {
    let scenario = Scenario { clients, rate, ..Scenario::default() };
    let gateway = stage.measure_on_time(scenario, Server::Gateway)?;
    let floor = stage.measure_on_time(scenario, Server::Floor(1))?;
    let wide = stage.measure_on_time(scenario, wide_floor())?;
    let mut figures = cpu_beside_floor(&gateway, &floor, Goal::RatioAtMost(1.15));
    figures.extend([
        Figure::new("p99 ms", 2, gateway.p99_ms())
            .beside("wide floor", wide.p99_ms())
            .goal(Goal::RatioAtMost(1.2)),
        Figure::new("p50 ms", 2, gateway.p50_ms()).beside("wide floor", wide.p50_ms()),
        Figure::new("CPU us/delivery", 2, gateway.cpu_us_per_delivery())
            .beside("wide floor", wide.cpu_us_per_delivery()),
        Figure::new("clients' CPU %", 0, gateway.clients_cpu_percent())
            .beside("floor", floor.clients_cpu_percent()),
    ]);
    Ok(figures)
}

/// Streams of a connection in the row of HTTP/2: as many as a dashboard may have.
const STREAMS: u64 = 50;

fn multiplexed(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let scenario = Scenario { streams: STREAMS, ..Scenario::default() };
    let gateway = stage.measure_on_time(scenario, Server::Gateway)?;
    let bare = stage.measure_on_time(scenario, Server::Bare)?;
    let beside = |what: &str, digits, of: fn(&Run) -> f64| {
        Figure::new(what, digits, of(&gateway)).beside("bare hyper", of(&bare))
    };
    Ok(vec![
        beside("CPU us/delivery", 2, Run::cpu_us_per_delivery).goal(Goal::RatioAtMost(1.5)),
        beside("of it user", 2, Run::user_us_per_delivery),
        beside("p99 ms", 2, Run::p99_ms),
        beside("PSS bytes/stream", 0, Run::bytes_per_client),
        beside("clients' CPU %", 0, Run::clients_cpu_percent),
    ])
}

pub(crate) fn cpu_beside_floor(gateway: &Run, floor: &Run, goal: Goal) -> Vec<Figure> {
    vec![
        Figure::new("CPU us/delivery", 2, gateway.cpu_us_per_delivery())
            .beside("floor", floor.cpu_us_per_delivery())
            .goal(goal),
        Figure::new("of it user", 2, gateway.user_us_per_delivery())
            .beside("floor", floor.user_us_per_delivery()),
    ]
}

/// All clients at once, then one entry that each must get.
fn ten_thousand() -> Scenario {
    Scenario { clients: 10_000, rate: 1.0, seconds: 1, ..Scenario::default() }
}

fn idle_memory(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let run = stage.measure(ten_thousand(), Server::Gateway)?;
    Ok(vec![
        Figure::new("PSS bytes/client", 0, run.bytes_per_client()).goal(Goal::AtMost(500.0)),
        Figure::new("of it anonymous", 0, run.anonymous_bytes_per_client()),
    ])
}

fn pending(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    const HALF: &[u8] = b"GET /events/a HTTP/1.1\r\nHost: x\r\nX-Half: ";
    const WHOLE: &[u8] = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n";
    let half = measure_pending(stage.scratch, 10_000, HALF)?;
    let large = measure_pending(stage.scratch, 10_000, &[HALF, &[b'x'; 15 << 10]].concat())?;
    let kept = measure_pending(stage.scratch, 900, WHOLE)?;
    Ok(vec![
        Figure::new("anonymous bytes/half request", 0, half).goal(Goal::AtMost(4096.0)),
        Figure::new("with 15 KiB of it sent", 0, large).goal(Goal::AtMost(24576.0)),
        Figure::new("after a response, kept alive", 0, kept).goal(Goal::AtMost(24576.0)),
    ])
}

fn process(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let (ready_after, memory) = measure_alone(stage.scratch)?;
    Ok(vec![
        Figure::new("PSS MiB without clients", 2, memory.bytes / MIB).goal(Goal::AtMost(8.0)),
        Figure::new("of it anonymous", 2, memory.anonymous_bytes / MIB),
        Figure::new("ms from exec to ready", 1, ready_after.as_secs_f64() * 1e3)
            .goal(Goal::AtMost(50.0)),
    ])
}

fn publish(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let seconds = if stage.quick { QUICK_SECONDS } else { 10 };
    let run = crate::publish::measure(stage.scratch, seconds)?;
    Ok(vec![
        Figure::new("POSTs/s", 0, run.posts_per_second)
            .beside("redis-benchmark's XADDs/s", run.xadds_per_second),
        Figure::new("CPU us/POST", 1, run.cpu_us_per_post),
        Figure::new("p50 ms", 2, run.p50_ms),
        Figure::new("p99 ms", 2, run.p99_ms),
    ])
}

fn ndjson(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let seconds = if stage.quick { QUICK_SECONDS } else { 10 };
    let run = crate::ndjson::measure(stage.scratch, seconds)?;
    Ok(vec![
        Figure::new("entries/s", 0, run.posted.entries_per_second)
            .beside("in pipelines", run.piped.entries_per_second),
        Figure::new("Redis' CPU us/entry", 2, run.posted.redis_us_per_entry)
            .beside("in pipelines", run.piped.redis_us_per_entry),
        Figure::new("gateway's CPU us/entry", 2, run.gateway_us_per_entry),
    ])
}

fn answers(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let seconds = if stage.quick { QUICK_SECONDS } else { ANSWERS_SECONDS };
    let run = crate::answers::measure(stage.scratch, seconds)?;
    Ok(vec![
        Figure::new("streams", 0, run.streams as f64),
        Figure::new("first entry, p50 ms", 2, run.p50_ms),
        Figure::new("first entry, p99 ms", 2, run.p99_ms),
        Figure::new("gateway's CPU ms/stream", 2, run.gateway_ms_per_stream),
        Figure::new("Redis' CPU ms/stream", 2, run.redis_ms_per_stream),
        Figure::new("grown KiB", 0, run.grown_bytes / 1024.0).goal(Goal::AtMost(1024.0)),
        Figure::new("readers left", 0, run.left_readers).goal(Goal::AtMost(0.0)),
        Figure::new("descriptors left", 0, run.left_descriptors).goal(Goal::AtMost(8.0)),
    ])
}

fn overload(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let scenario = Scenario { rate: 10_000.0, pipeline: 100, sampled: true, ..Scenario::default() };
    let run = stage.measure(scenario, Server::Gateway)?;
    Ok(vec![
        Figure::new("million deliveries/s", 2, run.deliveries_per_second() / 1e6)
            .goal(Goal::AtLeast(5.0)),
        Figure::new("peak PSS MiB", 1, run.peak.server_bytes / MIB).goal(Goal::AtMost(64.0)),
        Figure::new("CPU us/delivery", 3, run.cpu_us_per_delivery()),
        Figure::new("clients' CPU %", 0, run.clients_cpu_percent()),
    ])
}

fn keys(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let scenario = Scenario { clients: 10_000, keys: 1_000, rate: 1_000.0, ..Scenario::default() };
    let gateway = stage.measure_on_time(scenario, Server::Gateway)?;
    let floor = stage.measure_on_time(scenario, Server::Floor(1))?;
    let mut figures = cpu_beside_floor(&gateway, &floor, Goal::RatioAtMost(2.0));
    figures.extend([
        Figure::new("p99 ms, all keys", 2, gateway.p99_ms()).beside("floor", floor.p99_ms()),
        Figure::new("p99 ms, worst key", 2, gateway.worst_key_p99_ms())
            .beside("floor", floor.worst_key_p99_ms()),
    ]);
    Ok(figures)
}

fn arrival(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let gateway = stage.measure(ten_thousand(), Server::Gateway)?;
    let floor = stage.measure(ten_thousand(), Server::Floor(1))?;
    Ok(vec![
        Figure::new("clients/s", 0, gateway.arrivals_per_second())
            .beside("floor", floor.arrivals_per_second())
            .goal(Goal::AtLeast(15_000.0)),
        Figure::new("CPU us/arrival", 1, gateway.cpu_us_per_arrival())
            .beside("floor", floor.cpu_us_per_arrival())
            .goal(Goal::AtMost(30.0)),
    ])
}

fn idle(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let hold = if stage.quick { QUICK_IDLE } else { IDLE };
    let run = stage.measure(Scenario { hold, ..ten_thousand() }, Server::Gateway)?;
    let what = format!("CPU % of a core in {} s", hold.as_secs());
    Ok(vec![Figure::new(what, 3, run.hold_cpu_percent()).goal(Goal::AtMost(0.5))])
}

fn slow_client(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    // Long enough that what the kernel takes for the slow one is full well before the end.
    let scenario = Scenario { seconds: 20, sampled: true, ..Scenario::default() };
    let without = stage.measure_on_time(scenario, Server::Gateway)?;
    let with =
        stage.measure_on_time(Scenario { slow_client: true, ..scenario }, Server::Gateway)?;
    Ok(vec![
        Figure::new("the others' p99 ms", 2, with.p99_ms())
            .beside("without it", without.p99_ms())
            .goal(Goal::NoWorse),
        Figure::new("CPU us/delivery", 2, with.cpu_us_per_delivery())
            .beside("without it", without.cpu_us_per_delivery()),
        Figure::new("its socket, KiB in the kernel", 0, with.peak.slow_socket_bytes / 1024.0)
            .goal(Goal::AtMost(SLOW_SOCKET_KIB)),
        Figure::new("peak PSS MiB", 2, with.peak.server_bytes / MIB)
            .beside("without it", without.peak.server_bytes / MIB),
    ])
}

const HERD: Past = Past { clients: 1_000, entries: 100_000, same_key: false };

/// What the live clients of one key notice of those that come back, to another or to the same.
fn replay(stage: &mut Stage<'_>, past: Past) -> Result<Vec<Figure>> {
    let past = Past { entries: if stage.quick { 10_000 } else { past.entries }, ..past };
    let scenario = Scenario { sampled: true, ..Scenario::default() };
    let without = stage.measure_on_time(scenario, Server::Gateway)?;
    let with = stage.measure_on_time(Scenario { past: Some(past), ..scenario }, Server::Gateway)?;
    Ok(vec![
        Figure::new("live p99 ms", 2, with.p99_ms())
            .beside("without them", without.p99_ms())
            .goal(Goal::RatioAtMost(2.0)),
        Figure::new("thousand replayed/s", 0, with.replayed_per_second() / 1e3),
        Figure::new("peak PSS MiB", 2, with.peak.server_bytes / MIB)
            .beside("without them", without.peak.server_bytes / MIB),
    ])
}

/// Clients that come for one state at once: with the live ones they fit into 20,000 open files.
const HERD_OF_STATES: u64 = 10_000;

/// What live clients of another key notice of them.
fn snapshot_herd(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let state_clients = if stage.quick { 200 } else { HERD_OF_STATES };
    // As long as it takes to send 10 GB.
    let scenario = Scenario { seconds: 20, sampled: true, ..Scenario::default() };
    let without = stage.measure_on_time(scenario, Server::Gateway)?;
    let with = stage.measure(Scenario { state_clients, ..scenario }, Server::Gateway)?;
    Ok(vec![
        Figure::new("Redis' reads of the state", 0, with.state_reads).goal(Goal::AtMost(10.0)),
        Figure::new("s until all have it", 2, with.state_seconds),
        Figure::new("live p99 ms", 2, with.p99_ms())
            .beside("without them", without.p99_ms())
            .goal(Goal::RatioAtMost(2.0)),
        Figure::new("peak PSS MiB", 2, with.peak.server_bytes / MIB)
            .beside("without them", without.peak.server_bytes / MIB),
    ])
}

/// A tenth of the clients read a tenth of what they are sent.
fn conflate(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let scenario = Scenario {
        clients: 900,
        conflated_ids: 100,
        entry_bytes: 1024,
        seconds: 60,
        sampled: true,
        ..Scenario::default()
    };
    let without = stage.measure_on_time(scenario, Server::Gateway)?;
    let with =
        stage.measure_on_time(Scenario { lagging_clients: 100, ..scenario }, Server::Gateway)?;
    Ok(vec![
        Figure::new("the others' p99 ms", 2, with.p99_ms())
            .beside("without them", without.p99_ms())
            .goal(Goal::NoWorse),
        // The ring fills meanwhile, with them and without.
        Figure::new("PSS MiB more after 60 s than after 10", 2, grown(&with))
            .beside("without them", grown(&without))
            .goal(Goal::RatioAtMost(1.05)),
        Figure::new("CPU us/delivery", 2, with.cpu_us_per_delivery())
            .beside("without them", without.cpu_us_per_delivery()),
        Figure::new("entries a slow one got, %", 1, with.slow_percent()),
    ])
}

fn grown(run: &Run) -> f64 {
    (run.peak.last_bytes - run.peak.early_bytes) / MIB
}

fn growth(stage: &mut Stage<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut costs = Vec::new();
    for clients in [100_u32, 1_000, 10_000, 15_000] {
        let rate = 100_000.0 / f64::from(clients);
        let scenario =
            Scenario { clients: clients.into(), rate, seconds: 6, ..Scenario::default() };
        let gateway = stage.measure_on_time(scenario, Server::Gateway)?.cpu_us_per_delivery();
        let floor = stage.measure_on_time(scenario, Server::Floor(1))?.cpu_us_per_delivery();
        let what = format!("CPU us/delivery, {clients} clients");
        figures.push(Figure::new(what, 2, gateway).beside("floor", floor));
        costs.push((gateway, floor));
    }
    let spread = |costs: &mut dyn Iterator<Item = f64>| {
        let (min, max) =
            costs.fold((f64::MAX, 0.0_f64), |(min, max), cost| (min.min(cost), max.max(cost)));
        max / min
    };
    let gateway = spread(&mut costs.iter().map(|(gateway, _)| *gateway));
    let floor = spread(&mut costs.iter().map(|(_, floor)| *floor));
    let most = Figure::new("the dearest / the cheapest", 2, gateway);
    figures.push(most.beside("floor", floor).goal(Goal::AtMost(1.2)));
    Ok(figures)
}
