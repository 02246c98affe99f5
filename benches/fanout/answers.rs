//! Streams that begin and end, as the answers of a language model do: a stream key for each, one client, and nothing
//! left of either.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{OnceLock, mpsc};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::processes::{Process, Scratch, free_address};
use crate::redis::{Redis, cpu_seconds};

/// New streams in a second.
const STREAMS_PER_SECOND: u64 = 200;
/// Entries of a stream, without the one that ends it,
const ENTRIES: usize = 40;
/// and the time from one to the next.
const INTERVAL: Duration = Duration::from_millis(25);
/// A client comes so long before the first entry.
const AHEAD: Duration = Duration::from_millis(100);
const PAYLOAD_BYTES: usize = 100;
/// Of a client's thread.
const STACK_BYTES: usize = 128 << 10;
/// A stream that is not over by then has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is left is looked at for so long.
const CLEARED_WITHIN: Duration = Duration::from_secs(10);

const ROUTE: &str = r#"
    start = "earliest"
    end = { field = "payload", equals = "[END]" }"#;

/// One run.
pub(crate) struct Answers {
    pub(crate) streams: u64,
    /// From just before the first `XADD` of a stream to just after its client's `recv`.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) gateway_ms_per_stream: f64,
    pub(crate) redis_ms_per_stream: f64,
    /// Anonymous memory at the end, less that after a third of the time.
    pub(crate) grown_bytes: f64,
    /// Readers that are left, and descriptors more than at first.
    pub(crate) left_readers: f64,
    pub(crate) left_descriptors: f64,
}

/// What is next to be done for a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Open,
    Add(usize),
    End,
}

/// Lets streams begin for so many `seconds`, and waits for the last one's end.
pub(crate) fn measure(scratch: &Scratch, seconds: u64) -> Result<Answers> {
    let (address, admin) = (free_address()?, free_address()?);
    let gateway = scratch.start_gateway_of(address, admin, ROUTE)?;
    let streams = STREAMS_PER_SECOND * seconds;
    let descriptors = metric(admin, "process_open_fds")?;
    let (cpu, redis_cpu) = (gateway.cpu()?, cpu_seconds(&scratch.redis())?);
    let added: Vec<OnceLock<Instant>> = (0..streams).map(|_| OnceLock::new()).collect();
    let (after_a_third, first_seen) = thread::scope(|scope| {
        let early = scope.spawn(|| {
            thread::sleep(Duration::from_secs(seconds) / 3);
            gateway.memory()
        });
        let (seen, all_seen) = mpsc::channel();
        write(scope, &scratch.redis(), address, &added, &seen)?;
        drop(seen);
        let all_seen: Result<Vec<_>> = all_seen.into_iter().collect();
        anyhow::Ok((early.join().expect("no panic")?, all_seen?))
    })?;
    let grown_bytes = gateway.memory()?.anonymous_bytes - after_a_third.anonymous_bytes;
    let cpu = gateway.cpu()?.since(cpu).total;
    let redis_cpu = cpu_seconds(&scratch.redis())? - redis_cpu;
    let (left_readers, left_descriptors) = what_is_left(admin, descriptors)?;
    let latency = |(stream, seen): &(u64, Instant)| {
        let added = usize::try_from(*stream).ok().and_then(|stream| added[stream].get());
        seen.duration_since(*added.expect("its client has seen it"))
    };
    let mut latencies: Vec<_> = first_seen.iter().map(latency).collect();
    latencies.sort();
    let ms = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    drop::<Process>(gateway);
    Ok(Answers {
        streams,
        p50_ms: ms(50),
        p99_ms: ms(99),
        gateway_ms_per_stream: cpu * 1e3 / streams as f64,
        redis_ms_per_stream: redis_cpu * 1e3 / streams as f64,
        grown_bytes,
        left_readers,
        left_descriptors,
    })
}

/// A stream, and when its client saw the first entry.
type Seen = Result<(u64, Instant)>;

/// Opens clients and adds entries, each in its time; `added` gets the time of each stream's first one, and `seen` what
/// its client saw.
fn write<'scope>(
    scope: &'scope Scope<'scope, '_>,
    redis: &Path,
    address: SocketAddr,
    added: &[OnceLock<Instant>],
    seen: &mpsc::Sender<Seen>,
) -> Result<()> {
    let mut redis = Redis::connect(redis)?;
    let mut unanswered = 0;
    let began = Instant::now();
    let due =
        |stream: u64| began + Duration::from_secs_f64(stream as f64 / STREAMS_PER_SECOND as f64);
    let mut steps: BinaryHeap<_> =
        (0..added.len() as u64).map(|stream| Reverse((due(stream), stream, Step::Open))).collect();
    while let Some(Reverse((due, stream, step))) = steps.pop() {
        if due > Instant::now() {
            exchange(&mut redis, &mut unanswered)?;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let key = format!("events:{stream}");
        let next = match step {
            Step::Open => {
                let seen = seen.clone();
                // Whoever would take it has failed by then.
                let client = move || drop(seen.send(follow(address, stream)));
                thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, client)?;
                Some((due + AHEAD, Step::Add(0)))
            }
            Step::Add(nth) => {
                if nth == 0 {
                    let _ = added[usize::try_from(stream)?].set(Instant::now());
                }
                let payload = format!("{nth:x<PAYLOAD_BYTES$}");
                redis.queue(&[b"XADD", key.as_bytes(), b"*", b"payload", payload.as_bytes()]);
                unanswered += 1;
                let next = if nth + 1 < ENTRIES { Step::Add(nth + 1) } else { Step::End };
                Some((due + INTERVAL, next))
            }
            Step::End => {
                redis.queue(&[b"XADD", key.as_bytes(), b"*", b"payload", b"[END]"]);
                redis.queue(&[b"EXPIRE", key.as_bytes(), b"5"]);
                unanswered += 2;
                None
            }
        };
        steps.extend(next.map(|(due, step)| Reverse((due, stream, step))));
    }
    exchange(&mut redis, &mut unanswered)
}

fn exchange(redis: &mut Redis, unanswered: &mut usize) -> Result<()> {
    redis.flush()?;
    for _ in 0..std::mem::take(unanswered) {
        redis.reply()?;
    }
    Ok(())
}

/// Hears a stream to its end; every entry has to come once, in order, and then the end.
fn follow(address: SocketAddr, stream: u64) -> Seen {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    write!(socket, "GET /events/{stream} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let (mut first_seen, mut entries, mut has_ended) = (None, 0, false);
    for line in BufReader::new(socket).lines() {
        let line = line.context("a stream broke off")?;
        let Some(data) = line.strip_prefix("data: ") else {
            if line == "0" && has_ended {
                let first_seen = first_seen.context("a stream without entries")?;
                return Ok((stream, first_seen));
            }
            continue;
        };
        if data.starts_with(&format!("{entries}x")) {
            first_seen.get_or_insert_with(Instant::now);
            entries += 1;
        }
        has_ended |= entries == ENTRIES && data.contains("\"end\"");
    }
    anyhow::bail!("stream {stream} was cut after {entries} entries")
}

/// The readers that are left, and how many descriptors more there are than `before`, once nothing changes any more.
fn what_is_left(admin: SocketAddr, before: f64) -> Result<(f64, f64)> {
    let end = Instant::now() + CLEARED_WITHIN;
    loop {
        let readers = metric(admin, "ssegate_readers")?;
        let descriptors = metric(admin, "process_open_fds")? - before;
        if readers == 0.0 || Instant::now() > end {
            return Ok((readers, descriptors));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn metric(admin: SocketAddr, name: &str) -> Result<f64> {
    let mut socket = TcpStream::connect(admin)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.with_context(|| format!("no metric {name}"))?.trim().parse().context("not a number")
}
