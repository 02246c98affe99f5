use serde_json::json;

use super::{json_of, open, resume, routes, start};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::multiplexed::Session;
use crate::support::redis::Redis;

const CONFLATE: &str = "conflate = \"id\"";

/// Adds `rounds` entries for each of `values`, each with its number and so many bytes.
fn add(redis: &Redis, values: usize, rounds: usize, bytes: usize) {
    let script = "for n = 0, ARGV[1] * ARGV[2] - 1 do \
        redis.call('XADD', KEYS[1], '*', 'id', n % ARGV[1], 'payload', n .. ' ' .. string.rep('x', ARGV[3])) end";
    let [values, rounds, bytes] = [values, rounds, bytes].map(|number| number.to_string());
    redis.run(&["EVAL", script, "1", "events:a", &values, &rounds, &bytes]);
}

/// The number of an entry.
fn number(data: &str) -> usize {
    data.split(' ').next().unwrap().parse().unwrap()
}

/// What a client gets up to the `conflated` mark: the numbers of its entries, and how many it was spared.
fn until_told(client: &mut Client) -> (Vec<usize>, u64) {
    let mut numbers = Vec::new();
    loop {
        let event = client.event();
        if event.event_type != "ssegate" {
            numbers.push(number(&event.data));
            continue;
        }
        let control: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        if control["type"] == "conflated" {
            return (numbers, control["entries"].as_u64().unwrap());
        }
    }
}

fn spared(gateway: &Gateway) -> f64 {
    gateway.metric("ssegate_entries_conflated_total")
}

#[test]
fn a_level_client_gets_all() {
    let redis = Redis::start();
    let gateway = start(&redis, CONFLATE);
    let mut client = open(&gateway);
    client.live();
    let mut session = Session::open(&gateway.address);
    let stream = session.stream("/events/a");
    session.live(stream);
    add(&redis, 1, 50, 10);
    for n in 0..50 {
        assert_eq!(number(&client.entry().data), n);
        assert_eq!(number(&session.event(stream).data), n);
    }
    assert!(spared(&gateway) < 1.0);
}

#[test]
fn a_client_that_comes_back_gets_the_newest_of_each() {
    let redis = Redis::start();
    let first = redis.add("events:a", "0 of none");
    let begun = start(&redis, CONFLATE);
    let mut client = resume(&begun, &first);
    client.live();
    drop(client);
    add(&redis, 10, 30, 10);
    let last = redis.add("events:a", "300 of none");
    // From the ring of one, and of another from Redis, page by page.
    begun.has_read("events:a", &last);
    for gateway in [begun, start(&redis, CONFLATE)] {
        let mut client = resume(&gateway, &first);
        let (numbers, told) = until_told(&mut client);
        let expected: Vec<usize> = (290..=300).collect();
        assert_eq!((numbers, told), (expected, 290));
        client.live();
        assert_eq!(client.last_event_id(), last);
        eventually("they are counted", || spared(&gateway) == 290.0);
    }
}

#[test]
fn a_slow_client_is_spared_and_its_cost_does_not_grow() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis)
        .set("ring", "entries = 1000")
        .set("limits", "send_buffer = \"16KiB\"")
        .set("limits", "write_stall = \"1m\"")
        .routes(&routes(CONFLATE))
        .start_ready();
    let mut slow = Client::with_small_window(&gateway.address, "/events/a");
    slow.live();
    // Ten times what the ring holds, for twenty values.
    add(&redis, 20, 500, 1000);
    let last = redis.add("events:a", "10000 of none");
    gateway.has_read("events:a", &last);
    let (numbers, told) = until_told(&mut slow);
    assert!(numbers.is_sorted() && numbers.len() < 5000, "{}", numbers.len());
    assert!(numbers.ends_with(&(9980..=10_000).collect::<Vec<_>>()), "{numbers:?}");
    assert_eq!(numbers.len() as u64 + told, 10_001);
    // Level again, it gets all again.
    redis.add("events:a", "1 more");
    assert_eq!(slow.entry().data, "1 more");
}

#[test]
fn it_goes_with_a_state() {
    let redis = Redis::start();
    let keys = format!("{CONFLATE}\nsnapshot = {{ newest_by = \"id\" }}\nsnapshot_age = \"1m\"");
    let gateway = start(&redis, &keys);
    add(&redis, 2, 2, 0);
    let mut client = open(&gateway);
    assert_eq!(json_of(&mut client).0, json!({"0": "2 ", "1": "3 "}));
    client.live();
    add(&redis, 2, 5, 0);
    for n in 0..10 {
        assert_eq!(number(&client.entry().data), n);
    }
    // One that comes later shares the state, and is behind it by ten entries.
    let mut late = open(&gateway);
    json_of(&mut late);
    assert_eq!(until_told(&mut late), (vec![8, 9], 8));
    late.live();
}
