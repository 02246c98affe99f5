//! The benchmark's entries: numbered, so that a client can tell a missing one from a doubled one,
//! and stamped on the clock that all processes of the machine share. And the writer of them.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

use crate::redis::{KEY, Redis};
use crate::report::Scenario;

/// `XADD` commands in flight at once: a late writer catches up without stamping far ahead.
const PIPELINE: u64 = 500;

/// The stream is never trimmed within a short run: what Redis drops is no matter of fan-out.
const MIN_KEPT: u64 = 10_000;

/// Nanoseconds of `CLOCK_MONOTONIC`, comparable between processes.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).expect("the clock must not be negative")
}

/// The payload of entry `number`, `bytes` long.
fn encode(number: u64, bytes: usize) -> String {
    let mut payload = format!(r#"{{"n":{number},"t":{},"pad":""#, now_ns());
    let padding = bytes.saturating_sub(payload.len() + 2);
    payload.extend(std::iter::repeat_n('x', padding));
    payload.push_str("\"}");
    payload
}

/// Number and time of sending of a payload; `None` for any other data (control events).
pub(crate) fn decode(payload: &[u8]) -> Option<(u64, u64)> {
    let rest = payload.strip_prefix(br#"{"n":"#)?;
    let (number, rest) = leading_number(rest)?;
    let rest = rest.strip_prefix(br#","t":"#)?;
    let (sent_ns, rest) = leading_number(rest)?;
    rest.ends_with(b"\"}").then_some((number, sent_ns))
}

fn leading_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    Some((number, &text[digits..]))
}

/// Takes a former run's entries away.
pub(crate) fn clear(redis: &Path) -> Result<()> {
    let mut redis = Redis::connect(redis)?;
    redis.queue(&[b"DEL", KEY.as_bytes()]);
    redis.flush()?;
    redis.reply().map(drop)
}

/// Adds the entries of a scenario at its rate, and returns when Redis has them all.
pub(crate) fn write_all(redis: &Path, scenario: &Scenario) -> Result<()> {
    let mut redis = Redis::connect(redis)?;
    let total = scenario.events();
    let kept = total.max(MIN_KEPT).to_string();
    let entry_bytes = usize::try_from(scenario.entry_bytes)?;
    let began = Instant::now();
    let mut sent = 0;
    while sent < total {
        let due = u64::try_from(began.elapsed().as_micros())? * scenario.rate / 1_000_000 + 1;
        let until = due.min(total).min(sent + PIPELINE);
        for number in sent..until {
            let payload = encode(number, entry_bytes);
            let words = ["XADD", KEY, "MAXLEN", "~", &kept, "*", "payload", &payload];
            redis.queue(&words.map(str::as_bytes));
        }
        redis.flush()?;
        for _ in sent..until {
            redis.reply()?;
        }
        sent = until;
        let next = began + Duration::from_secs_f64(sent as f64 / scenario.rate as f64);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}
