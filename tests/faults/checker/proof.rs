//! That the checker sees: histories with one fault each, every one of which it must catch. They run
//! before every pass, for a blind checker would pass everything.

use std::collections::HashMap;
use std::time::Duration;

use ssegate::sse::StreamId;
use ssegate::sse::parse::Parser;

use super::{Findings, check};
use crate::chunks::Chunks;
use crate::following::understand;
use crate::history::{AMID_AN_EVENT, Allowed, Fate, Gap, Heard, History, Listener, What};
use crate::{payload, publishers};

mod ends;
mod parts;
mod rows;

/// What is caught, and how that is shown.
pub const CASES: &[(&str, fn())] = &[
    ("nothing where nothing is wrong", sound_histories_pass),
    ("a lost entry", a_loss_is_caught),
    ("a gap that does not cover", a_gap_elsewhere_covers_nothing),
    ("an entry that is still there", an_entry_that_is_still_there_is_never_excused),
    ("a doubled entry", a_double_is_caught),
    ("a reordered entry", a_reorder_is_caught),
    ("a wrong number lost", a_wrong_number_is_caught),
    ("a torn event", a_torn_event_is_caught),
    ("an invented entry", an_invention_is_caught),
    ("ids that go back in silence", ids_that_go_back_need_a_reset),
    ("a reset that covers too much", a_reset_covers_the_old_generation_only),
    ("a deletion never told", a_deletion_is_reported_late_but_reported),
    ("a reset never told", a_reset_is_reported_though_nothing_is_lost),
    ("a false alarm", a_false_alarm_is_caught),
    ("a gap that names another entry", a_gap_names_the_next_entry),
    ("a loss of what had long been there", an_entry_that_was_there_for_long_is_no_loss_of_redis),
    ("a loss of what nobody acknowledged", an_unacknowledged_entry_is_expected_where_it_is_kept),
    ("a connection that ended", a_closed_connection_is_caught),
    ("what is wrong beside the key", what_is_found_beside_the_key_counts),
    ("a late recovery", a_late_recovery_is_caught),
    ("a client on its way", a_client_on_its_way_is_late_and_has_lost_nothing),
    ("a client left behind", a_client_that_hears_no_more_is_caught),
    ("a publish that was told otherwise than it ended", publishers::wrong_outcomes_are_caught),
    ("an end where nothing ends", ends::an_end_needs_a_marker),
    ("an end told to who lacks it", ends::an_end_is_told_to_who_has_it),
    ("a stream after the end", ends::nobody_gets_a_stream_after_the_end),
    ("a 204 before the end", ends::nobody_is_over_before_the_end),
    ("a half answer that looks whole", ends::only_the_end_ends_a_body),
    ("a client that never learns of the end", ends::everybody_learns_of_the_end),
    ("a loss in silence with the key", ends::who_is_there_when_the_key_goes_is_told),
    ("what is missing of those that a client gets", rows::what_is_withheld_is_not_due),
    ("an entry that is not for a client", rows::what_is_not_for_it_is_caught),
    ("a loss that may be others'", rows::what_may_be_others_is_not_counted_as_lost),
    ("a wrong number at most", rows::a_wrong_number_at_most_is_caught),
    ("an `at` that goes back", rows::an_at_never_goes_back),
    ("an `at` beyond what is lacked", rows::an_at_passes_nothing_that_it_lacks),
    ("an end told by others' entries", rows::the_end_is_told_to_who_gets_no_entry_of_it),
    ("an event with the wrong stream", parts::streams_are_told_apart),
    ("an event of no stream", parts::what_is_of_no_stream_is_caught),
    ("what is wrong with one of several streams", parts::each_part_is_held_against_its_own_stream),
    ("an id that moves another stream", parts::an_id_that_moves_another_stream_is_caught),
    ("a client that goes on elsewhere", parts::who_comes_back_goes_on_where_it_was),
    ("a connection that nothing may end", parts::another_stream_may_end_the_connection),
    ("an end of one stream among others", parts::a_part_ends_and_the_others_go_on),
    ("what Redis lost only where it still has it", an_entry_that_redis_lost_is_no_loss_of_ours),
];

fn id(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

fn entry(number: u64) -> What {
    What::Entry(id(number * 10), number)
}

fn gap(after: Option<u64>, next: Option<u64>, lost: Option<u64>, reason: &str) -> What {
    let (after, next) = (after.map(id), next.map(id));
    let id = next.map_or(StreamId::ZERO, StreamId::prev);
    What::Gap(Gap { id, after, next, lost, at_most: None, reason: reason.to_owned() })
}

/// Numbers 1 to 6 with the ids 10-0 to 60-0, a tenth of a second apart, the last of them written after
/// the fault; Redis holds them all but the `gone`.
fn history(gone: &[u64], heard: Vec<What>) -> History {
    let written = |number: u64| Duration::from_millis(number * 100);
    let heard = heard.into_iter().map(|what| {
        let at = if let What::Entry(_, number) = what { written(number) } else { Duration::ZERO };
        Heard { at: at + Duration::from_millis(1), what }
    });
    History {
        written: (1..=6).map(|number| Fate::Added(id(number * 10), written(number))).collect(),
        due_from: 1,
        deleted: HashMap::new(),
        removals: Vec::new(),
        kept: (1..=6).filter(|number| !gone.contains(number)).collect(),
        clients: vec![Listener { heard: heard.collect(), ..Listener::default() }],
        healed: Duration::from_millis(550),
        limit: Duration::from_secs(3),
        given_up: Duration::from_secs(9),
        allowed: Allowed {
            reasons: &["trimmed", "deleted", "reset"],
            at_least: 0,
            closes: true,
            tears: false,
            redis_loses: false,
            ends: false,
        },
        allowed_to_merged: Allowed::default(),
        ending: None,
    }
}

#[track_caller]
fn passes(history: &History) -> Findings {
    let findings = check(history);
    assert!(findings.violations.is_empty(), "{:?}", findings.violations);
    assert_eq!((findings.lost, findings.doubled), (0, 0));
    findings
}

/// There is one violation, and it says this.
#[track_caller]
fn caught(history: &History, says: &str) -> Findings {
    let findings = check(history);
    let [violation] = &*findings.violations else { panic!("{:?}", findings.violations) };
    assert!(violation.contains(says), "{violation:?} does not say {says:?}");
    findings
}

fn all() -> Vec<What> {
    (1..=6).map(entry).collect()
}

/// All entries but these, with this in their place.
fn instead(of: &[u64], what: Vec<What>) -> Vec<What> {
    let place = all().iter().position(|heard| *heard == entry(of[0])).unwrap();
    let mut heard = all();
    heard.retain(|heard| !of.iter().any(|number| *heard == entry(*number)));
    heard.splice(place..place, what);
    heard
}

fn what_is_found_beside_the_key_counts() {
    let mut findings = passes(&history(&[], all()));
    findings.add("beside:1", passes(&history(&[], all())));
    assert_eq!((findings.entries, findings.violations.len()), (12, 0));
    let mut late = history(&[], all());
    late.limit = Duration::from_millis(50);
    findings.add("beside:2", check(&late));
    assert!(findings.only_late && findings.violations[0].starts_with("beside:2: client 0"));
    findings.add("beside:3", check(&history(&[3], instead(&[3], Vec::new()))));
    assert!(!findings.only_late && findings.lost == 1, "{:?}", findings.violations);
    findings.add("beside:4", check(&late));
    assert!(!findings.only_late && findings.violations.len() == 3);
}

fn sound_histories_pass() {
    let findings = passes(&history(&[], all()));
    assert_eq!((findings.entries, findings.deliveries, findings.gaps), (6, 6, 0));
    assert_eq!(findings.recovery, Duration::from_millis(51));
    let gaps = vec![gap(Some(20), Some(50), Some(2), "trimmed")];
    assert_eq!(passes(&history(&[3, 4], instead(&[3, 4], gaps))).gaps, 1);
    let twice =
        vec![gap(Some(20), Some(40), Some(1), "trimmed"), gap(Some(30), None, None, "trimmed")];
    passes(&history(&[3, 4], instead(&[3, 4], twice)));
    let mut unknown = history(&[3], instead(&[3], Vec::new()));
    unknown.written[2] = Fate::Unknown;
    passes(&unknown);
    unknown.clients =
        history(&[], instead(&[3], vec![gap(Some(20), Some(40), Some(1), "trimmed")])).clients;
    passes(&unknown);
    unknown.clients = history(&[], all()).clients;
    passes(&unknown);
}

fn a_loss_is_caught() {
    let findings = caught(&history(&[3], instead(&[3], Vec::new())), "without a gap");
    assert_eq!(findings.lost, 1);
}

fn a_gap_elsewhere_covers_nothing() {
    let mut heard = instead(&[3], vec![gap(Some(30), Some(40), None, "trimmed")]);
    caught(&history(&[3], heard), "without a gap");
    heard = instead(&[3], Vec::new());
    heard.insert(1, gap(Some(10), Some(20), None, "trimmed"));
    caught(&history(&[3], heard), "without a gap");
}

fn an_entry_that_is_still_there_is_never_excused() {
    let gaps = vec![gap(Some(20), Some(40), Some(1), "trimmed")];
    let findings = caught(&history(&[], instead(&[3], gaps)), "still holds");
    assert_eq!(findings.lost, 1);
}

fn a_double_is_caught() {
    let findings = caught(&history(&[], instead(&[3], vec![entry(3), entry(3)])), "twice");
    assert_eq!(findings.doubled, 1);
}

fn a_reorder_is_caught() {
    let swapped = history(&[], instead(&[3, 4], vec![entry(4), entry(3)]));
    caught(&swapped, "number 3 (30-0) after 4");
}

fn a_wrong_number_is_caught() {
    for reported in [1, 3] {
        let gaps = vec![gap(Some(20), Some(50), Some(reported), "trimmed")];
        let findings = check(&history(&[3, 4], instead(&[3, 4], gaps)));
        assert!(findings.violations.iter().any(|v| v.contains("2 are missing, and told are")));
    }
    let one = gap(Some(20), Some(40), Some(1), "trimmed");
    let back = What::Opened("39-18446744073709551615".into());
    passes(&history(&[3], instead(&[3], vec![one.clone(), back, one.clone()])));
    assert!(!check(&history(&[3], instead(&[3], vec![one.clone(), one]))).violations.is_empty());
    let nothing = vec![entry(3), gap(Some(30), Some(40), Some(0), "trimmed")];
    caught(&history(&[], instead(&[3], nothing)), "wrong in itself");
}

fn a_torn_event_is_caught() {
    let whole = payload::body(7, 200);
    assert_eq!(payload::number(&whole), Some(7));
    for torn in [&whole[..100], &whole[1..], &format!("{whole}x"), &whole.replace('c', "d")] {
        let lines: String = torn.split('\n').map(|line| format!("data: {line}\n")).collect();
        let (mut items, event) = (Vec::new(), format!("id: 70-0\nevent: message\n{lines}\n"));
        Parser::new().feed(event.as_bytes(), &mut items).unwrap();
        let what = understand(items.remove(0));
        assert!(matches!(&what, What::Wrong(why) if why.contains("torn")), "{what:?}");
        caught(&history(&[], instead(&[3], vec![entry(3), what])), "torn");
    }
    for torn in ["4\r\nhello\r\n", "x\r\n", "5\r\nhello5\r\n", "0\r\n\r\n0"] {
        let mut body = Vec::new();
        assert!(Chunks::default().feed(torn.as_bytes(), &mut body).is_err(), "{torn:?}");
    }
    let (mut chunks, mut body) = (Chunks::default(), Vec::new());
    for byte in b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n" {
        chunks.feed(&[*byte], &mut body).unwrap();
    }
    assert_eq!((&*body, chunks.complete()), (&b"hello!"[..], true));
}

fn an_invention_is_caught() {
    caught(&history(&[], [all(), vec![What::Entry(id(70), 7)]].concat()), "number 7 came as");
    let mut refused = history(&[4], all());
    refused.written[3] = Fate::Refused;
    caught(&refused, "number 4 came as 40-0, and was Some(Refused)");
    caught(&history(&[], instead(&[3], vec![What::Entry(id(31), 3)])), "number 3 came as");
}

/// The stream was recreated with number 4, whose id is 5-0; 5 and 6 follow with 6-0 and 7-0.
fn two_generations(heard: Vec<What>) -> History {
    let mut history = history(&[1, 2, 3], heard);
    for (index, ms) in [(3, 5), (4, 6), (5, 7)] {
        history.written[index] =
            Fate::Added(id(ms), Duration::from_millis(index as u64 * 100 + 100));
    }
    history
}

fn ids_that_go_back_need_a_reset() {
    let second = [What::Entry(id(5), 4), What::Entry(id(6), 5), What::Entry(id(7), 6)];
    let first: Vec<_> = (1..=3).map(entry).collect();
    caught(&two_generations([&first[..], &second].concat()), "and no reset");
    let reset = [gap(Some(30), Some(5), None, "reset")];
    passes(&two_generations([&first[..], &reset, &second].concat()));
    passes(&two_generations([&first[..1], &reset, &second].concat()));
}

fn a_reset_is_reported_though_nothing_is_lost() {
    let mut unreported = history(&[], all());
    unreported.allowed.at_least = 1;
    caught(&unreported, "0 times, not 1");
    unreported.clients =
        history(&[], instead(&[4], vec![gap(Some(30), Some(40), None, "reset"), entry(4)])).clients;
    passes(&unreported);
}

fn a_reset_covers_the_old_generation_only() {
    let heard = vec![
        entry(1),
        gap(Some(10), Some(5), None, "reset"),
        What::Entry(id(6), 5),
        What::Entry(id(7), 6),
    ];
    let mut history = two_generations(heard);
    assert!(check(&history).violations[0].contains("names another"));
    history.kept.remove(&4);
    let findings = check(&history);
    assert_eq!(findings.lost, 1);
    assert!(findings.violations.iter().any(|v| v.contains("number 4 (5-0) is missing")));
}

fn a_deletion_is_reported_late_but_reported() {
    let mut heard = instead(&[3], Vec::new());
    heard.insert(4, gap(Some(50), Some(60), Some(1), "trimmed"));
    let mut deleted = history(&[3], heard);
    deleted.deleted = HashMap::from([(3, Duration::from_millis(350))]);
    passes(&deleted);
    deleted.clients[0].heard.retain(|heard| !matches!(heard.what, What::Gap(_)));
    let findings = caught(&deleted, "1 deleted entries were never told");
    assert_eq!(findings.lost, 1);
    // Without a number an earlier gap says nothing of it.
    deleted.clients[0].heard.insert(0, told_at_first());
    caught(&deleted, "1 deleted entries were never told");
}

fn told_at_first() -> Heard {
    Heard { at: Duration::ZERO, what: gap(None, Some(10), None, "trimmed") }
}

fn a_false_alarm_is_caught() {
    let mut history = history(&[3], instead(&[3], vec![gap(Some(20), Some(40), None, "reset")]));
    passes(&history);
    history.allowed.reasons = &["trimmed"];
    caught(&history, "a false alarm");
}

fn an_entry_that_was_there_for_long_is_no_loss_of_redis() {
    let mut history =
        history(&[3], instead(&[3], vec![gap(Some(20), Some(40), Some(1), "trimmed")]));
    history.removals = vec![Duration::from_millis(900)];
    passes(&history);
    history.removals = vec![Duration::from_millis(200), Duration::from_millis(1400)];
    caught(&history, "not removed so soon");
}

fn an_unacknowledged_entry_is_expected_where_it_is_kept() {
    let mut history = history(&[], instead(&[3], Vec::new()));
    history.written[2] = Fate::Unknown;
    caught(&history, "which nobody acknowledged");
    history.kept.remove(&3);
    passes(&history);
}

fn a_gap_names_the_next_entry() {
    let gaps = vec![gap(Some(20), Some(35), None, "trimmed")];
    caught(&history(&[3], instead(&[3], gaps)), "names another");
}

fn a_closed_connection_is_caught() {
    let mut history = history(&[], instead(&[3], vec![What::Closed("its end".into()), entry(3)]));
    passes(&history);
    let may = |history: &mut History, closes, tears| {
        (history.allowed.closes, history.allowed.tears) = (closes, tears);
    };
    may(&mut history, false, true);
    caught(&history, "its connection ended");
    for heard in &mut history.clients[0].heard {
        if let What::Closed(why) = &mut heard.what {
            *why = AMID_AN_EVENT.into();
        }
    }
    passes(&history);
    may(&mut history, true, false);
    caught(&history, "its connection ended");
}

fn a_late_recovery_is_caught() {
    let mut history = history(&[], all());
    history.clients[0].heard[5].at = Duration::from_secs(5);
    caught(&history, "after the fault");
    // What was written before counts as well.
    history.clients[0].heard[5].at = Duration::from_millis(601);
    history.clients[0].heard[2].at = Duration::from_secs(4);
    caught(&history, "after the fault");
}

fn a_client_on_its_way_is_late_and_has_lost_nothing() {
    let mut history = history(&[], (1..=4).map(entry).collect());
    assert_eq!(check(&history).lost, 2, "it got nothing more for long");
    history.given_up = Duration::from_millis(1_300);
    let findings = caught(&history, "on its way when it was given up");
    assert!(findings.only_late && findings.lost == 0);
}

fn a_client_that_hears_no_more_is_caught() {
    let mut history = history(&[6], (1..=5).map(entry).collect());
    history.allowed.redis_loses = true;
    caught(&history, "nothing written after the fault");
}

fn an_entry_that_redis_lost_is_no_loss_of_ours() {
    let mut history = history(&[3, 4], instead(&[3], Vec::new()));
    history.allowed.redis_loses = true;
    passes(&history);
    history.kept.insert(3);
    caught(&history, "still holds");
    history.kept.remove(&3);
    let reset = || gap(Some(30), Some(10), None, "reset");
    let again = [&all()[..3], &[reset()], &all()[..2], &all()[4..]].concat();
    history.clients = self::history(&[], again).clients;
    passes(&history);
    history.kept.extend([3, 4]);
    assert!(check(&history).violations[0].contains("a false alarm"));
    history.allowed.redis_loses = false;
    assert_eq!(check(&history).doubled, 2);
}
