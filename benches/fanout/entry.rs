//! The benchmark's entries: numbered within their stream key, so that a client can tell a missing
//! one from a doubled one, and stamped on the clock that all processes of the machine share. And
//! the writer of them.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

use crate::redis::{Redis, key};
use crate::scenario::{Past, Scenario};

/// `XADD` commands in flight at once: a late writer catches up without stamping far ahead.
const MAX_PIPELINE: u64 = 500;

/// The stream is never trimmed within a short run: what Redis drops is no matter of fan-out.
const MIN_KEPT: u64 = 10_000;

/// Nanoseconds of `CLOCK_MONOTONIC`, comparable between processes.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).expect("the clock must not be negative")
}

/// The payload of entry `number`, `bytes` long.
pub(crate) fn encode(number: u64, bytes: usize) -> String {
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

/// Digits are folded by hand: under overload this runs millions of times in a second.
pub(crate) fn leading_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(digits);
    let add =
        |number: u64, digit: &u8| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
    (1..=19).contains(&digits.len()).then(|| (digits.iter().fold(0, add), rest))
}

/// Takes a former run's entries away.
pub(crate) fn clear(redis: &Path) -> Result<()> {
    let mut redis = Redis::connect(redis)?;
    redis.queue(&[b"FLUSHALL"]);
    redis.flush()?;
    redis.reply().map(drop)
}

/// How a client asks for what comes after the first `had` entries of [`write_past`].
pub(crate) fn past_request(past: Past, had: u64) -> String {
    let name = past.name();
    format!("GET /events/{name} HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {had}-0\r\n\r\n")
}

/// Adds the entries of a stream key that no client reads yet; their ids are 1-0, 2-0, 3-0.
pub(crate) fn write_past(redis: &Path, past: Past) -> Result<()> {
    let mut redis = Redis::connect(redis)?;
    let key = format!("events:{}", past.name());
    let mut sent = 0;
    while sent < past.entries {
        let until = past.entries.min(sent + MAX_PIPELINE);
        for number in sent..until {
            let (id, payload) = (format!("{}-0", number + 1), encode(number, 0));
            let words = ["XADD", &key, &id, "payload", &payload];
            redis.queue(&words.map(str::as_bytes));
        }
        redis.flush()?;
        for _ in sent..until {
            redis.reply()?;
        }
        sent = until;
    }
    Ok(())
}

/// Adds the entries of a scenario at its rate, to its stream keys in turn, and returns when Redis
/// has them all.
pub(crate) fn write_all(redis: &Path, scenario: &Scenario) -> Result<()> {
    let mut redis = Redis::connect(redis)?;
    let keys: Vec<_> = (0..scenario.keys).map(|nth| key(scenario.first_key + nth)).collect();
    let first = scenario.first_number();
    let in_each = if scenario.selects() { scenario.keys * (1 + scenario.unseen) } else { 1 };
    let kept = (first + (scenario.events_per_key() * in_each).max(MIN_KEPT)).to_string();
    let entry_bytes = usize::try_from(scenario.entry_bytes)?;
    let total = scenario.events_per_key() * scenario.keys;
    let began = Instant::now();
    let mut sent = 0;
    while sent < total {
        let until = due(scenario, began.elapsed()).min(total).min(sent + MAX_PIPELINE);
        for (number, key) in (sent..until).map(|nth| (nth / scenario.keys, nth % scenario.keys)) {
            let payload = encode(first + number, entry_bytes);
            let tenant = key.to_string();
            let key = if scenario.selects() { 0 } else { key };
            let key = &keys[usize::try_from(key)?];
            let mut words = vec!["XADD", key, "MAXLEN", "~", &kept, "*", "payload", &payload];
            let id = number.checked_rem(scenario.conflated_ids).map(|id| id.to_string());
            words.extend(id.iter().flat_map(|id| ["id", id.as_str()]));
            if scenario.selects() {
                words.extend(["tenant", &tenant]);
            }
            redis.queue(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
            for _ in 0..scenario.unseen {
                let tenant = words.len() - 1;
                words[tenant] = "nobody";
                redis.queue(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
            }
        }
        redis.flush()?;
        for _ in 0..until.saturating_sub(sent) * (1 + scenario.unseen) {
            redis.reply()?;
        }
        sent = sent.max(until);
        let next = began + Duration::from_secs_f64(sent as f64 / scenario.rate);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// How many entries are to be written after `elapsed`: whole pipelines, the first at once.
fn due(scenario: &Scenario, elapsed: Duration) -> u64 {
    let pipeline_seconds = scenario.pipeline as f64 / scenario.rate;
    let pipelines = elapsed.div_duration_f64(Duration::from_secs_f64(pipeline_seconds));
    (Duration::from_secs_f64(pipelines).as_secs() + 1) * scenario.pipeline
}
