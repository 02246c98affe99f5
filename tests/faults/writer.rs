//! The writer: numbers its entries, and keeps what became of each. Only the thread that holds it
//! writes, so numbers are in the order of the stream.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ssegate::sse::StreamId;

use crate::history::Fate;
use crate::payload;
use crate::selection::{self, Selection};
use crate::support::pause_of_the_scenario;
use crate::support::redis::{Answer, Connection};

/// The stream's key.
pub const KEY: &str = "events:a";
/// The field that ends the stream, as the routes have it.
const MARKER: [&str; 2] = ["type", "done"];
/// Of an entry with which a look is heavy.
const HEAVY_BYTES: usize = 20_000;
/// After a refusal, or where there is no Redis.
const PAUSE: Duration = Duration::from_millis(10);

/// Writes entries, and remembers.
pub struct Writer {
    began: Instant,
    rng: fastrand::Rng,
    key: Arc<str>,
    socket: PathBuf,
    connection: Option<Connection>,
    written: Vec<Fate>,
    /// The ids' clock is this much slow; zero: Redis chooses.
    behind: Duration,
    /// The number of the entry that ends the stream.
    marker: Option<u64>,
}

impl Writer {
    /// Writes to this key in the Redis behind this unix socket.
    pub fn new(began: Instant, rng: fastrand::Rng, key: &str, socket: PathBuf) -> Self {
        let (key, connection, written, behind) = (key.into(), None, Vec::new(), Duration::ZERO);
        Self { began, rng, key, socket, connection, written, behind, marker: None }
    }

    /// The stream's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What became of each entry so far.
    pub fn written(&self) -> &[Fate] {
        &self.written
    }

    /// The number that the next entry gets.
    pub fn next(&self) -> u64 {
        self.written.len() as u64 + 1
    }

    /// The number of the last entry that Redis took, of those that a client gets which asks for this.
    pub fn last_added(&self, of: Selection) -> u64 {
        let is_added = |number: &u64| {
            matches!(self.written[*number as usize - 1], Fate::Added(..)) && of.admits(*number)
        };
        (1..self.next()).rev().find(is_added).unwrap_or(0)
    }

    /// The number of the entry that ends the stream, once that is known.
    pub fn marker(&self) -> Option<u64> {
        self.marker
    }

    /// So many more entries, and then the one that ends the stream.
    pub fn end_after(&mut self, count: u64) {
        self.marker = Some(self.next() + count);
    }

    /// Writes to another Redis from now on.
    pub fn redirect(&mut self, socket: PathBuf) {
        self.socket = socket;
        self.connection = None;
    }

    /// Ids are taken from a clock that is slow by this much from now on.
    pub fn set_back(&mut self, behind: Duration) {
        self.behind = behind;
    }

    /// One entry; whether Redis took it.
    pub fn add(&mut self) -> bool {
        self.burst(1, None)
    }

    /// The same, of an entry so large that no look at the stream is light while it is the first.
    pub fn add_heavy(&mut self) -> bool {
        let index = self.written.len();
        self.connect();
        self.send_filled(HEAVY_BYTES, None, None);
        let answer = self.answer();
        self.note(index, answer.as_ref());
        matches!(self.written[index], Fate::Added(..))
    }

    /// So many entries at once, trimming to so many each time; whether Redis took all of them.
    pub fn burst(&mut self, count: u64, keep: Option<u64>) -> bool {
        let first = self.written.len();
        self.connect();
        for _ in 0..count {
            self.send_entry(keep, None);
        }
        for index in first..self.written.len() {
            let answer = self.answer();
            self.note(index, answer.as_ref());
        }
        self.written[first..].iter().all(|fate| matches!(fate, Fate::Added(..)))
    }

    /// So many entries and then these commands, made of their ids, as one transaction; whether all of
    /// it was done. The first of the entries has the number that was [`Self::next`].
    pub fn transaction(
        &mut self,
        count: u64,
        then: impl FnOnce(&[StreamId]) -> Vec<Vec<String>>,
    ) -> bool {
        let first = self.written.len();
        let ids = self.ids(count);
        let then = then(&ids);
        self.connect();
        self.send(&["MULTI"]);
        for id in &ids {
            self.send_entry(None, Some(*id));
        }
        for command in &then {
            self.send(&command.iter().map(String::as_str).collect::<Vec<_>>());
        }
        self.send(&["EXEC"]);
        for _ in 0..=ids.len() + then.len() {
            self.answer();
        }
        let answers = match self.answer() {
            Some(Answer::List(answers)) => answers,
            Some(refusal) => vec![refusal; ids.len()],
            None => Vec::new(),
        };
        for index in first..self.written.len() {
            self.note(index, answers.get(index - first));
        }
        !answers.is_empty() && !answers.iter().any(|answer| matches!(answer, Answer::Error(_)))
    }

    /// Ids after every other one, that Redis would give in this or the next millisecond.
    fn ids(&self, count: u64) -> Vec<StreamId> {
        let last = self.written.iter().rev().find_map(|fate| match fate {
            Fate::Added(id, _) => Some(id.ms),
            _ => None,
        });
        let ms = self.now_ms().max(last.unwrap_or(0)) + 1;
        (0..count).map(|seq| StreamId { ms, seq }).collect()
    }

    fn now_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - self.behind;
        u64::try_from(now.as_millis()).unwrap()
    }

    /// One entry, and now and then more; whether Redis took them.
    pub fn add_some(&mut self, rng: &mut fastrand::Rng) -> bool {
        self.burst(if rng.u32(0..20) == 0 { rng.u64(2..20) } else { 1 }, None)
    }

    fn send_entry(&mut self, keep: Option<u64>, id: Option<StreamId>) {
        let fill_bytes = match self.rng.u32(0..100) {
            0 => self.rng.usize(10_000..60_000),
            1..10 => self.rng.usize(1_000..5_000),
            _ => self.rng.usize(0..300),
        };
        self.send_filled(fill_bytes, keep, id);
    }

    fn send_filled(&mut self, fill_bytes: usize, keep: Option<u64>, id: Option<StreamId>) {
        let body = payload::body(self.next(), fill_bytes);
        let id = match id {
            Some(id) => id.to_string(),
            None if self.behind.is_zero() => "*".to_owned(),
            None => format!("{}-*", self.now_ms()),
        };
        let keep = keep.map(|keep| keep.to_string());
        let key = self.key.clone();
        let mut words = vec!["XADD", &*key];
        if let Some(keep) = &keep {
            words.extend(["MAXLEN", keep]);
        }
        let tenant = selection::tenant(self.next()).to_string();
        words.extend([&*id, selection::FIELD, &tenant]);
        if self.marker == Some(self.next()) {
            words.extend(MARKER);
        }
        words.extend(["payload", &body]);
        let fate = if self.connection.is_some() { Fate::Unknown } else { Fate::Refused };
        self.send(&words);
        self.written.push(fate);
    }

    /// Not in the middle of a burst: its answers would get mixed up.
    fn connect(&mut self) {
        if self.connection.is_none() {
            self.connection = Connection::at(&self.socket);
        }
    }

    fn send(&mut self, words: &[&str]) {
        let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let sent = self.connection.as_mut().and_then(|connection| connection.send(&bytes));
        if sent.is_none() {
            self.connection = None;
        }
    }

    fn answer(&mut self) -> Option<Answer> {
        let answer = self.connection.as_mut()?.answer();
        if answer.is_none() {
            self.connection = None;
        }
        answer
    }

    /// Where no answer came it stays as it is.
    fn note(&mut self, index: usize, answer: Option<&Answer>) {
        match answer {
            Some(Answer::Text(id)) => {
                self.written[index] = Fate::Added(id.parse().unwrap(), self.began.elapsed());
            }
            Some(Answer::Error(_)) => self.written[index] = Fate::Refused,
            _ => {}
        }
    }
}

/// A writer, or some, that write on their own until they are told to stop.
pub struct Writing<W = Writer> {
    writer: Arc<Mutex<W>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<W: Send + 'static> Writing<W> {
    /// Not at it yet.
    pub fn new(writer: W) -> Self {
        Self { writer: Arc::new(Mutex::new(writer)), stop: Arc::default(), thread: None }
    }

    /// No other thread writes while this is held.
    pub fn lock(&self) -> MutexGuard<'_, W> {
        self.writer.lock().unwrap()
    }

    /// Writes about so many times a second from now on.
    pub fn begin(
        &mut self,
        rate: u32,
        mut rng: fastrand::Rng,
        write: impl Fn(&mut W, &mut fastrand::Rng) -> bool + Send + 'static,
    ) {
        let (writer, stop) = (self.writer.clone(), self.stop.clone());
        self.thread = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let taken = write(&mut writer.lock().unwrap(), &mut rng);
                let pause = Duration::from_secs(1).mul_f64(2.0 * rng.f64()) / rate;
                let pause = if taken { pause } else { pause.max(PAUSE) };
                pause_of_the_scenario(pause, "the rate of the writer");
            }
        }));
    }
}

impl<W> Writing<W> {
    /// Writes no more of its own.
    pub fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<W> Drop for Writing<W> {
    fn drop(&mut self) {
        self.end();
    }
}
