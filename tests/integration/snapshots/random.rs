use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;
use ssegate::sse::parse::Event;

use super::{NEWEST, OF_KEY, routes, start};
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Connection, Redis};
use crate::support::sentinel::{Trio, newest_primary};
use crate::support::wanderer::{Wanderer, resuming, wander};
use crate::support::{pause_of_the_scenario, seed, within};

type Table = BTreeMap<String, String>;
/// The table at each id.
type Past = Mutex<BTreeMap<String, Table>>;

const NAMES: usize = 12;
const CLIENTS: usize = 6;
const RUN: Duration = Duration::from_secs(5);

/// How the table is told.
#[derive(Clone, Copy)]
struct Kind {
    keys: &'static str,
    /// Whether the stream is trimmed, now and then to almost nothing.
    is_trimmed: bool,
    /// Whether clients that are behind are spared entries: their table is right when they are told of it.
    conflates: bool,
}

/// Where the primary is; it may not answer.
type Primary<'a> = &'a (dyn Fn() -> Option<Connection> + Sync);

/// Changes the state and adds the entry that tells of it in one script, without pause, at whatever is the primary.
fn write(primary: Primary<'_>, kind: Kind, past: &Past, mut random: Rng) {
    let script = "local id, tell = ARGV[1], {'id', ARGV[1], 'payload', ARGV[1] .. '=' .. ARGV[2]} \
        if ARGV[2] == '' then redis.call('HDEL', KEYS[1], id) tell[5] = 'deleted' tell[6] = '1' \
        else redis.call('HSET', KEYS[1], id, ARGV[2]) end \
        return redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[3], '*', unpack(tell))";
    let (mut table, mut connection) = (Table::new(), primary().unwrap());
    let (mut number, end) = (0, Instant::now() + RUN);
    while Instant::now() < end {
        number += 1;
        let name = random.usize(..NAMES).to_string();
        let value = if random.u8(..8) == 0 { String::new() } else { number.to_string() };
        let kept = match kind.is_trimmed {
            true if random.u8(..40) == 0 => "3",
            true => "300",
            false => "1000000",
        };
        // Nobody looks up an id before its table is there.
        let mut past = past.lock().unwrap();
        let command = ["EVAL", script, "2", "state:a", "events:a", &name, &value, kept];
        if let Some(Answer::Text(id)) = connection.run(&command) {
            if value.is_empty() {
                table.remove(&name)
            } else {
                table.insert(name, value)
            };
            past.insert(id, table.clone());
        } else {
            (connection, table) = found_again(primary, &mut past);
        }
        drop(past);
        pause_of_the_scenario(Duration::from_micros(random.u64(..2000)), "it writes on");
    }
}

/// The next primary, and the table there: the last change may be in it or not.
fn found_again(primary: Primary<'_>, past: &mut BTreeMap<String, Table>) -> (Connection, Table) {
    let script = "return {redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1], \
        redis.call('HGETALL', KEYS[2]), redis.call('INCR', 'writable')}";
    let mut found = None;
    within(Duration::from_secs(30), "another server takes writes", || {
        let Some(mut connection) = primary() else { return false };
        let answer = connection.run(&["EVAL", script, "3", "events:a", "state:a", "writable"]);
        let Some(Answer::List(answer)) = answer else { return false };
        let [Answer::Text(id), Answer::List(pairs), _] = &answer[..] else { return false };
        let text = |answer: &Answer| match answer {
            Answer::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        let table = pairs.chunks(2).map(|pair| (text(&pair[0]), text(&pair[1])));
        found = Some((id.clone(), connection, table.collect::<Table>()));
        true
    });
    let (id, connection, table) = found.unwrap();
    past.insert(id, table.clone());
    (connection, table)
}

/// A page that draws the table.
struct Page<'a> {
    kind: Kind,
    past: &'a Past,
    /// `None`: what it has is not to be trusted.
    table: Option<Table>,
    id: String,
    states: usize,
}

impl Wanderer for Page<'_> {
    fn asks(&mut self, random: &mut Rng) -> (String, String) {
        // Cut between a gap and its state, it comes back as it was before the gap.
        if random.u8(..4) == 0 || self.table.is_none() {
            self.table = None;
            self.id.clear();
        }
        ("/events/a".into(), resuming(&self.id))
    }

    fn hears(&mut self, event: &Event) {
        let mut is_exact = !self.kind.conflates;
        match &*event.event_type {
            "snapshot" => {
                let state: Option<Table> = serde_json::from_str(&event.data).unwrap();
                // Folded from the stream, each value is what an entry said.
                let value = |text: String| text.rsplit('=').next().unwrap().to_owned();
                let state = state.unwrap_or_default().into_iter();
                self.table = Some(state.map(|(name, text)| (name, value(text))).collect());
                self.states += 1;
                is_exact = true;
            }
            "ssegate" => {
                let control: Value = serde_json::from_str(&event.data).unwrap();
                match control["type"].as_str().unwrap() {
                    "gap" => return self.table = None,
                    "conflated" | "live" => is_exact = true,
                    _ => {}
                }
            }
            _ => {
                let (name, value) = event.data.split_once('=').unwrap();
                if let Some(table) = &mut self.table {
                    if value.is_empty() {
                        table.remove(name)
                    } else {
                        table.insert(name.into(), value.into())
                    };
                }
            }
        }
        self.id.clone_from(&event.last_event_id);
        if is_exact {
            self.is_right();
        }
    }
}

impl Page<'_> {
    fn is_right(&self) {
        let Some(table) = &self.table else { return };
        let past = self.past.lock().unwrap();
        let nothing = Table::new();
        let expected = if self.id == "0-0" { Some(&nothing) } else { past.get(&self.id) };
        assert_eq!(Some(table), expected, "at {}", self.id);
    }
}

/// Plays it with these gateways; `disturb` is called in the midst of it.
fn play(kind: Kind, primary: Primary<'_>, gateways: &Mutex<Vec<Gateway>>, disturb: impl FnOnce()) {
    let past = Past::default();
    let page = |_| Page { kind, past: &past, table: None, id: String::new(), states: 0 };
    let pages = wander(
        (0..CLIENTS).map(page).collect(),
        Duration::from_millis(1500),
        seed::rng(),
        |page, random| page.comes(&gateways.lock().unwrap(), random),
        |random| {
            thread::scope(|scope| {
                scope.spawn(|| write(primary, kind, &past, random));
                pause_of_the_scenario(RUN / 2, "all are in the midst of it");
                disturb();
            });
        },
    );
    let past_ids = past.lock().unwrap();
    let last = primary().unwrap().run(&["XREVRANGE", "events:a", "+", "-", "COUNT", "1"]);
    let Some(Answer::List(last)) = last else { panic!("there are entries") };
    let Answer::List(last) = &last[0] else { panic!("an entry is a list") };
    let Answer::Text(last) = &last[0] else { panic!("an id is a text") };
    for page in &pages {
        assert_eq!(page.id, *last);
        assert_eq!(page.table.as_ref(), past_ids.get(last));
    }
    assert!(pages.iter().map(|page| page.states).sum::<usize>() > CLIENTS);
}

/// Plays it on one server with two gateways, of which one is killed and another one comes.
fn play_alone(kind: Kind) {
    let redis = Redis::start();
    let begin = || start(&redis, kind.keys);
    let gateways = Mutex::new(vec![begin(), begin()]);
    play(kind, &|| Connection::open(&redis), &gateways, || {
        let new = begin();
        drop(std::mem::replace(&mut gateways.lock().unwrap()[0], new));
    });
}

#[test]
fn a_table_is_always_what_it_was_at_its_id() {
    play_alone(Kind { keys: OF_KEY, is_trimmed: true, conflates: false });
}

#[test]
fn a_table_from_the_stream_itself_is_so_too() {
    let keys = format!("{NEWEST}\nreplay = 50").leak();
    play_alone(Kind { keys, is_trimmed: false, conflates: false });
}

#[test]
fn a_table_whose_page_is_spared_entries_is_right_when_it_is_level() {
    let keys = format!("{OF_KEY}\nconflate = \"id\"").leak();
    play_alone(Kind { keys, is_trimmed: true, conflates: true });
}

#[test]
fn a_table_survives_a_failover() {
    let mut trio = Trio::start();
    let kind = Kind { keys: OF_KEY, is_trimmed: true, conflates: false };
    let begin = || Setup::with_url(&trio.url()).routes(&routes(kind.keys)).start_ready();
    let gateways = Mutex::new(vec![begin(), begin()]);
    let sentinels: Vec<_> = trio.sentinels.iter().map(|s| s.address.clone()).collect();
    let primary = || {
        let address = newest_primary(&sentinels)?;
        Connection::to(&address, Duration::from_secs(1))
    };
    let old = trio.primary();
    let old = trio.servers.iter().position(|server| server.address() == old).unwrap();
    play(kind, &primary, &gateways, || trio.servers[old].kill());
}
