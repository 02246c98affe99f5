//! Plain cases of the rule. Random histories, with the pages that follow, are played where a client hears
//! of them: in `fanout/catchup/source/histories.rs`.

use super::rule::{Known, Newest, Question, decide, recreated};
use super::{Resolved, Start, StartPoint};
use crate::config::Replay;
use crate::source::{StreamInfo, StreamState};
use crate::sse::{Gap, Reason, StreamId};
use crate::stream::continuity::histories::info;
use crate::stream::continuity::model::{Command, Model};

fn at(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

fn add(ids: &[u64]) -> Model {
    let mut model = Model::default();
    for ms in ids {
        assert!(model.run(&Command::Add(at(*ms), None)));
    }
    model
}

/// The stream was looked at, and a reset would be confirmed by the primary.
fn looked_at(model: &Model) -> Known {
    let info = model.stream.as_ref().map(|stream| info(stream, true));
    let stream = Some(info.map_or(StreamState::Missing, StreamState::Stream));
    Known { stream, is_confirmed: true, ..Known::default() }
}

/// The stream does not hold the entry, and was looked at once more.
fn absent(model: &Model) -> Known {
    Known { holds: Some(false), ..looked_at(model) }
}

fn resume(id: StreamId, known: &Known) -> Result<Resolved, Question> {
    decide(Start::After(id), Replay::All, known)
}

fn exact(after: StreamId) -> Resolved {
    Resolved { from: StartPoint::Source(after), gap: None }
}

/// From just before `next` on, after a gap.
fn with_gap(after: Option<u64>, next: u64, reason: Reason) -> Resolved {
    let (after, id) = (after.map(at), at(next).prev());
    let gap = Gap { after, next: Some(at(next)), lost: None, reason };
    Resolved { from: StartPoint::Source(id), gap: Some((gap, id)) }
}

#[test]
fn an_id_deleted_since_the_first_look_is_exact() {
    let mut model = add(&[10, 20, 30]);
    assert_eq!(resume(at(20), &looked_at(&model)), Err(Question::Holds(at(20))));
    model.run(&Command::Delete(vec![at(20)]));
    assert_eq!(resume(at(20), &absent(&model)), Ok(exact(at(20))));
}

#[test]
fn an_id_trimmed_since_the_first_look_is_a_gap() {
    let mut model = add(&[10, 20, 30]);
    model.run(&Command::TrimLength(1));
    let trimmed = with_gap(Some(10), 30, Reason::Trimmed);
    assert_eq!(resume(at(10), &absent(&model)), Ok(trimmed));
}

#[test]
fn an_id_that_was_never_there_is_a_reset_though_nothing_was_removed() {
    // After 100, 200, 300 and a DEL.
    let model = add(&[50, 150, 350]);
    assert_eq!(resume(at(300), &looked_at(&model)), Err(Question::Holds(at(300))));
    let reset = with_gap(Some(300), 50, Reason::Reset);
    assert_eq!(resume(at(300), &absent(&model)), Ok(reset));
}

#[test]
fn the_end_of_an_emptied_stream_is_exact_and_no_other_id_of_it() {
    let mut model = add(&[10, 20, 30]);
    model.run(&Command::TrimLength(0));
    assert_eq!(resume(at(30), &looked_at(&model)), Ok(exact(at(30))));
    assert_eq!(resume(at(20), &looked_at(&model)), Err(Question::Holds(at(20))));
}

#[test]
fn a_client_that_has_nothing_gets_a_gap_for_a_trim() {
    let mut model = add(&[10, 20, 30]);
    assert_eq!(resume(StreamId::ZERO, &looked_at(&model)), Ok(exact(at(10).prev())));
    model.run(&Command::TrimLength(1));
    assert_eq!(resume(StreamId::ZERO, &looked_at(&model)), Err(Question::Holds(StreamId::ZERO)));
    let (gap, _) = resume(StreamId::ZERO, &absent(&model)).unwrap().gap.unwrap();
    assert_eq!((gap.next, gap.reason), (Some(at(30)), Reason::Trimmed));
}

#[test]
fn an_entry_that_the_stream_holds_is_exact() {
    let model = add(&[10, 20, 30]);
    let held = Known { holds: Some(true), ..looked_at(&model) };
    assert_eq!(resume(at(20), &held), Ok(exact(at(20))));
}

#[test]
fn nothing_is_decided_before_the_stream_was_looked_at() {
    for asked in [Start::After(at(5)), Start::Since(5), Start::Newest(5), Start::Earliest] {
        assert_eq!(decide(asked, Replay::All, &Known::default()), Err(Question::Stream));
    }
}

#[test]
fn a_stream_that_ends_before_the_cursor_is_for_its_reader_to_report() {
    let behind = Known { read_up_to: at(31), ..looked_at(&add(&[10, 20, 30])) };
    for asked in [Start::After(at(20)), Start::Since(5), Start::Newest(5), Start::Earliest] {
        assert_eq!(decide(asked, Replay::All, &behind), Err(Question::Reader));
    }
}

#[test]
fn a_reset_needs_the_primary_and_nothing_else_does() {
    let unconfirmed = |known: Known| Known { is_confirmed: false, ..known };
    let mut model = add(&[10, 20, 30]);
    assert_eq!(resume(at(40), &unconfirmed(looked_at(&model))), Err(Question::Primary));
    assert_eq!(resume(at(25), &unconfirmed(absent(&model))), Err(Question::Primary));
    assert_eq!(resume(at(40), &looked_at(&model)), Ok(with_gap(Some(40), 10, Reason::Reset)));
    model.run(&Command::TrimLength(1));
    let trimmed = with_gap(Some(10), 30, Reason::Trimmed);
    assert_eq!(resume(at(10), &unconfirmed(absent(&model))), Ok(trimmed));
}

#[test]
fn of_a_stream_that_is_not_there_only_an_id_is_a_reset() {
    let missing = looked_at(&Model::default());
    let nothing = Ok(exact(StreamId::ZERO));
    for asked in [Start::After(StreamId::ZERO), Start::Since(5), Start::Earliest] {
        assert_eq!(decide(asked, Replay::All, &missing), nothing, "{asked:?}");
    }
    let (gap, id) = resume(at(5), &missing).unwrap().gap.unwrap();
    assert_eq!((gap.reason, gap.next, id), (Reason::Reset, None, StreamId::ZERO));
}

#[test]
fn since_a_time_is_exact_unless_entries_of_that_time_were_lost() {
    let mut model = add(&[10, 20, 30]);
    let since = |ms, model: &Model| decide(Start::Since(ms), Replay::All, &looked_at(model));
    assert_eq!(since(5, &model), Ok(exact(at(10).prev())), "nothing is older");
    assert_eq!(since(15, &model), Ok(exact(at(15).prev())));
    assert_eq!(since(31, &model), Ok(exact(at(30))), "nothing is as young");
    model.run(&Command::TrimLength(2));
    assert_eq!(since(15, &model), Ok(with_gap(None, 20, Reason::Trimmed)));
    assert_eq!(since(20, &model), Ok(exact(at(20).prev())), "the first is the first of that time");
    assert_eq!(since(25, &model), Ok(exact(at(25).prev())));
}

#[test]
fn the_newest_are_looked_for_and_an_empty_stream_has_none() {
    let known = looked_at(&add(&[10, 20, 30]));
    let newest = |known: &Known| decide(Start::Newest(2), Replay::All, known);
    assert_eq!(newest(&known), Err(Question::Newest(2)));
    let first = |first| Some(Newest { first, left_out: None });
    let found = Known { newest: first(Some(at(20))), ..known };
    assert_eq!(newest(&found), Ok(exact(at(20).prev())));
    let none = Known { newest: first(None), ..looked_at(&Model::default()) };
    assert_eq!(newest(&none), Ok(exact(StreamId::ZERO)));
}

#[test]
fn replay_limits_every_start_that_reaches_further_back() {
    let known = Known { holds: Some(true), ..looked_at(&add(&[10, 20, 30])) };
    let limited = |asked, known: &Known| decide(asked, Replay::Newest(2), known);
    assert_eq!(limited(Start::Earliest, &known), Err(Question::Allowed(2)));
    let allowed = Some(Newest { first: Some(at(20)), left_out: Some(at(10)) });
    let known = Known { allowed, ..known };
    assert_eq!(limited(Start::Earliest, &known), Ok(with_gap(None, 20, Reason::Limit)));
    assert_eq!(limited(Start::After(at(5)), &known), Ok(with_gap(Some(5), 20, Reason::Limit)));
    assert_eq!(limited(Start::After(at(10)), &known), Ok(exact(at(10))), "it needs no more");
    let unasked = Known { allowed: None, ..known };
    assert_eq!(limited(Start::After(at(30)), &unasked), Ok(exact(at(30))), "nothing follows");
    let all = decide(Start::After(at(5)), Replay::Newest(3), &unasked);
    assert_eq!(all, Ok(exact(at(5))), "the stream has no more than is allowed");
}

#[test]
fn under_a_subscriber_a_recreated_stream_goes_on_with_its_first_entry() {
    let stream = StreamInfo { first: Some(at(5)), ..StreamInfo::default() };
    let expected = with_gap(Some(30), 5, Reason::Reset);
    assert_eq!(recreated(Some(at(30)), Some(&stream)), expected);
}
