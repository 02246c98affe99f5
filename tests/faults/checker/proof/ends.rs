//! That the checker sees what goes wrong around the end of a stream.

use std::time::Duration;

use super::{all, caught, check, entry, gap, history, id, instead, passes};
use crate::history::{AMID_AN_EVENT, Ending, FINISHED, History, What};

const AFTER_THE_FAULT: Duration = Duration::from_millis(700);

/// Number 6 ends the stream; what a client hears behind its last entry it hears after the fault.
pub(super) fn ending(gone: &[u64], heard: Vec<What>) -> History {
    let mut history = history(gone, heard);
    history.allowed.ends = true;
    history.allowed.closes = false;
    history.ending = Some(Ending { marker: 6, gone: None, away: None });
    let heard = &mut history.clients[0].heard;
    let last = heard.iter().rposition(|heard| heard.number().is_some()).unwrap();
    heard.iter_mut().skip(last + 1).for_each(|heard| heard.at = AFTER_THE_FAULT);
    history
}

/// Its key goes before the end is read.
fn gone(heard: Vec<What>) -> History {
    let mut history = ending(&[1, 2, 3, 4, 5, 6], heard);
    history.ending = Some(Ending { marker: 6, gone: Some(Duration::from_millis(600)), away: None });
    history
}

pub(super) fn closed() -> What {
    What::Closed(FINISHED.into())
}

fn cut() -> What {
    What::Closed("its end".into())
}

fn opened(after: u64) -> What {
    What::Opened(id(after).to_string())
}

pub(super) fn end() -> What {
    What::End(id(60))
}

fn to(last: u64, more: &[What]) -> Vec<What> {
    let mut heard = all();
    heard.retain(|heard| matches!(heard, What::Entry(_, number) if *number <= last));
    [heard, more.to_vec()].concat()
}

pub(super) fn an_end_needs_a_marker() {
    passes(&ending(&[], to(6, &[end(), closed(), What::Over, What::Over])));
    for what in [end(), What::Over] {
        caught(&history(&[], to(6, &[what])), "nothing ends");
    }
}

pub(super) fn an_end_is_told_to_who_has_it() {
    let early = instead(&[6], vec![end(), entry(6)]);
    caught(&ending(&[], [early, vec![What::Over]].concat()), "without having it");
    caught(&ending(&[], to(6, &[What::End(id(50)), closed(), What::Over])), "at 50-0");
}

pub(super) fn nobody_gets_a_stream_after_the_end() {
    let again = [end(), closed(), opened(60), end(), closed(), What::Over];
    let mut history = ending(&[], to(6, &again));
    caught(&history, "a stream after the end");
    // Unless nobody could tell.
    let away = |at| Some(Ending { marker: 6, gone: None, away: Some(Duration::from_millis(at)) });
    history.ending = away(650);
    passes(&history);
    history.ending = away(750);
    caught(&history, "a stream after the end");
    history = ending(&[], to(6, &[end(), closed(), What::Over, opened(60), end(), closed()]));
    history.ending = away(650);
    caught(&history, "a stream after the end");
}

pub(super) fn nobody_is_over_before_the_end() {
    let heard = to(5, &[What::Over, opened(50), entry(6), end(), closed(), What::Over]);
    let violations = check(&ending(&[], heard)).violations;
    assert!(violations[0].contains("it lacks the end"), "{violations:?}");
}

pub(super) fn only_the_end_ends_a_body() {
    let half = |closed| instead(&[5], vec![entry(5), closed, opened(50)]);
    let more = vec![end(), closed(), What::Over];
    let mut history = ending(&[], [half(closed()), more.clone()].concat());
    history.allowed.closes = true;
    caught(&history, "as if it was whole");
    history.clients = ending(&[], [half(cut()), more].concat()).clients;
    passes(&history);
    history.allowed.closes = false;
    caught(&history, "its connection ended");
    let reset = gap(Some(50), None, None, "reset");
    caught(&gone(to(5, &[reset, closed(), What::Over])), "as if it was whole");
}

pub(super) fn everybody_learns_of_the_end() {
    caught(&ending(&[], to(6, &[end(), closed()])), "no 204");
    let mut late = ending(&[], to(6, &[end(), closed(), What::Over]));
    late.limit = Duration::from_millis(100);
    caught(&late, "204 only");
}

pub(super) fn who_is_there_when_the_key_goes_is_told() {
    let reset = gap(Some(40), None, None, "reset");
    passes(&gone(to(4, &[reset, cut(), What::Over])));
    let mut history = gone(to(4, &[What::Over]));
    let violations = check(&history).violations;
    assert!(violations.iter().any(|v| v.contains("it lacks the end")), "{violations:?}");
    assert!(violations.iter().any(|v| v.contains("number 5 (50-0) is missing")), "{violations:?}");
    // Who was cut amid an event knows as much, and who was cut off before has nothing to come back to.
    let torn = What::Closed(AMID_AN_EVENT.into());
    let mut cut_amid = gone(to(4, &[torn, What::Over]));
    cut_amid.allowed.tears = true;
    passes(&cut_amid);
    history.allowed.closes = true;
    passes(&history);
    let mut early = gone(to(4, &[What::Over]));
    early.allowed.closes = true;
    early.ending = Some(Ending { marker: 6, gone: Some(Duration::from_millis(800)), away: None });
    assert!(check(&early).violations.iter().any(|v| v.contains("it lacks the end")));
}
