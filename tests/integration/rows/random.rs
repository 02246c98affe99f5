//! No path delivers an entry that the token and the filter do not allow, and none loses one without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use ssegate::sse::StreamId;
use ssegate::sse::parse::Event;

use super::*;
use crate::support::wanderer::{Wanderer, resuming, wander};
use crate::support::{pause_of_the_scenario, seed};

const TENANTS: [&str; 4] = ["acme", "other", "third", ""];
const SEVERITIES: [&str; 3] = ["low", "middle", "high"];
const CLIENTS: usize = 8;
const ENTRIES: usize = 3000;

/// What was written: the fields of each entry.
type Written = Mutex<BTreeMap<StreamId, Value>>;

/// What a client may get, in words of the test's own.
struct Wish {
    tenants: Vec<&'static str>,
    /// Empty: any.
    severities: Vec<&'static str>,
}

impl Wish {
    fn new(random: &mut Rng) -> Self {
        let mut some = |all: &[&'static str], least| {
            let mut all = all.to_vec();
            random.shuffle(&mut all);
            all.truncate(random.usize(least..3));
            all
        };
        Self { tenants: some(&TENANTS, 1), severities: some(&SEVERITIES, 0) }
    }

    fn allows(&self, entry: &Value) -> bool {
        let has =
            |field: &str, of: &[&str]| entry[field].as_str().is_some_and(|it| of.contains(&it));
        let is_severe = self.severities.is_empty() || has("severity", &self.severities);
        has("tenant", &self.tenants) && is_severe
    }

    fn query(&self, start: &str) -> String {
        let filter = self.severities.join(",");
        let filter = if filter.is_empty() { filter } else { format!("severity={filter}") };
        format!("?{start}&{filter}")
    }
}

/// Writes them all, in requests of a few; on Redis the stream is trimmed now and then.
fn write(gateway: &Gateway, redis: Option<&Redis>, written: &Written, mut random: Rng) {
    let mut number = 0;
    while number < ENTRIES {
        let entries: Vec<_> = (0..random.usize(1..6)).map(|_| some_entry(&mut random)).collect();
        number += entries.len();
        let lines: Vec<_> = entries.iter().map(ToString::to_string).collect();
        let ndjson = ["Content-Type: application/x-ndjson"];
        // Nobody looks up an entry before it is known.
        let mut written = written.lock().unwrap();
        let ids = ids_in(&post(gateway, "/events/a", &ndjson, &lines.join("\n")));
        written.extend(ids.iter().map(|id| id.parse().unwrap()).zip(entries));
        drop(written);
        if let Some(redis) = redis.filter(|_| random.u8(..80) == 0) {
            redis.run(&["XTRIM", "events:a", "MAXLEN", "=", "30"]);
        }
        pause_of_the_scenario(Duration::from_micros(random.u64(..10_000)), "it writes on");
    }
}

fn some_entry(random: &mut Rng) -> Value {
    let mut entry = json!({ "payload": random.u32(..).to_string() });
    if random.u8(..6) > 0 {
        entry["tenant"] = json!(random.choice(TENANTS).unwrap());
    }
    if random.u8(..6) > 0 {
        entry["severity"] = json!(random.choice(SEVERITIES).unwrap());
    }
    entry
}

/// A client's history: where it is, and what it had and was told of.
struct History<'a> {
    wish: Wish,
    written: &'a Written,
    at: Option<StreamId>,
    had: BTreeSet<StreamId>,
    /// Entries that it has had, in this history or in one that it has forgotten.
    came: usize,
}

impl History<'_> {
    /// Everything that it may have between where it was and where it is now came, or a gap tells of it.
    fn moves_to(&mut self, id: StreamId, is_gap: bool) {
        if let Some(at) = self.at.filter(|_| !is_gap) {
            let written = self.written.lock().unwrap();
            let between = written.range(at..=id).skip_while(|(id, _)| **id == at);
            for (missed, entry) in between.filter(|(_, entry)| self.wish.allows(entry)) {
                assert!(
                    self.had.contains(missed),
                    "{missed} is lost on the way from {at} to {id}: {entry}"
                );
            }
        }
        assert!(self.at.is_none_or(|at| at <= id), "back from {:?} to {id}", self.at);
        self.at = Some(id);
    }
}

impl Wanderer for History<'_> {
    fn asks(&mut self, random: &mut Rng) -> (String, String) {
        if random.u8(..5) == 0 {
            self.at = None;
            self.had.clear();
        }
        let start = match random.u8(..4) {
            0 => "last=7",
            1 => "since=3s",
            2 => "last_event_id=earliest",
            _ => "",
        };
        let id = self.at.map_or(String::new(), |id| id.to_string());
        let token = token(&json!(self.wish.tenants));
        let headers = format!("Authorization: {token}\r\n{}", resuming(&id));
        (format!("/events/a{}", self.wish.query(start)), headers)
    }

    fn hears(&mut self, event: &Event) {
        let wish = &self.wish;
        let id = event.last_event_id.parse().unwrap();
        if event.event_type != "ssegate" {
            let entry = self.written.lock().unwrap().get(&id).cloned().expect("it was written");
            assert!(wish.allows(&entry), "{:?} {:?} got {entry}", wish.tenants, wish.severities);
            assert_eq!(entry["payload"], json!(event.data));
            assert!(self.had.insert(id), "{id} came twice");
            self.came += 1;
            return self.moves_to(id, false);
        }
        let control: Value = serde_json::from_str(&event.data).unwrap();
        let is_gap = control["type"] == "gap";
        assert!(!is_gap || control["lost"].is_null(), "{control}");
        self.moves_to(id, is_gap);
    }
}

fn play(gateways: &[Gateway], redis: Option<&Redis>) {
    let written = Written::default();
    let mut random = seed::rng();
    let client = |_| History {
        wish: Wish::new(&mut random),
        written: &written,
        at: None,
        had: BTreeSet::new(),
        came: 0,
    };
    let clients = (0..CLIENTS).map(client).collect();
    let ends = wander(
        clients,
        Duration::from_millis(1500),
        random.fork(),
        |client, random| client.comes(gateways, random),
        |random| write(&gateways[0], redis, &written, random),
    );
    let written = written.lock().unwrap();
    let last = written.keys().next_back().copied();
    for history in &ends {
        assert_eq!(history.at, last, "each is told how far it has come");
    }
    let all: usize = ends.iter().map(|history| history.came).sum();
    assert!(all > ENTRIES / 10, "{all} of {} entries came", written.len());
}

#[test]
fn no_path_delivers_what_is_not_allowed_or_loses_what_is() {
    let redis = Redis::start();
    let gateways = [(); 2].map(|()| on(Setup::redis(&redis).set("ring", "entries = 40"), OWN));
    play(&gateways, Some(&redis));
}

#[test]
fn nor_does_one_of_the_embedded_source() {
    play(&[on(Setup::memory(), OWN)], None);
}
