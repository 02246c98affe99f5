//! No path delivers an entry that the token and the filter do not allow, and none loses one without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ssegate::sse::StreamId;
use ssegate::sse::parse::{Event, Item};

use super::*;
use crate::support::seed;
use crate::support::waiting::pause_of_the_scenario;

const TENANTS: [&str; 4] = ["acme", "other", "third", ""];
const SEVERITIES: [&str; 3] = ["low", "middle", "high"];
const CLIENTS: usize = 8;
const ENTRIES: usize = 3000;
/// A client that hears nothing but keepalives for so long, when nothing is written any more, has all.
const QUIET: Duration = Duration::from_millis(2500);

/// What was written: the fields of each entry.
type Written = Mutex<BTreeMap<StreamId, Value>>;

/// What a client may get, in words of the test's own.
struct Wish {
    tenants: Vec<&'static str>,
    /// Empty: any.
    severities: Vec<&'static str>,
}

impl Wish {
    fn new(random: &mut fastrand::Rng) -> Self {
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
fn write(
    gateway: &Gateway,
    redis: Option<&Redis>,
    written: &Written,
    over: &AtomicBool,
    mut random: fastrand::Rng,
) {
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
    over.store(true, Ordering::Relaxed);
}

fn some_entry(random: &mut fastrand::Rng) -> Value {
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
#[derive(Default)]
struct History {
    at: Option<StreamId>,
    had: BTreeSet<StreamId>,
    /// Entries that it has had, in this history or in one that it has forgotten.
    came: usize,
}

impl History {
    /// Everything that it may have between where it was and where it is now came, or a gap tells of it.
    fn moves_to(&mut self, id: StreamId, is_gap: bool, wish: &Wish, written: &Written) {
        if let Some(at) = self.at.filter(|_| !is_gap) {
            let written = written.lock().unwrap();
            let between = written.range(at..=id).skip_while(|(id, _)| **id == at);
            for (missed, entry) in between.filter(|(_, entry)| wish.allows(entry)) {
                assert!(
                    self.had.contains(missed),
                    "{missed} is lost on the way from {at} to {id}: {entry}"
                );
            }
        }
        assert!(self.at.is_none_or(|at| at <= id), "back from {:?} to {id}", self.at);
        self.at = Some(id);
    }

    fn hear(&mut self, event: &Event, wish: &Wish, written: &Written) {
        let id = event.last_event_id.parse().unwrap();
        if event.event_type != "ssegate" {
            let entry = written.lock().unwrap().get(&id).cloned().expect("it was written");
            assert!(wish.allows(&entry), "{:?} {:?} got {entry}", wish.tenants, wish.severities);
            assert_eq!(entry["payload"], json!(event.data));
            assert!(self.had.insert(id), "{id} came twice");
            self.came += 1;
            return self.moves_to(id, false, wish, written);
        }
        let control: Value = serde_json::from_str(&event.data).unwrap();
        let is_gap = control["type"] == "gap";
        assert!(!is_gap || control["lost"].is_null(), "{control}");
        self.moves_to(id, is_gap, wish, written);
    }
}

/// Joins anywhere, stalls, leaves and comes back until it is over, and then hears all that is left.
fn follow(
    gateways: &[Gateway],
    written: &Written,
    over: &AtomicBool,
    mut random: fastrand::Rng,
) -> (Wish, History) {
    let wish = Wish::new(&mut random);
    let mut history = History::default();
    loop {
        if random.u8(..5) == 0 {
            history = History { came: history.came, ..History::default() };
        }
        let start = match random.u8(..4) {
            0 => "last=7",
            1 => "since=3s",
            2 => "last_event_id=earliest",
            _ => "",
        };
        let mut headers = format!("Authorization: {}\r\n", token(&json!(wish.tenants)));
        if let Some(id) = history.at {
            headers += &format!("Last-Event-ID: {id}\r\n");
        }
        let path = format!("/events/a{}", wish.query(start));
        let address = &random.choice(gateways).unwrap().address;
        let mut client = Client::with_small_window_and(address, &path, &headers);
        let leaves = Instant::now() + Duration::from_millis(random.u64(50..1500));
        let mut heard = Instant::now();
        loop {
            let is_over = over.load(Ordering::Relaxed);
            if !is_over && Instant::now() > leaves {
                break;
            }
            match client.next_within(Duration::from_millis(20)) {
                Some(Item::Event(event)) => {
                    history.hear(&event, &wish, written);
                    heard = Instant::now();
                }
                _ if is_over && heard.elapsed() > QUIET => return (wish, history),
                _ if client.has_ended() => break,
                _ => {}
            }
            if random.u8(..100) == 0 {
                pause_of_the_scenario(Duration::from_millis(random.u64(..300)), "it stalls");
            }
        }
    }
}

fn play(gateways: &[Gateway], redis: Option<&Redis>) {
    let (written, over) = (Written::default(), AtomicBool::new(false));
    let mut random = seed::rng();
    let ends: Vec<_> = thread::scope(|scope| {
        let (written, over) = (&written, &over);
        let writer = random.fork();
        let writing = scope.spawn(move || write(&gateways[0], redis, written, over, writer));
        let following: Vec<_> = (0..CLIENTS)
            .map(|_| random.fork())
            .map(|random| scope.spawn(move || follow(gateways, written, over, random)))
            .collect();
        writing.join().unwrap();
        following.into_iter().map(|following| following.join().unwrap()).collect()
    });
    let written = written.into_inner().unwrap();
    let last = written.keys().next_back().copied();
    for (_, history) in &ends {
        assert_eq!(history.at, last, "each is told how far it has come");
    }
    let all: usize = ends.iter().map(|(_, history)| history.came).sum();
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
