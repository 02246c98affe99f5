//! Two gateways on one Redis behind HAProxy, as `deploy/haproxy/haproxy.cfg` has them: either may die.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::address::own_addresses;
use crate::support::gateway::{Gateway, Setup};
use crate::support::haproxy::Haproxy;
use crate::support::redis::Redis;
use crate::support::swarm::{self, Address};
use crate::support::viewer::{Ends, Viewers, Writer};
use crate::support::{DEADLINE, eventually, within};

const VIEWERS: usize = 300;

fn gateway(redis: &Redis, public: &str, admin: &str) -> Gateway {
    Setup::redis(redis)
        .set("server", &format!("listen = [{public:?}]"))
        .set("admin", &format!("listen = {admin:?}"))
        .set("server", "retry = \"200ms\"")
        .start_ready()
}

/// A gateway at an address of its own.
fn first(redis: &Redis) -> Gateway {
    let [public, admin] = own_addresses().map(|address| address.to_string());
    gateway(redis, &public, &admin)
}

/// The dead gateway again, at its old address.
fn restarted(redis: &Redis, dead: &Gateway) -> Gateway {
    gateway(redis, &dead.address, &dead.admin)
}

fn clients(gateway: &Gateway) -> f64 {
    gateway.metric("ssegate_clients")
}

fn all_are_at(gateway: &Gateway, viewers: &Viewers) {
    within(DEADLINE * 2, "all viewers are at the other gateway", || {
        // A viewer ends early only by a fault, which its end reports.
        viewers.any_is_done() || clients(gateway) >= VIEWERS as f64
    });
}

#[test]
fn either_of_two_gateways_may_be_killed_or_stopped_and_nothing_is_lost() {
    let runtime = swarm::crowd();
    let redis = Redis::start();
    let (mut one, mut two) = (first(&redis), first(&redis));
    let haproxy = Haproxy::start(&one, &two);
    let address = Address::Unix(haproxy.socket());
    let viewers = Viewers::start(&runtime, &address, VIEWERS, Ends::Anywhere);
    for gateway in [&one, &two] {
        assert!(clients(gateway) > VIEWERS as f64 / 3.0, "HAProxy uses both");
    }
    let writer = Writer::start(&redis, 5, Duration::from_millis(50));

    writer.writes(50);
    one.kill();
    all_are_at(&two, &viewers);
    one = restarted(&redis, &one);
    eventually("HAProxy finds it ready again", || haproxy.state("one").starts_with("UP"));
    writer.writes(50);
    two.kill();
    all_are_at(&one, &viewers);
    two = restarted(&redis, &two);
    eventually("HAProxy finds it ready again", || haproxy.state("two").starts_with("UP"));
    writer.writes(50);
    one.signal("TERM");
    all_are_at(&two, &viewers);
    assert_eq!(one.wait().code(), Some(0));

    writer.stop();
    let journeys = viewers.join(&runtime);
    assert!(journeys.iter().all(|journey| journey.connections >= 3), "each lost two gateways");
}

/// What HAProxy answers to a request for a stream, up to its end.
fn ask(haproxy: &Haproxy) -> String {
    let mut stream = UnixStream::connect(haproxy.socket()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = "GET /events/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn without_any_gateway_an_event_source_is_told_to_come_back() {
    let redis = Redis::start();
    let (mut one, mut two) = (first(&redis), first(&redis));
    let haproxy = Haproxy::start(&one, &two);
    one.kill();
    two.kill();
    // Before HAProxy has noticed, and after.
    for noticed in [false, true] {
        if noticed {
            eventually("HAProxy has noticed", || {
                ["one", "two"].iter().all(|server| haproxy.state(server).starts_with("DOWN"))
            });
        }
        let answer = ask(&haproxy);
        let lower = answer.to_ascii_lowercase();
        assert!(lower.starts_with("http/1.1 200 "), "{answer}");
        assert!(lower.contains("content-type: text/event-stream\r\n"), "{answer}");
        assert!(lower.contains("cache-control: no-store\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nretry: 5000\n"), "{answer:?}");
    }
}
