//! Publishers that POST through the gateway while a fault goes on, and what they were told against what Redis
//! kept: what was acknowledged exists once, what is not known once at most, what was refused not at all.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::nemesis::Over;
use crate::scene::Scene;
use crate::support::gateway::exchange;
use crate::support::redis::{Answer, Redis};
use crate::support::{pause_of_the_scenario, within};

const PUBLISHERS: usize = 3;
/// Publishing goes on again within this time after any fault: a reconnect, and what a busy machine adds.
const RECOVERY: Duration = Duration::from_secs(20);

/// Everybody knows of a failover this long after another primary took writes.
const KNOWN: Duration = Duration::from_secs(4);

/// What a publisher was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Added,
    Refused,
    Unknown,
    /// Anything else, by its status.
    Odd(u16),
}

/// Whether Redis itself may lose what it has acknowledged; once a failover is known, it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Kept,
    /// Replicas are sent what the primary has acknowledged, and a failover does not wait for them.
    LostByFailover,
}

/// Inflicts a fault amid publishes, each to a key of its own, for the gateway trims what it adds to.
pub fn amid(scene: &mut Scene, inflict: fn(&mut Scene) -> Over, durability: Durability) -> Over {
    let admin = scene.gateway().admin.clone();
    let (over, acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0));
    let settled = AtomicBool::new(false);
    let publish = |publisher: usize| {
        let mut told = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let key = format!("published:{publisher}:{}", told.len());
            let settled = settled.load(Ordering::Relaxed);
            let outcome = post(&admin, &key);
            acknowledged.fetch_add(usize::from(outcome == Told::Added), Ordering::Relaxed);
            told.push((key, outcome, if settled { Durability::Kept } else { durability }));
        }
        told
    };
    let (fault_over, told) = std::thread::scope(|scope| {
        let publish = &publish;
        let publishers: Vec<_> =
            (0..PUBLISHERS).map(|number| scope.spawn(move || publish(number))).collect();
        let count = || acknowledged.load(Ordering::Relaxed);
        within(RECOVERY, "publishers are at work", || count() > 20);
        let fault_over = inflict(scene);
        if durability == Durability::LostByFailover {
            pause_of_the_scenario(KNOWN, "the failover gets known");
        }
        settled.store(true, Ordering::Relaxed);
        let before = count();
        within(RECOVERY, "publishers are at work again", || count() > before + 20);
        over.store(true, Ordering::Relaxed);
        let told = publishers.into_iter().flat_map(|publisher| publisher.join().unwrap());
        (fault_over, told.collect::<Vec<_>>())
    });
    for (key, told, durability) in told {
        let entries = entries(scene.redis(), &key);
        assert!(holds(told, entries, durability), "{key}: {told:?}, {entries}, {durability:?}");
    }
    fault_over
}

fn post(admin: &str, key: &str) -> Told {
    let request = format!(
        "POST /publish/{key} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx"
    );
    match exchange(admin, &request).status {
        200 => Told::Added,
        503 => Told::Refused,
        504 => Told::Unknown,
        status => Told::Odd(status),
    }
}

fn entries(redis: &Redis, key: &str) -> i64 {
    match redis.run(&["XLEN", key]) {
        Answer::Number(entries) => entries,
        other => panic!("XLEN: {other:?}"),
    }
}

/// Whether there may be so many entries of a publish that was told so.
fn holds(told: Told, entries: i64, durability: Durability) -> bool {
    match told {
        Told::Added if durability == Durability::LostByFailover => entries <= 1,
        Told::Added => entries == 1,
        Told::Refused => entries == 0,
        Told::Unknown => entries <= 1,
        Told::Odd(_) => false,
    }
}

/// Shows that a wrong outcome is caught, and no right one.
pub fn wrong_outcomes_are_caught() {
    for (told, entries) in [
        (Told::Added, 0),
        (Told::Added, 2),
        (Told::Refused, 1),
        (Told::Unknown, 2),
        (Told::Odd(500), 0),
    ] {
        assert!(!holds(told, entries, Durability::Kept), "{told:?}, {entries}");
    }
    for (told, entries) in
        [(Told::Added, 1), (Told::Refused, 0), (Told::Unknown, 0), (Told::Unknown, 1)]
    {
        assert!(holds(told, entries, Durability::Kept), "{told:?}, {entries}");
    }
    assert!(holds(Told::Added, 0, Durability::LostByFailover));
    assert!(!holds(Told::Added, 2, Durability::LostByFailover));
}
