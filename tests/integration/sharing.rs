//! Readers that share connections: more stream keys than `source.connections`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::cluster::Cluster;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Connection, Redis, UNTRACKED};
use crate::support::stand_in::{StandIn, Treatment};
use crate::support::{eventually, pause_of_the_scenario, within};

mod tracking;

const KEYS: usize = 40;
/// Far longer than anything may take that does not wait for a read of others.
const LONG_BLOCK: &str = "block = \"60s\"";
const SOON: Duration = Duration::from_secs(10);

/// `connections`: of readers.
fn setup(redis: &Redis, connections: usize) -> Setup {
    sharing(Setup::redis(redis), connections)
}

fn sharing(setup: Setup, connections: usize) -> Setup {
    setup.set("source", &format!("connections = {connections}"))
}

/// A live client of each key `events:0` and so on.
fn clients(gateway: &Gateway, keys: usize) -> Vec<Client> {
    let open = |key: usize| Client::open(&gateway.address, &format!("/events/{key}"));
    let mut clients: Vec<_> = (0..keys).map(open).collect();
    clients.iter_mut().for_each(|client| drop(client.live()));
    clients
}

/// Each client gets an entry of its own.
#[track_caller]
fn each_gets_its_own(redis: &Redis, clients: &mut [Client]) {
    let add = |key: usize| redis.add(&format!("events:{key}"), &format!("for {key}"));
    let ids: Vec<_> = (0..clients.len()).map(add).collect();
    for (key, client) in clients.iter_mut().enumerate() {
        let entry = client.entry();
        assert_eq!((entry.data, &entry.last_event_id), (format!("for {key}"), &ids[key]));
    }
}

fn is_shared(gateway: &Gateway, key: &str) -> bool {
    let streams = gateway.streams();
    let stream = streams.as_array().unwrap().iter().find(|stream| stream["key"] == key);
    stream.is_some_and(|stream| stream["connection"]["shared"] == true)
}

fn connections(gateway: &Gateway, used: &str) -> f64 {
    gateway.metric(&format!("ssegate_redis_connections{{use=\"{used}\"}}"))
}

#[test]
fn many_keys_cost_few_connections_and_each_client_gets_its_own() {
    for redis in Redis::of_both_manners() {
        let gateway = setup(&redis, 4).start_ready();
        let mut clients = clients(&gateway, KEYS);
        for _ in 0..3 {
            each_gets_its_own(&redis, &mut clients);
        }
        eventually("readers have moved to shared connections", || redis.clients() <= 4 + 4);
        assert!(connections(&gateway, "shared") >= 1.0);
        assert!(gateway.metric("ssegate_shared_reads_total") >= 1.0);
        let streams = gateway.streams();
        let streams = streams.as_array().unwrap();
        let shared = streams.iter().filter(|stream| stream["connection"]["shared"] == true).count();
        assert!(shared >= KEYS - 4, "{shared} of {KEYS}");
        assert!(streams.iter().all(|stream| stream["connection"]["number"].is_u64()));
    }
}

#[test]
fn as_many_keys_as_connections_have_one_each_and_so_has_each_without_a_limit() {
    let redis = Redis::start();
    for connections in [5, 0] {
        let gateway = setup(&redis, connections).start_ready();
        let mut clients = clients(&gateway, 5);
        each_gets_its_own(&redis, &mut clients);
        assert_eq!(self::connections(&gateway, "reader"), 5.0);
        assert_eq!(self::connections(&gateway, "shared"), 0.0);
    }
}

#[test]
fn when_few_are_left_each_has_its_own_connection_again() {
    for redis in Redis::of_both_manners() {
        let gateway = setup(&redis, 4)
            .set("source", "linger = \"0s\"")
            .set("source", "block = \"500ms\"")
            .start_ready();
        let mut all = clients(&gateway, KEYS);
        each_gets_its_own(&redis, &mut all);
        all.truncate(3);
        eventually("three have one each", || {
            connections(&gateway, "reader") == 3.0 && connections(&gateway, "shared") == 0.0
        });
        each_gets_its_own(&redis, &mut all);
    }
}

#[track_caller]
fn each_new_key_has_its_entry_soon(redis: &Redis, gateway: &Gateway) {
    for new in 10..20 {
        let mut client = Client::open(&gateway.address, &format!("/events/{new}"));
        client.live();
        let since = Instant::now();
        redis.add(&format!("events:{new}"), "the first");
        assert_eq!(client.entry().data, "the first");
        assert!(since.elapsed() < SOON, "it took {:?}", since.elapsed());
    }
}

#[test]
fn a_new_key_does_not_wait_for_the_read_of_others() {
    for redis in Redis::of_both_manners() {
        let gateway = setup(&redis, 2).set("source", LONG_BLOCK).start_ready();
        let mut others = clients(&gateway, 10);
        each_new_key_has_its_entry_soon(&redis, &gateway);
        each_gets_its_own(&redis, &mut others);
        let is_told = redis.calls("client|tracking") > 0;
        assert!(is_told != (redis.calls("client|unblock") > 0));
    }
}

/// As `a_new_key_does_not_wait_for_the_read_of_others`, for a user that may not end reads.
#[test]
fn without_client_unblock_shared_reads_are_short() {
    let redis = Redis::with(UNTRACKED);
    redis.run(&["ACL", "SETUSER", "default", "-client|unblock"]);
    let gateway = setup(&redis, 2).set("source", LONG_BLOCK).start_ready();
    let mut others = clients(&gateway, 10);
    each_new_key_has_its_entry_soon(&redis, &gateway);
    each_gets_its_own(&redis, &mut others);
}

#[test]
fn a_key_that_cannot_be_read_harms_none_of_its_neighbours() {
    for redis in Redis::of_both_manners() {
        let gateway = setup(&redis, 2).start_ready();
        let mut clients = clients(&gateway, KEYS);
        each_gets_its_own(&redis, &mut clients);
        redis.run(&["DEL", "events:7"]);
        redis.run(&["SET", "events:7", "no stream"]);
        redis.run(&[
            "ACL",
            "SETUSER",
            "default",
            "resetkeys",
            "~events:?",
            "~events:1?",
            "~events:2?",
        ]);
        let is_refused = |key: &str| {
            let streams = gateway.streams();
            let mut streams = streams.as_array().unwrap().iter();
            streams.find(|stream| stream["key"] == key).map(|stream| stream["error"].clone())
        };
        eventually("the string is refused", || is_refused("events:7") == Some("WRONGTYPE".into()));
        eventually("what is denied is refused", || {
            is_refused("events:30") == Some("NOPERM".into())
        });
        let add = |key: usize| redis.add(&format!("events:{key}"), "still");
        for key in (0..30).filter(|key| *key != 7) {
            let id = add(key);
            assert_eq!(clients[key].entry().last_event_id, id, "key {key}");
        }
        redis.run(&["ACL", "SETUSER", "default", "allkeys"]);
        redis.run(&["DEL", "events:7"]);
        for key in [7, 30] {
            let is_back =
                || is_refused(&format!("events:{key}")).is_none_or(|error| error.is_null());
            eventually("it is read again", is_back);
            let mut client = Client::open(&gateway.address, &format!("/events/{key}"));
            client.live();
            let id = add(key);
            assert_eq!(client.entry().last_event_id, id, "key {key}");
        }
    }
}

#[test]
fn an_entry_larger_than_a_reply_may_be_delays_its_neighbours_and_no_more() {
    for redis in Redis::of_both_manners() {
        let gateway = setup(&redis, 2).start_ready();
        let mut clients = clients(&gateway, KEYS);
        for _ in 0..3 {
            redis.add("events:0", &"x".repeat(6 << 20));
            assert_eq!(clients[0].control().0["reason"], "oversize");
            each_gets_its_own(&redis, &mut clients);
        }
        for client in &clients {
            assert!(!client.has_ended());
        }
    }
}

#[test]
fn a_busy_key_gets_a_connection_of_its_own() {
    for redis in Redis::of_both_manners() {
        let gateway = setup(&redis, 4).set("source", LONG_BLOCK).start_ready();
        let mut clients = clients(&gateway, KEYS);
        each_gets_its_own(&redis, &mut clients);
        let busy = (0..KEYS).find(|key| is_shared(&gateway, &format!("events:{key}"))).unwrap();
        let key = format!("events:{busy}");
        let mut added = 0;
        within(Duration::from_secs(30), "it has its own", || {
            for _ in 0..20 {
                redis.add(&key, "news");
            }
            added += 20;
            !is_shared(&gateway, &key)
        });
        for _ in 0..added {
            assert_eq!(clients[busy].entry().data, "news");
        }
        each_gets_its_own(&redis, &mut clients);
    }
}

#[test]
fn redis_killed_and_back_is_told_to_all_and_nothing_is_lost() {
    for user in [&[], UNTRACKED] {
        let mut redis = Redis::with(&[&["--appendonly", "yes"], user].concat());
        let gateway = setup(&redis, 3).start_ready();
        let mut clients = clients(&gateway, KEYS);
        each_gets_its_own(&redis, &mut clients);
        redis.kill();
        redis.launch();
        each_gets_its_own(&redis, &mut clients);
    }
}

#[test]
fn a_key_that_nobody_adds_to_costs_one_look_each_block() {
    costs_one_look_each_block(true);
}

#[test]
fn a_key_that_does_not_exist_costs_one_look_each_block() {
    costs_one_look_each_block(false);
}

#[track_caller]
fn costs_one_look_each_block(exists: bool) {
    const SECONDS: u64 = 6;
    for redis in Redis::of_both_manners() {
        let gateway = setup(&redis, 2).set("source", "block = \"2s\"").start_ready();
        let mut clients = clients(&gateway, KEYS);
        if exists {
            each_gets_its_own(&redis, &mut clients);
        }
        let calls = || (redis.calls("xread"), redis.calls("xinfo|stream"));
        // Newcomers have settled.
        pause_of_the_scenario(Duration::from_secs(3), "the first round is over");
        let before = calls();
        pause_of_the_scenario(Duration::from_secs(SECONDS), "nobody adds anything");
        let after = calls();
        let looks = after.1 - before.1;
        let (keys, blocks) = (KEYS as u64, SECONDS / 2);
        assert!(looks <= keys * (blocks + 1), "{looks} looks");
        assert!(looks >= keys * (blocks - 1), "{looks} looks: each key has one in each block");
        assert!(after.0 - before.0 <= 10 * (blocks + 1), "{} reads", after.0 - before.0);
    }
}

/// A key whose user has gone is seen at the next look, and a recreated one is a reset.
#[test]
fn what_becomes_of_a_quiet_stream_is_seen_by_its_look() {
    for redis in Redis::of_both_manners() {
        let gateway = setup(&redis, 2).set("source", "block = \"1s\"").start_ready();
        let mut clients = clients(&gateway, 10);
        each_gets_its_own(&redis, &mut clients);
        redis.run(&["DEL", "events:3"]);
        assert_eq!(clients[3].control().0["reason"], "reset");
    }
}

#[test]
fn keys_of_several_slots_share_a_connection_to_each_node() {
    for may_track in [true, false] {
        let cluster = Cluster::start(0);
        for node in cluster.nodes.iter().filter(|_| !may_track) {
            node.run(&["ACL", "SETUSER", "default", "-client|tracking"]);
        }
        keys_of_several_slots_are_read(&cluster);
    }
}

#[track_caller]
fn keys_of_several_slots_are_read(cluster: &Cluster) {
    let gateway = sharing(Setup::with_url(&cluster.url()), 2).start_ready();
    let mut clients = clients(&gateway, KEYS);
    let owner = |key: usize| cluster.owner(&format!("events:{key}"));
    let add = |key: usize| cluster.nodes[owner(key)].add(&format!("events:{key}"), "news");
    for _ in 0..3 {
        let ids: Vec<_> = (0..KEYS).map(add).collect();
        for (client, id) in clients.iter_mut().zip(ids) {
            assert_eq!(client.entry().last_event_id, id);
        }
    }
    for node in &cluster.nodes {
        let Answer::Text(list) = node.run(&["CLIENT", "LIST"]) else { panic!("no list") };
        let readers = list.lines().filter(|line| line.contains("cmd=x")).count();
        assert!(readers <= 2 + 4, "{list}");
    }
}

/// Some proxies route by the key, and refuse a command with several.
#[test]
fn where_several_keys_cannot_be_read_together_they_are_asked_for_in_turn() {
    let redis = Redis::start();
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = refused.clone();
    let stand_in = StandIn::before(&redis, move |words| {
        let streams = words.iter().position(|word| word.eq_ignore_ascii_case("STREAMS"));
        match streams.filter(|_| words[0].eq_ignore_ascii_case("XREAD")) {
            Some(at) if words.len() - at > 3 => {
                counted.fetch_add(1, Ordering::Relaxed);
                Treatment::Answer(b"-ERR invalid request\r\n".to_vec())
            }
            _ => Treatment::Pass,
        }
    });
    let gateway = sharing(Setup::with_url(&stand_in.url()), 2).start_ready();
    let mut clients = clients(&gateway, 10);
    for _ in 0..3 {
        each_gets_its_own(&redis, &mut clients);
    }
    let before = refused.load(Ordering::Relaxed);
    assert!(before > 0);
    pause_of_the_scenario(Duration::from_secs(1), "it is not asked again and again");
    assert!(refused.load(Ordering::Relaxed) < before + 20);
}

/// Redis is far away: while streams are looked at, looks at others fall due.
#[test]
fn looks_that_take_long_do_not_take_the_place_of_reads() {
    let redis = Redis::start();
    let [reads, rounds] = [0, 0].map(|none| Arc::new(AtomicUsize::new(none)));
    let (counted, last_look) = ((reads.clone(), rounds.clone()), Mutex::new(Instant::now()));
    let stand_in = StandIn::before(&redis, move |words| {
        if words[0] == "XINFO" {
            let mut last_look = last_look.lock().unwrap();
            if last_look.elapsed() > Duration::from_millis(5) {
                counted.1.fetch_add(1, Ordering::Relaxed);
                pause_of_the_scenario(Duration::from_millis(60), "to there and back");
            }
            *last_look = Instant::now();
        }
        let is_shared = words[0] == "XREAD" && words.len() > 10;
        counted.0.fetch_add(usize::from(is_shared), Ordering::Relaxed);
        Treatment::Pass
    });
    let setup = sharing(Setup::with_url(&stand_in.url()), 2).set("source", "block = \"200ms\"");
    let gateway = setup.start_ready();
    (0..KEYS).for_each(|key| drop(redis.add(&format!("events:{key}"), "old")));
    let _clients = clients(&gateway, KEYS);
    let count = || (reads.load(Ordering::Relaxed), rounds.load(Ordering::Relaxed));
    let before = count();
    eventually("streams are looked at again and again", || count().1 > before.1 + 50);
    let after = count();
    // All keys are looked at in five exchanges, and then there is a read.
    assert!(after.0 - before.0 >= 8, "{} reads", after.0 - before.0);
}

/// Connections that a firewall has dropped, or an operator has killed.
#[test]
fn a_shared_connection_that_is_killed_costs_its_readers_nothing_but_a_moment() {
    for redis in Redis::of_both_manners() {
        let gateway = setup(&redis, 3).start_ready();
        let mut clients = clients(&gateway, KEYS);
        let mut operator = Connection::open(&redis).unwrap();
        for _ in 0..3 {
            each_gets_its_own(&redis, &mut clients);
            operator.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
        }
        each_gets_its_own(&redis, &mut clients);
    }
}
