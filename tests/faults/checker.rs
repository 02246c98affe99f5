//! Holds a history against the promise: each entry once, in order, whole, or a gap that covers it;
//! and everything level again soon after the fault. What a client did not ask for is not due to it, and may not come.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ssegate::sse::StreamId;

use crate::history::{Allowed, Gap, Heard, History, Listener, What, account};
use crate::selection::Selection;

mod balance;
mod ends;
mod group;
mod parts;
pub mod proof;
mod rows;

use balance::Balance;
use group::Group;
use rows::Place;

/// A delivery that takes longer than this is late, and nothing is level before it.
const LATE: Duration = Duration::from_millis(500);
/// A client that got an entry so long before it was given up was on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// How many violations are reported of a client, and of how many clients.
const VIOLATIONS_REPORTED: usize = 5;
const CLIENTS_REPORTED: usize = 3;
/// And of all keys.
const MOST_REPORTED: usize = 40;

/// What the checker found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Entries that were acknowledged and that the clients had to hear of.
    pub entries: usize,
    /// Of all clients together, like the fields below.
    pub deliveries: usize,
    /// Gaps that clients got.
    pub gaps: usize,
    /// Entries missing without a gap that covers them.
    pub lost: usize,
    /// Entries delivered again.
    pub doubled: usize,
    /// From the end of the fault until all clients were level.
    pub recovery: Duration,
    /// Nothing was violated but the time of the recovery.
    pub only_late: bool,
    /// What was violated, in words.
    pub violations: Vec<String>,
    /// Then: what one of the clients concerned heard, and what the gateway logged.
    pub evidence: String,
}

impl Findings {
    /// Adds what was found of another key's clients.
    pub fn add(&mut self, key: &str, other: Self) {
        self.entries += other.entries;
        self.deliveries += other.deliveries;
        self.gaps += other.gaps;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.recovery = self.recovery.max(other.recovery);
        if other.violations.is_empty() {
            return;
        }
        let is_first = self.violations.is_empty();
        self.only_late = other.only_late && (is_first || self.only_late);
        if is_first {
            self.evidence = other.evidence;
        }
        let room = MOST_REPORTED.saturating_sub(self.violations.len());
        let reported = other.violations.iter().take(room);
        self.violations.extend(reported.map(|what| format!("{key}: {what}")));
    }
}

/// Checks every client.
pub fn check(history: &History) -> Findings {
    let due = history.due_from..=history.written.len() as u64;
    let mut findings = Findings {
        entries: due.filter(|number| history.acknowledged(*number).is_some()).count(),
        ..Findings::default()
    };
    let numbers: HashMap<StreamId, u64> = (1..=history.written.len() as u64)
        .filter_map(|number| history.acknowledged(number).map(|(id, _)| (id, number)))
        .collect();
    let (mut concerned, mut only_late) = (0, true);
    for (index, listener) in history.clients.iter().enumerate() {
        let mut client = Client::new(history, &numbers, listener);
        client.check(&listener.heard);
        findings.deliveries += client.delivered.len();
        findings.gaps += client.gaps;
        findings.lost += client.lost;
        findings.doubled += client.doubled;
        findings.recovery = findings.recovery.max(client.recovery);
        if client.violations.is_empty() {
            continue;
        }
        concerned += 1;
        only_late &= client.violations.len() == usize::from(client.late);
        if concerned == 1 {
            findings.evidence = format!("--- client {index} heard ---\n{}", account(listener));
        }
        if concerned <= CLIENTS_REPORTED {
            let reported = client.violations.iter().take(VIOLATIONS_REPORTED);
            findings.violations.extend(reported.map(|what| format!("client {index}: {what}")));
        }
    }
    findings.only_late = concerned > 0 && only_late;
    if concerned > CLIENTS_REPORTED {
        let others = concerned - CLIENTS_REPORTED;
        findings.violations.push(format!("and {others} more clients likewise"));
    }
    findings
}

/// The check of one client.
struct Client<'a> {
    history: &'a History,
    /// Acknowledged ids; the latest entry of each.
    numbers: &'a HashMap<StreamId, u64>,
    /// What it asked for: the rest is not due.
    selection: Selection,
    /// There are other streams on its connection.
    is_part: bool,
    delivered: HashSet<u64>,
    gaps: usize,
    lost: usize,
    doubled: usize,
    recovery: Duration,
    late: bool,
    /// It was behind when it was given up, and getting on.
    is_on_its_way: bool,
    /// It was away when the key went, and is told no more than that the stream is over.
    is_left_behind: bool,
    violations: Vec<String>,
}

impl<'a> Client<'a> {
    fn new(history: &'a History, numbers: &'a HashMap<StreamId, u64>, listener: &Listener) -> Self {
        Self {
            history,
            numbers,
            selection: listener.selection,
            is_part: listener.is_part,
            delivered: HashSet::new(),
            gaps: 0,
            lost: 0,
            doubled: 0,
            recovery: Duration::ZERO,
            late: false,
            is_on_its_way: false,
            is_left_behind: false,
            violations: Vec::new(),
        }
    }

    fn check(&mut self, heard: &[Heard]) {
        self.delivered = heard.iter().filter_map(Heard::number).collect();
        self.check_end(heard);
        self.is_on_its_way = self.was_on_its_way(heard);
        let groups = self.walk(heard);
        let mut balance = Balance::default();
        let gaps = heard.iter().filter(|heard| matches!(heard.what, What::Gap(_)));
        let last_gap = gaps.map(|gap| gap.at).max().unwrap_or_default();
        for group in &groups {
            if group.until.is_some() || !self.is_left_behind && !self.is_on_its_way {
                self.settle(group, last_gap, &mut balance);
            }
        }
        self.close(&balance);
        let Allowed { at_least, reasons, .. } = self.history.allowed;
        if self.gaps < at_least && !self.is_on_its_way {
            let gaps = self.gaps;
            self.violations
                .push(format!("it was told of a {reasons:?} {gaps} times, not {at_least}"));
        }
        if self.history.ending.is_none() {
            self.check_recovery(heard);
        }
    }

    /// Each thing heard by itself and against the one before; the gaps, sorted in between the entries.
    fn walk(&mut self, heard: &[Heard]) -> Vec<Group> {
        let mut groups = Vec::new();
        let mut group = Group::after(self.history.due_from - 1, None);
        let (mut seen, mut came_back, mut place) = (HashSet::new(), false, Place::default());
        for (index, one) in heard.iter().enumerate() {
            self.check_place(one, &mut place);
            if let Some(id) = self.moved_to(&one.what) {
                group.ats.extend(self.at(id, &group));
            }
            match &one.what {
                What::Entry(id, number) => {
                    self.check_entry(*id, *number);
                    if !seen.insert(*number) {
                        self.doubled += 1;
                        self.violations.push(format!("number {number} ({id}) twice"));
                        continue;
                    }
                    if *number <= group.after {
                        let before = group.after;
                        self.violations.push(format!("number {number} ({id}) after {before}"));
                        continue;
                    }
                    groups.push(group.before(*number, *id));
                    group = Group::after(*number, Some(*id));
                }
                What::Gap(gap) => {
                    self.gaps += 1;
                    self.check_gap(gap);
                    // A client that came back right after a gap may get it again: once more, not more.
                    if !(came_back && group.gaps.last() == Some(gap)) {
                        group.gaps.push(gap.clone());
                    }
                    came_back = false;
                    if gap.reason == "reset" && self.history.allowed.redis_loses {
                        // Redis fell back to an older state: a new generation, with much that was heard before.
                        groups.push(std::mem::replace(&mut group, Group::after(0, None)));
                        seen.clear();
                    }
                }
                What::Closed(why) if !self.may_close(why) && !self.is_ended(&heard[..index]) => {
                    self.violations.push(format!("its connection ended: {why}"));
                }
                What::Wrong(what) => self.violations.push(what.clone()),
                What::Opened(_) => came_back = true,
                What::At(_)
                | What::Moved(_)
                | What::Signal(_)
                | What::Closed(_)
                | What::End(_)
                | What::EndAtGap
                | What::Over => {}
            }
        }
        groups.push(group);
        groups
    }

    fn check_entry(&mut self, id: StreamId, number: u64) {
        use crate::history::Fate;
        let right = match self.history.fate(number) {
            Some(Fate::Added(given, _)) => given == id,
            Some(Fate::Unknown) => true,
            Some(Fate::Refused) | None => false,
        };
        if !right {
            let fate = self.history.fate(number);
            self.violations.push(format!("number {number} came as {id}, and was {fate:?}"));
        }
    }

    fn check_gap(&mut self, gap: &Gap) {
        let allowed = &self.history.allowed;
        let vain = allowed.redis_loses && self.history.redis_lost_nothing();
        if vain || !allowed.reasons.contains(&&*gap.reason) {
            self.violations.push(format!("a false alarm: {gap:?}"));
        }
        if gap.next.is_some_and(|next| gap.id != next.prev()) || gap.told() == Some(0) {
            self.violations.push(format!("a gap that is wrong in itself: {gap:?}"));
        }
        self.check_count(gap);
    }

    /// Every entry that is missing between two deliveries is covered by a gap there.
    fn settle(&mut self, group: &Group, last_gap: Duration, balance: &mut Balance) {
        let out_of_place = group.out_of_place(self.numbers, self.selection.withholds());
        if let Some(violation) = out_of_place {
            self.violations.push(violation);
        }
        let end = group.until.map_or(self.history.written.len() as u64 + 1, |(number, _)| number);
        let (mut missing, mut unknown) = (0, 0);
        for number in (group.after + 1).max(self.history.due_from)..end {
            if self.delivered.contains(&number) {
                continue;
            }
            let there = self.history.kept.contains(&number);
            if !self.selection.admits(number) {
                unknown += u64::from(!there);
                continue;
            }
            let Some((id, added)) = self.history.acknowledged(number) else {
                if there {
                    self.lose(number, "which nobody acknowledged and the stream holds", group);
                }
                unknown += 1;
                continue;
            };
            if let Some(at) = self.history.deleted.get(&number) {
                balance.deleted += 1;
                balance.unreported += u64::from(*at > last_gap);
                continue;
            }
            missing += 1;
            let gone = self.history.allowed.redis_loses && !there;
            if there {
                self.lose(number, "which the stream still holds", group);
            } else if !gone && !group.covers(number, id, self.numbers) {
                self.lose(number, "without a gap", group);
            } else if !self.history.was_removed_after(added) {
                self.lose(number, "which was not removed so soon", group);
            } else if !gone {
                self.check_passed(number, id, group);
            }
        }
        self.count(group, missing, unknown, balance);
    }

    fn lose(&mut self, number: u64, what: &str, group: &Group) {
        self.lost += 1;
        let id =
            self.history.acknowledged(number).map_or(String::new(), |(id, _)| format!(" ({id})"));
        let gaps = &group.gaps;
        self.violations.push(format!("number {number}{id} is missing, {what}: {gaps:?}"));
    }

    /// Whether entries still came, and the last that it gets had not come.
    fn was_on_its_way(&self, heard: &[Heard]) -> bool {
        let last = heard.iter().rev().find(|heard| heard.number().is_some());
        let still_came = last.is_some_and(|last| last.at + ON_ITS_WAY >= self.history.given_up);
        let is_due = |number: &u64| {
            self.selection.admits(*number) && self.history.acknowledged(*number).is_some()
        };
        let newest = (1..=self.history.written.len() as u64).rev().find(is_due);
        let is_level = newest.is_none_or(|newest| self.delivered.contains(&newest));
        still_came && !is_level && self.history.ending.is_none()
    }

    /// The last delivery that was late counts, and the first of an entry that was written after the
    /// fault.
    fn check_recovery(&mut self, heard: &[Heard]) {
        let healed = self.history.healed;
        let mut first_after = false;
        for Heard { at, what } in heard {
            let What::Entry(_, number) = what else { continue };
            let Some((_, written)) = self.history.acknowledged(*number) else { continue };
            let is_first =
                written > healed && !std::mem::replace(&mut first_after, written > healed);
            let late = *at > healed && at.saturating_sub(written) > LATE;
            if is_first || late {
                self.recovery = self.recovery.max(at.saturating_sub(healed));
            }
        }
        let (recovery, limit) = (self.recovery, self.history.limit);
        self.late = recovery > limit || self.is_on_its_way;
        if self.is_on_its_way {
            self.violations.push("it was behind, and on its way when it was given up".into());
        } else if self.late {
            self.violations
                .push(format!("level only {recovery:.1?} after the fault, not {limit:?}"));
        }
        if !first_after && !self.is_on_its_way {
            self.violations.push("it heard of nothing written after the fault".into());
        }
    }
}
