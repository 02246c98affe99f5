//! Random histories of several streams: a writer, a client that leaves and comes back at either gateway, and streams
//! that are trimmed. Whatever comes, each stream is in order, and what is missing was told.

use std::time::Duration;

use ssegate::sse::parse::Item;

use super::{Http, ROUTES, Viewer};
use crate::support::gateway::Setup;
use crate::support::redis::Redis;
use crate::support::seed;

const NAMES: [&str; 3] = ["a", "b", "c"];
const PATH: &str = "/any?stream=a&stream=b&stream=c";
const ENTRIES: usize = 150;

#[derive(Default)]
struct Seen {
    numbers: [Vec<usize>; 3],
    /// Streams of which a gap was told.
    gaps: [bool; 3],
}

impl Seen {
    fn see(&mut self, event_type: &str, data: &str) {
        if event_type == "ssegate" {
            let control: serde_json::Value = serde_json::from_str(data).unwrap();
            if control["type"] == "gap" {
                let of = NAMES.iter().position(|name| control["stream"] == *name);
                self.gaps[of.expect("one of the streams")] = true;
            }
            return;
        }
        let (name, number) = data.split_once(':').unwrap();
        assert_eq!(event_type, format!("{name}.message"));
        let of = NAMES.iter().position(|known| *known == name).unwrap();
        self.numbers[of].push(number.parse().unwrap());
    }

    fn has_last_of_each(&self) -> bool {
        self.numbers.iter().all(|numbers| numbers.last() == Some(&(ENTRIES - 1)))
    }

    fn check(&self) {
        for ((numbers, gap), name) in self.numbers.iter().zip(self.gaps).zip(NAMES) {
            assert!(numbers.is_sorted_by(|a, b| a < b), "{name}: {numbers:?}");
            let is_whole = numbers.len() == ENTRIES;
            assert!(is_whole || gap, "{name} lost in silence: {numbers:?}");
        }
    }
}

fn play(http: Http, trims: bool) {
    let mut random = seed::rng();
    let redis = Redis::start();
    let gateways = [0, 1].map(|_| {
        // A small ring: who comes back goes on from Redis.
        let setup = Setup::redis(&redis).routes(ROUTES).set("ring", "entries = 8");
        setup.start_ready()
    });
    let mut seen = Seen::default();
    let mut id = "a=0-0,b=0-0,c=0-0".to_owned();
    let mut written = [0; 3];
    while written.iter().sum::<usize>() < 3 * ENTRIES {
        let gateway = &gateways[random.usize(0..2)];
        let mut viewer = Viewer::open(http, gateway, PATH, &[("Last-Event-ID", &id)]);
        for _ in 0..random.usize(1..40) {
            let of = random.usize(0..3);
            if written[of] < ENTRIES {
                let payload = format!("{}:{}", NAMES[of], written[of]);
                redis.add(&format!("events:{}", NAMES[of]), &payload);
                written[of] += 1;
            }
            if trims && random.usize(0..60) == 0 {
                redis.run(&["XTRIM", &format!("events:{}", NAMES[of]), "MAXLEN", "3"]);
            }
        }
        for _ in 0..random.usize(0..50) {
            let Some(item) = next(&mut viewer, Duration::from_millis(20)) else { break };
            if let Item::Event(event) = item {
                seen.see(&event.event_type, &event.data);
                id = event.last_event_id;
            }
        }
    }
    let mut viewer = Viewer::open(http, &gateways[0], PATH, &[("Last-Event-ID", &id)]);
    // The gateway may be behind: what is missing when it is level comes after that.
    let mut is_live = false;
    while !is_live || !seen.has_last_of_each() {
        let (event_type, data, _) = viewer.told();
        seen.see(&event_type, &data);
        is_live |= data.contains("\"live\"");
    }
    seen.check();
}

/// The next item, if one comes soon; over HTTP/2 one that comes.
fn next(viewer: &mut Viewer, wait: Duration) -> Option<Item> {
    match viewer {
        Viewer::One(client) => client.next_within(wait),
        // It has no time limit: `live` comes for sure, and is the last that is waited for.
        Viewer::Two(session, id) => {
            let item = session.item(*id);
            item.filter(
                |item| !matches!(item, Item::Event(event) if event.data.contains("\"live\"")),
            )
        }
    }
}

#[test]
fn a_client_that_comes_and_goes_has_everything_in_order() {
    play(Http::One, false);
    play(Http::Two, false);
}

#[test]
fn what_was_trimmed_is_told_of_its_stream() {
    play(Http::One, true);
    play(Http::Two, true);
}
