//! The processes of clients that a run has beside its server.

use std::net::SocketAddr;

use anyhow::Result;

use crate::processes::{Process, Scratch};
use crate::scenario::Scenario;

/// The clients wait so much longer than entries are held back before they give one up.
const PATIENCE_SECONDS: u64 = 10;

/// The slow client reads so much at a time: 4 KB/s.
const SLOW_PIECE_BYTES: u64 = 1000;
/// The slow client comes before the first entry and stays past the last.
const SLOW_LINGER_SECONDS: u64 = 2;

pub(crate) fn start_crowd(
    scratch: &Scratch,
    scenario: &Scenario,
    address: SocketAddr,
) -> Result<Process> {
    let Scenario { clients, first_key, keys, client_threads, hold, .. } = *scenario;
    let patience_seconds = hold.as_secs() + PATIENCE_SECONDS;
    let (events, first) = (scenario.events_per_key(), scenario.first_number());
    let streams = scenario.streams;
    let numbers =
        [clients, first_key, keys, events, first, client_threads, patience_seconds, streams];
    let mut words = vec![address.to_string()];
    words.extend(numbers.map(|number| number.to_string()));
    words.extend(scenario.is_conflated().then(|| "--conflated".to_owned()));
    words.extend(scenario.selects().then(|| "--selects".to_owned()));
    words.extend(scenario.merges().then(|| "--merges".to_owned()));
    scratch.start_role("clients", &words)
}

pub(crate) fn start_slow(
    scratch: &Scratch,
    scenario: &Scenario,
    address: SocketAddr,
) -> Result<Option<Process>> {
    let (clients, piece_bytes) = match scenario.lagging_clients {
        0 if scenario.slow_client => (1, SLOW_PIECE_BYTES),
        0 => return Ok(None),
        clients => (clients, scenario.tenth_of_rate_bytes() / 4),
    };
    let seconds = scenario.seconds + SLOW_LINGER_SECONDS;
    let mut words = vec![address.to_string()];
    words.extend([clients, piece_bytes, seconds].map(|number| number.to_string()));
    words.extend(scenario.is_conflated().then(|| "--conflated".to_owned()));
    scratch.start_role("slow", &words).map(Some)
}

/// They come while entries flow.
pub(crate) fn start_states(
    scratch: &Scratch,
    scenario: &Scenario,
    address: SocketAddr,
) -> Result<Option<Process>> {
    if scenario.state_clients == 0 {
        return Ok(None);
    }
    let words = [address.to_string(), scenario.state_clients.to_string()];
    scratch.start_role("states", &words).map(Some)
}

pub(crate) fn start_past(
    scratch: &Scratch,
    scenario: &Scenario,
    address: SocketAddr,
) -> Result<Option<Process>> {
    let Some(past) = scenario.past else { return Ok(None) };
    let numbers = [past.clients, past.entries, past_seconds(scenario)];
    let mut words = vec![address.to_string()];
    words.extend(numbers.map(|number| number.to_string()));
    words.extend(past.same_key.then(|| "--same-key".to_owned()));
    scratch.start_role("past", &words).map(Some)
}

/// Those that come back stay as long as entries flow.
pub(crate) fn past_seconds(scenario: &Scenario) -> u64 {
    scenario.seconds
}
