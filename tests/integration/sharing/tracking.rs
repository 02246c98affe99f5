//! Redis tells which keys have changed: entries of one key cost its neighbours nothing.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ssegate::sse::parse::Item;

use super::{KEYS, LONG_BLOCK, SOON, clients, connections, each_gets_its_own, setup, sharing};
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Connection, Redis};
use crate::support::stand_in::{StandIn, Treatment};
use crate::support::{eventually, pause_of_the_scenario};

#[test]
fn an_entry_of_one_key_costs_its_neighbours_nothing() {
    let redis = Redis::start();
    let gateway = setup(&redis, 64).set("source", LONG_BLOCK).start_ready();
    let mut clients = clients(&gateway, 200);
    each_gets_its_own(&redis, &mut clients);
    eventually("one group is enough", || connections(&gateway, "shared") == 1.0);
    // Those that gave their own connection up have settled.
    each_gets_its_own(&redis, &mut clients);
    let calls = || redis.calls("xread") + redis.calls("xinfo|stream");
    let before = calls();
    let entries = 50;
    for (key, client) in clients.iter_mut().enumerate().take(entries) {
        redis.add(&format!("events:{key}"), "news");
        assert_eq!(client.entry().data, "news");
    }
    // Redis is asked to tell of the key again, and then it is read with a look.
    let asked = calls() - before;
    assert!(asked <= 4 * entries as u64, "{asked} commands");
    assert_eq!(redis.blocked(), 59, "those that have their own");
}

/// A read brings no more than a page.
#[test]
fn a_burst_of_more_than_a_page_arrives_at_once() {
    let redis = Redis::start();
    let setup = setup(&redis, 2).set("source", LONG_BLOCK).set("source", "read_count = 2");
    let gateway = setup.start_ready();
    let mut clients = clients(&gateway, KEYS);
    each_gets_its_own(&redis, &mut clients);
    let mut operator = Connection::open(&redis).unwrap();
    operator.run(&["MULTI"]).unwrap();
    for number in 0..25 {
        operator.run(&["XADD", "events:7", "*", "payload", &number.to_string()]).unwrap();
    }
    operator.run(&["EXEC"]).unwrap();
    let since = Instant::now();
    for number in 0..25 {
        assert_eq!(clients[7].entry().data, number.to_string());
    }
    assert!(since.elapsed() < SOON, "looks have shown them, after {:?}", since.elapsed());
}

#[test]
fn a_server_that_is_emptied_is_told_to_all_at_once() {
    let redis = Redis::start();
    let gateway = setup(&redis, 2).set("source", LONG_BLOCK).start_ready();
    let mut clients = clients(&gateway, KEYS);
    each_gets_its_own(&redis, &mut clients);
    redis.run(&["FLUSHALL"]);
    for client in &mut clients {
        assert_eq!(client.control().0["reason"], "reset");
    }
    each_gets_its_own(&redis, &mut clients);
}

/// Nothing is left of it, and nobody could read it: that there was something is all that can be told.
#[test]
fn a_stream_that_comes_and_goes_at_once_is_told() {
    let redis = Redis::start();
    let gateway = setup(&redis, 2).set("source", LONG_BLOCK).start_ready();
    let mut clients = clients(&gateway, KEYS);
    let script = "redis.call('XADD', KEYS[1], '*', 'payload', 'x') redis.call('DEL', KEYS[1])";
    let mut told = None;
    // Until Redis was asked to tell of the key it tells nothing.
    eventually("the client is told", || {
        redis.run(&["EVAL", script, "1", "events:3"]);
        told = clients[3].next_within(Duration::from_millis(200));
        matches!(told, Some(Item::Event(_)))
    });
    let Some(Item::Event(event)) = told else { panic!("{told:?}") };
    let gap: serde_json::Value = serde_json::from_str(&event.data).unwrap();
    assert_eq!((&gap["type"], &gap["reason"]), (&"gap".into(), &"reset".into()));
    redis.add("events:3", "after");
    assert_eq!(clients[3].entry().data, "after");
}

#[test]
fn a_stream_that_expires_is_a_reset_at_once_and_its_neighbours_go_on() {
    let redis = Redis::start();
    let gateway = setup(&redis, 2).set("source", LONG_BLOCK).start_ready();
    let mut clients = clients(&gateway, KEYS);
    each_gets_its_own(&redis, &mut clients);
    redis.run(&["PEXPIRE", "events:3", "100"]);
    assert_eq!(clients[3].control().0["reason"], "reset");
    each_gets_its_own(&redis, &mut clients);
}

/// Trimmed a hundred times a second, a stream brings nothing to read.
#[test]
fn changes_that_bring_no_entries_are_no_reason_to_open_connections() {
    let redis = Redis::start();
    let gateway = setup(&redis, 2).set("source", "block = \"1s\"").start_ready();
    let mut clients = clients(&gateway, KEYS);
    for _ in 0..10 {
        each_gets_its_own(&redis, &mut clients);
    }
    let opened = || redis.calls("client|tracking") + redis.calls("hello");
    let (before, reads) = (opened(), redis.calls("xread"));
    let mut operator = Connection::open(&redis).unwrap();
    for at in 0..300 {
        operator.run(&["XGROUP", "CREATE", "events:5", &format!("g{at}"), "0"]).unwrap();
        pause_of_the_scenario(Duration::from_millis(10), "the stream changes now and then");
    }
    each_gets_its_own(&redis, &mut clients);
    assert_eq!(opened(), before);
    let reads = redis.calls("xread") - reads;
    assert!(reads < 300, "{reads} reads: it waits in between");
}

/// Where it is added while Redis is asked to tell of its key.
#[derive(Clone, Copy, Debug)]
enum When {
    Before,
    After,
}

thread_local! {
    /// The connection over which Redis would tell of keys; each has a thread of its own.
    static IS_TOLD: Cell<bool> = const { Cell::new(false) };
}

/// A server that tells of no key, but of those to which it adds an entry itself, `times` for each key that it is asked
/// for.
fn adding(redis: &Redis, when: When, times: usize) -> StandIn {
    let (socket, added) = (redis.socket(), Mutex::new(HashMap::<String, usize>::new()));
    StandIn::before(redis, move |words| {
        match words[0].as_str() {
            "HELLO" => {
                IS_TOLD.set(true);
                return Treatment::Answer(b"%1\r\n+proto\r\n:3\r\n".to_vec());
            }
            "CLIENT" if words[1] == "TRACKING" => return Treatment::Answer(b"+OK\r\n".to_vec()),
            _ => {}
        }
        let key = if words[0] == "XINFO" { words.last() } else { words.iter().nth_back(1) };
        let asks = IS_TOLD.get() && matches!(&*words[0], "XINFO" | "XREAD");
        let Some(key) = key.filter(|_| asks).cloned() else { return Treatment::Pass };
        let mut added = added.lock().unwrap();
        let count = added.entry(key.clone()).or_default();
        if *count == times {
            return Treatment::Pass;
        }
        *count += 1;
        let (mut operator, payload) = (Connection::at(&socket).unwrap(), count.to_string());
        let mut add = move |key: &str| {
            operator.run(&["XADD", key, "*", "payload", &payload]).unwrap();
        };
        if let When::Before = when {
            add(&key);
            return Treatment::Pass;
        }
        let add = Mutex::new(add);
        Treatment::Rewrite(Box::new(move |mut answer| {
            (add.lock().unwrap())(&key);
            let length = key.len();
            answer.extend(
                format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${length}\r\n{key}\r\n").into_bytes(),
            );
            answer
        }))
    })
}

#[track_caller]
fn all_that_was_added_arrives(when: When, times: usize) {
    let redis = Redis::start();
    let stand_in = adding(&redis, when, times);
    let setup = sharing(Setup::with_url(&stand_in.url()), 2).set("source", LONG_BLOCK);
    let gateway = setup.start_ready();
    let mut clients = clients(&gateway, 10);
    let since = Instant::now();
    for client in &mut clients {
        for number in 1..=times {
            assert_eq!(client.entry().data, number.to_string(), "{when:?}");
        }
    }
    assert!(since.elapsed() < SOON, "a look has shown it, after {:?}", since.elapsed());
}

#[test]
fn an_entry_from_before_redis_was_asked_to_tell_of_its_key_is_read() {
    all_that_was_added_arrives(When::Before, 1);
}

#[test]
fn an_entry_from_after_redis_was_asked_to_tell_of_its_key_is_told_of_each_time() {
    all_that_was_added_arrives(When::After, 20);
}

/// As some proxies do, that know the command and have connections in common for all.
#[test]
fn where_nothing_is_told_keys_are_read_together_soon() {
    let redis = Redis::start();
    let stand_in = adding(&redis, When::Before, 0);
    let setup = sharing(Setup::with_url(&stand_in.url()), 8).set("source", "block = \"1s\"");
    let gateway = setup.start_ready();
    let mut clients = clients(&gateway, KEYS);
    each_gets_its_own(&redis, &mut clients);
    eventually("they are read together", || connections(&gateway, "shared") > 1.0);
    for _ in 0..3 {
        each_gets_its_own(&redis, &mut clients);
    }
    assert!(redis.calls("client|unblock") > 0);
    assert!(!is_lost(&gateway));
}

fn is_lost(gateway: &Gateway) -> bool {
    let streams = gateway.streams();
    streams.as_array().unwrap().iter().any(|stream| !stream["error"].is_null())
}
