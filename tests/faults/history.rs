//! What happened in one run: what was written and acknowledged, what each client heard, and what
//! Redis holds in the end. Times are counted from the beginning of the run.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ssegate::sse::StreamId;

use crate::selection::Selection;

/// What became of one attempt to write an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Redis gave it this id, and answered at this time.
    Added(StreamId, Duration),
    /// Redis refused it.
    Refused,
    /// The answer did not come: it may have been added or not.
    Unknown,
}

/// A gap as a client got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last event id that came with it.
    pub id: StreamId,
    pub after: Option<StreamId>,
    pub next: Option<StreamId>,
    pub lost: Option<u64>,
    /// How many the client can have lost at most, if that is known; `None`: nothing is said of it.
    pub at_most: Option<Option<u64>>,
    pub reason: String,
}

impl Gap {
    /// How many entries it tells of: those that are missing, or may be.
    pub fn told(&self) -> Option<u64> {
        self.lost.or_else(|| self.at_most.flatten())
    }
}

/// What a client heard, or noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It was admitted, having asked to resume after this id.
    Opened(String),
    /// An entry, whole, by its number.
    Entry(StreamId, u64),
    /// Entries are missing.
    Gap(Gap),
    /// It has everything up to here that it gets.
    At(StreamId),
    /// By the id of what was told of another stream of its connection it is here.
    Moved(Option<StreamId>),
    /// The stream is over; the last event id that came with it.
    End(StreamId),
    /// The stream is over for this client at the gap that it was told of, and others on its connection go on.
    EndAtGap,
    /// It was not admitted, for the stream is over (`204`).
    Over,
    /// Another control event, or a comment, that is known.
    Signal(String),
    /// The connection ended, or could not be had; it comes back. [`AMID_AN_EVENT`], [`CUT`], [`FINISHED`], or why else.
    Closed(String),
    /// Something that no gateway may send.
    Wrong(String),
}

/// The same, and when.
#[derive(Clone, Debug)]
pub struct Heard {
    pub at: Duration,
    pub what: What,
}

impl Heard {
    /// The entry's, if it is one.
    pub fn number(&self) -> Option<u64> {
        if let What::Entry(_, number) = self.what { Some(number) } else { None }
    }
}

/// One client's part in the history.
#[derive(Clone, Debug, Default)]
pub struct Listener {
    /// What it asks for.
    pub selection: Selection,
    /// There are other streams on its connection, which go on when this one ends.
    pub is_part: bool,
    pub heard: Vec<Heard>,
}

/// How a connection ended if its last event is not whole.
pub const AMID_AN_EVENT: &str = "its end, amid an event";

/// How a stream over HTTP/2 ended that was cut: what the client had not taken is dropped, be it a gap.
pub const CUT: &str = "its end, between two events, by a reset";

/// How a connection ended if its body is whole: with its last chunk, or the end of its stream.
pub const FINISHED: &str = "the end of a whole body";

/// What is there for this long has to be read by a gateway that is well, even on a loaded machine.
const DUE: Duration = Duration::from_secs(1);

/// What a fault may do to the clients, beyond making them wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Reasons of gaps that they may get; any other is a false alarm.
    pub reasons: &'static [&'static str],
    /// Each of them has to get so many such gaps, whether it misses anything or not.
    pub at_least: usize,
    /// Whether connections may end between two events.
    pub closes: bool,
    /// Whether connections may end in the middle of an event.
    pub tears: bool,
    /// Whether Redis itself may lose what it has acknowledged.
    pub redis_loses: bool,
    /// Whether the stream ends, and every client is to learn of it.
    pub ends: bool,
}

/// The end of the stream.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// The number of the entry that ends it.
    pub marker: u64,
    /// When its key was about to go, if it did.
    pub gone: Option<Duration>,
    /// When Redis was about to go away, if it did: who comes then may get a stream again.
    pub away: Option<Duration>,
}

impl Allowed {
    /// Whether a connection may end like this.
    pub fn may_close(&self, why: &str) -> bool {
        match why {
            AMID_AN_EVENT => self.tears,
            CUT => self.closes || self.ends && self.tears,
            _ => self.closes,
        }
    }
}

/// One run.
pub struct History {
    /// What became of each entry; the first has the number 1, and order is that of the stream.
    pub written: Vec<Fate>,
    /// The first number that the clients have to hear of.
    pub due_from: u64,
    /// Numbers that the nemesis deleted one by one (`XDEL`), and when it set about it.
    pub deleted: HashMap<u64, Duration>,
    /// When entries were removed while every client was there, so that each got what was there before;
    /// empty where that is not so.
    pub removals: Vec<Duration>,
    /// Numbers that the stream holds in the end.
    pub kept: HashSet<u64>,
    /// By client.
    pub clients: Vec<Listener>,
    /// When the fault was over.
    pub healed: Duration,
    /// How long everything may take from then on to be level again.
    pub limit: Duration,
    /// When nobody waited for the clients any longer.
    pub given_up: Duration,
    /// What the fault may do.
    pub allowed: Allowed,
    /// What it may do to connections that have this stream and the one that the fault is about.
    pub allowed_to_merged: Allowed,
    /// How the stream ended, if it did.
    pub ending: Option<Ending>,
}

impl History {
    /// What became of the entry of this number.
    pub fn fate(&self, number: u64) -> Option<Fate> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.written.get(index).copied()
    }

    /// The id that Redis acknowledged for this number, and when.
    pub fn acknowledged(&self, number: u64) -> Option<(StreamId, Duration)> {
        if let Fate::Added(id, at) = self.fate(number)? { Some((id, at)) } else { None }
    }

    /// Whether entries were removed so soon after this one was added that no reader need have seen it.
    pub fn was_removed_after(&self, added: Duration) -> bool {
        let soon = |removed: &Duration| (added..=added + DUE).contains(removed);
        self.removals.is_empty() || self.removals.iter().any(soon)
    }

    /// Whether the stream holds all that was acknowledged, or that a client heard of.
    pub fn redis_lost_nothing(&self) -> bool {
        let there =
            |number: u64| self.acknowledged(number).is_none() || self.kept.contains(&number);
        let heard = self.clients.iter().flat_map(|client| &client.heard).filter_map(Heard::number);
        (1..=self.written.len() as u64).all(there)
            && heard.into_iter().all(|number| self.kept.contains(&number))
    }
}

/// What a client heard, for finding out why: runs of entries in one line.
pub fn account(Listener { selection, heard, .. }: &Listener) -> String {
    let is_next = |last: u64, number| {
        (last + 1..number).all(|between| !selection.admits(between)) && last < number
    };
    let mut text = String::new();
    let mut run: Option<(Duration, u64, u64)> = None;
    let end_of = |run: Option<(Duration, u64, u64)>| match run {
        Some((at, first, last)) if first == last => format!("{at:.3?} number {first}\n"),
        Some((at, first, last)) => format!("{at:.3?} numbers {first} to {last}\n"),
        None => String::new(),
    };
    for Heard { at, what } in heard {
        run = match (what, run) {
            (What::Entry(_, number), Some((from, first, last))) if is_next(last, *number) => {
                Some((from, first, *number))
            }
            (What::Entry(_, number), ended) => {
                text += &end_of(ended);
                Some((*at, *number, *number))
            }
            (other, ended) => {
                text += &format!("{}{at:.3?} {other:?}\n", end_of(ended));
                None
            }
        };
    }
    text + &end_of(run)
}
