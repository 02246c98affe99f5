//! How a test waits: for a condition, with a deadline. Where it is time itself that matters, as with a client
//! that is slow, it pauses. Nothing else in tests/ sleeps; house.rs holds it to that.

use std::time::{Duration, Instant};

/// Nothing in a test takes longer than this, on a machine that is busy with other things too, or it has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    within(DEADLINE, what, condition);
}

/// Waits until `condition` holds, at most for `limit`.
#[track_caller]
pub fn within(limit: Duration, what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_by(Instant::now() + limit, condition), "not within {limit:?}: {what}");
}

/// Waits until `condition` holds, and no longer than to `end`; whether it holds.
pub fn holds_by(end: Instant, mut condition: impl FnMut() -> bool) -> bool {
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Lets time pass, because that is what happens in the scenario: a client is slow, a fault lasts. `_why` says
/// what. To wait for something is [`eventually`].
pub fn pause_of_the_scenario(time: Duration, _why: &str) {
    std::thread::sleep(time);
}

/// The same in a task.
pub async fn pause_of_the_scenario_in_a_task(time: Duration, _why: &str) {
    tokio::time::sleep(time).await;
}

/// Starts what may lose a race with somebody else on this machine, as for a port, up to three times; `Err` says
/// how it ended.
#[track_caller]
pub fn started<T>(what: &str, mut start: impl FnMut() -> Result<T, String>) -> T {
    let mut failures = Vec::new();
    while failures.len() < 3 {
        match start() {
            Ok(started) => return started,
            Err(why) => failures.push(why),
        }
    }
    panic!("{what} did not start, three times: {}", failures.join("\n"));
}
