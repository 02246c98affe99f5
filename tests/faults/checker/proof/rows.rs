//! That the checker sees what goes wrong with clients that get only some entries.

use super::ends::{closed, end, ending};
use super::{Findings, all, caught, check, entry, gap, history, id, instead, passes};
use crate::history::{Gap, History, What};
use crate::selection::Selection;

/// Of the numbers 1 to 6 it gets 1, 2, 4 and 5.
const SOME: Selection = Selection::Tenants(&[1, 2]);

/// What one that asks for [`SOME`] heard.
fn selecting(gone: &[u64], heard: Vec<What>) -> History {
    by(SOME, history(gone, heard))
}

fn by(selection: Selection, mut history: History) -> History {
    history.clients[0].selection = selection;
    // The last that it gets was written after the fault.
    history.healed = std::time::Duration::from_millis(450);
    history
}

/// All that it gets, but these, with this in the place of the first of them.
fn but(of: &[u64], what: Vec<What>) -> Vec<What> {
    let mut heard = if of.is_empty() { all() } else { instead(of, what) };
    heard.retain(|heard| ![entry(3), entry(6)].contains(heard));
    heard
}

/// With this behind its number 2.
fn amid(what: What) -> Vec<What> {
    let mut heard = but(&[], Vec::new());
    heard.insert(2, what);
    heard
}

fn at_most(after: u64, next: u64, most: Option<u64>) -> What {
    let What::Gap(gap) = gap(Some(after), Some(next), None, "trimmed") else { unreachable!() };
    What::Gap(Gap { at_most: Some(most), ..gap })
}

fn at(ms: u64) -> What {
    What::At(id(ms))
}

#[track_caller]
fn both_are_caught(history: &History, says: [&str; 2]) -> Findings {
    let findings = check(history);
    let [first, second] = &*findings.violations else { panic!("{:?}", findings.violations) };
    assert!(first.contains(says[0]) && second.contains(says[1]), "{first:?}, {second:?}");
    findings
}

pub(super) fn what_is_withheld_is_not_due() {
    let findings = passes(&selecting(&[], but(&[], Vec::new())));
    assert_eq!((findings.deliveries, findings.lost), (4, 0));
    passes(&selecting(&[], amid(at(30))));
    passes(&selecting(&[3], amid(at_most(20, 40, Some(1)))));
    passes(&selecting(&[3, 4], but(&[4], vec![at_most(20, 50, Some(2))])));
    passes(&selecting(&[3, 4], but(&[4], vec![at_most(20, 50, None)])));
    // The next entry of the stream is withheld.
    passes(&selecting(&[2], but(&[2], vec![at_most(10, 30, Some(1)), at(30)])));
    let findings = caught(&selecting(&[], but(&[4], Vec::new())), "number 4 (40-0) is missing");
    assert_eq!(findings.lost, 1);
    caught(&selecting(&[4], but(&[4], vec![at_most(20, 40, None)])), "without a gap");
    caught(&selecting(&[], but(&[4], vec![at_most(20, 50, None)])), "still holds");
    let further = but(&[4], vec![at_most(20, 60, None)]);
    caught(&selecting(&[4], further), "names another");
}

pub(super) fn what_is_not_for_it_is_caught() {
    caught(&selecting(&[], all()[..5].to_vec()), "number 3 (30-0) is not for it");
}

pub(super) fn what_may_be_others_is_not_counted_as_lost() {
    let own = || gap(Some(20), Some(50), Some(1), "trimmed");
    caught(&selecting(&[4], but(&[4], vec![own()])), "counts what it may not");
    let silent = gap(Some(20), Some(50), None, "trimmed");
    caught(&selecting(&[4], but(&[4], vec![silent])), "counts what it may not");
    let What::Gap(both) = own() else { unreachable!() };
    let both = What::Gap(Gap { at_most: Some(Some(1)), ..both });
    caught(&selecting(&[4], but(&[4], vec![both])), "counts what it may not");
    caught(&history(&[3], instead(&[3], vec![at_most(20, 40, Some(1))])), "counts what it may not");
    // What is too large is its own.
    let with = |gap| {
        let mut history = selecting(&[4], but(&[4], vec![gap]));
        history.allowed.reasons = &["oversize"];
        history
    };
    passes(&with(gap(Some(20), Some(50), Some(1), "oversize")));
    let What::Gap(others) = at_most(20, 50, Some(1)) else { unreachable!() };
    let others = What::Gap(Gap { reason: "oversize".into(), ..others });
    caught(&with(others), "counts what it may not");
}

pub(super) fn a_wrong_number_at_most_is_caught() {
    let lacks = |most| selecting(&[4, 5], [&all()[..2], &[at_most(20, 60, Some(most))]].concat());
    // Nothing more comes, which is another fault.
    assert!(!check(&lacks(2)).violations.iter().any(|what| what.contains("told are")));
    both_are_caught(&lacks(1), ["2 are missing, and told are 1", "nothing written after"]);
    let too_many = selecting(&[3, 4], but(&[4], vec![at_most(20, 50, Some(3))]));
    both_are_caught(&too_many, ["1 are missing, and told are 3", "in all, and told are 3"]);
    caught(&selecting(&[], amid(at_most(20, 40, Some(0)))), "wrong in itself");
}

pub(super) fn an_at_never_goes_back() {
    caught(&selecting(&[], amid(at(10))), "goes back from 20-0");
    let mut twice = amid(at(30));
    twice.insert(3, at(20));
    caught(&selecting(&[], twice), "goes back from 30-0");
    let gap = || at_most(20, 40, None);
    let mut behind = but(&[], Vec::new());
    behind.splice(2..2, [gap(), at(30)]);
    caught(&selecting(&[], behind), "goes back from 39-");
}

pub(super) fn an_at_passes_nothing_that_it_lacks() {
    caught(&selecting(&[], amid(at(40))), "number 4 (40-0) came after it was told");
    // And if it is missing, only a gap before tells of it.
    let gap = || at_most(20, 50, Some(1));
    passes(&selecting(&[4], but(&[4], vec![at(30), gap()])));
    caught(&selecting(&[4], but(&[4], vec![at(40), gap()])), "passed number 4 (40-0)");
    caught(&history(&[], instead(&[3], vec![entry(3), at(30)])), "it gets every entry");
}

/// The entry that ends the stream is another's.
pub(super) fn the_end_is_told_to_who_gets_no_entry_of_it() {
    let heard = |more: &[What]| [but(&[], Vec::new()), more.to_vec()].concat();
    let over = [end(), closed(), What::Over];
    passes(&by(SOME, ending(&[], heard(&over))));
    passes(&by(SOME, ending(&[], heard(&[What::Over]))));
    caught(&by(SOME, ending(&[], heard(&over[..2]))), "no 204");
    let early = [&all()[..2], &[entry(4), end(), entry(5), What::Over]].concat();
    caught(&by(SOME, ending(&[], early)), "without having it");
    let at = [What::End(id(50)), closed(), What::Over];
    caught(&by(SOME, ending(&[], heard(&at))), "at 50-0");
}
