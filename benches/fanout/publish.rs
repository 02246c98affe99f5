//! Publishing through the gateway, beside `redis-benchmark`, which adds as many entries at a time to the same
//! server itself.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::processes::{Scratch, free_address};

/// Connections of publishers, each with one request under way.
const CONNECTIONS: usize = 64;
/// Of a payload.
const PAYLOAD_BYTES: usize = 100;
/// A publish that takes longer is a failure of the run.
const PATIENCE: Duration = Duration::from_secs(10);

/// One run of both.
pub(crate) struct Publishing {
    pub(crate) posts_per_second: f64,
    pub(crate) xadds_per_second: f64,
    /// Of the gateway, user and kernel.
    pub(crate) cpu_us_per_post: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// Publishes for `seconds`, and lets `redis-benchmark` add as many.
pub(crate) fn measure(scratch: &Scratch, seconds: u64) -> Result<Publishing> {
    let admin = free_address()?;
    let gateway = scratch.start_publishing_gateway(free_address()?, admin)?;
    // The connections to Redis are opened by the first.
    publisher(admin, Instant::now())?;
    let (before, began) = (gateway.cpu()?, Instant::now());
    let end = began + Duration::from_secs(seconds);
    let latencies: Result<Vec<Vec<Duration>>> = std::thread::scope(|scope| {
        let publishers: Vec<_> =
            (0..CONNECTIONS).map(|_| scope.spawn(|| publisher(admin, end))).collect();
        publishers.into_iter().map(|publisher| publisher.join().expect("no panic")).collect()
    });
    let (took, cpu) = (began.elapsed(), gateway.cpu()?.since(before));
    let mut latencies = latencies?.concat();
    latencies.sort();
    let count = latencies.len();
    let ms = |percent: usize| latencies[(count - 1) * percent / 100].as_secs_f64() * 1e3;
    Ok(Publishing {
        posts_per_second: count as f64 / took.as_secs_f64(),
        xadds_per_second: redis_benchmark(scratch, count)?,
        cpu_us_per_post: cpu.total * 1e6 / count as f64,
        p50_ms: ms(50),
        p99_ms: ms(99),
    })
}

/// Publishes until `end`, at least once; how long each took.
fn publisher(admin: SocketAddr, end: Instant) -> Result<Vec<Duration>> {
    let stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let payload = "x".repeat(PAYLOAD_BYTES);
    let request = format!(
        "POST /publish/events:publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {PAYLOAD_BYTES}\r\n\r\n{payload}"
    );
    let mut latencies = Vec::new();
    loop {
        let asked = Instant::now();
        (&stream).write_all(request.as_bytes())?;
        read_answer(&mut answers)?;
        latencies.push(asked.elapsed());
        if Instant::now() >= end {
            return Ok(latencies);
        }
    }
}

/// Reads a whole answer, which has to be good.
pub(crate) fn read_answer(answers: &mut impl BufRead) -> Result<()> {
    let (mut status, mut line, mut length) = (String::new(), String::new(), 0);
    answers.read_line(&mut status)?;
    ensure!(status.starts_with("HTTP/1.1 200"), "the gateway answered {status:?}");
    loop {
        line.clear();
        answers.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim_end().parse()?;
        }
    }
    let mut body = vec![0; length];
    Ok(answers.read_exact(&mut body)?)
}

/// How many `XADD` it adds in a second, `count` in all.
fn redis_benchmark(scratch: &Scratch, count: usize) -> Result<f64> {
    let mut command = Command::new("redis-benchmark");
    command.arg("-s").arg(scratch.redis()).args([
        "--csv",
        "-P",
        "1",
        "-c",
        &CONNECTIONS.to_string(),
    ]);
    command.args(["-n", &count.to_string(), "XADD", "events:bench", "MAXLEN", "~", "10000", "*"]);
    command.args(["payload", &"x".repeat(PAYLOAD_BYTES)]);
    let output = command.output().context("redis-benchmark must be in the PATH")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "test","rps",… and below it the one test, whose name may have commas in its quotes.
    let line = text.lines().last().unwrap_or_default();
    let cell = line.split("\",\"").nth(1).context("redis-benchmark told no rate")?;
    cell.parse().with_context(|| format!("redis-benchmark said {text}"))
}
