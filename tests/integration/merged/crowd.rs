//! Many clients of the same streams: most are served together, and each of them goes its own way and comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use fastrand::Rng;
use ssegate::sse::parse::Event;
use ssegate::sse::{StreamId, parse_composite};

use super::ROUTES;
use crate::support::gateway::Setup;
use crate::support::redis::{Answer, Redis};
use crate::support::wanderer::{Wanderer, resuming, wander};
use crate::support::{pause_of_the_scenario, seed};

const NAMES: [&str; 3] = ["a", "b", "c"];
const CLIENTS: usize = 12;
const ENTRIES: usize = 2000;

/// What was written to each stream.
type Written = Mutex<[BTreeMap<StreamId, String>; 3]>;

fn write(redis: &Redis, written: &Written, mut random: Rng) {
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
}

/// A client's history.
struct History<'a> {
    path: &'static str,
    written: &'a Written,
    /// As it would come back.
    id: String,
    at: BTreeMap<String, StreamId>,
    had: BTreeSet<(usize, StreamId)>,
    events: usize,
}

impl Wanderer for History<'_> {
    fn asks(&mut self, random: &mut Rng) -> (String, String) {
        if random.u8(..6) == 0 {
            self.id.clear();
            self.at.clear();
            self.had.clear();
        }
        (self.path.to_owned(), resuming(&self.id))
    }

    fn hears(&mut self, event: &Event) {
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
            assert_eq!(self.written.lock().unwrap()[of].get(id), Some(&event.data), "{name} {id}");
            assert!(self.had.insert((of, *id)), "{name} {id} came twice");
            self.events += 1;
        }
        for (name, id) in positions {
            let is_gap = gap_in.as_deref() == Some(name);
            self.moves_to(name, id, is_gap);
        }
    }
}

impl History<'_> {
    /// Everything between where it was and where it is now came, or a gap tells of it.
    fn moves_to(&mut self, name: &str, id: StreamId, is_gap: bool) {
        let of = NAMES.iter().position(|known| *known == name).unwrap();
        if let Some(at) = self.at.get(name).filter(|_| !is_gap) {
            assert!(*at <= id, "{name} goes back from {at} to {id}");
            let written = self.written.lock().unwrap();
            for (missed, _) in written[of].range(*at..=id).filter(|(missed, _)| *missed > at) {
                assert!(self.had.contains(&(of, *missed)), "{name} {missed} is lost after {at}");
            }
        }
        self.at.insert(name.to_owned(), id);
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
    let written = Written::default();
    let mut random = seed::rng();
    let paths = ["/any?stream=a&stream=b&stream=c", "/any?stream=c&stream=a"];
    let client = |number: usize| History {
        path: paths[usize::from(number % 4 == 3)],
        written: &written,
        id: String::new(),
        at: BTreeMap::new(),
        had: BTreeSet::new(),
        events: 0,
    };
    let clients = (0..CLIENTS).map(client).collect();
    let ends = wander(
        clients,
        Duration::from_secs(3),
        random.fork(),
        |client, random| client.comes(&gateways, random),
        |random| write(&redis, &written, random),
    );
    let written_at_all = written.lock().unwrap();
    for history in &ends {
        for (name, at) in &history.at {
            let of = NAMES.iter().position(|known| known == name).unwrap();
            let last = *written_at_all[of].keys().next_back().unwrap();
            assert!(*at >= last, "{name}: {at} is before its end, {last}");
        }
    }
    let all: usize = ends.iter().map(|history| history.events).sum();
    assert!(all > ENTRIES, "{all} events came");
}
