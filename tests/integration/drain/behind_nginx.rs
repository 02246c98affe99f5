//! A thousand clients behind an nginx that hears late of a gateway's end.

use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use ssegate::event::parse::Item;
use tokio::task::JoinHandle;

use super::{control, is_draining};
use crate::support::gateway::Setup;
use crate::support::nginx::Nginx;
use crate::support::redis::{Connection, Redis};
use crate::support::swarm::{self, Address, Stream};
use crate::support::{DEADLINE, eventually, within};

/// What one viewer saw on its way from gateway to gateway.
#[derive(Default)]
struct Journey {
    drains: usize,
    /// Drains told to it when it had just come back.
    refusals: usize,
}

/// Reads numbered entries until `end` comes, through however many connections it takes.
async fn travel(address: Address, arrived: impl FnOnce()) -> Result<Journey, String> {
    let (mut journey, mut last_id, mut next) = (Journey::default(), None::<String>, 1_usize);
    let (mut arrived, mut ended) = (Some(arrived), false);
    for _connection in 0..30 {
        let mut stream = Stream::open(&address, "/events/a", last_id.as_deref()).await?;
        let mut items = 0;
        while let Some(item) = stream.next().await? {
            let Item::Event(event) = item else { continue };
            items += 1;
            if event.event_type == "ssegate" {
                match control(&event)["type"].as_str() {
                    Some("live") => {
                        if let Some(arrived) = arrived.take() {
                            arrived();
                        }
                    }
                    Some("drain") => {
                        journey.drains += 1;
                        journey.refusals += usize::from(items == 1);
                    }
                    _ => return Err(format!("{event:?} before entry {next}")),
                }
            } else if event.data == "end" {
                ended = true;
            } else if event.data == next.to_string() {
                next += 1;
            } else {
                return Err(format!("expected entry {next}, got {event:?}"));
            }
            // More may be under way, such as the mark of a client that was still replaying.
            if ended && stream.at_boundary() {
                return Ok(journey);
            }
        }
        if !stream.complete || !stream.at_boundary() {
            return Err(format!("a body was cut off before entry {next}"));
        }
        last_id = stream.last_event_id().or(last_id);
        tokio::time::sleep(stream.reconnection_time().ok_or("no retry")?).await;
    }
    Err("too many connections".into())
}

#[test]
fn a_thousand_clients_behind_nginx_that_hears_late_of_the_stop_miss_nothing() {
    const VIEWERS: usize = 1_000;
    let runtime = swarm::runtime();
    let redis = Redis::start();
    let setup = || {
        let setup = Setup::redis(&redis).set("server", "drain = \"8s\"");
        setup.set("server", "retry = \"200ms\"").start_ready()
    };
    let (mut old, new) = (setup(), setup());
    let nginx = Nginx::start(&old.address);
    let (arrivals, arrived) = std::sync::mpsc::channel();
    let viewers: Vec<_> = (0..VIEWERS)
        .map(|_| {
            let (address, arrivals) = (Address::Unix(nginx.socket()), arrivals.clone());
            runtime.spawn(travel(address, move || {
                // Nobody listens any more where the test has failed already.
                let _ = arrivals.send(());
            }))
        })
        .collect();
    for count in 0..VIEWERS {
        let waited = arrived.recv_timeout(DEADLINE);
        assert!(waited.is_ok(), "only {count} viewers are live");
    }

    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let mut connection = Connection::open(&redis).unwrap();
    let writer = thread::spawn(move || {
        let mut add = |payload: &str| {
            connection.run(&["XADD", "events:a", "*", "payload", payload]).unwrap();
        };
        let mut written = 0_usize;
        while stopped.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
            written += 1;
            assert!(written < 20 * 120, "nobody stops the writer");
            add(&written.to_string());
        }
        add("end");
        written
    });
    let stop_begins = Instant::now();
    old.signal("TERM");
    is_draining(&old);
    within(DEADLINE, "nginx hears of it", || stop_begins.elapsed() >= Duration::from_secs(5));
    nginx.point_at(&new.address);
    within(DEADLINE * 2, "all viewers are at the new gateway", || {
        // A viewer ends early only by a fault, which is told below.
        viewers.iter().any(JoinHandle::is_finished)
            || new.metric("ssegate_clients") >= VIEWERS as f64
    });
    assert_eq!(old.wait().code(), Some(0));
    stop.send(()).unwrap();
    let written = writer.join().unwrap();
    assert!(written > 50, "only {written} entries were written");

    let mut all = Journey::default();
    for viewer in viewers {
        let journey = runtime.block_on(async { tokio::time::timeout(DEADLINE, viewer).await });
        let journey = journey.expect("the end arrives").unwrap().unwrap();
        assert!(journey.drains > 0, "a viewer was not told of the drain");
        all.drains += journey.drains;
        all.refusals += journey.refusals;
    }
    assert!(all.refusals > 0, "nobody came back to the old gateway");
    eventually("every response is in nginx' log", || nginx.statuses().len() >= VIEWERS * 2);
    assert!(nginx.statuses().iter().all(|status| status == "200"), "{:?}", nginx.statuses());
    assert!(!nginx.errors().contains("[error]"), "{}", nginx.errors());
}
