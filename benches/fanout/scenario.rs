//! What one run asks of a server: how many clients, on how many stream keys, get how many entries
//! of which size, and what else happens meanwhile.

use std::time::Duration;

use crate::{merged, states};

/// What an event has besides its entry's payload, about.
const FRAME_BYTES: u64 = 60;

/// One point of measurement; the default is the first row's.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// On all stream keys together, evenly.
    pub(crate) clients: u64,
    /// The number of the first stream key.
    pub(crate) first_key: u64,
    pub(crate) keys: u64,
    pub(crate) follows: Follows,
    /// Entries beside each that some client gets, which nobody gets.
    pub(crate) unseen: u64,
    /// Entries per second, on all stream keys together, in turn.
    pub(crate) rate: f64,
    pub(crate) seconds: u64,
    /// Length of an entry's payload: the number, the time, and padding.
    pub(crate) entry_bytes: u64,
    /// Entries that are written together.
    pub(crate) pipeline: u64,
    /// Of each connection over HTTP/2; zero: over HTTP/1.
    pub(crate) streams: u64,
    /// Between the clients' arrival and the first entry.
    pub(crate) hold: Duration,
    /// Threads of the clients' process.
    pub(crate) client_threads: u64,
    /// One client more, that takes next to nothing.
    pub(crate) slow_client: bool,
    /// Clients that come for a state of another key once entries flow; zero: none.
    pub(crate) state_clients: u64,
    /// The values of the field by which the route conflates; zero: it does not.
    pub(crate) conflated_ids: u64,
    /// Clients more that read a tenth of what there is.
    pub(crate) lagging_clients: u64,
    /// Clients that come back to the past of a stream key while entries flow.
    pub(crate) past: Option<Past>,
    /// Whether the server's memory is sampled while entries flow.
    pub(crate) sampled: bool,
}

/// What a client follows.
#[derive(Clone, Copy)]
pub(crate) enum Follows {
    /// One stream key.
    One,
    /// The entries of one stream with a value of its own: the keys of the scenario are these values.
    Selected,
    /// Several stream keys, on one connection.
    Several,
}

/// What was written before any client came.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Past {
    /// Each comes back with an id of its own, evenly over all entries.
    pub(crate) clients: u64,
    pub(crate) entries: u64,
    /// It is the past of the first stream key, whose live clients get what is written now. Without it,
    /// that of another key, which is no longer written to.
    #[arg(long)]
    pub(crate) same_key: bool,
}

impl Past {
    /// The variable of its route.
    pub(crate) fn name(self) -> &'static str {
        if self.same_key { "0" } else { "past" }
    }
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            clients: 1000,
            first_key: 0,
            keys: 1,
            follows: Follows::One,
            unseen: 0,
            rate: 100.0,
            seconds: 10,
            entry_bytes: 230,
            pipeline: 1,
            streams: 0,
            hold: Duration::ZERO,
            client_threads: 1,
            slow_client: false,
            state_clients: 0,
            conflated_ids: 0,
            lagging_clients: 0,
            past: None,
            sampled: false,
        }
    }
}

impl Scenario {
    /// Entries of one stream key: what each of its clients must get.
    pub(crate) fn events_per_key(&self) -> u64 {
        let events = (self.rate * self.seconds as f64 / self.keys as f64).round();
        // A rate is far below 2^63, and as a duration the number is checked.
        Duration::try_from_secs_f64(events).map_or(u64::MAX, |events| events.as_secs()).max(1)
    }

    /// The number of the first entry that is written while clients are there: the past of the same stream
    /// key has those before.
    pub(crate) fn first_number(&self) -> u64 {
        self.past.filter(|past| past.same_key).map_or(0, |past| past.entries)
    }

    /// Further keys of the gateway's route, or further routes.
    pub(crate) fn of_route(&self) -> String {
        let mut text = String::new();
        if self.is_conflated() {
            text.push_str("conflate = \"id\"");
        }
        if self.selects() {
            text.push_str("filter = [\"tenant\"]");
        }
        if self.merges() {
            text.push_str(merged::ROUTE);
        }
        if self.state_clients > 0 {
            text.push_str(states::ROUTE);
        }
        text
    }

    pub(crate) fn selects(&self) -> bool {
        matches!(self.follows, Follows::Selected)
    }

    pub(crate) fn merges(&self) -> bool {
        matches!(self.follows, Follows::Several)
    }

    pub(crate) fn is_conflated(&self) -> bool {
        self.conflated_ids > 0
    }

    /// A tenth of what each client is sent in a second.
    pub(crate) fn tenth_of_rate_bytes(&self) -> u64 {
        let entries = Duration::from_secs_f64(self.rate / self.keys as f64).as_secs();
        entries * (self.entry_bytes + FRAME_BYTES) / 10
    }

    /// Deliveries per second if the server keeps up.
    pub(crate) fn deliveries_per_second(&self) -> f64 {
        let streams = if self.merges() { merged::PARTS } else { 1 };
        self.rate * (self.clients * streams) as f64 / self.keys as f64
    }
}
