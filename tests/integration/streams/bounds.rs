//! What is bounded: what the embedded source and all rings keep, what a route gives back, and how
//! often Redis is asked for it.

use std::time::Instant;

use serde_json::{Value, json};

use super::{Scene, everywhere, prev, replays, route};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Connection, Redis};

fn resumed(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("ssegate_resume_total{{result=\"{result}\"}}"))
}

#[test]
fn the_embedded_source_keeps_the_newest_and_reports_a_gap_for_the_others() {
    let gateway = Setup::memory().set("ring", "entries = 5").start_ready();
    // The key has no reader yet: only the source knows.
    let scene = Scene { gateway, watcher: None };
    let ids = scene.publish(12);
    let mut earliest = scene.open("?last_event_id=earliest");
    for id in &ids[7..] {
        assert_eq!(earliest.event().last_event_id, *id);
    }
    assert_eq!(earliest.live(), (5, ids[11].clone()));
    let mut client = scene.resume(&ids[2]);
    let expected =
        json!({"type": "gap", "after": ids[2], "next": ids[7], "lost": null, "reason": "trimmed"});
    assert_eq!(client.control(), (expected, prev(&ids[7])));
    replays(&scene, client, &ids[7..], &ids[11]);
}

/// `/streams` of one key.
fn stream(gateway: &Gateway, key: &str) -> Value {
    let streams = gateway.streams();
    let stream = streams.as_array().unwrap().iter().find(|stream| stream["key"] == key);
    stream.unwrap_or_else(|| panic!("no {key} in {streams}")).clone()
}

#[test]
fn the_longest_unused_ring_is_dropped_and_its_key_is_served_from_redis() {
    let redis = Redis::start();
    let setup = Setup::redis(&redis).set("ring", "bytes = \"48KiB\"");
    let gateway = setup.set("ring", "total_bytes = \"64KiB\"").start_ready();
    let fill = |name: &str| {
        let mut client = Client::open(&gateway.address, &format!("/events/{name}"));
        client.live();
        let payload = "x".repeat(4 << 10);
        let ids: Vec<_> = (0..10).map(|_| redis.add(&format!("events:{name}"), &payload)).collect();
        ids.iter().for_each(|id| assert_eq!(client.entry().last_event_id, *id));
        (client, ids)
    };
    let (idle, ids) = fill("idle");
    idle.leave();
    eventually("it is idle", || stream(&gateway, "events:idle")["clients"] == 0);
    assert_eq!(stream(&gateway, "events:idle")["ring_entries"], 10);
    let (_busy, _) = fill("busy");
    eventually("the idle key's ring is empty", || {
        stream(&gateway, "events:idle")["ring_entries"] == 0
    });
    assert_eq!(stream(&gateway, "events:busy")["ring_entries"], 10, "room enough was made");

    assert_eq!(resumed(&gateway, "redis"), 0.0);
    let mut client = Client::resume(&gateway.address, "/events/idle", &ids[3]);
    for id in &ids[4..] {
        assert_eq!(client.event().last_event_id, *id);
    }
    assert_eq!(client.live(), (6, ids[9].clone()));
    assert_eq!((resumed(&gateway, "redis"), resumed(&gateway, "ring")), (1.0, 0.0));
}

#[test]
fn a_start_in_the_past_beyond_the_limit_is_a_gap_and_gets_the_newest() {
    everywhere(
        |setup| setup.routes(&route("replay = 5")),
        |scene| {
            let mut ids = scene.publish(12);
            for start in ["?since=15m", "?last_event_id=earliest"] {
                let mut client = scene.open(start);
                let (next, newest) = (ids[ids.len() - 5].clone(), ids[ids.len() - 1].clone());
                let (gap, at) = client.control();
                // Only the ring counts them for free.
                let counted = gap["lost"] == ids.len() - 5;
                assert!(counted || gap["lost"].is_null(), "{start}: {gap}");
                let expected = json!({"type": "gap", "after": null, "next": next, "lost": gap["lost"], "reason": "limit"});
                assert_eq!((gap, at), (expected, prev(&next)), "{start}");
                for id in &ids[ids.len() - 5..] {
                    assert_eq!(client.event().last_event_id, *id, "{start}");
                }
                assert_eq!(client.live(), (5, newest), "{start}");
                let new = scene.publish(1).remove(0);
                assert_eq!(client.event().last_event_id, new, "{start}");
                ids.push(new);
            }
        },
    );
}

/// Adds so many entries at once.
fn add_many(redis: &Redis, count: usize) -> Vec<String> {
    let mut connection = Connection::open(redis).unwrap();
    let ids: Vec<_> = (1..=count).map(|number| format!("{number}-0")).collect();
    for id in &ids {
        connection.send(&[b"XADD", b"events:a", id.as_bytes(), b"payload", id.as_bytes()]).unwrap();
    }
    ids.iter().for_each(|_| drop(connection.answer().unwrap()));
    ids
}

#[test]
fn a_herd_that_resumes_at_one_id_shares_its_reads_of_redis() {
    const HERD: usize = 50;
    let redis = Redis::start();
    let mut ids = add_many(&redis, 1000);
    let setup = Setup::redis(&redis).set("source", "block = \"60s\"");
    let gateway = setup.set("limits", "replays = 2").start_ready();
    let mut early = Client::open(&gateway.address, "/events/a");
    early.live();
    // The first entry ends the reader's first, short read; the next one lasts.
    ids.push(redis.add("events:a", "the first that the ring has"));
    assert_eq!(early.entry().last_event_id, ids[1000]);

    let reads = || ["xread", "xrange", "xrevrange"].map(|command| redis.calls(command));
    let (before, begin) = (reads(), Instant::now());
    let mut herd: Vec<_> =
        (0..HERD).map(|_| Client::resume(&gateway.address, "/events/a", &ids[9])).collect();
    for client in &mut herd {
        for id in &ids[10..] {
            assert_eq!(client.event().last_event_id, *id);
        }
        assert_eq!(client.live(), (991, ids[1000].clone()));
    }
    let after = reads();
    let [pages, looks, looks_back] = std::array::from_fn(|n| after[n] - before[n]);
    // Three pages make it, and are kept for two seconds; a slow machine reads them again.
    let rounds = 1 + begin.elapsed().as_millis() as u64 / 2000;
    assert!((1..=10 * rounds).contains(&pages), "{pages} pages in {rounds} rounds");
    assert!(looks <= HERD as u64, "one look at most whether the id is there: {looks}");
    assert_eq!(looks_back, 0);
}

/// In memory they are many times what they are on the wire: a reply of as many as its bytes allow would
/// take all memory, or be given up again and again.
#[test]
fn entries_of_many_small_fields_are_read_few_at_a_time() {
    const ENTRIES: usize = 2_000;
    let redis = Redis::start();
    let all_fields = "[[route]]\npath = \"/all/{name}\"\nkey = \"events:{name}\"\naccess = \"public\"\ndata = \"*\"\n";
    let setup = Setup::redis(&redis).routes(all_fields).set("ring", "entries = 100");
    let gateway = setup.start_ready();
    let mut client = Client::open(&gateway.address, "/all/a");
    client.live();
    let script = "local words = {}
        for i = 1, 700 do words[2 * i - 1] = 'f'; words[2 * i] = 'x' end
        for i = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], i .. '-0', unpack(words)) end";
    redis.run(&["EVAL", script, "1", "events:a", &ENTRIES.to_string()]);
    let mut resumed = Client::resume(&gateway.address, "/all/a", "0-0");
    for client in [&mut client, &mut resumed] {
        for number in 1..=ENTRIES {
            let entry = client.entry();
            assert_eq!(
                (&*entry.last_event_id, &*entry.data),
                (&*format!("{number}-0"), "{\"f\":\"x\"}")
            );
        }
    }
    let given_up = gateway.metric("ssegate_reader_errors_total{code=\"TOOLARGE\"}");
    assert!(given_up <= 1.0, "{given_up}");
    let peak_bytes = gateway.peak_bytes();
    // Without that it is 62 MiB, and with it 25.
    assert!(peak_bytes < 40 << 20, "{peak_bytes}");
}

/// A read costs the gateway and Redis as much as many entries do. Here each entry comes as soon as the last was heard, and
/// so has a read for itself.
#[test]
fn a_stream_that_never_rests_is_read_every_other_millisecond() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let mut writer = Connection::open(&redis).unwrap();
    let (before, began) = (redis.calls("xread"), Instant::now());
    for n in 0..500 {
        writer.run(&["XADD", "events:a", "*", "payload", &n.to_string()]).unwrap();
        assert_eq!(client.entry().data, n.to_string());
    }
    let (reads, elapsed) = (redis.calls("xread") - before, began.elapsed());
    eprintln!("{reads} reads in {elapsed:?}");
    // Sixteen come at once, and a look now and then repeats a read.
    assert!(u128::from(reads) <= elapsed.as_millis() * 11 / 20 + 26, "{reads} in {elapsed:?}");
}
