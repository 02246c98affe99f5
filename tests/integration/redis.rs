//! What Redis sees of the gateway: one reader per stream key, concrete ids, few rights.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, SOON, Setup};
use crate::support::redis::{Answer, Connection, Redis};
use crate::support::swarm;
use crate::support::{DEADLINE, eventually, read};

const CROWD: usize = 5000;
const ENTRIES: u64 = 20;
/// So long that no read comes back empty-handed while calls are counted.
const LONG_BLOCK: &str = "block = \"60s\"";

#[test]
fn redis_is_asked_no_more_for_5000_clients_than_for_one() {
    let _crowd = swarm::crowd();
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).set("source", LONG_BLOCK).start_ready();
    let mut first = Client::open(&gateway.address, "/events/a");
    assert_eq!(first.live().0, 0);
    first_entry(&redis, &mut first);

    let alone = cost(&redis, || add_one_by_one(&redis, &mut first));
    let mut crowd = Vec::new();
    let arrival = cost(&redis, || crowd = open_crowd(&gateway));
    assert_eq!(arrival, (0, 0), "clients that join a key that has a reader cost Redis nothing");
    assert_eq!(gateway.metric("ssegate_clients"), (CROWD + 1) as f64);
    let together = cost(&redis, || add_one_by_one(&redis, &mut first));

    assert_eq!(alone, together);
    assert_eq!(alone, (ENTRIES, ENTRIES), "one read for each entry");
    assert_eq!(gateway.metric("ssegate_readers"), 1.0);
    assert_eq!(redis.clients(), 2, "the reader, and what all else shares");
    for client in &mut crowd {
        read_until(client, &format!("data: entry {}\n", ENTRIES - 1));
    }
}

/// The first entry ends the first, short read; from then on reads are long.
fn first_entry(redis: &Redis, client: &mut Client) {
    redis.add("events:a", "first");
    assert_eq!(client.entry().data, "first");
}

/// Calls of XREAD and XINFO STREAM while `scene` is played; a blocked read counts when it is done.
fn cost(redis: &Redis, scene: impl FnOnce()) -> (u64, u64) {
    let calls = || (redis.calls("xread"), redis.calls("xinfo|stream"));
    let settled = || {
        let mut seen = calls();
        eventually("the reader waits for the next entry", || {
            std::mem::replace(&mut seen, calls()) == seen && redis.blocked() == 1
        });
        seen
    };
    let before = settled();
    scene();
    let after = settled();
    (after.0 - before.0, after.1 - before.1)
}

fn add_one_by_one(redis: &Redis, client: &mut Client) {
    for number in 0..ENTRIES {
        let id = redis.add("events:a", &format!("entry {number}"));
        assert_eq!(client.entry().last_event_id, id);
    }
}

fn open_crowd(gateway: &Gateway) -> Vec<TcpStream> {
    let mut crowd = Vec::with_capacity(CROWD);
    while crowd.len() < CROWD {
        let mut wave: Vec<_> = (0..250)
            .map(|_| {
                let mut stream = TcpStream::connect(&gateway.address).unwrap();
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                stream.write_all(b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                stream
            })
            .collect();
        wave.iter_mut().for_each(|stream| read_until(stream, "\"type\":\"live\""));
        crowd.append(&mut wave);
    }
    crowd
}

fn read_until(stream: &mut TcpStream, text: &str) {
    let mut seen = String::new();
    let mut bytes = [0; 8192];
    while !seen.contains(text) {
        let length = read(stream, &mut bytes).unwrap();
        assert_ne!(length, 0, "the stream ended before {text:?}: {seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
}

/// What Redis is asked from now on, by MONITOR.
struct Monitor(Arc<Mutex<Vec<String>>>);

impl Monitor {
    fn start(redis: &Redis) -> Self {
        let mut connection = Connection::open(redis).unwrap();
        assert_eq!(connection.run(&["MONITOR"]), Some(Answer::Text("OK".into())));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = lines.clone();
        std::thread::spawn(move || {
            while let Some(Answer::Text(line)) = connection.answer() {
                seen.lock().unwrap().push(line);
            }
        });
        Self(lines)
    }

    /// The arguments of every XREAD so far, but for those by which health is checked.
    fn reads(&self) -> Vec<Vec<String>> {
        let lines = self.0.lock().unwrap();
        let arguments = |line: &String| -> Vec<String> {
            let words = line.split_whitespace().map(|word| word.trim_matches('"').to_owned());
            words.skip_while(|word| word != "XREAD").collect()
        };
        let is_checked = |read: &Vec<String>| read.iter().any(|word| word.starts_with("ssegate:"));
        let reads = lines.iter().map(arguments).filter(|read| !read.is_empty());
        reads.filter(|read| !is_checked(read)).collect()
    }

    /// The COUNT of every XREAD so far that blocks, or that does not.
    fn counts(&self, blocking: bool) -> Vec<usize> {
        let reads = self.reads();
        let reads = reads.iter().filter(|read| read.contains(&"BLOCK".to_owned()) == blocking);
        reads.map(|read| read[2].parse().unwrap()).collect()
    }
}

#[test]
fn every_read_names_a_concrete_id() {
    let redis = Redis::start();
    let monitor = Monitor::start(&redis);
    let gateway = Setup::redis(&redis).set("source", "block = \"200ms\"").start_ready();
    redis.add("events:a", "before");
    let mut client = Client::open(&gateway.address, "/events/a");
    let mut fresh = Client::open(&gateway.address, "/events/missing");
    let mut after = client.live().1;
    fresh.live();
    for number in 0..5 {
        let id = redis.add("events:a", &number.to_string());
        assert_eq!(client.entry().last_event_id, id);
        eventually("the reader goes on from the entry", || {
            monitor.reads().iter().any(|read| read.last() == Some(&id))
        });
        after = id;
    }
    let timed_out = monitor.reads().iter().filter(|read| read.last() == Some(&after)).count() + 2;
    eventually("reads come back empty and go on from the same id", || {
        monitor.reads().iter().filter(|read| read.last() == Some(&after)).count() >= timed_out
    });
    for read in monitor.reads() {
        assert_eq!((&*read[1], &*read[3], &*read[5]), ("COUNT", "BLOCK", "STREAMS"), "{read:?}");
        let id = read[7].parse::<ssegate::sse::StreamId>();
        assert!(id.is_ok() && read.len() == 8, "one key, a concrete id: {read:?}");
    }
}

/// Adds so many small entries at once.
fn burst(redis: &Redis, key: &str, count: usize) {
    let mut connection = Connection::open(redis).unwrap();
    connection.send(&[b"MULTI"]).unwrap();
    for _ in 0..count {
        connection.send(&[b"XADD", key.as_bytes(), b"*", b"payload", b"small"]).unwrap();
    }
    connection.send(&[b"EXEC"]).unwrap();
    for _ in 0..count + 2 {
        connection.answer().unwrap();
    }
}

#[test]
fn counts_follow_the_size_of_the_entries() {
    const MIB: usize = 1 << 20;
    let redis = Redis::start();
    let monitor = Monitor::start(&redis);
    let gateway = Setup::redis(&redis).set("log", "level = \"debug\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let next_count = |client: &mut Client, payload: &str| {
        let id = redis.add("events:a", payload);
        assert_eq!(client.entry().data.len(), payload.len());
        let mut count = 0;
        eventually("the reader goes on", || {
            let reads = monitor.reads();
            let next = reads.iter().find(|read| read.last() == Some(&id));
            next.inspect(|read| count = read[2].parse().unwrap()).is_some()
        });
        count
    };
    assert_eq!(next_count(&mut client, "small"), 16, "one entry is no reason to ask for many");
    // However many there are: eight times what came before, up to source.read_count.
    burst(&redis, "events:a", 1_000);
    (0..1_000).for_each(|_| drop(client.entry()));
    let counts = monitor.counts(true);
    assert!([16, 128, 500].iter().all(|count| counts.contains(count)), "{counts:?}");
    let middle = next_count(&mut client, &"x".repeat(128 << 10));
    assert!((14..=16).contains(&middle), "{middle} entries of 128 KiB");
    let large = next_count(&mut client, &"x".repeat(MIB));
    assert!((1..=2).contains(&large), "{large} entries of 1 MiB");
    assert!(next_count(&mut client, "small") < 8, "one small entry is no reason to ask for many");
    assert_eq!(monitor.counts(true)[0], 16, "sizes are not known yet");

    // What is replayed from Redis is as large.
    for _ in 0..20 {
        redis.add("events:b", &"x".repeat(MIB));
    }
    let mut replayed = Client::open(&gateway.address, "/events/b?last_event_id=earliest");
    for _ in 0..20 {
        assert_eq!(replayed.entry().data.len(), MIB);
    }
    assert_eq!(replayed.live().0, 20);
    let counts = monitor.counts(false);
    assert!(counts[0] <= 16, "sizes are not known yet: {counts:?}");
    assert!(counts[1..].iter().all(|count| *count <= 4), "{counts:?}");
}

#[test]
fn a_reader_outlives_its_last_client_by_the_linger() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).set("source", "linger = \"1s\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    first_entry(&redis, &mut client);
    assert_eq!((readers(&gateway), redis.clients()), (1, 2));
    let left = Instant::now();
    client.leave();
    eventually("the reader is gone", || readers(&gateway) == 0);
    assert!(left.elapsed() >= Duration::from_secs(1), "gone after {:?}", left.elapsed());
    eventually("its connection is gone", || redis.clients() == 1);
}

#[test]
fn a_reader_that_never_saw_an_entry_goes_with_its_last_client() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).set("source", "linger = \"1h\"").start_ready();
    let mut clients: Vec<_> = (0..3).map(|_| Client::open(&gateway.address, "/events/a")).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.live().0, 0));
    let last = clients.pop().unwrap();
    clients.into_iter().for_each(Client::leave);
    eventually("two of three left", || gateway.streams()[0]["clients"] == 1);
    assert_eq!((readers(&gateway), redis.clients()), (1, 2));
    last.leave();
    eventually("the reader and its connection are gone", || {
        readers(&gateway) == 0 && redis.clients() == 1
    });
}

#[test]
fn a_client_that_comes_back_within_the_linger_finds_the_same_reader() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).set("source", "linger = \"5s\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    first_entry(&redis, &mut client);
    let connections = connections(&redis);
    let id = client.last_event_id();
    client.leave();
    eventually("the client has left", || gateway.streams()[0]["clients"] == 0);
    let missed = redis.add("events:a", "missed");
    gateway.has_read("events:a", &missed);
    let mut back = Client::resume(&gateway.address, "/events/a", &id);
    assert_eq!(back.entry().last_event_id, missed);
    assert_eq!(back.live().0, 1);
    // The linger that began when the first client left must not end this one's reader.
    assert_eq!(back.next_within(Duration::from_secs(6)), None);
    assert_eq!(self::connections(&redis), connections);
    let id = redis.add("events:a", "after");
    assert_eq!(back.entry().last_event_id, id);
}

fn readers(gateway: &Gateway) -> usize {
    gateway.streams().as_array().unwrap().len()
}

/// The ids of the gateway's connections: those that have read something.
fn connections(redis: &Redis) -> Vec<String> {
    let Answer::Text(list) = redis.run(&["CLIENT", "LIST"]) else { panic!("no list") };
    let others = list.lines().filter(|line| !line.contains("cmd=client"));
    others.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn each_key_has_a_reader_and_a_connection_of_its_own() {
    const KEYS: usize = 40;
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut clients: Vec<_> =
        (0..KEYS).map(|key| Client::open(&gateway.address, &format!("/events/{key}"))).collect();
    for client in &mut clients {
        client.live();
    }
    assert_eq!(gateway.metric("ssegate_readers"), KEYS as f64);
    assert_eq!(redis.clients(), KEYS + 1);
    for (key, client) in clients.iter_mut().enumerate() {
        let id = redis.add(&format!("events:{key}"), &key.to_string());
        let event = client.entry();
        assert_eq!((event.data, event.last_event_id), (key.to_string(), id));
    }
    let quiet = clients.iter_mut().all(|c| c.next_within(Duration::from_millis(1)).is_none());
    assert!(quiet, "nobody hears of another key");
}

/// The rights that the reference names, for keys below `sse:`.
const MINIMAL: &str = "on >s3cret resetkeys %R~sse:* resetchannels -@all +xread +xrevrange \
    +xrange +xinfo|stream +ping +select";

#[test]
fn hundreds_of_requests_at_once_take_few_connections() {
    const CLIENTS: usize = 300;
    let redis = Redis::start();
    let ids: Vec<_> = (0..CLIENTS).map(|n| redis.add("events:a", &n.to_string())).collect();
    // It has read none of this, and no two clients ask for the same.
    let gateway = Setup::redis(&redis).start_ready();
    let resume = |id: &String| Client::resume(&gateway.address, "/events/a", id);
    let mut clients: Vec<_> = ids.iter().map(resume).collect();
    for (nth, client) in clients.iter_mut().enumerate() {
        for missed in nth + 1..CLIENTS {
            assert_eq!(client.entry().data, missed.to_string());
        }
        client.live();
    }
    // The reader's own, and those that are shared.
    let connections = redis.clients();
    assert!((2..=5).contains(&connections), "{connections}");
}

#[test]
fn few_rights_suffice_for_all_but_publishing() {
    let redis = Redis::start();
    let rights: Vec<_> = ["ACL", "SETUSER", "gw"].into_iter().chain(MINIMAL.split(' ')).collect();
    assert_eq!(redis.run(&rights), Answer::Text("OK".into()));
    let secret = crate::support::Folder::new();
    let file = secret.0.join("password");
    std::fs::write(&file, "s3cret\n").unwrap();
    let gateway = Setup::redis(&redis)
        .set("source", "username = \"gw\"")
        .set("source", &format!("password_file = {:?}", file.to_str().unwrap()))
        .routes("[[route]]\npath = \"/events/{name}\"\nkey = \"sse:{name}\"\naccess = \"public\"\n")
        .start_ready();
    let ids: Vec<_> = (0..5).map(|number| redis.add("sse:a", &number.to_string())).collect();
    let open = |query: &str| Client::open(&gateway.address, &format!("/events/a{query}"));
    for (query, replayed) in
        [("", 0), ("?last=2", 2), ("?since=10m", 5), ("?last_event_id=earliest", 5)]
    {
        let mut client = open(query);
        for id in &ids[5 - replayed..] {
            assert_eq!(&client.entry().last_event_id, id, "{query}");
        }
        assert_eq!(client.live(), (replayed as u64, ids[4].clone()), "{query}");
    }
    let mut client = Client::resume(&gateway.address, "/events/a", &ids[2]);
    assert_eq!(client.entry().last_event_id, ids[3]);
    assert_eq!(client.entry().last_event_id, ids[4]);
    assert_eq!(client.live().0, 2);
    let id = redis.add("sse:a", "live");
    assert_eq!(client.entry().last_event_id, id);

    let refused = gateway.post("sse:a", "no");
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(client.next_within(Duration::from_millis(200)), None);
    assert!(!gateway.log().contains("s3cret"), "a password is in the log");
}

#[test]
fn the_url_names_the_database() {
    let redis = Redis::on_tcp(&[]);
    let address = redis.address();
    let mut here = Connection::open(&redis).unwrap();
    let mut there = Connection::open(&redis).unwrap();
    assert_eq!(there.run(&["SELECT", "3"]), Some(Answer::Text("OK".into())));
    for url in [format!("{}?db=3", redis.url()), format!("redis://{address}/3")] {
        let gateway = Setup::with_url(&url).start_ready();
        let mut client = Client::open(&gateway.address, "/events/a");
        client.live();
        here.run(&["XADD", "events:a", "*", "payload", "in database 0"]).unwrap();
        there.run(&["XADD", "events:a", "*", "payload", "in database 3"]).unwrap();
        assert_eq!(client.entry().data, "in database 3", "{url}");
        let id = gateway.publish("events:a", "published");
        let event = client.entry();
        assert_eq!((event.data, event.last_event_id), ("published".into(), id));
        assert_eq!(client.next_within(SOON / 25), None);
    }
}
