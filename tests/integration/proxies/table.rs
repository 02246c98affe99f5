//! What each proxy adds, printed: `cargo test --test integration proxies::table -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::support::front::event_source;
use crate::support::pause_of_the_scenario;
use crate::support::waiting::pause_of_the_scenario_in_a_task;

const EVENTS: usize = 200;
const HEADS: usize = 50;
const LEAVERS: usize = 3;

#[test]
#[ignore = "it measures"]
fn what_each_proxy_adds() {
    println!("| proxy | | head | event | the worst of {EVENTS} | leaving is noticed | restart |");
    println!("|---|---|---|---|---|---|---|");
    for kind in [Kind::Nginx, Kind::Caddy, Kind::Haproxy, Kind::Apache, Kind::Envoy] {
        for &protocol in protocols(kind) {
            let runtime = swarm::runtime();
            let setup = setup().set("server", "keepalive = \"5s\"");
            let gateway = setup.start_ready();
            let (_proxy, front) = start(kind, &gateway, &runtime);
            let (heads, events, leaving) = runtime.block_on(async {
                let heads = heads(&front, protocol).await;
                let events = events(&gateway, &front, protocol).await;
                (heads, events, leavings(&gateway, &front, protocol).await)
            });
            let restart = restart(kind, protocol);
            println!(
                "| {kind:?} | {protocol:?} | {} | {} | {} | {} - {} | {} |",
                ms(heads[heads.len() / 2]),
                ms(events[events.len() / 2]),
                ms(events[events.len() - 1]),
                ms(leaving[0]),
                ms(leaving[leaving.len() - 1]),
                ms(restart),
            );
        }
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// From the request to the first comment, each over a connection that is there, sorted.
async fn heads(front: &Front, protocol: Protocol) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..HEADS {
        let mut connection = front.connect(protocol).await.unwrap();
        let started = Instant::now();
        let mut stream = soon(connection.get("/events/a", &[])).await.unwrap();
        soon(stream.next()).await.unwrap();
        times.push(started.elapsed());
    }
    times.sort();
    times
}

/// From before the entry is published to its arrival, sorted. Each is sent alone.
async fn events(gateway: &Gateway, front: &Front, protocol: Protocol) -> Vec<Duration> {
    let mut connection = front.connect(protocol).await.unwrap();
    let mut stream = soon(connection.get("/events/a", &[])).await.unwrap();
    assert_eq!(soon(stream.told()).await, "live");
    let mut times = Vec::new();
    for number in 0..EVENTS {
        let started = Instant::now();
        gateway.publish("events:a", &number.to_string());
        assert_eq!(soon(stream.event()).await.data, number.to_string());
        times.push(started.elapsed());
        pause_of_the_scenario_in_a_task(Duration::from_millis(20), "each alone").await;
    }
    times.sort();
    times
}

/// From a client's leaving until the gateway has closed its stream, sorted; keepalives are five seconds apart.
async fn leavings(gateway: &Gateway, front: &Front, protocol: Protocol) -> Vec<Duration> {
    eventually("nobody is there", || clients(gateway) == 0.0);
    let mut times = Vec::new();
    for _ in 0..LEAVERS {
        let mut connection = front.connect(protocol).await.unwrap();
        let mut stream = soon(connection.get("/events/a", &[])).await.unwrap();
        assert_eq!(soon(stream.told()).await, "live");
        drop((stream, connection));
        let started = Instant::now();
        eventually("it is missed", || clients(gateway) == 0.0);
        times.push(started.elapsed());
    }
    times.sort();
    times
}

/// How long an `EventSource` is without its stream, where the gateway is started again after 1 s.
fn restart(kind: Kind, protocol: Protocol) -> Duration {
    let runtime = swarm::runtime();
    let mut gateway = restartable(Setup::memory(), None);
    let (_proxy, front) = start(kind, &gateway, &runtime);
    let source = runtime.spawn(event_source(front, protocol, Arc::default()));
    eventually("it is there", || clients(&gateway) == 1.0);
    let started = Instant::now();
    gateway.signal("TERM");
    gateway.wait();
    pause_of_the_scenario(
        Duration::from_secs(1).saturating_sub(started.elapsed()),
        "nobody serves",
    );
    let gateway = restartable(Setup::memory(), Some(&gateway));
    eventually("it is there again", || source.is_finished() || clients(&gateway) == 1.0);
    let time = started.elapsed();
    source.abort();
    time
}
