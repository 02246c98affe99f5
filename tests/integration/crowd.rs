//! Thousands of clients, and clients that misbehave: no client loses anything because of others,
//! and the gateway frees what they held.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Connection, Redis};
use crate::support::swarm::{self, Address, Stream, descriptors};
use crate::support::{DEADLINE, eventually, read, within};

/// A debug build on a loaded machine needs its time for half a million deliveries.
const LONG: Duration = Duration::from_secs(240);

const REQUEST: &[u8] = b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n";

/// Clients that read; they leave when they have everything that they expect.
struct Crowd {
    tasks: Vec<JoinHandle<Result<(), String>>>,
    live: Arc<AtomicUsize>,
}

impl Crowd {
    /// `count` clients, each of which has to get these entries and nothing else.
    fn enter(
        runtime: &tokio::runtime::Runtime,
        gateway: &Gateway,
        count: usize,
        entries: usize,
        payload: fn(usize) -> String,
    ) -> Self {
        let live = Arc::new(AtomicUsize::new(0));
        let visit = |address: Address, live: Arc<AtomicUsize>| async move {
            let mut stream = Stream::open(&address, "/events/a", None).await?;
            stream.live().await?;
            live.fetch_add(1, Ordering::Relaxed);
            stream.entries((0..entries).map(payload)).await
        };
        let tasks = (0..count)
            .map(|_| runtime.spawn(visit(Address::Tcp(gateway.address.clone()), live.clone())))
            .collect();
        let crowd = Self { tasks, live };
        within(LONG, "everybody is live", || {
            let ended = crowd.tasks.iter().any(JoinHandle::is_finished);
            ended || crowd.live.load(Ordering::Relaxed) == count
        });
        crowd
    }

    /// Waits until each of them has got everything, and has left.
    fn leave(self, runtime: &tokio::runtime::Runtime) {
        for task in self.tasks {
            let outcome = runtime.block_on(async { tokio::time::timeout(LONG, task).await });
            assert_eq!(outcome.expect("everything arrives").unwrap(), Ok(()));
        }
    }
}

/// A gateway whose readers end with their last client, so that a crowd leaves nothing behind.
fn setup(redis: &Redis) -> Setup {
    let setup = Setup::redis(redis).set("source", "linger = \"100ms\"");
    // Far longer than a reading client may wait for its turn in this process.
    setup.set("limits", "write_stall = \"8s\"")
}

/// Opens everything that is opened once, and waits until a client leaves no trace.
fn idle_descriptors(gateway: &Gateway) -> usize {
    Client::open(&gateway.address, "/events/warm-up").live();
    gone(gateway);
    descriptors(gateway.pid())
}

fn is(gateway: &Gateway, metric: &str, value: u32) -> bool {
    (gateway.metric(metric) - f64::from(value)).abs() < 0.5
}

/// Waits until the gateway has neither clients nor readers.
fn gone(gateway: &Gateway) {
    within(DEADLINE, "all clients and readers are gone", || {
        is(gateway, "ssegate_clients", 0) && is(gateway, "ssegate_readers", 0)
    });
}

fn nothing_is_left(gateway: &Gateway, idle: usize) {
    gone(gateway);
    // Each worker keeps the io_uring that it opened for its first burst.
    let rings = std::thread::available_parallelism().unwrap().get();
    within(DEADLINE, "descriptors are given back", || descriptors(gateway.pid()) <= idle + rings);
}

fn add_all(redis: &Redis, entries: usize, payload: fn(usize) -> String) {
    let mut connection = Connection::open(redis).unwrap();
    for entry in 0..entries {
        let answer = connection.run(&["XADD", "events:a", "*", "payload", &payload(entry)]);
        assert!(matches!(answer, Some(Answer::Text(_))), "{answer:?}");
    }
}

fn small(entry: usize) -> String {
    format!("entry {entry}")
}

fn large(entry: usize) -> String {
    format!("{entry}:{}", "x".repeat(20_000))
}

#[test]
fn two_thousand_clients_get_each_entry_once_and_leave_nothing_behind() {
    let runtime = swarm::crowd();
    let redis = Redis::start();
    let gateway = setup(&redis).start_ready();
    let idle = idle_descriptors(&gateway);
    let crowd = Crowd::enter(&runtime, &gateway, 2_000, 200, small);
    assert!(is(&gateway, "ssegate_clients", 2_000));
    assert!(is(&gateway, "ssegate_readers", 1));
    assert!(descriptors(gateway.pid()) > idle + 2_000);
    add_all(&redis, 200, small);
    crowd.leave(&runtime);
    nothing_is_left(&gateway, idle);
}

/// Opens a stream by a plain socket.
fn request(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(&gateway.address).unwrap();
    stream.write_all(REQUEST).unwrap();
    stream
}

/// Closes so that the other side gets a reset.
fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Clients that read a byte a second.
struct Sippers {
    stop: Arc<AtomicBool>,
    sipping: thread::JoinHandle<usize>,
}

impl Sippers {
    fn begin(streams: Vec<TcpStream>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let sipping = thread::spawn(move || {
            let mut sips = 0;
            while !stopped.load(Ordering::Relaxed) {
                for mut stream in &streams {
                    stream.set_nonblocking(true).unwrap();
                    sips += stream.read(&mut [0]).unwrap_or_default();
                }
                thread::park_timeout(Duration::from_secs(1));
            }
            sips
        });
        Self { stop, sipping }
    }

    /// How many bytes they have read in all.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.sipping.thread().unpark();
        self.sipping.join().unwrap()
    }
}

#[test]
fn clients_that_misbehave_cost_the_others_nothing_and_leave_nothing_behind() {
    /// A tenth of an entry for each of them.
    const LEFT_BYTES: u64 = 14_000_000;
    /// A ring, and what the allocator cannot give back between what is in use.
    const HELD_BYTES: u64 = 20 << 20;
    let runtime = swarm::crowd();
    let redis = Redis::start();
    // Thousands of full sockets: small ones, so that the kernel's memory for TCP suffices.
    let gateway = setup(&redis).set("limits", "send_buffer = \"16KiB\"").start_ready();
    let idle = idle_descriptors(&gateway);
    for _ in 0..2 {
        misbehave(&runtime, &redis, &gateway);
        nothing_is_left(&gateway, idle);
        eventually("memory is given back", || anonymous_bytes(&gateway) < HELD_BYTES + LEFT_BYTES);
    }
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let id = redis.add("events:a", "after all that");
    assert_eq!(client.entry().last_event_id, id);
}

/// A thousand of each of seven kinds, beside a crowd that gets everything; then all of them leave.
fn misbehave(runtime: &tokio::runtime::Runtime, redis: &Redis, gateway: &Gateway) {
    const EACH: usize = 1_000;
    let slow = || gateway.metric("ssegate_client_disconnects_total{reason=\"slow\"}");
    let slow_before = slow();
    let crowd = Crowd::enter(runtime, gateway, 100, 100, large);
    let (mut sippers, mut kept, mut resetting) = (Vec::new(), Vec::new(), Vec::new());
    for visitor in 0..EACH {
        // It never reads.
        let deaf = request(gateway);
        sippers.push(request(gateway));
        let half = request(gateway);
        half.shutdown(Shutdown::Write).unwrap();
        let mut pipelining = request(gateway);
        for _ in 0..1 + visitor % 20 {
            let _ = pipelining.write_all(REQUEST);
        }
        let mut garbage = request(gateway);
        // It may be cut off while it talks.
        let _ = garbage.write_all(&vec![b'\0'; 100 * visitor]);
        let gone = request(gateway);
        reset(&gone);
        drop(gone);
        // This one resets later, with entries on their way to it.
        let later = request(gateway);
        reset(&later);
        resetting.push(later);
        kept.push([deaf, half, pipelining, garbage]);
    }
    // Who comes after the entries hears none, and is never slow. Those that shut down or reset have left.
    let staying = (100 + 5 * EACH) as f64;
    within(LONG, "those that stay are subscribed", || gateway.metric("ssegate_clients") >= staying);
    let sippers = Sippers::begin(sippers);
    add_all(redis, 50, large);
    for later in &mut resetting {
        // A little of it has to be there, so that the reset falls into the middle.
        later.set_read_timeout(Some(LONG)).unwrap();
        let _ = read(later, &mut [0; 100]).unwrap();
    }
    drop(resetting);
    let mut connection = Connection::open(redis).unwrap();
    for entry in 50..100 {
        connection.run(&["XADD", "events:a", "*", "payload", &large(entry)]).unwrap();
    }
    crowd.leave(runtime);
    // Those that take nothing, or next to it, are cut without their help.
    within(LONG, "clients that take nothing are cut", || slow() >= slow_before + 4.0 * EACH as f64);
    assert!(sippers.end() >= EACH);
}

/// What the gateway has of memory that is its own.
fn anonymous_bytes(gateway: &Gateway) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", gateway.pid());
    let rollup = std::fs::read_to_string(path).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_client_that_reads_slowly_delays_nobody_and_loses_nothing() {
    const ENTRIES: usize = 150;
    let runtime = swarm::crowd();
    let redis = Redis::start();
    // The slow one takes nothing for as long as the others may need.
    let gateway = Setup::redis(&redis).set("limits", "write_stall = \"5m\"").start_ready();
    let mut slow = Client::with_small_window(&gateway.address, "/events/a");
    slow.live();
    let crowd = Crowd::enter(&runtime, &gateway, 99, ENTRIES, large);
    add_all(&redis, ENTRIES, large);
    assert_eq!(slow.entry().data, large(0));
    // The others have everything while the slow one has not taken its second entry.
    crowd.leave(&runtime);
    within(DEADLINE, "the others have left", || is(&gateway, "ssegate_clients", 1));
    let sent = gateway.metric("ssegate_events_sent_total{route=\"/events/{name}\"}");
    assert!(sent < (100 * ENTRIES) as f64, "the slow one was sent everything: {sent}");
    for entry in 1..ENTRIES {
        assert_eq!(slow.entry().data, large(entry), "entry {entry}");
    }
}

/// The reader of the crowd's key stops until its shards have sent more.
#[test]
fn a_reader_that_waits_for_its_crowd_does_not_hold_up_those_that_share_its_connection() {
    const ENTRIES: usize = 300;
    let runtime = swarm::crowd();
    let redis = Redis::start();
    let gateway = setup(&redis)
        .set("source", "connections = 2\nread_count = 1")
        .set("ring", "entries = 1")
        .start_ready();
    let open = |name| Client::open(&gateway.address, &format!("/events/{name}"));
    let mut neighbours: Vec<_> = (0..5).map(open).collect();
    neighbours.iter_mut().for_each(|client| drop(client.live()));
    let crowd = Crowd::enter(&runtime, &gateway, 500, ENTRIES, small);
    add_all(&redis, ENTRIES, small);
    let last = redis.add("events:a", &small(ENTRIES));
    let stream = || {
        let streams = gateway.streams();
        let mut streams = streams.as_array().unwrap().iter();
        streams.find(|stream| stream["key"] == "events:a").unwrap().clone()
    };
    eventually("its reader waits for the crowd", || stream()["waits_for"] == "slow_clients");
    for (name, neighbour) in neighbours.iter_mut().enumerate() {
        let id = redis.add(&format!("events:{name}"), "x");
        assert_eq!(neighbour.entry().last_event_id, id);
    }
    let stream = stream();
    assert_eq!(stream["connection"]["shared"], true);
    assert_ne!(stream["last_id"], last, "the crowd was still behind");
    crowd.leave(&runtime);
}

/// How many clients the gateway has, once it has noticed who left.
#[track_caller]
fn has_clients(gateway: &Gateway, count: usize) {
    let count = u32::try_from(count).unwrap();
    eventually(&format!("it has {count} clients"), || is(gateway, "ssegate_clients", count));
}

#[test]
fn a_key_with_one_client_costs_one_descriptor_and_whoever_leaves_a_key_is_noticed() {
    const KEYS: usize = 200;
    /// Connections of readers, those of other commands and of the operator, and io_uring.
    const OTHERS: usize = 2 + 4 + 2 + 4;
    let redis = Redis::start();
    let gateway = setup(&redis).set("source", "connections = 2").start_ready();
    let idle = idle_descriptors(&gateway);
    let open = |key: usize| {
        let mut client = Client::open(&gateway.address, &format!("/events/{key}"));
        client.live();
        client
    };
    let lone: Vec<_> = (0..KEYS).map(open).collect();
    eventually("each client costs a descriptor, and its key none", || {
        descriptors(gateway.pid()) <= idle + KEYS + OTHERS
    });
    let (mut lone, mut staying) = (lone.into_iter(), KEYS / 2);
    lone.by_ref().take(staying).for_each(Client::leave);
    has_clients(&gateway, staying);
    // The first, the second and the third client of a key leave in every order.
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (key, (order, first)) in (KEYS / 2..).zip(orders.into_iter().zip(lone.by_ref())) {
        let mut visitors = [first, open(key), open(key)].map(Some);
        staying += 2;
        for visitor in order {
            visitors[visitor].take().unwrap().leave();
            staying -= 1;
            has_clients(&gateway, staying);
        }
    }
}
