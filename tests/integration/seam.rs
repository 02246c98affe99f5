//! Exactly once and in order: clients that join, leave and come back while a writer never pauses,
//! across the seams of replay and live, of ring and Redis, of shard and catch-up subscriber.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Connection, Redis};
use crate::support::{eventually, pause_of_the_scenario, seed};

mod stalled;

const PATH: &str = "/events/a";
const KEY: &str = "events:a";

/// Adds 1-0, 2-0, … without pause, in bursts of all sizes; `written` is how far it is.
fn write(redis: &Redis, entries: u64, payload_bytes: usize, written: &AtomicU64) {
    write_up_to(redis, "1000000", entries, payload_bytes, written);
}

/// The same into a stream of a bounded length.
fn write_up_to(
    redis: &Redis,
    length: &str,
    entries: u64,
    payload_bytes: usize,
    written: &AtomicU64,
) {
    let mut connection = Connection::open(redis).unwrap();
    let (filling, mut rng) = ("x".repeat(payload_bytes), seed::rng());
    let mut done = 0;
    while done < entries {
        let burst = rng.u64(1..=60).min(entries - done);
        for number in done + 1..=done + burst {
            let (id, payload) = (format!("{number}-0"), format!("{number} {filling}"));
            let command = ["XADD", KEY, "MAXLEN", length, &id, "payload", &payload];
            let command = command.map(str::as_bytes);
            connection.send(&command).unwrap();
        }
        for _ in 0..burst {
            assert!(matches!(connection.answer(), Some(Answer::Text(_))));
        }
        done += burst;
        written.store(done, Ordering::Relaxed);
        pause_of_the_scenario(Duration::from_millis(rng.u64(0..4)), "between two bursts");
    }
}

/// The number in an id, or at the beginning of a payload.
fn number(text: &str) -> u64 {
    text.split(['-', ' ']).next().unwrap().parse().unwrap()
}

/// Reads up to `last`, leaving and coming back at random; every entry has to be the next one.
/// Ids are numbers here, so the live mark shows the number, too.
fn rejoin(address: &str, start: &str, last: u64, mut rng: fastrand::Rng) {
    let mut client = Client::open(address, &format!("{PATH}{start}"));
    let mut had = (!start.is_empty()).then_some(0);
    while had != Some(last) {
        let stay = rng.u64(0..400);
        let mut id = None;
        for _ in 0..=stay {
            let event = client.event();
            let at = number(&event.last_event_id);
            if event.event_type == "ssegate" {
                assert!(event.data.contains(r#""type":"live""#), "after {had:?}: {event:?}");
                assert!(had.is_none_or(|had| had == at), "live at {at} after {had:?}");
            } else {
                assert!(had.is_none_or(|had| at == had + 1), "{at} after {had:?}");
                assert_eq!(number(&event.data), at);
            }
            had = Some(at);
            id = Some(event.last_event_id);
            if at == last {
                break;
            }
        }
        let id = id.expect("at least one event was read");
        client.leave();
        client = Client::resume(address, PATH, &id);
    }
    // It came back once more: there is nothing left but the mark.
    assert_eq!(client.live(), (0, format!("{last}-0")));
}

/// Clients of other keys, so many that the key in question is read with theirs.
fn neighbours(gateway: &Gateway) -> Vec<Client> {
    let open = |key| Client::open(&gateway.address, &format!("/events/{key}"));
    let mut neighbours: Vec<_> = (0..5).map(open).collect();
    neighbours.iter_mut().for_each(|client| drop(client.live()));
    neighbours
}

fn sharing(setup: Setup) -> Setup {
    setup.set("source", "connections = 2")
}

/// What [`neighbours`] and [`sharing`] are for.
#[track_caller]
fn is_shared(gateway: &Gateway) {
    let streams = gateway.streams();
    let stream = streams.as_array().unwrap().iter().find(|stream| stream["key"] == KEY).cloned();
    assert_eq!(stream.unwrap()["connection"]["shared"], true);
}

/// So many clients against a writer of so many entries.
fn rejoins(redis: &Redis, gateway: &Gateway, clients: usize, entries: u64, payload_bytes: usize) {
    let (written, mut rng) = (AtomicU64::new(0), seed::rng());
    std::thread::scope(|scope| {
        for n in 0..clients {
            let (address, written, rng) = (&gateway.address, &written, rng.fork());
            scope.spawn(move || {
                // Some are there before the first entry, the others come while it writes.
                let due = entries * (n as u64 / 2) / clients as u64;
                eventually("the writer is far enough", || written.load(Ordering::Relaxed) >= due);
                let start = ["", "?last_event_id=earliest"][n % 2];
                rejoin(address, start, entries, rng);
            });
        }
        write(redis, entries, payload_bytes, &written);
    });
    assert!(gaps(gateway) < 0.5, "a client got a gap");
}

/// Gaps of all clients.
fn gaps(gateway: &Gateway) -> f64 {
    let text = gateway.admin_get("/metrics").body;
    let values = text.lines().filter(|line| line.starts_with("ssegate_gaps_total{"));
    values.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn each_entry_comes_once_and_in_order_however_often_a_client_returns() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    rejoins(&redis, &gateway, 30, 6000, 20);
}

#[test]
fn each_entry_comes_once_and_in_order_over_a_connection_that_is_shared() {
    let redis = Redis::start();
    let gateway = sharing(Setup::redis(&redis)).start_ready();
    let _neighbours = neighbours(&gateway);
    rejoins(&redis, &gateway, 30, 6000, 20);
    is_shared(&gateway);
}

fn with_small_ring(redis: &Redis) -> Setup {
    Setup::redis(redis)
        .set("ring", "entries = 50")
        .set("ring", "bytes = \"16KiB\"")
        .set("limits", "send_buffer = \"16KiB\"")
}

#[test]
fn each_entry_comes_once_and_in_order_with_a_small_ring_and_a_shared_connection() {
    let redis = Redis::start();
    let gateway = sharing(with_small_ring(&redis)).start_ready();
    let _neighbours = neighbours(&gateway);
    rejoins(&redis, &gateway, 20, 3000, 200);
    is_shared(&gateway);
}

#[test]
fn each_entry_comes_once_and_in_order_with_a_ring_that_is_too_small() {
    let redis = Redis::start();
    let gateway = with_small_ring(&redis).start_ready();
    rejoins(&redis, &gateway, 30, 4000, 200);
    let resumed = gateway.metric("ssegate_resume_total{result=\"redis\"}");
    assert!(resumed > 0.0, "the ring was never too small: {resumed}");
}

#[test]
fn each_entry_comes_once_and_in_order_with_several_workers_and_little_replay_at_once() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis)
        .set("server", "workers = 4")
        .set("ring", "entries = 20")
        .set("limits", "replays = 1")
        .set("source", "read_count = 7")
        .start_ready();
    rejoins(&redis, &gateway, 20, 3000, 20);
}

#[test]
fn the_embedded_source_delivers_once_and_in_order_too() {
    const ENTRIES: u64 = 600;
    let gateway = Setup::memory().start_ready();
    let follow = |mut rng: fastrand::Rng| {
        let mut client = Client::open(&gateway.address, &format!("{PATH}?last_event_id=earliest"));
        let mut had = 0;
        while had < ENTRIES {
            let mut id = String::new();
            for _ in 0..=rng.u64(0..40) {
                let event = client.event();
                id = event.last_event_id;
                if event.event_type == "ssegate" {
                    assert!(event.data.contains(r#""type":"live""#), "{}", event.data);
                    continue;
                }
                assert_eq!(number(&event.data), had + 1);
                had += 1;
                if had == ENTRIES {
                    break;
                }
            }
            client.leave();
            client = Client::resume(&gateway.address, PATH, &id);
        }
        assert_eq!(client.live().0, 0);
    };
    let mut rng = seed::rng();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            let rng = rng.fork();
            scope.spawn(move || follow(rng));
        }
        for number in 1..=ENTRIES {
            gateway.publish(KEY, &number.to_string());
        }
    });
    assert!(gaps(&gateway) < 0.5, "a client got a gap");
}

/// Reads up to `last` with pauses; an entry that is missing has to be covered by a gap before it.
/// How many entries were heard, and how many gaps.
fn rejoin_trimmed(address: &str, last: u64, mut rng: fastrand::Rng) -> (u64, u64) {
    let (mut had, mut id, mut heard, mut gaps) = (0, "0-0".to_owned(), 0, 0);
    while had < last {
        let mut client = Client::resume(address, PATH, &id);
        for _ in 0..=rng.u64(0..300) {
            let event = client.event();
            let at = number(&event.last_event_id);
            if event.event_type != "ssegate" {
                assert_eq!(at, had + 1, "no gap for what is missing");
                heard += 1;
                had = at;
            } else if event.data.contains(r#""type":"gap""#) {
                let gap: serde_json::Value = serde_json::from_str(&event.data).unwrap();
                assert_eq!(gap["reason"], "trimmed", "after {had}: {gap}");
                let next = number(gap["next"].as_str().expect("the stream is never empty"));
                assert!(next > had, "after {had}: {gap}");
                // The reader may have missed more than this client, which may have been ahead of it.
                let after = number(gap["after"].as_str().unwrap());
                assert!(after <= had, "after {had}: {gap}");
                let lost = next - after - 1;
                assert!(gap["lost"].as_u64().is_none_or(|count| count == lost), "{had}: {gap}");
                had = next - 1;
                gaps += 1;
            } else {
                assert_eq!(at, had, "{event:?}");
            }
            id = event.last_event_id;
            if had == last {
                break;
            }
        }
        client.leave();
        let pause = Duration::from_millis(rng.u64(0..60));
        pause_of_the_scenario(pause, "before the client returns");
    }
    (heard, gaps)
}

#[test]
fn a_trim_in_the_meantime_is_never_silent() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).set("ring", "entries = 20").start_ready();
    trims(&redis, &gateway);
}

#[test]
fn a_trim_in_the_meantime_is_never_silent_over_a_shared_connection() {
    let redis = Redis::start();
    let gateway = sharing(Setup::redis(&redis)).set("ring", "entries = 20").start_ready();
    let _neighbours = neighbours(&gateway);
    trims(&redis, &gateway);
    is_shared(&gateway);
}

fn trims(redis: &Redis, gateway: &Gateway) {
    const ENTRIES: u64 = 6000;
    std::thread::scope(|scope| {
        let (address, mut rng) = (&gateway.address, seed::rng());
        let clients: Vec<_> = (0..12)
            .map(|_| rng.fork())
            .map(|rng| scope.spawn(move || rejoin_trimmed(address, ENTRIES, rng)))
            .collect();
        write_up_to(redis, "100", ENTRIES, 20, &AtomicU64::new(0));
        for client in clients {
            let (heard, gaps) = client.join().unwrap();
            assert!(heard > 0, "only gaps: {gaps}");
        }
    });
    assert!(self::gaps(gateway) > 0.0, "nothing was trimmed before anybody read it");
}

/// A client whose kernel takes next to nothing for it.
fn narrow(address: &str) -> Client {
    let address: SocketAddr = address.parse().unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(&address.into()).unwrap();
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n");
    Client::over(TcpStream::from(socket), &request)
}

/// Reads 1 to `last`, each once, and nothing else.
fn read_all(client: &mut Client, last: u64, mut after_each: impl FnMut(u64)) {
    for expected in 1..=last {
        let event = client.event();
        assert_eq!(event.last_event_id, format!("{expected}-0"), "{}", event.event_type);
        assert_eq!(number(&event.data), expected);
        after_each(expected);
    }
}

#[test]
fn a_slow_client_gets_everything_in_order_and_holds_up_nobody() {
    const ENTRIES: u64 = 2000;
    let redis = Redis::start();
    let gateway = Setup::redis(&redis)
        .set("ring", "entries = 50")
        .set("ring", "bytes = \"64KiB\"")
        .set("limits", "send_buffer = \"16KiB\"")
        .set("limits", "write_stall = \"120s\"")
        .start_ready();
    let mut stalled = narrow(&gateway.address);
    let mut trickling = narrow(&gateway.address);
    let mut fast = Client::open(&gateway.address, PATH);
    for client in [&mut stalled, &mut trickling, &mut fast] {
        client.live();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| write(&redis, ENTRIES, 2000, &AtomicU64::new(0)));
        let slow = scope.spawn(|| {
            read_all(&mut trickling, ENTRIES, |read| {
                if read % 20 == 0 {
                    pause_of_the_scenario(Duration::from_millis(5), "a client that is slow");
                }
            });
        });
        // The one that reads nothing at all is still there when the fast one has everything.
        read_all(&mut fast, ENTRIES, |_| {});
        read_all(&mut stalled, ENTRIES, |_| {});
        slow.join().unwrap();
    });
    assert!(gaps(&gateway) < 0.5, "a client got a gap");
    redis.run(&["XADD", KEY, &format!("{}-0", ENTRIES + 1), "payload", "level again"]);
    for client in [&mut stalled, &mut trickling, &mut fast] {
        assert_eq!(client.event().data, "level again");
    }
}
