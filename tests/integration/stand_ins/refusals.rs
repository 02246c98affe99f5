//! What Redis refuses is told in its words, costs it little, and helps the operator.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{SHORT_BLOCK, is};
use crate::support::client::Client;
use crate::support::cluster::Cluster;
use crate::support::gateway::{Gateway, SOON, Setup};
use crate::support::redis::Redis;
use crate::support::stand_in::{StandIn, Treatment};
use crate::support::{eventually, pause_of_the_scenario, within};

/// Readers that find all connections taken say so, and not that the connection was lost.
#[test]
fn too_many_clients_are_told_as_that() {
    let redis = Redis::start();
    let stand_in =
        StandIn::before(&redis, |words| match is(words, "XREAD") || is(words, "XINFO") {
            true => Treatment::AnswerAndClose(b"-ERR max number of clients reached\r\n".to_vec()),
            false => Treatment::Pass,
        });
    let gateway = Setup::with_url(&stand_in.url()).start();
    let _client = Client::open(&gateway.address, "/events/a");
    gateway.has_logged("max number of clients reached");
}

/// Forty readers whose password has expired ask for a login once in two seconds, not each by itself.
#[test]
fn a_login_that_is_refused_is_one_slow_retry_for_all_readers() {
    let redis = Redis::start();
    redis.run(&["ACL", "SETUSER", "gw", "on", ">good", "~*", "+@all"]);
    let logins = Arc::new(AtomicUsize::new(0));
    let counted = logins.clone();
    let stand_in = StandIn::before(&redis, move |words| {
        counted.fetch_add(usize::from(is(words, "AUTH")), Ordering::Relaxed);
        Treatment::Pass
    });
    let url = stand_in.url().replace("redis://", "redis://gw:good@");
    let gateway = Setup::with_url(&url).set("source", SHORT_BLOCK).start_ready();
    let open = |number: usize| Client::open(&gateway.address, &format!("/events/{number}"));
    let mut clients: Vec<_> = (0..40).map(open).collect();
    clients.iter_mut().for_each(|client| drop(client.live()));
    redis.run(&["ACL", "SETUSER", "gw", "resetpass", ">other"]);
    redis.run(&["CLIENT", "KILL", "USER", "gw"]);
    gateway.has_logged("WRONGPASS");
    // All have lost their connections at once, so that the first attempts are many.
    let mut seen = 0;
    eventually("the first attempts are over", || {
        pause_of_the_scenario(Duration::from_millis(700), "the first attempts take a moment");
        std::mem::replace(&mut seen, logins.load(Ordering::Relaxed)) == seen
    });
    let since = Instant::now();
    within(4 * SOON, "it was tried again", || logins.load(Ordering::Relaxed) > seen + 2);
    assert!(since.elapsed() > Duration::from_secs(3), "three logins in {:?}", since.elapsed());
    redis.run(&["ACL", "SETUSER", "gw", "resetpass", ">good"]);
    redis.add("events:7", "back");
    assert_eq!(clients[7].entry().data, "back");
}

/// A user without a password would otherwise be logged in as another one.
#[test]
fn a_user_without_a_password_is_logged_in_as_that_user() {
    let redis = Redis::start();
    redis.run(&["ACL", "SETUSER", "gw", "on", "nopass", "~*", "+@all"]);
    let (seen, stand_in) = {
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = seen.clone();
        let rule = move |words: &[String]| {
            let is_ours = is(words, "AUTH") && words[1] == "GW" && words[2].is_empty();
            counted.fetch_add(usize::from(is_ours), Ordering::Relaxed);
            Treatment::Pass
        };
        (seen, StandIn::before(&redis, rule))
    };
    let url = stand_in.url().replace("redis://", "redis://gw@");
    let gateway = Setup::with_url(&url).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    assert!(seen.load(Ordering::Relaxed) > 0);
    redis.run(&["ACL", "SETUSER", "gw", "resetpass", ">good"]);
    redis.run(&["CLIENT", "KILL", "USER", "gw"]);
    gateway.has_logged("WRONGPASS");
}

/// Whether the gateway's source is up is said by what readers need, not by `PING`.
#[test]
fn ready_is_what_readers_can_do() {
    let status = |gateway: &Gateway| gateway.admin_get("/readyz?strict").status;
    let behind = |command: &'static str| {
        let redis = Redis::start();
        let stand_in = StandIn::before(&redis, move |words| match is(words, command) {
            true => Treatment::Answer(b"-ERR unknown command\r\n".to_vec()),
            false => Treatment::Pass,
        });
        (Setup::with_url(&stand_in.url()).start(), redis)
    };
    for (command, expected) in [("PING", 200), ("XREAD", 503), ("XINFO", 503)] {
        let (gateway, _redis) = behind(command);
        let message = if expected == 200 { "source answers" } else { "source does not answer" };
        gateway.has_logged(message);
        assert_eq!(status(&gateway), expected, "{command}");
    }
}

/// One node of a cluster serves a part of the keys only.
#[test]
fn a_node_of_a_cluster_that_is_taken_for_a_server_is_not_ready_and_the_log_says_why() {
    let cluster = Cluster::start(0);
    let url = format!("redis://{}", cluster.nodes[0].address());
    let gateway = Setup::with_url(&url).start();
    gateway.has_logged("write redis-cluster:// in source.url");
    assert_eq!(gateway.admin_get("/readyz?strict").status, 503);
}
