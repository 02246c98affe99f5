//! Plain cases; random histories are played in `histories.rs`.

use super::histories::{info, read};
use super::model::{Command, Model};
use super::{Continuity, Verdict};
use crate::source::{Reply, StreamInfo, StreamState};
use crate::sse::{Gap, Reason, StreamId};

fn id(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

/// A stream of these entries, which are all that it ever had.
fn stream(ids: &[u64]) -> Model {
    let mut model = Model::default();
    add(&mut model, ids);
    model
}

fn add(model: &mut Model, ids: &[u64]) {
    for ms in ids {
        run(model, &Command::Add(id(*ms), None));
    }
}

fn run(model: &mut Model, command: &Command) {
    assert!(model.run(command), "{command:?}");
}

fn delete(model: &mut Model, ids: &[u64]) {
    run(model, &Command::Delete(ids.iter().copied().map(id).collect()));
}

fn look(model: &Model) -> StreamInfo {
    info(model.stream.as_ref().expect("the model's stream exists"), true)
}

fn seen(model: &Model) -> StreamState {
    if model.stream.is_some() { StreamState::Stream(look(model)) } else { StreamState::Missing }
}

fn at_tail(model: &Model) -> Continuity {
    Continuity::at_tail(Some(&look(model)))
}

/// A read of up to so many, `between` it and the look at the stream.
fn read_and(
    model: &mut Model,
    after: Continuity,
    count: usize,
    between: impl FnOnce(&mut Model),
) -> Reply {
    let entries = read(model, after.cursor(), count);
    between(model);
    Reply { entries, seen: seen(model) }
}

fn read_all(model: &mut Model, after: Continuity) -> Reply {
    read_and(model, after, 100, |_| ())
}

#[track_caller]
fn is_missing(verdict: Verdict, after: u64, next: Option<u64>, lost: Option<u64>, reason: Reason) {
    let gap = Gap { after: Some(id(after)), next: next.map(id), lost, reason };
    assert_eq!(verdict, Verdict::Missing(gap));
}

#[track_caller]
fn is_reset(verdict: Verdict) {
    assert!(matches!(verdict, Verdict::Reset(_)), "{verdict:?}");
}

#[test]
fn what_is_left_to_read_is_counted_where_redis_counts() {
    let mut model = stream(&[1]);
    let mut here = at_tail(&model);
    assert_eq!(here.behind(), Some(0));
    add(&mut model, &[2, 3, 4, 5]);
    for (count, left) in [(1, 3), (2, 1), (5, 0)] {
        let reply = read_and(&mut model, here, count, |_| ());
        assert_eq!(here.check(&reply), Verdict::Whole);
        assert_eq!((here.behind(), here.end()), (Some(left), Some(id(5))));
    }
    assert_eq!(Continuity::after(id(3)).behind(), None, "nobody has looked yet");
}

#[test]
fn an_empty_reply_after_a_trim_to_nothing_is_a_gap() {
    let mut model = stream(&[1, 2]);
    let mut reader = at_tail(&model);
    add(&mut model, &[3, 4, 5]);
    run(&mut model, &Command::TrimLength(0));
    is_missing(reader.check(&read_all(&mut model, reader)), 2, None, Some(3), Reason::Trimmed);
    assert_eq!(reader.cursor(), id(5));
}

#[test]
fn ids_that_go_on_after_a_del_are_a_reset_all_the_same() {
    let mut model = stream(&[1, 2]);
    let mut reader = at_tail(&model);
    model = stream(&[7]);
    is_reset(reader.check(&read_all(&mut model, reader)));
    assert_eq!(reader.cursor(), id(7).prev());
    assert_eq!(reader.check(&read_all(&mut model, reader)), Verdict::Whole);
}

#[test]
fn a_missing_key_is_a_reset_once() {
    let mut reader = at_tail(&stream(&[1, 2]));
    let gone = Reply { entries: Vec::new(), seen: StreamState::Missing };
    is_reset(reader.check(&gone));
    assert_eq!(reader.check(&gone), Verdict::Whole);
}

#[test]
fn a_key_created_after_the_read_and_missing_at_the_next_is_a_reset() {
    let mut reader = Continuity::at_tail(None);
    // The first of all ids: the cursor stays at zero.
    let first = Command::Add(StreamId { ms: 0, seq: 1 }, None);
    let reply = read_and(&mut Model::default(), reader, 10, |model| run(model, &first));
    assert_eq!(reader.check(&reply), Verdict::Whole);
    is_reset(reader.check(&Reply { entries: Vec::new(), seen: StreamState::Missing }));
    // One that came and went before it was ever read is missing, too.
    let came_and_went = Reply { entries: Vec::new(), seen: StreamState::Gone };
    is_reset(Continuity::at_tail(None).check(&came_and_went));
}

#[test]
fn an_entry_added_between_the_read_and_the_look_is_not_lost() {
    let mut model = stream(&[1, 2]);
    let mut reader = at_tail(&model);
    let reply = read_and(&mut model, reader, 10, |model| add(model, &[3]));
    assert_eq!(reader.check(&reply), Verdict::Whole);
    assert_eq!(reader.check(&read_all(&mut model, reader)), Verdict::Whole);
    assert_eq!(reader.cursor(), id(3));
}

#[test]
fn entries_trimmed_between_the_read_and_the_look_were_read() {
    let mut model = stream(&[4]);
    let mut reader = at_tail(&model);
    add(&mut model, &[5, 6, 7]);
    let trim = |model: &mut Model| run(model, &Command::TrimLength(1));
    let reply = read_and(&mut model, reader, 10, trim);
    assert_eq!(reader.check(&reply), Verdict::Whole);
}

#[test]
fn entries_deleted_between_the_read_and_the_look_were_read() {
    let mut model = stream(&[1]);
    run(&mut model, &Command::TrimLength(0));
    let mut reader = at_tail(&model);
    add(&mut model, &[2, 3]);
    let reply = read_and(&mut model, reader, 10, |model| delete(model, &[3]));
    assert_eq!(reader.check(&reply), Verdict::Whole);
    assert_eq!(reader.check(&read_all(&mut model, reader)), Verdict::Whole);
}

#[test]
fn what_is_trimmed_past_the_reply_before_the_look_is_counted_by_the_next() {
    let mut model = stream(&[1]);
    let mut reader = at_tail(&model);
    add(&mut model, &[2, 3, 4]);
    run(&mut model, &Command::TrimLength(2));
    // 2 is lost before the reply, 4 and 5 after it.
    let reply = read_and(&mut model, reader, 1, |model| {
        add(model, &[5, 6]);
        run(model, &Command::TrimLength(1));
    });
    assert_eq!(reader.check(&reply), Verdict::Whole);
    is_missing(reader.check(&read_all(&mut model, reader)), 3, Some(6), Some(3), Reason::Trimmed);
}

#[test]
fn a_deletion_within_a_backlog_is_counted_once_its_end_is_passed() {
    let mut model = stream(&[1]);
    let mut reader = at_tail(&model);
    add(&mut model, &[2, 3, 4, 5]);
    delete(&mut model, &[3]);
    let first = read_and(&mut model, reader, 2, |_| ());
    assert_eq!(reader.check(&first), Verdict::Whole);
    let more = read_and(&mut model, reader, 10, |model| add(model, &[6]));
    is_missing(reader.check(&more), 4, Some(5), Some(1), Reason::Deleted);
    assert_eq!(reader.check(&read_all(&mut model, reader)), Verdict::Whole);
}

#[test]
fn an_older_state_that_still_reaches_past_the_cursor_is_a_reset() {
    let mut model = stream(&[1, 2]);
    let mut reader = at_tail(&model);
    add(&mut model, &[3]);
    run(&mut model, &Command::Keep);
    let reply = read_and(&mut model, reader, 1, |model| add(model, &[4, 5]));
    assert_eq!(reader.check(&reply), Verdict::Whole);
    run(&mut model, &Command::Restore);
    add(&mut model, &[4]);
    is_reset(reader.check(&read_all(&mut model, reader)));
}

#[test]
fn a_recreated_stream_around_the_cursor_that_begins_earlier_is_a_reset() {
    let mut model = stream(&[100, 200, 300]);
    let mut reader = at_tail(&model);
    model = stream(&[50, 150, 250, 350]);
    is_reset(reader.check(&read_all(&mut model, reader)));
    let Verdict::Whole = reader.check(&read_all(&mut model, reader)) else { panic!() };
    assert_eq!(reader.cursor(), id(350));
}

#[test]
fn a_tail_that_redis_lost_in_a_crash_is_a_reset_once_others_are_read_in_its_place() {
    let mut model = stream(&[1, 2]);
    run(&mut model, &Command::Keep);
    add(&mut model, &[3, 4]);
    let mut reader = at_tail(&model);
    run(&mut model, &Command::Restore);
    add(&mut model, &[5, 6, 7]);
    // As many as before, and one more: only a reader that has read them all knows that two are missing.
    let first = read_and(&mut model, reader, 1, |_| ());
    assert_eq!(reader.check(&first), Verdict::Whole);
    is_reset(reader.check(&read_all(&mut model, reader)));
}

#[test]
fn as_many_others_with_greater_ids_are_a_reset() {
    let mut reader = at_tail(&stream(&[1, 2, 3]));
    let mut model = stream(&[4, 5, 6, 7]);
    is_reset(reader.check(&read_and(&mut model, reader, 1, |_| ())));
}

#[test]
fn an_end_moved_forward_is_followed_and_no_gap() {
    let mut model = stream(&[1, 2]);
    let mut reader = at_tail(&model);
    run(&mut model, &Command::SetEnd(id(9), None, None));
    assert_eq!(reader.check(&read_all(&mut model, reader)), Verdict::Whole);
    assert_eq!(reader.check(&read_all(&mut model, reader)), Verdict::Whole);
    assert_eq!(reader.cursor(), id(9));
    add(&mut model, &[10]);
    assert_eq!(reader.check(&read_all(&mut model, reader)), Verdict::Whole);
}

#[test]
fn a_count_moved_without_the_end_is_a_reset() {
    for count in [2, 7] {
        let mut model = stream(&[1, 2, 3]);
        delete(&mut model, &[1]);
        let mut reader = at_tail(&model);
        run(&mut model, &Command::SetEnd(id(3), Some(count), None));
        is_reset(reader.check(&read_all(&mut model, reader)));
        assert_eq!(reader.check(&read_all(&mut model, reader)), Verdict::Whole);
    }
}

/// As Redis 5 and 6 answer.
fn without_counts(mut reply: Reply) -> Reply {
    if let StreamState::Stream(info) = &mut reply.seen {
        info.entries_added = None;
    }
    reply
}

#[test]
fn without_counts_a_trim_past_the_cursor_is_reported_uncounted() {
    let mut model = stream(&[5, 6]);
    let mut reader = Continuity::after(id(2));
    let reply = without_counts(read_all(&mut model, reader));
    is_missing(reader.check(&reply), 2, Some(5), None, Reason::Trimmed);
}

#[test]
fn without_counts_a_trim_to_nothing_after_the_read_hides_none_before_it() {
    let mut model = stream(&[5, 6]);
    let mut reader = Continuity::after(id(2));
    let trim = |model: &mut Model| run(model, &Command::TrimLength(0));
    let reply = without_counts(read_and(&mut model, reader, 10, trim));
    is_missing(reader.check(&reply), 2, Some(5), None, Reason::Trimmed);
}

#[test]
fn without_a_count_at_the_cursor_a_trim_to_nothing_is_reported() {
    let mut model = stream(&[5, 6]);
    run(&mut model, &Command::TrimLength(0));
    let mut reader = Continuity::after(id(2));
    is_missing(reader.check(&read_all(&mut model, reader)), 2, None, None, Reason::Trimmed);
    assert_eq!(reader.cursor(), id(6));
}

#[test]
fn level_with_the_end_a_page_counts_from_there() {
    let mut model = stream(&[5, 6]);
    run(&mut model, &Command::TrimLength(0));
    let mut page = Continuity::after(id(6));
    assert_eq!(page.check_from(&read_all(&mut model, page), false), Verdict::Whole);
    add(&mut model, &[9]);
    assert_eq!(page.check_from(&read_all(&mut model, page), false), Verdict::Whole);
}

#[test]
fn a_trim_after_an_anchored_page_is_reported_by_the_next() {
    let mut model = stream(&[5, 6]);
    let mut page = Continuity::after(id(6));
    let reply = read_and(&mut model, page, 10, |model| {
        add(model, &[7]);
        run(model, &Command::TrimLength(0));
    });
    assert_eq!(page.check_from(&without_counts(reply), true), Verdict::Whole);
    let next = without_counts(read_all(&mut model, page));
    is_missing(page.check_from(&next, false), 6, None, None, Reason::Trimmed);
}
