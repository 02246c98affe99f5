//! Plain cases of the rule of a resume; it is held against random histories, with the pages that follow,
//! where a client is told of it (`fanout/catch-up subscriber/past/histories.rs`).

use super::{Base, absent, known};
use crate::source::StreamInfo;
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

fn query(model: &Model) -> Option<StreamInfo> {
    model.stream.as_ref().map(|stream| info(stream, true))
}

#[test]
fn an_id_deleted_since_the_first_look_is_exact() {
    let mut model = add(&[10, 20, 30]);
    assert!(known(at(20), query(&model).as_ref()).is_none(), "the stream is to be asked for it");
    model.run(&Command::Delete(vec![at(20)]));
    assert_eq!(absent(at(20), query(&model).as_ref()), Base::exact(at(20)));
}

#[test]
fn an_id_trimmed_since_the_first_look_is_told() {
    let mut model = add(&[10, 20, 30]);
    model.run(&Command::TrimLength(1));
    let base = absent(at(10), query(&model).as_ref());
    let gap = Gap { after: Some(at(10)), next: Some(at(30)), lost: None, reason: Reason::Trimmed };
    assert_eq!(base, Base { after: at(30).prev(), gap: Some(gap) });
}

#[test]
fn an_id_that_was_never_there_is_a_reset_though_nothing_was_removed() {
    // After 100, 200, 300 and a DEL.
    let info = query(&add(&[50, 150, 350]));
    assert!(known(at(300), info.as_ref()).is_none());
    let reset = Base::first(Some(at(300)), info.as_ref(), Reason::Reset);
    assert_eq!(absent(at(300), info.as_ref()), reset);
}

#[test]
fn the_end_of_an_emptied_stream_is_exact_and_nothing_else_of_it() {
    let mut model = add(&[10, 20, 30]);
    model.run(&Command::TrimLength(0));
    assert_eq!(known(at(30), query(&model).as_ref()), Some(Base::exact(at(30))));
    assert_eq!(known(at(20), query(&model).as_ref()), None);
}

#[test]
fn whoever_has_nothing_is_told_of_what_was_trimmed() {
    let mut model = add(&[10, 20, 30]);
    let all = Base::exact(at(10).prev());
    assert_eq!(known(StreamId::ZERO, query(&model).as_ref()), Some(all));
    model.run(&Command::TrimLength(1));
    assert_eq!(known(StreamId::ZERO, query(&model).as_ref()), None);
    let gap = absent(StreamId::ZERO, query(&model).as_ref()).gap.unwrap();
    assert_eq!((gap.next, gap.reason), (Some(at(30)), Reason::Trimmed));
}
