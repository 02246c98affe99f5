//! Numbered entries, written on and on through all faults of the servers, and what a client heard of them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ssegate::sse::StreamId;
use ssegate::sse::parse::Item;

use super::client::Client;
use super::pause_of_the_scenario;
use super::redis::{Answer, Connection, Redis};

/// A server that takes longer is away.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often the writer looks where to write.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// An entry that a server acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub key: String,
    pub id: StreamId,
    pub number: u64,
    /// When it was acknowledged, and by which server.
    pub at: Instant,
    pub by: String,
}

/// A thread that writes until it is told to end.
pub struct Writer {
    ends: Arc<AtomicBool>,
    written: Arc<Mutex<Vec<Written>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Adds an entry to `key` every `pause`, each with a number of its own. `find` names the server
    /// after a failure. An entry counts as written once `replicas` have it too.
    pub fn start(
        key: &str,
        pause: Duration,
        replicas: u32,
        find: impl Fn() -> Option<String> + Send + 'static,
    ) -> Self {
        Self::start_on(&[key.to_owned()], pause, replicas, find)
    }

    /// The same for several keys, one after the other.
    pub fn start_on(
        keys: &[String],
        pause: Duration,
        replicas: u32,
        find: impl Fn() -> Option<String> + Send + 'static,
    ) -> Self {
        let (ends, written) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (keys, end, record) = (keys.to_owned(), ends.clone(), written.clone());
        let thread = std::thread::spawn(move || {
            let (mut connection, mut looked) = (None::<(String, Connection)>, Instant::now());
            for (number, key) in (0..).zip(keys.iter().cycle()) {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                // An old primary may go on answering.
                if looked.elapsed() > LOOK_AGAIN {
                    looked = Instant::now();
                    let now = find();
                    connection = connection.filter(|(address, _)| Some(address) == now.as_ref());
                }
                let added = add(&mut connection, key, number, replicas, &find);
                match added {
                    Some(entry) => record.lock().unwrap().push(entry),
                    None => connection = None,
                }
                pause_of_the_scenario(pause, "the rate of the writer");
            }
        });
        Self { ends, written, thread: Some(thread) }
    }

    /// What was acknowledged so far.
    pub fn written(&self) -> Vec<Written> {
        self.written.lock().unwrap().clone()
    }

    /// Ends it; everything that was acknowledged.
    pub fn end(mut self) -> Vec<Written> {
        self.stop();
        self.written()
    }

    fn stop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn add(
    connection: &mut Option<(String, Connection)>,
    key: &str,
    number: u64,
    replicas: u32,
    find: &impl Fn() -> Option<String>,
) -> Option<Written> {
    if connection.is_none() {
        let address = find()?;
        *connection = Some((address.clone(), Connection::to(&address, PATIENCE)?));
    }
    let (by, there) = connection.as_mut()?;
    let number_text = number.to_string();
    let command = ["XADD", key, "*", "payload", &number_text];
    let (id, by) = match there.run(&command)? {
        Answer::Text(id) => (id, by.clone()),
        Answer::Error(words) => {
            // A cluster sends us elsewhere: once, or from now on.
            let mut words = words.split(' ');
            let (code, address) = (words.next()?, words.nth(1)?.to_owned());
            let mut other = Connection::to(&address, PATIENCE)?;
            if code == "ASK" {
                other.run(&["ASKING"])?;
            }
            let Answer::Text(id) = other.run(&command)? else { return None };
            if code == "MOVED" {
                *connection = Some((address.clone(), other));
            }
            (id, address)
        }
        _ => return None,
    };
    if replicas > 0 {
        let (_, there) = connection.as_mut()?;
        let have = there.run(&["WAIT", &replicas.to_string(), "400"])?;
        if !matches!(have, Answer::Number(have) if have >= i64::from(replicas)) {
            return None;
        }
    }
    Some(Written { key: key.to_owned(), id: id.parse().unwrap(), number, at: Instant::now(), by })
}

/// A client that stays, or comes back where its connection ends, and everything that it heard.
pub struct Listener {
    ends: Arc<AtomicBool>,
    heard: Arc<Mutex<Heard>>,
    thread: Option<JoinHandle<()>>,
}

/// What a client heard.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Entries.
    pub entries: Vec<Event>,
    /// Gaps, as they came.
    pub gaps: Vec<String>,
    /// Whether it was told that it is live.
    pub live: bool,
    /// How often it connected.
    pub connections: u32,
}

/// An entry, as a client heard it.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: StreamId,
    pub at: Instant,
    /// How many resets the client had heard before.
    pub generation: usize,
}

impl Listener {
    /// Listens at `path`; each time it (re)connects, `next` names the gateway. With `stay` of some
    /// length it leaves after that, to come back with its last event id.
    pub fn start(
        path: &str,
        stay: Option<Duration>,
        mut next: impl FnMut() -> String + Send + 'static,
    ) -> Self {
        let (ends, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::default()));
        let (path, end, record) = (path.to_owned(), ends.clone(), heard.clone());
        let thread = std::thread::spawn(move || {
            let mut last_id = String::new();
            while !end.load(Ordering::Relaxed) {
                let address = next();
                let mut client = if last_id.is_empty() {
                    Client::open(&address, &path)
                } else {
                    Client::resume(&address, &path, &last_id)
                };
                let heard: &Mutex<Heard> = &record;
                heard.lock().unwrap().connections += 1;
                let leave = stay.map(|stay| Instant::now() + stay);
                while !end.load(Ordering::Relaxed)
                    && !client.has_ended()
                    && leave.is_none_or(|leave| Instant::now() < leave)
                {
                    if let Some(item) = client.next_within(Duration::from_millis(50)) {
                        heard.lock().unwrap().note(item);
                    }
                }
                // What has arrived already counts for its last event id.
                while let Some(item) = client.next_within(Duration::ZERO) {
                    heard.lock().unwrap().note(item);
                }
                if !client.last_event_id().is_empty() {
                    last_id = client.last_event_id();
                }
                client.leave();
            }
        });
        Self { ends, heard, thread: Some(thread) }
    }

    /// What it heard so far.
    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }

    /// How many entries it heard so far.
    pub fn count(&self) -> usize {
        self.heard.lock().unwrap().entries.len()
    }

    /// Whether it was told that it is live.
    pub fn is_live(&self) -> bool {
        self.heard.lock().unwrap().live
    }

    /// Whether it heard the entry of this id.
    pub fn has(&self, id: StreamId) -> bool {
        self.heard.lock().unwrap().entries.iter().rev().any(|event| event.id == id)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Heard {
    fn note(&mut self, item: Item) {
        let Item::Event(event) = item else { return };
        if event.event_type != "ssegate" {
            let generation = self.gaps.iter().filter(|gap| gap.contains("\"reset\"")).count();
            let id = event.last_event_id.parse().unwrap();
            self.entries.push(Event { id, at: Instant::now(), generation });
        } else if event.data.contains("\"gap\"") {
            self.gaps.push(event.data);
        } else {
            self.live |= event.data.contains("\"live\"");
        }
    }

    /// Nothing doubled and nothing out of order, unless there was a reset.
    #[track_caller]
    fn is_in_order(&self) {
        for pair in self.entries.windows(2) {
            let in_order = pair[0].id < pair[1].id || pair[0].generation < pair[1].generation;
            assert!(in_order, "doubled or out of order: {pair:?}; {:?}", self.gaps);
        }
    }

    /// All of these, from the first that was heard on.
    #[track_caller]
    fn has_all(&self, expected: &[StreamId]) {
        let first = self.entries.first().expect("something was heard").id;
        let heard: HashSet<_> = self.entries.iter().map(|event| event.id).collect();
        let lost: Vec<_> =
            expected.iter().filter(|id| **id >= first && !heard.contains(id)).collect();
        assert!(lost.is_empty(), "lost in silence: {lost:?}; gaps: {:?}", self.gaps);
    }

    /// All that the servers kept was heard, once and in order; and if they kept all that was heard,
    /// no client got a gap.
    #[track_caller]
    pub fn is_right(&self, kept: &[StreamId]) {
        self.is_in_order();
        self.has_all(kept);
        let kept: HashSet<_> = kept.iter().collect();
        let lost = self.entries.iter().find(|event| !kept.contains(&event.id));
        assert!(lost.is_some() || self.gaps.is_empty(), "a false alarm: {:?}", self.gaps);
        assert!(self.gaps.iter().all(|gap| gap.contains("\"reset\"")), "{:?}", self.gaps);
    }

    /// When the first of these entries was heard.
    pub fn heard_first(&self, of: &[Written]) -> Option<Instant> {
        let ids: HashSet<_> = of.iter().map(|entry| entry.id).collect();
        self.entries.iter().find(|event| ids.contains(&event.id)).map(|event| event.at)
    }
}

/// The ids that a server has of a stream.
pub fn ids(redis: &Redis, key: &str) -> Vec<StreamId> {
    let Answer::List(entries) = redis.run(&["XRANGE", key, "-", "+"]) else { panic!("no entries") };
    let id = |entry: &Answer| match entry {
        Answer::List(parts) => match &parts[0] {
            Answer::Text(id) => id.parse().unwrap(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    entries.iter().map(id).collect()
}
