//! Thousands come back at once, each from where it was: exactly what is missing, at next to no cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Connection, Redis};
use crate::support::swarm::{self, Address, Stream};
use crate::support::within;

/// A debug build on a loaded machine needs its time.
const LONG: Duration = Duration::from_secs(500);
/// A debug build takes so many times what a release build may: here as in the gateway each event costs many
/// times as much, and whatever else the machine does takes its share. There it shows that no client is stuck; the
/// rest is for `cargo test --release --test integration herd::`.
/// It is more than 32 because a full queue drops connects, and the kernel repeats an unlucky client's after 1, 3,
/// 7, 15, 31 and 63 s: [`BACK`] has to be longer.
const PACE: u32 = if cfg!(debug_assertions) { 50 } else { 1 };
/// From the first connect until ten thousand have the heads of their responses.
const BACK: Duration = Duration::from_secs(2).saturating_mul(PACE);
/// From the first connect until all of them have had what they missed.
const LEVEL: Duration = Duration::from_secs(10).saturating_mul(PACE);
/// Commands for the replay of ten thousand. What was read is shared until nobody has wanted it for 2 s, and a slow
/// build on a loaded machine pauses longer than that.
const COMMANDS: u64 = if cfg!(debug_assertions) { 100 } else { 50 };
/// No read comes back empty-handed while commands are counted.
const LONG_BLOCK: &str = "block = \"60s\"";

/// A stream of `count` entries, one every 10 ms up to now; their ids.
fn history(redis: &Redis, key: &str, count: usize) -> Vec<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let first = now.as_millis() - 10 * count as u128;
    let ids: Vec<_> = (0..count).map(|n| format!("{}-0", first + 10 * n as u128)).collect();
    let mut connection = Connection::open(redis).unwrap();
    for wave in ids.chunks(500) {
        for id in wave {
            let (key, payload) = (key.as_bytes(), format!("entry {id}"));
            connection
                .send(&[b"XADD", key, id.as_bytes(), b"payload", payload.as_bytes()])
                .unwrap();
        }
        wave.iter().for_each(|_| drop(connection.answer().unwrap()));
    }
    ids
}

/// Clients that come back; each counts once it is level and has had exactly what it missed.
struct Herd {
    started: Instant,
    tasks: Vec<JoinHandle<Result<(), String>>>,
    /// Those that have the head of their response.
    back: Arc<AtomicUsize>,
    level: Arc<AtomicUsize>,
}

impl Herd {
    /// One client for each of `missed`: how many of the newest entries it has not had.
    fn come_back(
        runtime: &Runtime,
        gateway: &Gateway,
        ids: &Arc<Vec<String>>,
        missed: impl Iterator<Item = usize>,
    ) -> Self {
        let started = Instant::now();
        let (back, level) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let address = Address::Tcp(gateway.address.clone());
        let visit = |missed: usize| {
            let (address, ids) = (address.clone(), ids.clone());
            let (back, level) = (back.clone(), level.clone());
            runtime.spawn(async move {
                let (before, missing) = ids.split_at(ids.len() - missed);
                let last = before.last().map(String::as_str);
                let mut stream = Stream::open(&address, "/events/a", last).await?;
                back.fetch_add(1, Ordering::Relaxed);
                stream.entries(missing.iter().map(|id| format!("entry {id}"))).await?;
                stream.live().await?;
                level.fetch_add(1, Ordering::Relaxed);
                stream.entries(["news".to_owned()].into_iter()).await
            })
        };
        let tasks = missed.map(visit).collect();
        Self { started, tasks, back, level }
    }

    /// Waits until all are back; how long after the first began.
    fn is_back(&self) -> Duration {
        within(LONG, "everybody is back", || self.all(&self.back));
        self.started.elapsed()
    }

    /// Waits until all are level; how long after the first began.
    fn is_level(&self) -> Duration {
        within(LONG, "everybody is level", || self.all(&self.level));
        self.started.elapsed()
    }

    /// Whether each of them has come so far, or one has failed, which its task reports.
    fn all(&self, so_far: &AtomicUsize) -> bool {
        let failed = self.tasks.iter().any(JoinHandle::is_finished);
        failed || so_far.load(Ordering::Relaxed) == self.tasks.len()
    }

    /// Adds an entry, which each of them has to get next.
    fn hears_news(self, runtime: &Runtime, redis: &Redis) {
        redis.add("events:a", "news");
        for task in self.tasks {
            let outcome = runtime.block_on(async { tokio::time::timeout(LONG, task).await });
            assert_eq!(outcome.expect("the news come").unwrap(), Ok(()));
        }
    }
}

/// A gateway that has just been started, and so many entries that it has not read.
fn restarted(entries: usize) -> (swarm::Crowd, Redis, Arc<Vec<String>>, Gateway) {
    let (runtime, redis) = (swarm::crowd(), Redis::start());
    let ids = Arc::new(history(&redis, "events:a", entries));
    let gateway = Setup::redis(&redis).set("source", LONG_BLOCK).start_ready();
    (runtime, redis, ids, gateway)
}

/// Everything that reads streams.
fn commands(redis: &Redis) -> u64 {
    let names = ["xread", "xinfo|stream", "xrange", "xrevrange"];
    names.iter().map(|name| redis.calls(name)).sum()
}

#[test]
fn ten_thousand_come_back_to_a_restarted_gateway_for_fifty_commands() {
    let (runtime, redis, ids, gateway) = restarted(1_000);
    let before = commands(&redis);
    // Up to 5 s of entries; scattered, so that hardly two in a row have the same.
    let missed = (0..10_000).map(|client| 1 + client * 7919 % 500);
    let herd = Herd::come_back(&runtime, &gateway, &ids, missed);
    let (back, level) = (herd.is_back(), herd.is_level());
    let cost = commands(&redis) - before;
    eprintln!("10,000 clients: back after {back:?}, level after {level:?} and {cost} commands");
    herd.hears_news(&runtime, &redis);
    assert!(cost <= COMMANDS, "{cost} commands for the replay");
    assert!(back <= BACK, "the last was back after {back:?}, {BACK:?} are allowed");
    assert!(level <= LEVEL, "the last was level after {level:?}, {LEVEL:?} are allowed");
}

#[test]
fn a_thousand_resumes_at_different_ids_are_read_a_few_at_a_time() {
    let (runtime, redis, ids, gateway) = restarted(3_000);
    let mut live = Client::open(&gateway.address, "/events/b");
    live.live();
    let herd = Herd::come_back(&runtime, &gateway, &ids, (0..1_000).map(|client| 1 + client * 2));
    let (mut connections, mut number) = (0, 0);
    // Up to the end: the most may be needed late, when all of them have arrived.
    within(LONG, "everybody is level", || {
        let payload = format!("live {number}");
        redis.add("events:b", &payload);
        assert_eq!(live.entry().data, payload);
        number += 1;
        connections = connections.max(redis.clients());
        number >= 50 && herd.all(&herd.level)
    });
    // Two readers, and what all else shares.
    assert!(connections <= 6, "{connections} connections");
    herd.hears_news(&runtime, &redis);
}
