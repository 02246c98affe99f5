//! Entries in batches through a route's `POST`, beside the same entries in pipelines of our own straight to Redis.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::processes::{Scratch, free_address};
use crate::publish::read_answer;
use crate::redis::{Redis, cpu_seconds};

/// Connections of publishers, each with one batch under way.
const CONNECTIONS: usize = 4;
/// Entries of a batch: as many as a request may have.
const ENTRIES: usize = 1_000;
/// Of an entry's payload.
const PAYLOAD_BYTES: usize = 100;
/// A batch that takes longer is a failure of the run.
const PATIENCE: Duration = Duration::from_secs(10);

const ROUTE: &str = r#"
    publish = { access = "public", rate = "0/s" }"#;

/// Batches one way, for so long.
pub(crate) struct Batches {
    pub(crate) entries_per_second: f64,
    pub(crate) redis_us_per_entry: f64,
}

/// One run of both.
pub(crate) struct Run {
    pub(crate) posted: Batches,
    pub(crate) gateway_us_per_entry: f64,
    pub(crate) piped: Batches,
}

/// Publishes for `seconds` each way.
pub(crate) fn measure(scratch: &Scratch, seconds: u64) -> Result<Run> {
    let address = free_address()?;
    let gateway = scratch.start_gateway_of(address, free_address()?, ROUTE)?;
    // The connections to Redis are opened by the first.
    post(address, Instant::now())?;
    let before = gateway.cpu()?;
    let (posted, entries) = both_ends(scratch, seconds, |end| post(address, end))?;
    let cpu = gateway.cpu()?.since(before);
    drop(gateway);
    let (piped, _) = both_ends(scratch, seconds, |end| pipe(scratch, end))?;
    Ok(Run { posted, gateway_us_per_entry: cpu.total * 1e6 / entries, piped })
}

/// Lets each connection send batches; how many entries there were.
fn both_ends(
    scratch: &Scratch,
    seconds: u64,
    send: impl Fn(Instant) -> Result<usize> + Sync,
) -> Result<(Batches, f64)> {
    let (redis, began) = (cpu_seconds(&scratch.redis())?, Instant::now());
    let end = began + Duration::from_secs(seconds);
    let batches: Result<Vec<usize>> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(|| send(end))).collect();
        senders.into_iter().map(|sender| sender.join().expect("no panic")).collect()
    });
    let entries = (batches?.iter().sum::<usize>() * ENTRIES) as f64;
    let took = began.elapsed().as_secs_f64();
    let redis_us_per_entry = (cpu_seconds(&scratch.redis())? - redis) * 1e6 / entries;
    Ok((Batches { entries_per_second: entries / took, redis_us_per_entry }, entries))
}

/// Posts batches until `end`, at least one; how many.
fn post(address: SocketAddr, end: Instant) -> Result<usize> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let lines = format!("{}\n", "x".repeat(PAYLOAD_BYTES)).repeat(ENTRIES);
    let request = format!(
        "POST /events/ndjson HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{lines}",
        lines.len()
    );
    for batches in 1.. {
        (&stream).write_all(request.as_bytes())?;
        read_answer(&mut answers)?;
        if Instant::now() >= end {
            return Ok(batches);
        }
    }
    unreachable!("a run ends")
}

/// Adds the same by `XADD`s in one write each batch.
fn pipe(scratch: &Scratch, end: Instant) -> Result<usize> {
    let mut redis = Redis::connect(&scratch.redis())?;
    let payload = "x".repeat(PAYLOAD_BYTES);
    let words: [&[u8]; 8] =
        [b"XADD", b"events:piped", b"MAXLEN", b"~", b"10000", b"*", b"payload", payload.as_bytes()];
    for batches in 1.. {
        (0..ENTRIES).for_each(|_| redis.queue(&words));
        redis.flush()?;
        for _ in 0..ENTRIES {
            redis.reply()?;
        }
        if Instant::now() >= end {
            return Ok(batches);
        }
    }
    unreachable!("a run ends")
}
