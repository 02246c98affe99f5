//! That the checker sees what goes wrong with clients that follow several streams: each history is of one part.

use ssegate::sse::parse::{Event, Item};

use super::ends::{closed, end, ending};
use super::{Heard, all, caught, check, entry, gap, history, id, instead, passes};
use crate::following::Following;
use crate::history::{AMID_AN_EVENT, Allowed, History, What};
use crate::payload;
use crate::selection::Selection;

/// What a client heard of one of its streams.
fn part(gone: &[u64], heard: Vec<What>) -> History {
    of_part(history(gone, heard))
}

fn of_part(mut history: History) -> History {
    history.clients[0].is_part = true;
    history
}

/// This after number 3.
fn amid(what: &[What]) -> Vec<What> {
    [&all()[..3], what, &all()[3..]].concat()
}

fn moved(ms: u64) -> What {
    What::Moved(Some(id(ms)))
}

fn back(ms: u64) -> What {
    What::Opened(id(ms).to_string())
}

/// An event with the type, the data and the last event id that it has on the wire.
fn event(event_type: &str, data: String, last_event_id: &str) -> Item {
    let (event_type, last_event_id) = (event_type.to_owned(), last_event_id.to_owned());
    Item::Event(Event { event_type, data, last_event_id })
}

fn message(stream: &str, number: u64, id: &str) -> Item {
    event(&format!("{stream}.message"), payload::body(number, 100), id)
}

fn control(json: &str, id: &str) -> Item {
    event("ssegate", json.to_owned(), id)
}

/// What comes of these events, of the streams `a` and `b`.
fn told_apart(events: Vec<Item>) -> [Vec<What>; 2] {
    let now = std::time::Instant::now();
    let following = Following::several(now, Selection::All, &["a", "b"]);
    events.into_iter().for_each(|event| following.hear(event));
    let what = |heard: Vec<Heard>| heard.into_iter().map(|heard| heard.what).collect();
    [0, 1].map(|index| what(following.records[index].listener().heard))
}

pub(super) fn streams_are_told_apart() {
    let live = || What::Signal("live".into());
    let lost =
        r#"{"type":"gap","stream":"b","after":"20-0","next":"40-0","lost":1,"reason":"trimmed"}"#;
    let marker = r#"{"type":"end","stream":"a","reason":"marker"}"#;
    let [a, b] = told_apart(vec![
        control(r#"{"type":"live","replayed":0}"#, "b=20-0"),
        message("a", 1, "a=10-0,b=20-0"),
        control(r#"{"type":"source","stream":"b","up":false}"#, "a=10-0,b=20-0"),
        control(lost, "a=10-0,b=39-18446744073709551615"),
        message("b", 4, "a=10-0,b=40-0"),
        control(marker, "a=10-0,b=40-0"),
    ]);
    assert_eq!(a, [live(), entry(1), What::End(id(10))]);
    let away = What::Signal("source".into());
    assert_eq!(b, [moved(20), live(), away, gap(Some(20), Some(40), Some(1), "trimmed"), entry(4)]);
    // An id that moves another stream is told of that one.
    let [a, b] =
        told_apart(vec![message("a", 1, "a=10-0,b=20-0"), message("b", 3, "a=20-0,b=30-0")]);
    assert_eq!(a, [entry(1), moved(20)]);
    assert_eq!(b, [moved(20), entry(3)]);
    let [a, _] = told_apart(vec![message("a", 1, "a=10-0,b=20-0"), message("b", 3, "b=30-0")]);
    assert_eq!(a, [entry(1), What::Moved(None)]);
}

pub(super) fn what_is_of_no_stream_is_caught() {
    for wrong in [
        message("c", 1, "a=10-0"),
        event("message", payload::body(1, 100), "a=10-0"),
        message("a", 1, "10-0"),
        message("a", 1, "b=20-0,a=10-0"),
        message("a", 1, "a=10-0,c=10-0"),
        control(r#"{"type":"gap","after":null,"next":null,"lost":1,"reason":"reset"}"#, "a=10-0"),
        control(r#"{"type":"end","reason":"marker"}"#, "a=10-0"),
        control(r#"{"type":"end","stream":"c","reason":"marker"}"#, "a=10-0"),
    ] {
        for heard in told_apart(vec![wrong]) {
            assert!(matches!(&*heard, [What::Wrong(_)]), "{heard:?}");
        }
    }
    let [a, b] = told_apart(vec![message("a", 1, "b=10-0")]);
    assert!(matches!(&*a, [What::Wrong(why)] if why.contains("torn")), "{a:?}");
    assert_eq!(b, [moved(10)]);
}

/// The loss, the double and the gap of one part are nothing to another, and are caught with it.
pub(super) fn each_part_is_held_against_its_own_stream() {
    let told = || gap(Some(20), Some(40), Some(1), "trimmed");
    passes(&part(&[], all()));
    passes(&part(&[3], instead(&[3], vec![told()])));
    caught(&part(&[3], instead(&[3], Vec::new())), "number 3 (30-0) is missing, without a gap");
    caught(&part(&[], instead(&[3], vec![entry(3), entry(3)])), "number 3 (30-0) twice");
    // With the wrong part a gap covers nothing here, and tells of too much there.
    let violations = check(&part(&[], instead(&[3], vec![told(), entry(3)]))).violations;
    assert!(violations.iter().any(|what| what.contains("0 are missing, and told are 1")));
}

pub(super) fn an_id_that_moves_another_stream_is_caught() {
    // Before anything came it says where the client begins.
    passes(&part(&[], [vec![moved(5)], all()].concat()));
    caught(&part(&[], amid(&[moved(40)])), "moved it to 40-0, and it is at 30-0");
    caught(&part(&[], amid(&[moved(20)])), "moved it to 20-0, and it is at 30-0");
    caught(&part(&[], amid(&[What::Moved(None)])), "moved it to nowhere");
    caught(&part(&[], [vec![moved(5), moved(6)], all()].concat()), "moved it to 6-0");
    // Whoever gets only some entries is moved past those of others, and past no other.
    let selecting = |what: &[What]| {
        let mut heard = amid(what);
        heard.retain(|heard| ![entry(3), entry(6)].contains(heard));
        let mut history = part(&[], heard);
        history.clients[0].selection = Selection::Tenants(&[1, 2]);
        history.healed = std::time::Duration::from_millis(450);
        history
    };
    passes(&selecting(&[moved(30)]));
    caught(&selecting(&[moved(40)]), "number 4 (40-0) came after");
    caught(&selecting(&[moved(10)]), "goes back from 20-0");
}

pub(super) fn who_comes_back_goes_on_where_it_was() {
    passes(&part(&[], amid(&[What::Closed("its end".into()), back(30)])));
    caught(&part(&[], amid(&[back(20)])), "it came back after \"20-0\", and was at 30-0");
    let again = [&all()[..3], &[back(30)], &all()[2..]].concat();
    assert_eq!(check(&part(&[], again)).doubled, 1);
}

pub(super) fn another_stream_may_end_the_connection() {
    let mut history = part(&[], amid(&[What::Closed(AMID_AN_EVENT.into())]));
    caught(&history, "its connection ended");
    history.allowed_to_merged = Allowed { tears: true, ..Allowed::default() };
    passes(&history);
    history.clients[0].is_part = false;
    caught(&history, "its connection ended");
}

pub(super) fn a_part_ends_and_the_others_go_on() {
    let part = |more: &[What]| {
        let mut history = of_part(ending(&[], [all(), more.to_vec()].concat()));
        history.allowed.closes = true;
        history
    };
    let cut = What::Closed("its end".into());
    passes(&part(&[end()]));
    passes(&part(&[end(), cut.clone(), back(60), end()]));
    caught(&part(&[]), "not told of the end where it is now");
    caught(&part(&[end(), cut, back(60)]), "not told of the end where it is now");
    caught(&part(&[end(), end()]), "told of the end twice");
    caught(&part(&[end(), What::Over]), "and the others go on");
    caught(&part(&[end(), closed()]), "as if it was whole");
    caught(&part(&[What::EndAtGap]), "an end at a gap");
    let reset = gap(Some(60), None, None, "reset");
    let mut gone = part(&[reset, What::EndAtGap]);
    caught(&gone, "an end at a gap");
    gone.ending.as_mut().unwrap().gone = Some(std::time::Duration::from_millis(600));
    passes(&gone);
}
