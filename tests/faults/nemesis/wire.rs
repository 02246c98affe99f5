//! Faults of the wire: a proxy that misbehaves, between the gateway and Redis, or between the clients
//! and the gateway.

use std::time::{Duration, Instant};

use super::{FAR_BEHIND, Over};
use crate::proxy::{Ill, Proxy};
use crate::scene::Scene;
use crate::support::{eventually, pause_of_the_scenario};

const SLOW: Ill = Ill::Slow(Duration::from_millis(300));

/// Which of the proxies.
type Side = fn(&Scene) -> &Proxy;

/// Every piece comes late.
pub(super) fn redis_slow(scene: &mut Scene) -> Over {
    lasts(scene, Scene::redis_side, SLOW)
}

/// Old connections and new ones alike; then everything is passed on.
pub(super) fn redis_stalled(scene: &mut Scene) -> Over {
    lasts(scene, Scene::redis_side, Ill::Stalled)
}

/// Like a network that drops the packets of existing connections, and passes those of new ones.
pub(super) fn redis_silent(scene: &mut Scene) -> Over {
    silent(scene, Ill::Stalled)
}

/// Redis hears the gateway, and not the other way round.
pub(super) fn redis_deaf(scene: &mut Scene) -> Over {
    silent(scene, Ill::Deaf)
}

/// Silent in the middle of an answer.
pub(super) fn redis_halved(scene: &mut Scene) -> Over {
    silent(scene, Ill::Halved)
}

/// Clients come back while every connection to Redis is silent, also those that resumes use.
pub(super) fn redis_silent_to_returners(scene: &mut Scene) -> Over {
    scene.client_side().strike(Ill::Reset);
    scene.wait(400, 800);
    let over = silent(scene, Ill::Stalled);
    scene.client_side().strike(Ill::Reset);
    over
}

/// Clients are so far behind that they read on from Redis, which is silent, then resets each connection that asks.
pub(super) fn redis_away_from_followers(scene: &mut Scene) -> Over {
    scene.client_side().strike_all(Ill::Stalled);
    assert!(scene.writing.lock().burst(FAR_BEHIND, None), "a burst was not taken");
    scene.gateway_has_read_all();
    scene.wait(100, 300);
    scene.redis_side().strike_all(Ill::Stalled);
    scene.client_side().heal();
    let reads = || scene.gateway().report()["replays"]["now"].as_u64().unwrap();
    eventually("they read on from Redis", || reads() > 0);
    // Until these reads are given up, too.
    pause_of_the_scenario(scene.lasting(3_500, 6_000), "reads are given up");
    again_and_again(scene, Scene::redis_side, Ill::Reset)
}

pub(super) fn redis_truncated(scene: &mut Scene) -> Over {
    again_and_again(scene, Scene::redis_side, Ill::Truncated)
}

pub(super) fn redis_reset(scene: &mut Scene) -> Over {
    again_and_again(scene, Scene::redis_side, Ill::Reset)
}

pub(super) fn client_slow(scene: &mut Scene) -> Over {
    lasts(scene, Scene::client_side, SLOW)
}

/// Clients take nothing for a while, and then go on where they were.
pub(super) fn client_stalled(scene: &mut Scene) -> Over {
    lasts(scene, Scene::client_side, Ill::Stalled)
}

/// Clients take nothing until they are cut for that, or for what they are behind when they go on.
pub(super) fn slow_clients_cut(scene: &mut Scene) -> Over {
    scene.client_side().strike_all(Ill::Stalled);
    assert!(scene.writing.lock().burst(FAR_BEHIND, None), "a burst was not taken");
    scene.gateway_has_read_all();
    // Twice as long: what the kernel still had room for at first looks like taking.
    scene.wait(2_500, 3_000);
    scene.client_side().heal();
    let over = Over::now();
    let cut = || scene.gateway().metric("ssegate_client_disconnects_total{reason=\"slow\"}");
    // One in five may speak HTTP/2, which may have taken all of it into buffers of its own.
    let followers = scene.plan.followers();
    let least = followers - followers / 5;
    eventually("they are cut", || cut() >= least as f64);
    over
}

/// Half of a write, nothing for a while, and then a reset.
pub(super) fn client_halved(scene: &mut Scene) -> Over {
    for _ in 0..2 {
        scene.client_side().strike(Ill::Halved);
        scene.wait(300, 1000);
        scene.client_side().strike(Ill::Reset);
        scene.wait(200, 600);
    }
    Over::now()
}

pub(super) fn client_truncated(scene: &mut Scene) -> Over {
    again_and_again(scene, Scene::client_side, Ill::Truncated)
}

pub(super) fn client_reset(scene: &mut Scene) -> Over {
    again_and_again(scene, Scene::client_side, Ill::Reset)
}

fn lasts(scene: &Scene, side: Side, ill: Ill) -> Over {
    side(scene).strike_all(ill);
    pause_of_the_scenario(scene.lasting(5_000, 10_000), "the illness lasts");
    side(scene).heal();
    Over::now()
}

fn silent(scene: &Scene, ill: Ill) -> Over {
    scene.redis_side().strike(ill);
    Over::silent_since(Instant::now(), scene)
}

/// Strikes every open connection, and new ones as they come.
fn again_and_again(scene: &mut Scene, side: Side, ill: Ill) -> Over {
    let end = Instant::now() + scene.lasting(1_500, 6_000);
    while Instant::now() < end {
        side(scene).strike(ill);
        scene.wait(10, 300);
    }
    side(scene).heal();
    Over::now()
}
