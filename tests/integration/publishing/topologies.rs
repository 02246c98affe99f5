use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::routes::{NDJSON, entries, route};
use crate::support::cluster::Cluster;
use crate::support::gateway::{Gateway, Setup};
use crate::support::history::ids;
use crate::support::post::{ids_in, post};
use crate::support::redis::{Answer, Redis};
use crate::support::sentinel::{NAME, Trio};
use crate::support::{eventually, pause_of_the_scenario, within};
use crate::topologies::cluster::{close_slot, move_key, open_slot};

/// What became of requests that were sent without pause.
#[derive(Default)]
struct Sent {
    /// Payloads and ids that were answered.
    added: Vec<(String, String)>,
    /// Payloads of requests whose outcome is not known.
    unknown: Vec<Vec<String>>,
    /// Payloads of requests that were refused.
    refused: Vec<String>,
}

/// Sends one entry and a batch of three in turn, until told to stop.
fn send(
    gateway: &Gateway,
    path: &str,
    writer: usize,
    count: &AtomicUsize,
    stop: &AtomicBool,
) -> Sent {
    let mut sent = Sent::default();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return sent;
        }
        let several = number % 2 == 1;
        let payloads: Vec<_> =
            (0..if several { 3 } else { 1 }).map(|n| format!("{writer}-{number}-{n}")).collect();
        let headers = if several { &[NDJSON][..] } else { &[] };
        let answer = post(gateway, path, headers, &payloads.join("\n"));
        match answer.status {
            200 => {
                sent.added.extend(payloads.into_iter().zip(ids_in(&answer)));
                count.fetch_add(1, Ordering::Relaxed);
            }
            503 => sent.refused.extend(payloads),
            504 => sent.unknown.push(payloads),
            _ => panic!("{answer:?}"),
        }
    }
    unreachable!()
}

/// Each that was answered is there once under its id, none that was refused, and a batch whole or not at all.
#[track_caller]
fn is_exact(all: &[Sent], kept_by: &Redis, key: &str) {
    let ids: Vec<_> = ids(kept_by, key).iter().map(ToString::to_string).collect();
    let payloads: Vec<_> =
        entries(kept_by, key).into_iter().map(|fields| fields[0].1.clone()).collect();
    let kept: HashSet<_> = payloads.iter().cloned().zip(ids).collect();
    let once: HashSet<_> = payloads.iter().collect();
    assert_eq!(once.len(), payloads.len(), "no entry is there twice");
    for sent in all {
        for added in &sent.added {
            assert!(kept.contains(added), "{added:?} was answered and is not there");
        }
        for refused in &sent.refused {
            assert!(!once.contains(refused), "{refused} was refused and is there");
        }
        for batch in &sent.unknown {
            let there = batch.iter().filter(|payload| once.contains(payload)).count();
            assert!(there == 0 || there == batch.len(), "{batch:?}: {there} are there");
        }
    }
    let [added, unknown, refused] = [
        all.iter().map(|sent| sent.added.len()).sum::<usize>(),
        all.iter().map(|sent| sent.unknown.len()).sum(),
        all.iter().map(|sent| sent.refused.len()).sum(),
    ];
    eprintln!("{added} entries added, {unknown} requests unknown, {refused} entries refused");
}

/// Publishes without pause while `change` runs.
fn publish_during(gateway: &Gateway, path: &str, change: impl FnOnce(&AtomicUsize)) -> Vec<Sent> {
    let (count, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (count, stop) = (&count, &stop);
        let writers: Vec<_> = (0..4)
            .map(|writer| scope.spawn(move || send(gateway, path, writer, count, stop)))
            .collect();
        eventually("they publish", || count.load(Ordering::Relaxed) > 50);
        change(count);
        let before = count.load(Ordering::Relaxed);
        within(Duration::from_secs(30), "they go on", || {
            count.load(Ordering::Relaxed) > before + 50
        });
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    })
}

const TERMS: &str = "rate = \"0/s\", maxlen = 0, expire = \"1h\"";

#[test]
fn through_a_failover_each_answered_entry_is_there_once() {
    let trio = Trio::start();
    let gateway = Setup::with_url(&trio.url()).routes(&route(TERMS)).start_ready();
    let old = trio.primary();
    let sent = publish_during(&gateway, "/events/a", |_| {
        // The replicas have all: what an old primary had alone is lost by Redis, not by us.
        trio.servers[0].run(&["CLIENT", "PAUSE", "20000", "WRITE"]);
        let has_all =
            |replica: &Redis| ids(replica, "events:a") == ids(&trio.servers[0], "events:a");
        eventually("the replicas have all", || trio.servers[1..].iter().all(has_all));
        let answer = trio.sentinels[0].run(&["SENTINEL", "FAILOVER", NAME]);
        assert_eq!(answer, Some(Answer::Text("OK".into())));
        within(Duration::from_secs(30), "another one is named", || trio.primary() != old);
    });
    is_exact(&sent, trio.at(&trio.primary()), "events:a");
}

#[test]
fn while_a_slot_moves_each_answered_entry_is_there_once() {
    let cluster = Cluster::start(0);
    let gateway = Setup::with_url(&cluster.url()).routes(&route(TERMS)).start_ready();
    let name = cluster.name_at(0);
    let (path, key) = (format!("/events/{name}"), format!("events:{name}"));
    let sent = publish_during(&gateway, &path, |_| {
        for (from, to) in [(0, 1), (1, 2)] {
            let pause = || pause_of_the_scenario(Duration::from_millis(500), "each state lasts");
            open_slot(&cluster, &key, from, to);
            pause();
            move_key(&cluster, &key, from, to);
            pause();
            close_slot(&cluster, &key, from, to);
            pause();
        }
    });
    is_exact(&sent, &cluster.nodes[2], &key);
    assert!(sent.iter().all(|sent| sent.unknown.is_empty()), "no connection was lost");
    let Answer::Number(ms) = cluster.nodes[2].run(&["PTTL", &key]) else { panic!("no time") };
    assert!(ms > 3_000_000, "{ms}");
}

/// A node that is killed takes with it only what nobody was told of.
#[test]
fn of_a_server_that_is_killed_each_answered_entry_is_there_once() {
    let mut redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let gateway = Setup::redis(&redis).routes(&route(TERMS)).start_ready();
    let sent = publish_during(&gateway, "/events/a", |_| {
        redis.kill();
        redis.launch();
    });
    is_exact(&sent, &redis, "events:a");
}
