//! Many clients of the same streams: most are served together, and each of them goes its own way and comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ssegate::sse::parse::{Event, Item};
use ssegate::sse::{StreamId, parse_composite};

use super::ROUTES;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Redis};
use crate::support::seed;
use crate::support::waiting::pause_of_the_scenario;

const NAMES: [&str; 3] = ["a", "b", "c"];
const CLIENTS: usize = 12;
const ENTRIES: usize = 2000;
/// A client that hears nothing for so long, when nothing is written any more, has all.
const QUIET: Duration = Duration::from_millis(2500);

/// What was written to each stream.
type Written = Mutex<[BTreeMap<StreamId, String>; 3]>;

fn write(redis: &Redis, written: &Written, over: &AtomicBool, mut random: fastrand::Rng) {
    for number in 0..ENTRIES {
        let of = random.usize(..NAMES.len());
        let key = format!("events:{}", NAMES[of]);
        let payload = format!("{number}{}", "x".repeat(random.usize(..400)));
        // Nobody looks up an entry before it is known.
        let mut all = written.lock().unwrap();
        let Answer::Text(id) = redis.run(&["XADD", &key, "*", "payload", &payload]) else {
            panic!("Redis takes an entry")
        };
        all[of].insert(id.parse().unwrap(), payload);
        drop(all);
        match random.u16(..400) {
            0 => drop(redis.run(&["XTRIM", &key, "MAXLEN", "=", "3"])),
            1 => drop(redis.run(&["XADD", &key, "*", "payload", &"x".repeat(3000)])),
            _ => {}
        }
        pause_of_the_scenario(Duration::from_micros(random.u64(..2000)), "it writes on");
    }
    over.store(true, Ordering::Relaxed);
}

/// A client's history.
#[derive(Default)]
struct History {
    /// As it would come back.
    id: String,
    at: BTreeMap<String, StreamId>,
    had: BTreeSet<(usize, StreamId)>,
    events: usize,
}

impl History {
    fn hear(&mut self, event: &Event, written: &Written) {
        self.id.clone_from(&event.last_event_id);
        let control: Option<serde_json::Value> =
            (event.event_type == "ssegate").then(|| serde_json::from_str(&event.data).unwrap());
        let told = control.as_ref().filter(|control| control["type"] == "gap");
        let gap_in = told.map(|gap| gap["stream"].as_str().unwrap().to_owned());
        let positions = parse_composite(&event.last_event_id).expect("a composite id");
        if control.is_none() {
            let (name, _) = event.event_type.split_once('.').expect("it says of which stream");
            let of = NAMES.iter().position(|known| *known == name).unwrap();
            let (_, id) = positions.iter().find(|(known, _)| *known == name).unwrap();
            assert_eq!(written.lock().unwrap()[of].get(id), Some(&event.data), "{name} {id}");
            assert!(self.had.insert((of, *id)), "{name} {id} came twice");
            self.events += 1;
        }
        for (name, id) in positions {
            let is_gap = gap_in.as_deref() == Some(name);
            self.moves_to(name, id, is_gap, written);
        }
    }

    /// Everything between where it was and where it is now came, or a gap tells of it.
    fn moves_to(&mut self, name: &str, id: StreamId, is_gap: bool, written: &Written) {
        let of = NAMES.iter().position(|known| *known == name).unwrap();
        if let Some(at) = self.at.get(name).filter(|_| !is_gap) {
            assert!(*at <= id, "{name} goes back from {at} to {id}");
            let written = written.lock().unwrap();
            for (missed, _) in written[of].range(*at..=id).filter(|(missed, _)| *missed > at) {
                assert!(self.had.contains(&(of, *missed)), "{name} {missed} is lost after {at}");
            }
        }
        self.at.insert(name.to_owned(), id);
    }
}

/// Joins, stalls, leaves and comes back until it is over, and then hears all that is left.
fn follow(
    gateways: &[Gateway],
    path: &str,
    written: &Written,
    over: &AtomicBool,
    mut random: fastrand::Rng,
) -> History {
    let mut history = History::default();
    loop {
        if random.u8(..6) == 0 {
            history = History { events: history.events, ..History::default() };
        }
        let headers = match &*history.id {
            "" => String::new(),
            id => format!("Last-Event-ID: {id}\r\n"),
        };
        let address = &random.choice(gateways).unwrap().address;
        let mut client = Client::with_small_window_and(address, path, &headers);
        let leaves = Instant::now() + Duration::from_millis(random.u64(100..3000));
        let mut heard = Instant::now();
        loop {
            let is_over = over.load(Ordering::Relaxed);
            if !is_over && Instant::now() > leaves {
                break;
            }
            match client.next_within(Duration::from_millis(20)) {
                Some(Item::Event(event)) => {
                    history.hear(&event, written);
                    heard = Instant::now();
                }
                _ if is_over && heard.elapsed() > QUIET => return history,
                _ if client.has_ended() => break,
                _ => {}
            }
            if random.u16(..300) == 0 {
                pause_of_the_scenario(Duration::from_millis(random.u64(..500)), "it stalls");
            }
        }
    }
}

#[test]
fn nobody_loses_anything_in_a_crowd() {
    let redis = Redis::start();
    let start = || {
        let setup = Setup::redis(&redis).routes(ROUTES).set("source", "max_entry = \"2KiB\"");
        setup.set("ring", "entries = 64").set("limits", "send_buffer = \"8KiB\"").start_ready()
    };
    let gateways = [start(), start()];
    let (written, over) = (Written::default(), AtomicBool::new(false));
    let mut random = seed::rng();
    let ends: Vec<_> = thread::scope(|scope| {
        let (written, over, gateways) = (&written, &over, &gateways);
        let (writer, redis) = (random.fork(), &redis);
        scope.spawn(move || write(redis, written, over, writer));
        let paths = ["/any?stream=a&stream=b&stream=c", "/any?stream=c&stream=a"];
        let following: Vec<_> = (0..CLIENTS)
            .map(|number| (paths[usize::from(number % 4 == 3)], random.fork()))
            .map(|(path, random)| {
                scope.spawn(move || follow(gateways, path, written, over, random))
            })
            .collect();
        following.into_iter().map(|following| following.join().unwrap()).collect()
    });
    let written = written.into_inner().unwrap();
    for history in &ends {
        for (name, at) in &history.at {
            let of = NAMES.iter().position(|known| known == name).unwrap();
            let last = *written[of].keys().next_back().unwrap();
            assert!(*at >= last, "{name}: {at} is before its end, {last}");
        }
    }
    let all: usize = ends.iter().map(|history| history.events).sum();
    assert!(all > ENTRIES, "{all} events came");
}
