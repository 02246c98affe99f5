//! The model of a stream, with which continuity is tested, does what a real redis-server does.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ssegate::sse::StreamId;

use crate::support::redis::{Answer, Connection, Redis};
use crate::support::seed;

#[path = "../../src/stream/continuity/model.rs"]
mod stream_model;

use stream_model::{Command, Model, Stream, any_change};

const KEY: &str = "events:a";
const KEPT: &str = "kept";

/// Runs a command of the model: one or two of Redis', the last of which gives the answer.
fn run(redis: &mut Connection, command: &Command) -> Answer {
    let text = |number: &dyn ToString| number.to_string();
    let mut words: Vec<String> = match command {
        Command::Add(..) => vec!["XADD".into(), KEY.into()],
        Command::TrimLength(keep) => vec!["XTRIM".into(), KEY.into(), "MAXLEN".into(), text(keep)],
        Command::TrimBelow(id) => vec!["XTRIM".into(), KEY.into(), "MINID".into(), text(id)],
        Command::Delete(_) => vec!["XDEL".into(), KEY.into()],
        Command::Drop("FLUSHALL") => vec!["FLUSHALL".into()],
        Command::Drop(how) => vec![(*how).into(), KEY.into()],
        Command::Create => {
            redis.run(&["XGROUP", "CREATE", KEY, "group", "$", "MKSTREAM"]).unwrap();
            vec!["XGROUP".into(), "DESTROY".into(), KEY.into(), "group".into()]
        }
        Command::SetEnd(id, ..) => vec!["XSETID".into(), KEY.into(), text(id)],
        Command::Keep => {
            redis.run(&["DEL", KEPT]).unwrap();
            vec!["COPY".into(), KEY.into(), KEPT.into()]
        }
        Command::Restore => vec!["COPY".into(), KEPT.into(), KEY.into(), "REPLACE".into()],
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
                let (accepted, answer) = (model.run(&command), run(&mut connection, &command));
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
