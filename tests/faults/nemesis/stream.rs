//! Faults of the stream itself: its key gone, entries gone, ids elsewhere. Redis gives no error for
//! any of them.

use std::time::Duration;

use ssegate::sse::StreamId;

use super::Over;
use crate::proxy::Ill;
use crate::scene::Scene;
use crate::support::pause_of_the_scenario;
use crate::support::redis::Answer;
use crate::writer::KEY;

/// Each of these is done so many times in a run.
const ROUNDS: usize = 3;

/// Runs a command of the operator's, which has to succeed.
fn order(scene: &Scene, command: &[&str]) {
    let answer = scene.redis().run(command);
    assert!(!matches!(answer, Answer::Error(_)), "{command:?}: {answer:?}");
}

/// The same, of one that may remove entries.
fn run(scene: &Scene, command: &[&str]) {
    order(scene, command);
    // On a busy machine a writer may still have to note what Redis took before.
    drop((scene.writing.lock(), scene.beside.writing.lock()));
    scene.removed();
}

/// Now and then.
fn rounds(scene: &mut Scene, mut once: impl FnMut(&mut Scene)) -> Over {
    for _ in 0..ROUNDS {
        once(scene);
        scene.wait(50, 400);
    }
    once(scene);
    Over::now()
}

pub(super) fn deleted(scene: &mut Scene) -> Over {
    rounds(scene, |scene| run(scene, &["DEL", KEY]))
}

pub(super) fn unlinked(scene: &mut Scene) -> Over {
    rounds(scene, |scene| run(scene, &["UNLINK", KEY]))
}

pub(super) fn flushed(scene: &mut Scene) -> Over {
    rounds(scene, |scene| run(scene, &["FLUSHALL"]))
}

/// The stream is deleted, and the next one has lower ids, as by a producer whose clock went back. They
/// do not wake a read that is blocked at a higher one.
pub(super) fn ids_set_back(scene: &mut Scene) -> Over {
    let most_ms = u64::try_from(scene.block().as_millis()).unwrap() + 500;
    for hours in 1..=3 {
        let mut writer = scene.writing.lock();
        writer.set_back(Duration::from_secs(hours * 3600));
        // Not recorded as a removal: a whole generation may pass before the reader looks.
        order(scene, &["DEL", KEY]);
        drop(writer);
        scene.wait(50, most_ms);
    }
    Over::unwoken(scene)
}

/// Alone, which loses nothing that was read, and in one transaction with entries, which does.
pub(super) fn trimmed_to_nothing(scene: &mut Scene) -> Over {
    rounds(scene, |scene| {
        run(scene, &["XTRIM", KEY, "MAXLEN", "0"]);
        scene.wait(0, 50);
        burst_and(scene, |_| vec![words(&["XTRIM", KEY, "MAXLEN", "0"])]);
    })
}

pub(super) fn trimmed_past_reader(scene: &mut Scene) -> Over {
    rounds(scene, |scene| {
        let keep = scene.rng.u64(1..10).to_string();
        burst_and(scene, |_| vec![words(&["XTRIM", KEY, "MAXLEN", &keep])]);
    })
}

/// Some entries, and commands made of their ids, at once.
fn burst_and(scene: &mut Scene, then: impl FnOnce(&[StreamId]) -> Vec<Vec<String>>) {
    let count = scene.rng.u64(1..40);
    assert!(scene.writing.lock().transaction(count, then), "the transaction was not done");
    scene.removed();
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Pipelined, each of them trimming.
pub(super) fn burst_over_maxlen(scene: &mut Scene) -> Over {
    rounds(scene, |scene| {
        let (count, keep) = (scene.rng.u64(200..2000), scene.rng.u64(0..100));
        assert!(scene.writing.lock().burst(count, Some(keep)), "a burst was not taken");
        scene.removed();
    })
}

/// Before they are read, where they came with others; and after.
pub(super) fn entries_deleted(scene: &mut Scene) -> Over {
    rounds(scene, |scene| {
        delete_some_of_a_burst(scene);
        delete_old_ones(scene);
    })
}

/// Before they are read, and where nothing but a look can tell of it, which is seldom taken.
pub(super) fn deleted_beside_heavy_looks(scene: &mut Scene) -> Over {
    let mut writer = scene.writing.lock();
    order(scene, &["XTRIM", KEY, "MAXLEN", "0"]);
    scene.removed();
    assert!(writer.add_heavy(), "Redis takes an entry");
    drop(writer);
    scene.gateway_has_read_all();
    rounds(scene, delete_some_of_a_burst)
}

fn delete_some_of_a_burst(scene: &mut Scene) {
    let chosen: Vec<bool> = (0..scene.rng.u64(1..40)).map(|_| scene.rng.bool()).collect();
    let now = scene.began.elapsed();
    let mut writer = scene.writing.lock();
    let first = writer.next();
    let done = writer.transaction(chosen.len() as u64, |ids| {
        let delete = |id: &StreamId| words(&["XDEL", KEY, &id.to_string()]);
        ids.iter().zip(&chosen).filter(|(_, chosen)| **chosen).map(|(id, _)| delete(id)).collect()
    });
    drop(writer);
    assert!(done, "the transaction was not done");
    let chosen = (first..).zip(chosen).filter(|(_, chosen)| *chosen);
    scene.deleted.extend(chosen.map(|(number, _)| (number, now)));
}

/// One of the last entries, which some may have read and others not.
fn delete_old_ones(scene: &mut Scene) {
    let back = scene.rng.usize(0..20);
    let last = {
        let writer = scene.writing.lock();
        let mut added =
            writer.written().iter().enumerate().rev().filter_map(|(index, fate)| match fate {
                crate::history::Fate::Added(id, _) => Some((index as u64 + 1, *id)),
                _ => None,
            });
        added.nth(back)
    };
    let Some((number, id)) = last else { return };
    scene.deleted.insert(number, scene.began.elapsed());
    run(scene, &["XDEL", KEY, &id.to_string()]);
}

/// Ahead, as a restore or a replication tool does.
pub(super) fn last_id_set(scene: &mut Scene) -> Over {
    rounds(scene, |scene| {
        let ahead = scene.rng.u64(1..5_000);
        let writer = scene.writing.lock();
        let info = scene.redis().run(&["XINFO", "STREAM", KEY]);
        let last = last_generated(&info);
        let id = StreamId { ms: last.ms + ahead, seq: scene.rng.u64(0..3) };
        order(scene, &["XSETID", KEY, &id.to_string()]);
        scene.removed();
        drop(writer);
    })
}

/// An empty stream is made to look as it did at its beginning.
pub(super) fn last_id_set_back(scene: &mut Scene) -> Over {
    let writer = scene.writing.lock();
    order(scene, &["XTRIM", KEY, "MAXLEN", "0"]);
    order(scene, &["XSETID", KEY, "1-1", "ENTRIESADDED", "0", "MAXDELETEDID", "0-0"]);
    scene.removed();
    drop(writer);
    Over::now()
}

fn last_generated(info: &Answer) -> StreamId {
    let Answer::List(parts) = info else { panic!("{info:?}") };
    let mut pairs = parts.chunks_exact(2);
    let last = pairs.find(|pair| pair[0] == Answer::Text("last-generated-id".into()));
    let Some([_, Answer::Text(id)]) = last else { panic!("{info:?}") };
    id.parse().unwrap()
}

/// The stream is overwritten, and a new one begins in its place.
pub(super) fn string_in_its_place(scene: &mut Scene) -> Over {
    run(scene, &["SET", KEY, "no stream"]);
    // A blocked reader is not woken by it.
    let time = scene.block() + scene.some_time(200, 1000);
    pause_of_the_scenario(time, "there is a string");
    run(scene, &["DEL", KEY]);
    Over::now()
}

/// The stream is put aside, and comes back as it was.
pub(super) fn string_and_back(scene: &mut Scene) -> Over {
    let mut operator = scene.operator();
    for command in
        [&["MULTI"][..], &["RENAME", KEY, "aside"], &["SET", KEY, "no stream"], &["EXEC"]]
    {
        operator.run(command).unwrap();
    }
    let time = scene.block() + scene.some_time(200, 1000);
    pause_of_the_scenario(time, "there is a string");
    run(scene, &["RENAME", "aside", KEY]);
    Over::now()
}

/// Clients are cut off and kept out; meanwhile this happens.
fn behind_clients(scene: &mut Scene, mut once: impl FnMut(&mut Scene)) -> Over {
    for _ in 0..ROUNDS {
        scene.client_side().strike(Ill::Reset);
        scene.client_side().strike_all(Ill::Stalled);
        scene.wait(50, 200);
        once(scene);
        scene.wait(50, 200);
        scene.client_side().heal();
        scene.wait(100, 500);
    }
    Over::now()
}

pub(super) fn trimmed_behind_clients(scene: &mut Scene) -> Over {
    behind_clients(scene, |scene| {
        let keep = scene.rng.u64(0..30);
        assert!(scene.writing.lock().burst(300, Some(keep)), "a burst was not taken");
    })
}

pub(super) fn deleted_behind_clients(scene: &mut Scene) -> Over {
    behind_clients(scene, |scene| {
        delete_some_of_a_burst(scene);
        scene.wait(0, 100);
        delete_some_of_a_burst(scene);
        delete_old_ones(scene);
    })
}

pub(super) fn reset_behind_clients(scene: &mut Scene) -> Over {
    behind_clients(scene, |scene| run(scene, &["DEL", KEY]))
}
