//! Limits of memory: rings, replies in flight, and clients that are slow or far behind.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Connection, Redis};
use crate::support::swarm::{self, Address, Stream};
use crate::support::waiting::pause_of_the_scenario_in_a_task;
use crate::support::{Folder, pause_of_the_scenario, within};

const MIB: usize = 1 << 20;
/// A debug build on a loaded machine needs its time.
const LONG: Duration = Duration::from_secs(300);

/// Forgets the peak, so that what comes next shows.
fn forget_peak(gateway: &Gateway) {
    std::fs::write(format!("/proc/{}/clear_refs", gateway.pid()), "5").unwrap();
}

/// A TCP connection that has stood still may go on at a crawl, with some congestion controls.
fn by_unix_socket(redis: &Redis, folder: &Folder) -> Setup {
    let listen = format!("listen = [\"unix:{}\"]", folder.0.join("gateway.sock").display());
    Setup::redis(redis).set("server", &listen)
}

fn address(gateway: &Gateway) -> PathBuf {
    gateway.address.strip_prefix("unix:").unwrap().into()
}

/// Of each of these entries.
const LARGE_BYTES: usize = MIB - 64;
/// Entries added in one transaction by default, so that a reader finds all of them at once.
const BURST: usize = 8;

/// What a stream keeps of the bursts that are added to it, as arguments of `XADD`.
type Kept = &'static [&'static [u8]];
const SIXTEEN: Kept = &[b"MAXLEN", b"16"];
const ALL: Kept = &[];

/// Adds entries, all at once.
fn burst(
    connection: &mut Connection,
    key: &str,
    kept: Kept,
    payloads: impl ExactSizeIterator<Item = Vec<u8>>,
) {
    let count = payloads.len();
    connection.send(&[b"MULTI"]).unwrap();
    for payload in payloads {
        let entry: [&[u8]; 3] = [b"*", b"payload", &payload];
        connection.send(&[&[b"XADD", key.as_bytes()], kept, &entry].concat()).unwrap();
    }
    connection.send(&[b"EXEC"]).unwrap();
    let answers: Vec<_> = (0..count + 2).map(|_| connection.answer().unwrap()).collect();
    assert!(matches!(answers.last(), Some(Answer::List(_))), "{answers:?}");
}

fn large(number: usize) -> Vec<u8> {
    let mut payload = format!("{number}:").into_bytes();
    payload.resize(LARGE_BYTES, b'x');
    payload
}

/// A stream taken apart into its events as they are framed, and no further: that is quick, and shows
/// which large entries came.
struct Chunks {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
    path: String,
    last_id: String,
}

impl Chunks {
    async fn open(socket: PathBuf, path: String, last_id: String) -> io::Result<Self> {
        let mut stream = BufReader::new(UnixStream::connect(&socket).await?);
        let resume = match &*last_id {
            "" => String::new(),
            id => format!("Last-Event-ID: {id}\r\n"),
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{resume}\r\n");
        stream.write_all(request.as_bytes()).await?;
        while stream.read_line(&mut String::new()).await? > "\r\n".len() {}
        Ok(Self { stream, socket, path, last_id })
    }

    async fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut size = String::new();
        if self.stream.read_line(&mut size).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let size = usize::from_str_radix(size.trim_end(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; size + "\r\n".len()];
        self.stream.read_exact(&mut chunk).await?;
        Ok(chunk)
    }

    /// The start of the next entry's payload, or the next gap's data.
    async fn payload(&mut self) -> io::Result<String> {
        loop {
            let chunk = self.next().await?;
            let start = String::from_utf8_lossy(&chunk[..chunk.len().min(250)]).into_owned();
            if let Some(id) = start.strip_prefix("id: ").and_then(|id| id.lines().next()) {
                id.clone_into(&mut self.last_id);
            }
            let payload = start.split_once("data: ").map(|(_, payload)| payload.to_owned());
            match payload {
                Some(payload) if !payload.contains("\"live\"") => return Ok(payload),
                _ => {}
            }
        }
    }

    /// Reads large entries up to the last.
    async fn all_bursts(&mut self, tally: &mut Tally) -> io::Result<()> {
        while !tally.is_done() {
            let payload = tokio::time::timeout(LONG / 2, self.payload()).await;
            let stuck = || io::Error::other(format!("{} gets nothing more: {tally:?}", self.path));
            let payload = payload.map_err(|_| stuck())?;
            tally.note(&payload?)?;
        }
        Ok(())
    }

    /// The same; if it is cut, because an entry that it had half of was trimmed, it comes back.
    async fn all_bursts_through_cuts(mut self, mut tally: Tally) -> io::Result<Tally> {
        loop {
            match self.all_bursts(&mut tally).await {
                Ok(()) => return Ok(tally),
                Err(cut) if cut.kind() == io::ErrorKind::UnexpectedEof => tally.cuts += 1,
                Err(error) => return Err(error),
            }
            let Self { socket, path, last_id, .. } = self;
            self = Self::open(socket, path, last_id).await?;
        }
    }
}

/// Which large entries came, in order, and how many gaps reported as missing; a client that comes back may
/// get a gap again.
#[derive(Debug)]
struct Tally {
    next: usize,
    count: usize,
    skipped: usize,
    reported: usize,
    /// A client that resumes below what is kept gets a gap without a number.
    exact: bool,
    cuts: usize,
}

impl Tally {
    fn of(count: usize) -> Self {
        Self { next: 0, count, skipped: 0, reported: 0, exact: true, cuts: 0 }
    }

    fn is_done(&self) -> bool {
        self.next == self.count && (!self.exact || self.reported >= self.skipped)
    }

    fn note(&mut self, payload: &str) -> io::Result<()> {
        if let Some((_, lost)) = payload.split_once("\"lost\":") {
            let digits: String = lost.chars().take_while(char::is_ascii_digit).collect();
            self.exact &= !digits.is_empty();
            self.reported += digits.parse().unwrap_or(0);
            return Ok(());
        }
        let number = payload.split_once(":x").and_then(|(number, _)| number.parse().ok());
        let number: usize = number.filter(|number| *number >= self.next).ok_or_else(|| {
            io::Error::other(format!("after entry {} came {payload:.60}", self.next))
        })?;
        self.skipped += number - self.next;
        self.next = number + 1;
        Ok(())
    }
}

/// Entries of a MiB on some stream keys, with a client each.
struct Bursts {
    keys: usize,
    /// On each key.
    count: usize,
    /// Of these so many in one transaction.
    at_once: usize,
    kept: Kept,
    rings_mib: usize,
    may_be_cut: bool,
    /// All of them have come by then.
    patience: Duration,
}

/// The most that the gateway held, and how many entries were trimmed before they came.
fn peak_of_bursts(bursts: &Bursts) -> (usize, usize) {
    let Bursts { keys, count, at_once, kept, rings_mib, may_be_cut, patience } = *bursts;
    let runtime = swarm::crowd();
    let redis = Redis::start();
    let folder = Folder::new();
    let setup = by_unix_socket(&redis, &folder);
    let setup = setup.set("ring", &format!("total_bytes = \"{rings_mib}MiB\""));
    let gateway = setup.start_ready();
    let open = |key| Chunks::open(address(&gateway), format!("/events/{key}"), String::new());
    let mut streams: Vec<_> = (0..keys).map(|key| runtime.block_on(open(key)).unwrap()).collect();
    // Small ones first: readers ask for many at once, not knowing what comes.
    let mut connection = Connection::open(&redis).unwrap();
    for (key, stream) in streams.iter_mut().enumerate() {
        let small = (0..12).map(|_| b"small".to_vec());
        burst(&mut connection, &format!("events:{key}"), kept, small);
        for _ in 0..12 {
            assert_eq!(runtime.block_on(stream.payload()).unwrap().trim_end(), "small");
        }
    }
    forget_peak(&gateway);
    let visit = |mut stream: Chunks| {
        runtime.spawn(async move {
            let mut tally = Tally::of(count);
            if may_be_cut {
                return stream.all_bursts_through_cuts(tally).await;
            }
            stream.all_bursts(&mut tally).await?;
            assert!(tally.exact && tally.reported == tally.skipped, "{tally:?}");
            Ok(tally)
        })
    };
    let tasks: Vec<_> = streams.into_iter().map(visit).collect();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let redis = &redis;
            scope.spawn(move || {
                let mut connection = Connection::open(redis).unwrap();
                for first in (0..count).step_by(at_once) {
                    for key in (part..keys).step_by(4) {
                        let large = (first..count.min(first + at_once)).map(large);
                        burst(&mut connection, &format!("events:{key}"), kept, large);
                    }
                }
            });
        }
    });
    let (mut trimmed, mut cuts) = (0, 0);
    for task in tasks {
        let outcome = runtime.block_on(async { tokio::time::timeout(patience, task).await });
        let tally = outcome.expect("every entry comes, or a gap for it").unwrap().unwrap();
        (trimmed, cuts) = (trimmed + tally.skipped, cuts + tally.cuts);
    }
    let came = keys * count - trimmed;
    eprintln!("{came} entries came, {trimmed} were trimmed before and reported; {cuts} cuts");
    (gateway.peak_bytes(), trimmed)
}

/// How many entries were trimmed before they came.
fn bursts_stay_within_the_limits(bursts: &Bursts) -> usize {
    let (peak, trimmed) = peak_of_bursts(bursts);
    let Bursts { keys, count, rings_mib, .. } = *bursts;
    let (peak, allowed) = (peak / MIB, rings_mib + 64 + keys);
    eprintln!("{keys} keys, {count} entries of a MiB each: peak {peak} MiB of {allowed} MiB");
    assert!(peak <= allowed, "peak {peak} MiB, allowed are {allowed} MiB");
    trimmed
}

/// As many keys as stay within a test's time; all entries of one come at once.
const FEW: Bursts = Bursts {
    keys: 12,
    count: BURST,
    at_once: BURST,
    kept: SIXTEEN,
    rings_mib: 16,
    may_be_cut: false,
    patience: LONG,
};

#[test]
fn bursts_of_large_entries_stay_within_the_limits() {
    bursts_stay_within_the_limits(&FEW);
}

#[test]
fn three_hundred_large_entries_at_once_come_through_a_ring_of_sixteen() {
    // One client takes them one after the other, a minute's work for a debug build.
    let patience = 2 * LONG;
    let one_burst = Bursts { keys: 1, count: 300, at_once: 300, kept: ALL, patience, ..FEW };
    assert_eq!(bursts_stay_within_the_limits(&one_burst), 0, "nothing was trimmed");
}

/// `cargo test --release --test integration -- --ignored --nocapture memory::bursts`
#[test]
#[ignore = "200 GiB take minutes, in a release build"]
fn bursts_of_large_entries_on_two_hundred_keys_stay_within_the_limits() {
    let many = Bursts { keys: 200, count: 1_000, rings_mib: 256, may_be_cut: true, ..FEW };
    bursts_stay_within_the_limits(&many);
}

/// However far back a client asks.
const ALL_IS_REPLAYED: &str = r#"
    [[route]]
    path = "/events/{name}"
    key = "events:{name}"
    access = "public"
    replay = "all"
"#;

/// Entries that a crawler wants; where more follow it leaves before the end.
const WANTED: usize = 2_000;

/// Clients far behind that take a little at a time.
struct Crawlers {
    tasks: Vec<tokio::task::JoinHandle<Result<(), String>>>,
    hurry: Arc<AtomicBool>,
}

impl Crawlers {
    /// `count` clients at as many ids of the stream.
    fn begin(runtime: &Runtime, gateway: &Gateway, ids: &Arc<Vec<String>>, count: usize) -> Self {
        let hurry = Arc::new(AtomicBool::new(false));
        let address = Address::Unix(address(gateway));
        let visit = |at: usize| {
            let (address, ids, hurry) = (address.clone(), ids.clone(), hurry.clone());
            runtime.spawn(async move {
                let mut stream = Stream::open(&address, "/events/a", Some(&ids[at])).await?;
                for id in ids[at + 1..].iter().take(WANTED) {
                    if !hurry.load(Ordering::Relaxed) {
                        pause_of_the_scenario_in_a_task(Duration::from_millis(50), "it is slow")
                            .await;
                    }
                    let event = stream.event().await?;
                    if event.last_event_id != *id {
                        return Err(format!("expected {id}, got {event:?}"));
                    }
                }
                Ok(())
            })
        };
        let step = ids.len() / 2 / count;
        Self { tasks: (0..count).map(|client| visit(client * step)).collect(), hurry }
    }

    fn end(self, runtime: &Runtime) {
        self.hurry.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let outcome = runtime.block_on(async { tokio::time::timeout(LONG, task).await });
            assert_eq!(outcome.expect("they get what they want").unwrap(), Ok(()));
        }
    }
}

/// The most that the gateway holds while so many crawl, up to so many entries behind and in places of their own.
fn peak_with_crawlers(count: usize, entries: usize) -> usize {
    let runtime = swarm::crowd();
    let redis = Redis::start();
    let folder = Folder::new();
    let setup = by_unix_socket(&redis, &folder).set("ring", "entries = 100");
    let setup = setup.set("limits", "send_buffer = \"16KiB\"").routes(ALL_IS_REPLAYED);
    let gateway = setup.start_ready();
    let mut connection = Connection::open(&redis).unwrap();
    let payload = "x".repeat(1_000);
    let ids = (0..entries).map(|_| {
        match connection.run(&["XADD", "events:a", "*", "payload", &payload]) {
            Some(Answer::Text(id)) => id,
            other => panic!("{other:?}"),
        }
    });
    let ids = Arc::new(ids.collect::<Vec<_>>());
    let crawlers = Crawlers::begin(&runtime, &gateway, &ids, count);
    within(LONG, "all are there", || gateway.metric("ssegate_clients") as usize == count);
    // As long as it takes for each of them to have been out of step with the others.
    for _ in 0..50 {
        pause_of_the_scenario(Duration::from_millis(100), "they crawl");
        assert!(crawlers.tasks.iter().all(|task| !task.is_finished()));
    }
    let peak = gateway.peak_bytes();
    crawlers.end(&runtime);
    peak
}

#[test]
fn memory_does_not_depend_on_how_many_are_behind() {
    let (few, many) = (peak_with_crawlers(100, 2_000), peak_with_crawlers(500, 2_000));
    eprintln!("100 crawlers: {} KiB, 500: {} KiB", few >> 10, many >> 10);
    // A task and a socket for each of them (17 KiB in a debug build, and what the allocator keeps), and
    // nothing of what they are still to get: that is up to 2 MB each.
    let allowed = few + 400 * (40 << 10);
    assert!(many <= allowed, "{many} bytes with 500, {few} with 100");
}

#[test]
fn memory_does_not_depend_on_how_far_behind_they_are() {
    let (near, far) = (peak_with_crawlers(100, 2_000), peak_with_crawlers(100, 20_000));
    eprintln!("100 crawlers, 2,000 entries: {} KiB, 20,000: {} KiB", near >> 10, far >> 10);
    // What is read of the past has 16 MiB in all, and the shorter stream is 2 MiB: so much may be in use of
    // the longer one, 20 MiB, of which each of them is still to get half or more.
    let allowed = near + 14 * MIB;
    assert!(far <= allowed, "{far} bytes over 20,000 entries, {near} over 2,000");
}
