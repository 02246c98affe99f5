//! One run of one fault: both sides go on, the nemesis strikes, and when all is level again the
//! checker looks at what the writer and the clients recorded.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::checker::{Findings, check};
use crate::history::{Allowed, Ending, Fate, History};
use crate::nemesis::Fault;
use crate::payload;
use crate::record::Record;
use crate::scene::{Plan, Scene};
use crate::support::pause_of_the_scenario;
use crate::support::waiting::holds_by;
use crate::writer::{KEY, Writer};

/// Times a second that the writer writes of its own, and where others write beside it.
const RATE: u32 = 120;
const RATE_OF_MANY: u32 = 60;
/// What is not level this long after its limit will not be.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs it. A panic, such as of something that should have happened and did not, is a violation too.
pub fn run(fault: &Fault, plan: Plan, runtime: &Handle) -> Findings {
    let run = || {
        let rng = fastrand::Rng::with_seed(plan.seed ^ digest(fault.name));
        let mut scene = Scene::set(fault.stage, plan, rng, runtime);
        let mut findings = Findings::default();
        for (key, history) in play(fault, &mut scene) {
            findings.add(&key, check(&history));
        }
        if !findings.violations.is_empty() {
            findings.evidence += &format!("--- the gateway's log ---\n{}", scene.log());
        }
        findings
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let said = format!("the run panicked: {}", said.unwrap_or_default());
        Findings { violations: vec![said], ..Findings::default() }
    })
}

/// Faults are not to strike at the same moments under one seed.
fn digest(name: &str) -> u64 {
    name.bytes().fold(0, |digest, byte| digest.wrapping_mul(31).wrapping_add(u64::from(byte)))
}

/// What happened to the key that the fault is about, and to those beside it.
fn play(fault: &Fault, scene: &mut Scene) -> Vec<(String, History)> {
    for _ in 0..scene.rng.u64(0..30) {
        assert!(scene.writing.lock().add(), "Redis takes an entry");
    }
    let ends = fault.allowed.ends;
    let paths = if ends { ["/answer", "/answer-told"] } else { ["/events", "/told"] };
    let mut records = scene.let_clients_in(paths);
    scene.let_clients_in_beside();
    let chosen = |path| format!("{path}?stream=a&stream=b0&stream=b1");
    let merged = if ends { "/merged-answer" } else { "/merged" };
    let chosen = chosen(if ends { "/chosen-answer" } else { "/chosen" });
    // They hold a stream open that is over: with every other seed nobody does.
    if !ends || !scene.plan.seed.is_multiple_of(2) {
        records.extend(scene.let_merged_in([merged, &chosen]));
    }
    let due_from = scene.writing.lock().next();
    scene.begin_beside();
    let (rng, shared) = (scene.rng.fork(), scene.plan.shared);
    scene.writing.begin(if shared { RATE_OF_MANY } else { RATE }, rng, Writer::add_some);
    scene.wait(200, 700);

    let over = (fault.inflict)(scene);
    let healed = over.at - scene.began;
    let healed_beside = scene.add_beside();
    let deadline = over.at + over.limit + PATIENCE;
    if ends {
        holds_by(deadline, || records.iter().all(|record| record.is_over_since(healed)));
        scene.wait(300, 700);
    } else {
        holds_by(deadline, || heard_of_what_came_after(scene, healed, &records));
        scene.wait(300, 700);
        scene.writing.end();
        if !scene.deleted.is_empty() {
            pause_of_the_scenario(
                scene.block(),
                "the next entry has a look, which tells of deletions",
            );
        }
        // The last of them ends everything: what comes twice comes before it, also where a third is not told of.
        for _ in 0..3 {
            scene.writing.lock().add();
            let is_level = |record: &Arc<Record>| record.is_level(&scene.writing.lock());
            holds_by(deadline + PATIENCE, || records.iter().all(is_level));
        }
    }
    scene.end_beside(Instant::now() + PATIENCE);
    let (limit, allowed) = (over.limit, fault.allowed);
    let main = remember(scene, &scene.writing.lock(), due_from, &records);
    let mut histories = vec![(KEY.to_owned(), History { healed, allowed, ..main })];
    for (key, beside) in scene.histories_beside() {
        let (healed, allowed) = (healed_beside, fault.beside);
        histories.push((key, History { healed, allowed, ..beside }));
    }
    let bounded =
        |(key, history)| (key, History { limit, allowed_to_merged: fault.merged, ..history });
    histories.into_iter().map(bounded).collect()
}

/// Whether every client has heard of an entry that was written after the fault.
fn heard_of_what_came_after(scene: &Scene, healed: Duration, records: &[Arc<Record>]) -> bool {
    let writer = scene.writing.lock();
    let after = |(_, fate): &(u64, &Fate)| matches!(fate, Fate::Added(_, at) if *at > healed);
    let mut after = (1..).zip(writer.written()).filter(after).map(|(number, _)| number);
    let Some(first) = after.next() else { return false };
    let has_one = |record: &Arc<Record>| {
        let mut its_own = (first..writer.next()).filter(|number| record.selection.admits(*number));
        its_own.next().is_some_and(|number| record.last() >= number)
    };
    records.iter().all(has_one)
}

/// What happened to the key of this writer; the bounds are still to be set.
pub fn remember(scene: &Scene, writer: &Writer, due_from: u64, records: &[Arc<Record>]) -> History {
    let written = writer.written().to_vec();
    let kept = scene.kept(writer.key()).into_iter().map(|(id, data)| {
        let number = payload::number(&data).expect("what the writer wrote");
        let fate = written[usize::try_from(number).unwrap() - 1];
        let given = matches!(fate, Fate::Added(given, _) if given.to_string() == id);
        assert!(
            given || fate == Fate::Unknown,
            "number {number} is kept as {id}, and was {fate:?}"
        );
        number
    });
    let is_main = writer.key() == KEY;
    let ending = writer.marker();
    let ending = ending.map(|marker| Ending { marker, gone: scene.gone, away: scene.away });
    History {
        kept: kept.collect(),
        written,
        due_from,
        deleted: if is_main { scene.deleted.clone() } else { HashMap::new() },
        removals: scene.removals(),
        clients: records.iter().map(|record| record.listener()).collect(),
        healed: Duration::ZERO,
        limit: Duration::ZERO,
        given_up: scene.began.elapsed(),
        allowed: Allowed::default(),
        allowed_to_merged: Allowed::default(),
        ending,
    }
}
