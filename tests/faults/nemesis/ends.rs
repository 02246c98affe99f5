//! Faults around the end of a stream: whoever comes back has to learn that it is over.

use std::time::Duration;

use super::{FAR_BEHIND, Over};
use crate::proxy::Ill;
use crate::scene::Scene;
use crate::support::redis::Answer;
use crate::support::{eventually, pause_of_the_scenario};
use crate::writer::{KEY, Writer};

/// The end, and with it so many entries more.
fn end_stream(scene: &mut Scene, more: u64) {
    scene.writing.end();
    write_end(&mut scene.writing.lock(), more);
}

fn write_end(writer: &mut Writer, more: u64) {
    writer.end_after(more);
    assert!(writer.burst(more + 1, None), "the end was not taken");
}

/// The key goes: at once, or when its time is over.
fn lose_key(scene: &mut Scene) {
    scene.gone = Some(scene.began.elapsed());
    let after_ms = scene.rng.u64(1..200).to_string();
    let at_once = scene.rng.bool();
    let command = if at_once { &["DEL", KEY][..] } else { &["PEXPIRE", KEY, &after_ms] };
    let answer = scene.redis().run(command);
    assert_eq!(answer, Answer::Number(1));
    let gone = || scene.redis().run(&["EXISTS", KEY]) == Answer::Number(0);
    eventually("the key is gone", gone);
    scene.removed();
}

/// While the last entries are on their way.
pub(super) fn gateway_killed(scene: &mut Scene) -> Over {
    scene.writing.end();
    let (more, soon) = (scene.rng.u64(0..20), Duration::from_micros(scene.rng.u64(0..4_000)));
    let gateway = scene.lose_gateway();
    std::thread::scope(|scope| {
        scope.spawn(|| write_end(&mut scene.writing.lock(), more));
        pause_of_the_scenario(soon, "the end is on its way");
        drop(gateway);
    });
    scene.wait(50, 1000);
    scene.start_gateway();
    Over::now()
}

/// While clients take what they are behind.
pub(super) fn gateway_killed_amid_events(scene: &mut Scene) -> Over {
    scene.client_side().strike_all(Ill::Stalled);
    end_stream(scene, FAR_BEHIND / 2);
    scene.gateway_has_read_all();
    scene.client_side().heal();
    let soon = Duration::from_micros(scene.rng.u64(0..40_000));
    pause_of_the_scenario(soon, "clients take what they are behind");
    drop(scene.lose_gateway());
    scene.wait(50, 1000);
    scene.start_gateway();
    Over::now()
}

/// And started again with all that it had.
pub(super) fn redis_killed(scene: &mut Scene) -> Over {
    end_stream(scene, 0);
    let before = scene.began.elapsed();
    let all_over = || scene.records.iter().all(|record| record.is_over_since(before));
    eventually("every client is over", all_over);
    scene.away = Some(scene.began.elapsed());
    scene.redis_mut().kill();
    scene.wait(100, 1500);
    scene.redis_mut().launch();
    Over::now()
}

/// The same; on its stage Redis keeps nothing.
pub(super) fn redis_emptied(scene: &mut Scene) -> Over {
    let over = redis_killed(scene);
    scene.gone = scene.away;
    over
}

/// As soon as one of the clients has the end.
pub(super) fn key_gone_at_once(scene: &mut Scene) -> Over {
    let more = scene.rng.u64(0..20);
    end_stream(scene, more);
    let marker = scene.writing.lock().marker().expect("it was written");
    let one_has_it = || scene.records.iter().any(|record| record.last() == marker);
    eventually("a client has the end", one_has_it);
    lose_key(scene);
    Over::unwoken(scene)
}

/// Clients are so far behind that only Redis had what they lack.
pub(super) fn key_gone_behind_clients(scene: &mut Scene) -> Over {
    scene.client_side().strike_all(Ill::Stalled);
    let more = scene.rng.u64(0..2 * FAR_BEHIND);
    end_stream(scene, more);
    scene.gateway_has_read_all();
    lose_key(scene);
    scene.wait(0, 500);
    scene.client_side().heal();
    Over::unwoken(scene)
}

/// Clients were cut off before the end, and come back when there is nothing left.
pub(super) fn key_gone_without_clients(scene: &mut Scene) -> Over {
    scene.client_side().strike(Ill::Reset);
    scene.client_side().strike_all(Ill::Stalled);
    scene.wait(50, 200);
    end_stream(scene, 0);
    scene.wait(50, 200);
    lose_key(scene);
    scene.wait(50, 200);
    scene.client_side().heal();
    Over::now()
}
