//! A model of a stream as Redis 7 keeps it, with all that ever was in it, generation by generation. The
//! integration tests play the same commands on a real redis-server and compare the two.

#![allow(unreachable_pub, dead_code, reason = "the integration tests read this file as well")]

use proptest::prelude::*;

use super::StreamId;

/// A stream key, through all generations of its stream.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// `None`: the key does not exist.
    pub stream: Option<Stream>,
    /// An earlier state of it, like a snapshot on disk.
    pub kept: Option<Stream>,
    /// Counts the generations.
    pub generation: u64,
}

/// One generation of a stream.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub entries: Vec<StreamId>,
    pub last_generated: StreamId,
    pub max_deleted: StreamId,
    pub entries_added: u64,
    /// All that ever was in it.
    pub history: Vec<StreamId>,
    /// Those that `XDEL` removed, or that `XSETID` made up.
    pub deleted: Vec<StreamId>,
}

/// One command to Redis.
#[derive(Clone, Debug)]
pub enum Command {
    /// `XADD`, with `MAXLEN`.
    Add(StreamId, Option<usize>),
    /// `XTRIM MAXLEN`.
    TrimLength(usize),
    /// `XTRIM MINID`.
    TrimBelow(StreamId),
    Delete(Vec<StreamId>),
    /// `DEL`, `UNLINK` or `FLUSHALL`.
    Drop(&'static str),
    /// Creates an empty stream, as a consumer group does.
    Create,
    /// `XSETID`, with `ENTRIESADDED` and `MAXDELETEDID`.
    SetEnd(StreamId, Option<u64>, Option<StreamId>),
    /// Copies the stream aside.
    Keep,
    /// Replaces the stream with that copy.
    Restore,
}

/// What somebody does to the stream, whatever state it is in by then.
#[derive(Clone, Debug)]
pub enum Change {
    /// Adds entries, each this far from the last one, and trims the stream to this length each time.
    Add {
        count: u64,
        distance: u64,
        keep: Option<usize>,
    },
    TrimLength(usize),
    /// Below the entry with this index.
    TrimBelow(usize),
    /// The entry with this index, counted from the end if it is negative.
    Delete(isize),
    DeleteAll,
    /// The next generation begins at this id.
    Drop {
        how: &'static str,
        next: u64,
    },
    Create,
    /// Moves the end ahead, and claims that so many entries were added meanwhile.
    SetEnd {
        ahead: u64,
        added: Option<u64>,
        deleted: bool,
    },
    /// Moves the end as far back as Redis allows.
    SetBack,
    /// Claims that so many entries were ever added; the end stays.
    SetCount(u64),
    Keep,
    Restore,
}

/// Adds, trims and deletes.
pub fn change() -> impl Strategy<Value = Change> {
    let keep = prop_oneof![3 => Just(None), 1 => (0..5_usize).prop_map(Some)];
    prop_oneof![
        6 => (1..6_u64, 1..4_u64, keep)
            .prop_map(|(count, distance, keep)| Change::Add { count, distance, keep }),
        2 => (0..5_usize).prop_map(Change::TrimLength),
        1 => (0..9_usize).prop_map(Change::TrimBelow),
        2 => (-3..6_isize).prop_map(Change::Delete),
        1 => Just(Change::DeleteAll),
        1 => (1..9_u64, prop::option::of(0..3_u64), any::<bool>())
            .prop_map(|(ahead, added, deleted)| Change::SetEnd { ahead, added, deleted }),
    ]
}

/// The same, and what makes another generation.
pub fn any_change() -> impl Strategy<Value = Change> {
    let how = prop::sample::select(&["DEL", "UNLINK", "FLUSHALL"][..]);
    prop_oneof![
        12 => change(),
        2 => (how, 1..40_u64).prop_map(|(how, next)| Change::Drop { how, next }),
        1 => Just(Change::Create),
        1 => Just(Change::SetBack),
        1 => (0..12_u64).prop_map(Change::SetCount),
        1 => Just(Change::Keep),
        1 => Just(Change::Restore),
    ]
}

/// Ids, some of which follow each other directly.
pub fn id(number: u64) -> StreamId {
    StreamId { ms: number / 3, seq: number % 3 }
}

fn number(id: StreamId) -> u64 {
    id.ms * 3 + id.seq
}

impl Model {
    /// Makes a change; returns its commands.
    pub fn play(&mut self, change: &Change, next: &mut u64) -> Vec<Command> {
        let commands = self.commands(change, next);
        for command in &commands {
            self.run(command);
        }
        commands
    }

    /// The commands that make a change.
    pub fn commands(&self, change: &Change, next: &mut u64) -> Vec<Command> {
        let stream = self.stream.clone().unwrap_or_default();
        let length = stream.entries.len();
        match *change {
            Change::Add { count, distance, keep } => {
                let last = number(stream.last_generated).max(next.saturating_sub(distance));
                *next = 0;
                let add = |n| Command::Add(id(last + n * distance), keep);
                (1..=count).map(add).collect()
            }
            Change::TrimLength(keep) => vec![Command::TrimLength(keep)],
            Change::TrimBelow(_) | Change::Delete(_) | Change::DeleteAll if length == 0 => vec![],
            Change::TrimBelow(index) => vec![Command::TrimBelow(stream.entries[index % length])],
            Change::Delete(index) => {
                let index = index.rem_euclid(length.cast_signed()).unsigned_abs();
                vec![Command::Delete(vec![stream.entries[index]])]
            }
            Change::DeleteAll => vec![Command::Delete(stream.entries)],
            Change::Drop { how, next: first } => {
                *next = first;
                vec![Command::Drop(how)]
            }
            Change::Create => vec![Command::Create],
            Change::SetEnd { ahead, added, deleted } => {
                let end = id(number(stream.last_generated) + ahead);
                let added = added.map(|added| stream.entries_added + added);
                vec![Command::SetEnd(end, added, deleted.then_some(end))]
            }
            Change::SetBack => {
                let top = stream.entries.last().copied().unwrap_or_default();
                vec![Command::SetEnd(top.max(stream.max_deleted), None, None)]
            }
            Change::SetCount(added) => {
                vec![Command::SetEnd(stream.last_generated, Some(added), None)]
            }
            Change::Keep => vec![Command::Keep],
            Change::Restore => vec![Command::Restore],
        }
    }

    /// Runs one command; whether Redis would accept it.
    pub fn run(&mut self, command: &Command) -> bool {
        match command {
            Command::Add(id, keep) => {
                let stream = self.stream.get_or_insert_default();
                if *id <= stream.last_generated {
                    return false;
                }
                stream.add(*id);
                stream.trim_to(keep.unwrap_or(usize::MAX));
            }
            Command::Drop(how) => {
                self.generation += u64::from(self.stream.take().is_some());
                if *how == "FLUSHALL" {
                    self.kept = None;
                }
            }
            Command::Create => {
                self.stream.get_or_insert_default();
            }
            Command::Keep => self.kept.clone_from(&self.stream),
            Command::Restore if self.kept.is_some() => {
                self.stream.clone_from(&self.kept);
                self.generation += 1;
            }
            Command::Restore => return false,
            Command::SetEnd(id, added, deleted) => return self.set_end(*id, *added, *deleted),
            command => {
                if let Some(stream) = &mut self.stream {
                    stream.remove(command);
                }
            }
        }
        true
    }

    /// `XSETID`. With an end that moves forward the generation stays, and the entries that it claims were added
    /// are gone already.
    fn set_end(&mut self, id: StreamId, added: Option<u64>, deleted: Option<StreamId>) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let top = stream.entries.last().copied().unwrap_or_default();
        let too_few = added.is_some_and(|added| added < stream.entries.len() as u64);
        if id < top || id < stream.max_deleted || (too_few && !stream.entries.is_empty()) {
            return false;
        }
        let added = added.unwrap_or(stream.entries_added);
        // `None`: no generation goes on like that.
        let (last, more) = (stream.last_generated, added.checked_sub(stream.entries_added));
        let more = more.filter(|more| id > last || (id == last && *more == 0));
        if let Some(more) = more {
            let phantoms = (0..more).map(|_| id);
            stream.history.extend(phantoms.clone());
            stream.deleted.extend(phantoms);
        } else {
            self.generation += 1;
            stream.history.clone_from(&stream.entries);
            stream.deleted.clear();
        }
        stream.last_generated = id;
        stream.entries_added = added;
        stream.max_deleted = deleted.unwrap_or(stream.max_deleted);
        true
    }
}

impl Stream {
    fn add(&mut self, id: StreamId) {
        self.entries.push(id);
        self.history.push(id);
        self.last_generated = id;
        self.entries_added += 1;
    }

    fn trim_to(&mut self, keep: usize) {
        let over = self.entries.len().saturating_sub(keep);
        self.entries.drain(..over);
    }

    fn remove(&mut self, command: &Command) {
        match command {
            Command::TrimLength(keep) => self.trim_to(*keep),
            Command::TrimBelow(id) => self.entries.retain(|entry| entry >= id),
            Command::Delete(ids) => {
                self.entries.retain(|entry| !ids.contains(entry));
                self.max_deleted =
                    ids.iter().copied().max().unwrap_or_default().max(self.max_deleted);
                self.deleted.extend(ids);
            }
            _ => {}
        }
    }

    /// Whether anything was deleted, or claimed to be.
    pub fn had_deletions(&self) -> bool {
        self.max_deleted > StreamId::ZERO || !self.deleted.is_empty()
    }

    /// `XRANGE (after +`.
    pub fn after(&self, after: StreamId) -> impl Iterator<Item = StreamId> {
        self.entries.iter().copied().filter(move |entry| *entry > after)
    }
}
