//! Random histories of streams that end, are reopened and get other lives: each client hears each entry once, and
//! learns of the end exactly where it is.

use std::collections::VecDeque;

use serde_json::json;

use super::{Scene, routes};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::redis::Redis;
use crate::support::seed;

const ROUTE: &str = "end = { field = \"payload\", equals = \"[END]\" }\nstart = \"earliest\"";
const HISTORIES: usize = 30;
const STEPS: usize = 14;

/// One stream as it is, and its clients.
struct History<'a> {
    scene: &'a Scene,
    redis: &'a Redis,
    random: &'a mut fastrand::Rng,
    key: String,
    /// Of this life, with whether each is a marker.
    entries: Vec<(String, bool)>,
    /// Ids of earlier lives.
    before: Vec<String>,
    listeners: Vec<Listener>,
    added: usize,
}

/// A client that hears of everything as it comes.
struct Listener {
    client: Client,
    due: VecDeque<(String, bool)>,
}

/// What became of it.
#[derive(Debug, Default)]
struct Tally {
    ends: usize,
    over: usize,
    gone: usize,
    rests: usize,
    resets: usize,
}

impl History<'_> {
    fn path(&self) -> String {
        format!("/events/{}", &self.key["events:".len()..])
    }

    fn is_ended(&self) -> bool {
        self.entries.last().is_some_and(|(_, is_marker)| *is_marker)
    }

    fn add(&mut self, is_marker: bool) {
        self.added += 1;
        let number = self.added.to_string();
        let payload = if is_marker { "[END]" } else { &number };
        let id = self.redis.add(&self.key, payload);
        self.entries.push((id.clone(), is_marker));
        self.listeners.iter_mut().for_each(|it| it.due.push_back((id.clone(), is_marker)));
    }

    /// Each listener hears what is due to it; those that hear of the end leave.
    fn hear(&mut self, tally: &mut Tally) {
        let is_ended = self.is_ended();
        self.listeners.retain_mut(|listener| {
            while let Some((id, is_marker)) = listener.due.pop_front() {
                assert_eq!(listener.client.entry().last_event_id, id);
                if is_marker && listener.due.is_empty() {
                    assert!(is_ended);
                    tally.ends += 1;
                    hears_the_end(&mut listener.client, &id);
                    return false;
                }
            }
            true
        });
    }

    fn listen(&mut self) {
        let mut client = Client::open(&self.scene.gateway.address, &self.path());
        self.hears(&mut client, &self.entries);
        self.listeners.push(Listener { client, due: VecDeque::new() });
    }

    /// A client comes back with an id of this life, or of an earlier one.
    fn resume(&mut self, tally: &mut Tally) {
        let of_this_life = self.random.usize(0..=self.entries.len());
        let Some(index) = of_this_life.checked_sub(1) else {
            return self.resume_from_before(tally);
        };
        let id = self.entries[index].0.clone();
        let rest = &self.entries[index + 1..];
        if rest.is_empty() && self.is_ended() {
            tally.over += 1;
            return assert_eq!(self.status(&id), 204);
        }
        tally.rests += 1;
        self.hears(&mut self.client(&id), rest);
    }

    fn resume_from_before(&mut self, tally: &mut Tally) {
        let Some(id) = self.random.choice(&self.before).cloned() else { return };
        if self.entries.is_empty() {
            tally.gone += 1;
            return assert_eq!(self.status(&id), 204);
        }
        tally.resets += 1;
        let mut client = self.client(&id);
        let (gap, _) = client.control();
        assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("reset")), "{gap}");
        self.hears(&mut client, &self.entries);
    }

    fn client(&self, id: &str) -> Client {
        Client::resume(&self.scene.gateway.address, &self.path(), id)
    }

    /// These entries, and then where the stream is.
    fn hears(&self, client: &mut Client, entries: &[(String, bool)]) {
        let mut is_live = false;
        for (id, _) in entries {
            let mut event = client.event();
            if event.event_type == "ssegate" {
                // Its reader was a little behind.
                assert!(!std::mem::replace(&mut is_live, true), "{event:?}");
                event = client.event();
            }
            assert_eq!(event.last_event_id, *id);
        }
        match self.entries.last() {
            Some((id, true)) => hears_the_end(client, id),
            _ if is_live => {}
            _ => drop(client.live()),
        }
    }

    fn status(&self, id: &str) -> u16 {
        self.scene.gateway.get(&format!("{}?last_event_id={id}", self.path())).status
    }

    fn another_life(&mut self) {
        if self.is_ended() {
            // No reader is left that would have to notice it first.
            let is_read = |streams: serde_json::Value| streams.to_string().contains(&self.key);
            eventually("its reader has gone", || !is_read(self.scene.gateway.streams()));
        } else {
            self.listen();
        }
        self.redis.run(&["DEL", &self.key]);
        self.before.extend(self.entries.drain(..).map(|(id, _)| id));
        for mut listener in self.listeners.drain(..) {
            let (gap, _) = listener.client.control();
            assert_eq!(gap["reason"], "reset");
        }
    }

    fn step(&mut self, tally: &mut Tally) {
        match self.random.u8(0..10) {
            0..=2 => (0..self.random.usize(1..5)).for_each(|_| self.add(false)),
            3 | 4 => self.add(true),
            5 if !self.is_ended() => self.listen(),
            6 if !self.entries.is_empty() => self.another_life(),
            _ => self.resume(tally),
        }
        self.hear(tally);
        // What it has not read yet may be the end, or its taking back.
        if let Some((id, _)) = self.entries.last() {
            self.scene.gateway.has_read(&self.key, id);
        }
    }
}

#[track_caller]
fn hears_the_end(client: &mut Client, id: &str) {
    assert_eq!(client.control(), (json!({"type": "end", "reason": "marker"}), id.to_owned()));
    assert_eq!(client.rest(), Vec::new());
    assert!(client.complete);
}

#[test]
fn each_client_learns_of_the_end_exactly_where_it_is() {
    let redis = &Redis::start();
    let setup = Setup::redis(redis).routes(&routes(ROUTE)).set("source", "block = \"100ms\"");
    let scene = Scene { gateway: setup.start_ready() };
    let (mut random, mut tally) = (seed::rng(), Tally::default());
    for number in 0..HISTORIES {
        let mut history = History {
            scene: &scene,
            redis,
            random: &mut random,
            key: format!("events:n{number}-"),
            entries: Vec::new(),
            before: Vec::new(),
            listeners: Vec::new(),
            added: 0,
        };
        (0..STEPS).for_each(|_| history.step(&mut tally));
    }
    let Tally { ends, over, gone, rests, resets } = &tally;
    assert!(*ends.min(over).min(rests).min(gone).min(resets) > 5, "{tally:?}");
}
