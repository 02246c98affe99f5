//! The model of a stream, with which continuity is tested, does what a real redis-server does; and what a gateway tells
//! of a real stream is what happened in the model.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use ssegate::sse::StreamId;
use ssegate::sse::parse::Item;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer, Connection, Redis};
use crate::support::{eventually, seed};

#[path = "../../src/stream/continuity/model.rs"]
mod stream_model;

use stream_model::{Change, Command, Model, Stream, any_change, change};

const KEY: &str = "events:a";

/// Runs a command of the model: one or two of Redis', the last of which gives the answer.
fn run(redis: &mut Connection, key: &str, command: &Command) -> Answer {
    let text = |number: &dyn ToString| number.to_string();
    let kept = format!("kept:{key}");
    let mut words: Vec<String> = match command {
        Command::Add(..) => vec!["XADD".into(), key.into()],
        Command::TrimLength(keep) => vec!["XTRIM".into(), key.into(), "MAXLEN".into(), text(keep)],
        Command::TrimBelow(id) => vec!["XTRIM".into(), key.into(), "MINID".into(), text(id)],
        Command::Delete(_) => vec!["XDEL".into(), key.into()],
        Command::Drop("FLUSHALL") => vec!["FLUSHALL".into()],
        Command::Drop(how) => vec![(*how).into(), key.into()],
        Command::Create => {
            redis.run(&["XGROUP", "CREATE", key, "group", "$", "MKSTREAM"]).unwrap();
            vec!["XGROUP".into(), "DESTROY".into(), key.into(), "group".into()]
        }
        Command::SetEnd(id, ..) => vec!["XSETID".into(), key.into(), text(id)],
        Command::Keep => {
            redis.run(&["DEL", &kept]).unwrap();
            vec!["COPY".into(), key.into(), kept]
        }
        Command::Restore => vec!["COPY".into(), kept, key.into(), "REPLACE".into()],
    };
    match command {
        Command::Add(id, keep) => {
            words.extend(keep.iter().flat_map(|keep| ["MAXLEN".into(), text(keep)]));
            words.extend([text(id), "payload".into(), "x".into()]);
        }
        Command::Delete(ids) => words.extend(ids.iter().map(ToString::to_string)),
        Command::SetEnd(_, added, deleted) => {
            words.extend(added.iter().flat_map(|added| ["ENTRIESADDED".into(), text(added)]));
            words.extend(deleted.iter().flat_map(|id| ["MAXDELETEDID".into(), text(id)]));
        }
        _ => {}
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    redis.run(&words).unwrap()
}

/// What `XINFO STREAM` and `XRANGE` answer; `None`: the key does not exist.
fn look(redis: &mut Connection) -> Option<[String; 6]> {
    let info = match redis.run(&["XINFO", "STREAM", KEY]).unwrap() {
        Answer::List(info) => info,
        Answer::Error(error) if error.contains("no such key") => return None,
        other => panic!("XINFO STREAM answered {other:?}"),
    };
    let plain = |answer: &Answer| match answer {
        Answer::Text(text) => text.clone(),
        Answer::Number(number) => number.to_string(),
        other => panic!("neither a text nor a number: {other:?}"),
    };
    let value = |name: &str| {
        let at = info.iter().position(|answer| *answer == Answer::Text(name.into())).unwrap();
        plain(&info[at + 1])
    };
    let Some(Answer::List(entries)) = redis.run(&["XRANGE", KEY, "-", "+"]) else { panic!() };
    let id = |entry: &Answer| match entry {
        Answer::List(entry) => plain(&entry[0]),
        other => panic!("no entry: {other:?}"),
    };
    let entries: Vec<_> = entries.iter().map(id).collect();
    Some([
        value("length"),
        value("last-generated-id"),
        value("max-deleted-entry-id"),
        value("entries-added"),
        value("recorded-first-entry-id"),
        entries.join(" "),
    ])
}

/// The same, of the model.
fn modelled(stream: &Stream) -> [String; 6] {
    let entries: Vec<_> = stream.entries.iter().map(ToString::to_string).collect();
    [
        stream.entries.len().to_string(),
        stream.last_generated.to_string(),
        stream.max_deleted.to_string(),
        stream.entries_added.to_string(),
        stream.entries.first().copied().unwrap_or_default().to_string(),
        entries.join(" "),
    ]
}

#[test]
fn the_model_of_a_stream_does_what_redis_does() {
    let redis = Redis::start();
    let histories = prop::collection::vec(any_change(), 1..40);
    let played = TestRunner::new(seed::cases_of(200)).run(&histories, |changes| {
        let mut connection = Connection::open(&redis).unwrap();
        connection.run(&["FLUSHALL"]).unwrap();
        let (mut model, mut next) = (Model::default(), 10);
        for change in &changes {
            for command in model.commands(change, &mut next) {
                let (accepted, answer) = (model.run(&command), run(&mut connection, KEY, &command));
                let refused = matches!(answer, Answer::Error(_));
                // Redis answers no error when there is nothing to restore.
                let same = accepted != refused || matches!(command, Command::Restore);
                prop_assert!(same, "{command:?}: {answer:?}");
                let there = model.stream.as_ref().map(modelled);
                prop_assert_eq!(look(&mut connection), there, "after {:?}", command);
            }
        }
        Ok(())
    });
    played.unwrap();
}

/// A stream that changes, and what a client was told of it.
struct Story {
    key: String,
    model: Model,
    next: u64,
    changes: Vec<Change>,
    /// The index in the history at which the client came.
    since: usize,
    client: Client,
    heard: Vec<StreamId>,
    told_lost: u64,
}

impl Story {
    fn begin(
        redis: &mut Connection,
        gateway: &Gateway,
        nth: usize,
        mut changes: Vec<Change>,
    ) -> Self {
        let key = format!("events:{nth}");
        let (mut model, mut next) = (Model::default(), 10);
        for change in changes.drain(..2) {
            for command in model.play(&change, &mut next) {
                run(redis, &key, &command);
            }
        }
        let mut client = Client::open(&gateway.address, &format!("/events/{nth}"));
        client.live();
        let since = model.stream.as_ref().map_or(0, |stream| stream.history.len());
        let (heard, told_lost) = (Vec::new(), 0);
        Self { key, model, next, changes, since, client, heard, told_lost }
    }

    fn step(&mut self, redis: &mut Connection, step: usize) {
        if let Some(change) = self.changes.get(step).cloned() {
            self.play(redis, &change);
        }
    }

    fn play(&mut self, redis: &mut Connection, change: &Change) {
        for command in self.model.play(change, &mut self.next) {
            run(redis, &self.key, &command);
        }
    }

    fn listen(&mut self) {
        while let Some(item) = self.client.next_within(Duration::from_millis(1)) {
            let Item::Event(event) = item else { continue };
            if event.event_type != "ssegate" {
                self.heard.push(event.last_event_id.parse().unwrap());
                continue;
            }
            let gap: serde_json::Value = serde_json::from_str(&event.data).unwrap();
            assert!(["trimmed", "deleted"].iter().any(|why| gap["reason"] == *why), "{gap}");
            self.told_lost += gap["lost"].as_u64().expect("everything is counted");
        }
    }

    fn lost(&self) -> u64 {
        let history = self.model.stream.iter().flat_map(|stream| &stream.history[self.since..]);
        history.filter(|id| self.heard.binary_search(id).is_err()).count() as u64
    }

    /// Everything that was added since the client came, it heard once, or was told that it is lost.
    #[track_caller]
    fn is_right(&mut self) {
        let history = &self.model.stream.as_ref().expect("the last step adds").history;
        let last = *history.last().expect("the last step adds");
        eventually("the last entry is heard", || {
            self.listen();
            self.heard.contains(&last)
        });
        assert!(self.heard.is_sorted_by(|a, b| a < b), "{}: {:?}", self.key, self.heard);
        eventually(&format!("{}: {} are told to be lost", self.key, self.lost()), || {
            self.listen();
            self.told_lost >= self.lost()
        });
        assert_eq!(self.told_lost, self.lost(), "{}: {:?}", self.key, self.changes);
    }
}

/// Plays a story on each of so many keys, one step of each after the other.
fn told_is_what_happened(connections: usize) {
    const STORIES: usize = 25;
    const STEPS: usize = 25;
    let redis = Redis::start();
    let gateway = Setup::redis(&redis)
        .set("source", &format!("connections = {connections}"))
        .set("source", "block = \"200ms\"")
        .start_ready();
    let (mut runner, mut rng) = (TestRunner::new(seed::cases()), seed::rng());
    let mut connection = Connection::open(&redis).unwrap();
    let mut begin = |nth| {
        let changes = prop::collection::vec(change(), STEPS).new_tree(&mut runner);
        Story::begin(&mut connection, &gateway, nth, changes.unwrap().current())
    };
    let mut stories: Vec<_> = (0..STORIES).map(&mut begin).collect();
    for step in 0..STEPS {
        stories.iter_mut().for_each(|story| story.step(&mut connection, step));
        // Now and then all readers read up to the end.
        if rng.u8(0..3) == 0 {
            stories.iter_mut().for_each(Story::listen);
        }
    }
    for story in &mut stories {
        let last = Change::Add { count: 1, distance: 1, keep: None };
        story.play(&mut connection, &last);
    }
    stories.iter_mut().for_each(Story::is_right);
    assert!(stories.iter().any(|story| story.told_lost > 0), "nothing was lost in time");
    assert!(stories.iter().any(|story| story.heard.len() > STEPS), "little was heard in time");
}

#[test]
fn what_a_reader_tells_is_what_happened() {
    told_is_what_happened(0);
}

#[test]
fn what_readers_tell_that_share_a_connection_is_what_happened() {
    told_is_what_happened(2);
}
