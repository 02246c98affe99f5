//! Faults of what lies around the stream: connections, pauses, rights.

use std::time::Instant;

use super::Over;
use crate::scene::{MAY_READ, MAY_READ_BESIDE, PASSWORD, Scene, USER};
use crate::support::pause_of_the_scenario;
use crate::support::redis::Answer;

/// Every connection, again and again.
pub(super) fn connections_killed(scene: &mut Scene) -> Over {
    let end = Instant::now() + scene.lasting(1_500, 6_000);
    let mut operator = scene.operator();
    while Instant::now() < end {
        operator.run(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
        scene.wait(5, 200);
    }
    Over::now()
}

pub(super) fn clients_paused(scene: &mut Scene) -> Over {
    let time = scene.lasting(5_000, 10_000);
    let mut operator = scene.operator();
    operator.run(&["CLIENT", "PAUSE", &time.as_millis().to_string(), "ALL"]).unwrap();
    pause_of_the_scenario(time, "Redis is paused");
    Over::now()
}

/// The right to read the key, and then to read at all, for a while each.
pub(super) fn right_withdrawn(scene: &mut Scene) -> Over {
    let rights: [(&[&str], &[&str]); 2] =
        [(&["resetkeys", MAY_READ_BESIDE], &[MAY_READ]), (&["-xread"], &["+xread"])];
    for (without, with) in rights {
        user(scene, without);
        // A read that is under way runs to its end.
        let time = scene.block() + scene.some_time(200, 1000);
        pause_of_the_scenario(time, "the right is gone");
        user(scene, with);
        scene.wait(0, 500);
    }
    Over::now()
}

/// Connections are killed, and no login succeeds for a while.
pub(super) fn password_changed(scene: &mut Scene) -> Over {
    user(scene, &["resetpass", ">another"]);
    let killed = scene.operator().run(&["CLIENT", "KILL", "USER", USER]).unwrap();
    assert!(matches!(killed, Answer::Number(1..)), "{killed:?}");
    scene.wait(300, 2_000);
    user(scene, &["resetpass", &format!(">{PASSWORD}")]);
    Over::now()
}

fn user(scene: &Scene, rules: &[&str]) {
    let command = [&["ACL", "SETUSER", USER][..], rules].concat();
    assert_eq!(scene.redis().run(&command), Answer::Text("OK".into()), "{command:?}");
}
