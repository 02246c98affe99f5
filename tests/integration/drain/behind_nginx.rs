//! A thousand clients behind an nginx that learns late of a gateway's end.

use std::time::{Duration, Instant};

use super::is_draining;
use crate::support::gateway::Setup;
use crate::support::nginx::Nginx;
use crate::support::redis::Redis;
use crate::support::swarm::{self, Address};
use crate::support::viewer::{Ends, Journey, Viewers, Writer};
use crate::support::{DEADLINE, eventually, pause_of_the_scenario, within};

#[test]
fn a_thousand_clients_behind_nginx_that_hears_late_of_the_stop_miss_nothing() {
    const VIEWERS: usize = 1_000;
    let runtime = swarm::crowd();
    let redis = Redis::start();
    let setup = || {
        let setup = Setup::redis(&redis).set("server", "drain = \"8s\"");
        setup.set("server", "retry = \"200ms\"").start_ready()
    };
    let (mut old, new) = (setup(), setup());
    let nginx = Nginx::start(&old.address);
    let viewers = Viewers::start(&runtime, &Address::Unix(nginx.socket()), VIEWERS, Ends::Well);

    let writer = Writer::start(&redis, 1, Duration::from_millis(50));
    let stop_begins = Instant::now();
    old.signal("TERM");
    is_draining(&old);
    let late = Duration::from_secs(5).saturating_sub(stop_begins.elapsed());
    pause_of_the_scenario(late, "nginx hears late of it");
    nginx.point_at(&new.address);
    within(DEADLINE * 2, "all viewers are at the new gateway", || {
        // A viewer ends early only by a fault, which is reported below.
        viewers.any_is_done() || new.metric("ssegate_clients") >= VIEWERS as f64
    });
    assert_eq!(old.wait().code(), Some(0));
    let written = writer.stop();
    assert!(written > 50, "only {written} entries were written");

    let journeys = viewers.join(&runtime);
    assert!(journeys.iter().all(|journey| journey.drains > 0), "a viewer got no drain event");
    // The old one serves to its end, and nobody comes back to it.
    let once =
        |journey: &Journey| (journey.connections, journey.drains, journey.refusals) == (2, 1, 0);
    assert!(journeys.iter().all(once), "a viewer changed more than once");
    eventually("every response is in nginx' log", || nginx.statuses().len() >= VIEWERS * 2);
    assert!(nginx.statuses().iter().all(|status| status == "200"), "{:?}", nginx.statuses());
    assert!(!nginx.errors().contains("[error]"), "{}", nginx.errors());
}
