//! A stream of numbered entries, and viewers that must see each of them once and in order, through
//! however many connections that takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ssegate::sse::parse::{Event, Item};
use tokio::runtime::Runtime;

use super::redis::{Connection, Redis};
use super::swarm::{Address, BROKEN, Stream};
use super::waiting::pause_of_the_scenario_in_a_task;
use super::{DEADLINE, within};

/// What is written last.
const END: &str = "end";
/// How the kernel refuses a connection that nobody listens for, or takes any more.
const REFUSED: [&str; 2] = ["Connection refused", "Connection reset"];
/// No writer writes for longer.
const LONGEST: Duration = Duration::from_secs(300);

/// Adds numbered entries to `events:a` until it is stopped.
pub struct Writer {
    written: Arc<AtomicUsize>,
    stop: Sender<()>,
    thread: JoinHandle<usize>,
}

impl Writer {
    /// Writes `count` entries in each `interval`.
    pub fn start(redis: &Redis, count: usize, interval: Duration) -> Self {
        let mut connection = Connection::open(redis).unwrap();
        let (stop, stopped) = channel::<()>();
        let written = Arc::new(AtomicUsize::new(0));
        let counted = written.clone();
        let thread = std::thread::spawn(move || {
            let add = |payload: &str, connection: &mut Connection| {
                let words = ["XADD", "events:a", "*", "payload", payload].map(str::as_bytes);
                connection.send(&words).expect("Redis is there");
            };
            let rounds = usize::try_from(LONGEST.as_millis() / interval.as_millis()).unwrap();
            for round in 0..rounds {
                if stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                    add(END, &mut connection);
                    connection.answer().expect("the end is written");
                    return round * count;
                }
                let numbers = round * count + 1..=(round + 1) * count;
                numbers.clone().for_each(|number| add(&number.to_string(), &mut connection));
                numbers.for_each(|_| drop(connection.answer().expect("an entry is written")));
                counted.fetch_add(count, Ordering::Relaxed);
            }
            panic!("nobody stops the writer");
        });
        Self { written, stop, thread }
    }

    /// Waits until so many more are written.
    pub fn writes(&self, count: usize) {
        let until = self.written.load(Ordering::Relaxed) + count;
        within(DEADLINE, "entries are written", || self.written.load(Ordering::Relaxed) >= until);
    }

    /// Writes the end; how many entries came before it.
    pub fn stop(self) -> usize {
        let _ = self.stop.send(());
        self.thread.join().unwrap()
    }
}

/// How the streams of a viewer may end.
#[derive(Clone, Copy, PartialEq)]
pub enum Ends {
    /// Between two events, with the last chunk.
    Well,
    /// Likewise, and for a while nobody listens.
    WellAndRefused,
    /// Anywhere: the gateway may be killed.
    Anywhere,
}

/// What a viewer saw on its way.
#[derive(Clone, Copy, Default)]
pub struct Journey {
    pub connections: usize,
    pub drains: usize,
    /// Drains that it heard of when it had just come back.
    pub refusals: usize,
    /// Connections that nobody took.
    pub unreachable: usize,
    /// The longest time between the end of one stream and the first event of the next.
    pub away: Duration,
}

/// The times without a stream of half of them and of all but one in a hundred, sorted and printed.
pub fn times_away(journeys: &[Journey]) -> (Duration, Duration) {
    let mut away: Vec<_> = journeys.iter().map(|journey| journey.away).collect();
    away.sort_unstable();
    let at = |share: usize| away[(away.len() - 1) * share / 100];
    let unreachable: usize = journeys.iter().map(|journey| journey.unreachable).sum();
    println!(
        "{} clients, time without a stream: p50 {:?}, p99 {:?}, most {:?}; {unreachable} connections refused",
        away.len(),
        at(50),
        at(99),
        at(100)
    );
    (at(50), at(99))
}

/// Viewers of `/events/a`, each in a task of its own.
pub struct Viewers {
    tasks: Vec<tokio::task::JoinHandle<Result<Journey, String>>>,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    /// That have ever been live.
    live: AtomicUsize,
    /// That have asked for a stream and have no answer yet.
    asking: AtomicUsize,
}

impl Viewers {
    /// Starts them and waits until all are live.
    pub fn start(runtime: &Runtime, address: &Address, count: usize, ends: Ends) -> Self {
        let progress = Arc::new(Progress::default());
        let viewer = |_| runtime.spawn(travel(address.clone(), ends, progress.clone()));
        let viewers = Self { tasks: (0..count).map(viewer).collect(), progress };
        let live = || viewers.progress.live.load(Ordering::Relaxed);
        within(DEADLINE * 2, "all viewers are live", || live() == count || viewers.any_is_done());
        assert_eq!(live(), count, "viewers that are live");
        viewers
    }

    /// That have asked for a stream and have no answer yet.
    pub fn asking(&self) -> usize {
        self.progress.asking.load(Ordering::Relaxed)
    }

    /// Whether one has come to its end, which before the writer's is that of the test.
    pub fn any_is_done(&self) -> bool {
        self.tasks.iter().any(tokio::task::JoinHandle::is_finished)
    }

    /// Waits until all have seen the end.
    pub fn join(self, runtime: &Runtime) -> Vec<Journey> {
        let joined = self.tasks.into_iter().map(|task| {
            let outcome = runtime.block_on(async { tokio::time::timeout(DEADLINE, task).await });
            outcome.expect("the end arrives").unwrap().unwrap()
        });
        joined.collect()
    }
}

async fn travel(address: Address, ends: Ends, progress: Arc<Progress>) -> Result<Journey, String> {
    let (mut viewer, mut last_id) = (Viewer::default(), None::<String>);
    let mut pause = Duration::ZERO;
    for connections in 1..30 {
        viewer.journey.connections = connections;
        progress.asking.fetch_add(1, Ordering::Relaxed);
        let stream = Stream::open(&address, "/events/a", last_id.as_deref()).await;
        progress.asking.fetch_sub(1, Ordering::Relaxed);
        if ends == Ends::WellAndRefused
            && stream.as_ref().is_err_and(|why| REFUSED.iter().any(|refused| why.contains(refused)))
        {
            viewer.journey.unreachable += 1;
            pause_of_the_scenario_in_a_task(pause, "as the server told it").await;
            continue;
        }
        let mut stream = stream.map_err(|why| format!("connection {connections}: {why}"))?;
        if viewer.watch(&mut stream, ends, &progress).await? {
            return Ok(viewer.journey);
        }
        last_id = stream.last_event_id().or(last_id);
        viewer.since = Some(Instant::now());
        pause = stream.reconnection_time().unwrap_or_default();
        // As a client does whose stream has ended.
        drop(stream);
        pause_of_the_scenario_in_a_task(pause, "as the server told it").await;
    }
    Err("too many connections".into())
}

/// One that has to see each entry once and in order.
#[derive(Default)]
pub struct Viewer {
    journey: Journey,
    /// Entries seen, which are numbered from one.
    seen: usize,
    /// The writer's end has come.
    pub ended: bool,
    live: bool,
    /// When its last stream ended, while it has no other.
    since: Option<Instant>,
}

impl Viewer {
    /// Watches one stream; whether the end has come.
    async fn watch(
        &mut self,
        stream: &mut Stream,
        ends: Ends,
        progress: &Progress,
    ) -> Result<bool, String> {
        let mut events = 0;
        loop {
            let event = match stream.next().await {
                Ok(Some(Item::Event(event))) => event,
                Ok(Some(Item::Comment(_))) => continue,
                Ok(None) => break,
                Err(why) if ends == Ends::Anywhere && why.starts_with(BROKEN) => break,
                Err(why) => return Err(format!("{why}, after entry {}", self.seen)),
            };
            events += 1;
            let refusals = self.journey.refusals;
            self.see(&event, events == 1)?;
            if refusals == self.journey.refusals {
                let away = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
                self.journey.away = self.journey.away.max(away);
            }
            if event.event_type == "ssegate" && event.data.contains("\"live\"") && !self.live {
                self.live = true;
                progress.live.fetch_add(1, Ordering::Relaxed);
            }
            // More may be under way, such as the mark of a client that was still replaying.
            if self.ended && stream.at_boundary() {
                return Ok(true);
            }
        }
        if ends != Ends::Anywhere && !(stream.complete && stream.at_boundary()) {
            return Err(format!("a body was cut off after entry {}", self.seen));
        }
        Ok(self.ended)
    }

    /// Takes what came; an entry out of order is an error.
    pub fn see(&mut self, event: &Event, is_first: bool) -> Result<(), String> {
        if event.event_type == "ssegate" {
            let control: serde_json::Value =
                serde_json::from_str(&event.data).map_err(|error| error.to_string())?;
            match control["type"].as_str() {
                Some("live") => {}
                Some("drain") => {
                    self.journey.drains += 1;
                    self.journey.refusals += usize::from(is_first);
                }
                _ => return Err(format!("{event:?} after entry {}", self.seen)),
            }
        } else if event.data == END {
            self.ended = true;
        } else if event.data == (self.seen + 1).to_string() {
            self.seen += 1;
        } else {
            return Err(format!("after entry {} came {event:?}", self.seen));
        }
        Ok(())
    }
}
