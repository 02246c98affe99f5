//! Limits of memory: clients that are slow or far behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Connection, Redis};
use crate::support::swarm::{self, Address, Stream};
use crate::support::{Folder, within};

/// A debug build on a loaded machine needs its time.
const LONG: Duration = Duration::from_secs(120);

/// Peak resident memory of the process so far.
fn peak_bytes(gateway: &Gateway) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Clients far behind that take a little at a time.
struct Crawlers {
    tasks: Vec<tokio::task::JoinHandle<Result<(), String>>>,
    hurry: Arc<AtomicBool>,
}

impl Crawlers {
    /// `count` clients at as many places of the stream.
    fn begin(runtime: &Runtime, gateway: &Gateway, ids: &Arc<Vec<String>>, count: usize) -> Self {
        let hurry = Arc::new(AtomicBool::new(false));
        let address = Address::Unix(gateway.address.strip_prefix("unix:").unwrap().into());
        let visit = |at: usize| {
            let (address, ids, hurry) = (address.clone(), ids.clone(), hurry.clone());
            runtime.spawn(async move {
                let mut stream = Stream::open(&address, "/events/a", Some(&ids[at])).await?;
                for id in &ids[at + 1..] {
                    if !hurry.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    let event = stream.event().await?;
                    if event.last_event_id != *id {
                        return Err(format!("expected {id}, got {event:?}"));
                    }
                }
                Ok(())
            })
        };
        let step = ids.len() / 2 / count;
        Self { tasks: (0..count).map(|client| visit(client * step)).collect(), hurry }
    }

    fn end(self, runtime: &Runtime) {
        self.hurry.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let outcome = runtime.block_on(async { tokio::time::timeout(LONG, task).await });
            assert_eq!(outcome.expect("they come to the end").unwrap(), Ok(()));
        }
    }
}

/// The most that the gateway holds while so many crawl, far behind and in places of their own.
fn peak_with_crawlers(count: usize) -> usize {
    let runtime = swarm::runtime();
    let redis = Redis::start();
    let folder = Folder::new();
    let listen = format!("listen = [\"unix:{}\"]", folder.0.join("gateway.sock").display());
    let setup = Setup::redis(&redis).set("server", &listen).set("ring", "entries = 100");
    let gateway = setup.set("limits", "send_buffer = \"16KiB\"").start_ready();
    let mut connection = Connection::open(&redis).unwrap();
    let payload = "x".repeat(1_000);
    let ids =
        (0..2_000).map(|_| match connection.run(&["XADD", "events:a", "*", "payload", &payload]) {
            Some(Answer::Text(id)) => id,
            other => panic!("{other:?}"),
        });
    let ids = Arc::new(ids.collect::<Vec<_>>());
    let crawlers = Crawlers::begin(&runtime, &gateway, &ids, count);
    within(LONG, "all are there", || gateway.metric("ssegate_clients") as usize == count);
    // As long as it takes for each of them to have been out of step with the others.
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(100));
        assert!(crawlers.tasks.iter().all(|task| !task.is_finished()));
    }
    let peak = peak_bytes(&gateway);
    crawlers.end(&runtime);
    peak
}

#[test]
fn memory_does_not_depend_on_how_many_are_behind() {
    let (few, many) = (peak_with_crawlers(100), peak_with_crawlers(500));
    eprintln!("100 crawlers: {} KiB, 500: {} KiB", few >> 10, many >> 10);
    // A task and a socket for each of them, and nothing of what they are still to get.
    let allowed = few + 400 * (24 << 10);
    assert!(many <= allowed, "{many} bytes with 500, {few} with 100");
}
