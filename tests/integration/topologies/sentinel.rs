//! Sentinel: a primary that is killed, replaced by order, or cut off and still answering.

use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::history::{Listener, Writer, ids};
use crate::support::redis::{Answer, Redis};
use crate::support::sentinel::{NAME, Sentinel, Trio};
use crate::support::{eventually, within};

/// The new primary answers writes: from then on no client waits longer for it.
const RECOVERY: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(3);

/// Clients of `/events/{name}`, and the key of each.
fn listeners(gateway: &Gateway, names: &[String], each: usize) -> Vec<(String, Listener)> {
    let listen = |name: &String| {
        let address = gateway.address.clone();
        let listener = Listener::start(&format!("/events/{name}"), None, move || address.clone());
        (format!("events:{name}"), listener)
    };
    names.iter().flat_map(|name| (0..each).map(move |_| listen(name))).collect()
}

/// Writes on while `scene` replaces the primary, and holds what five clients heard against the stream.
#[track_caller]
fn survives(trio: &mut Trio, gateway: &Gateway, scene: impl FnOnce(&mut Trio, usize)) {
    survives_with(trio, gateway, &["a".to_owned()], scene);
}

/// The same for the streams `events:{name}`, with five clients in all at least.
#[track_caller]
pub(super) fn survives_with(
    trio: &mut Trio,
    gateway: &Gateway,
    names: &[String],
    scene: impl FnOnce(&mut Trio, usize),
) {
    let old = trio.primary();
    let sentinels: Vec<_> = trio.sentinels.iter().map(|s| s.address.clone()).collect();
    let find = move || crate::support::sentinel::newest_primary(&sentinels);
    let keys: Vec<_> = names.iter().map(|name| format!("events:{name}")).collect();
    let writer = Writer::start_on(&keys, PAUSE, 1, find);
    let listeners = listeners(gateway, names, 5_usize.div_ceil(names.len()));
    eventually("all are in the midst of it", || {
        listeners.iter().all(|(_, listener)| listener.count() > 100 / names.len())
    });
    let index = trio.servers.iter().position(|server| server.address() == old).unwrap();
    scene(trio, index);
    let by_another = || writer.written().iter().filter(|entry| entry.by != old).count() > 200;
    within(Duration::from_secs(30), "another server takes the writes", by_another);
    let new = writer.written().last().unwrap().by.clone();
    let written = writer.end();
    for (key, listener) in &listeners {
        let kept = ids(trio.at(&new), key);
        let last = *kept.last().unwrap();
        eventually("all are level", || listener.has(last));
        let after = written.iter().filter(|entry| entry.by != old && entry.key == *key);
        let after: Vec<_> = after.cloned().collect();
        let heard = listener.heard();
        heard.is_right(&kept);
        assert_eq!(heard.connections, 1, "nobody was cut off");
        let recovered = heard.heard_first(&after).unwrap();
        let took = recovered.saturating_duration_since(after[0].at);
        eprintln!("{key} recovered {took:?} after the first write; gaps: {:?}", heard.gaps);
        assert!(took < RECOVERY, "{took:?}");
    }
}

#[test]
fn a_killed_primary_is_replaced_and_nothing_that_was_kept_is_lost() {
    let mut trio = Trio::start();
    let gateway = Setup::with_url(&trio.url()).start_ready();
    survives(&mut trio, &gateway, |trio, old| trio.servers[old].kill());
    gateway.has_logged("the sentinels name the primary");
}

#[test]
fn a_frozen_primary_is_replaced_before_its_reads_time_out() {
    let mut trio = Trio::start();
    let gateway = Setup::with_url(&trio.url()).set("source", "block = \"30s\"").start_ready();
    survives(&mut trio, &gateway, |trio, old| trio.servers[old].signal("STOP"));
}

/// A client that has heard the only entry, which all servers have.
fn level_client(trio: &Trio, gateway: &Gateway) -> Client {
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let before = trio.servers[0].add("events:a", "before");
    assert_eq!(client.event().last_event_id, before);
    let have = |redis: &Redis| ids(redis, "events:a").len() == 1;
    eventually("the replicas have it", || trio.servers[1..].iter().all(have));
    client
}

/// The kernel of a frozen server accepts connections, and answers none of them for 3 s each.
#[test]
fn a_connect_to_a_frozen_primary_is_given_up_for_a_new_one() {
    // By order, below.
    let late = format!("sentinel down-after-milliseconds {NAME} 60000");
    let trio = Trio::with(&|_| Vec::new(), &|_| late.clone());
    let gateway = Setup::with_url(&trio.url()).set("source", "block = \"1s\"").start_ready();
    let mut client = level_client(&trio, &gateway);
    let old = trio.primary();
    trio.servers[0].signal("STOP");
    client.comment("reconnecting");
    let answer = trio.sentinels[0].run(&["SENTINEL", "FAILOVER", NAME]);
    assert_eq!(answer, Some(Answer::Text("OK".into())));
    eventually("another one is named", || trio.primary() != old);
    let named = Instant::now();
    let id = trio.at(&trio.primary()).add("events:a", "after");
    assert_eq!(client.event().last_event_id, id);
    let took = named.elapsed();
    eprintln!("recovered {took:?} after it was named");
    assert!(took < RECOVERY / 3, "{took:?}");
}

/// The old one takes writes for some seconds after a failover, and then they are lost.
#[test]
fn what_is_published_goes_to_the_new_primary_as_soon_as_it_is_named() {
    let trio = Trio::start();
    let gateway = Setup::with_url(&trio.url()).start_ready();
    let old = trio.primary();
    gateway.publish("events:a", "to the old one");
    let has_it = |redis: &Redis| !ids(redis, "events:a").is_empty();
    eventually("the replicas have it", || trio.servers[1..].iter().all(has_it));
    let answer = trio.sentinels[0].run(&["SENTINEL", "FAILOVER", NAME]);
    assert_eq!(answer, Some(Answer::Text("OK".into())));
    let named = |log: String| {
        let line = log.lines().rfind(|line| line.contains("the sentinels name the primary"));
        line.map(|line| line.to_owned()).unwrap_or_default()
    };
    within(Duration::from_secs(30), "the gateway knows another one", || {
        let line = named(gateway.log());
        !line.is_empty() && !line.contains(&old)
    });
    let published = |number: usize| {
        let mut answer = gateway.post("events:b", &number.to_string());
        eventually("the sentinels agree", || {
            if answer.status == 503 {
                answer = gateway.post("events:b", &number.to_string());
            }
            answer.status == 200
        });
    };
    (0..50).for_each(published);
    let new = trio.sentinels.iter().find_map(|s| s.primary().filter(|name| *name != old));
    assert_eq!(ids(trio.at(&new.unwrap()), "events:b").len(), 50);
}

/// The gateway knows of the failover only after it has read from the old one.
#[test]
fn an_old_primary_that_comes_back_empty_is_no_reset() {
    let mut trio = Trio::start();
    let gateway = Setup::with_url(&trio.url()).start_ready();
    let mut client = level_client(&trio, &gateway);
    let old = trio.primary();
    gateway.signal("STOP");
    trio.servers[0].kill();
    let all_agree = |sentinels: &[Sentinel]| {
        let named: Vec<_> = sentinels.iter().map(Sentinel::primary).collect();
        named[0].as_ref().is_some_and(|new| *new != old) && named.iter().all(|n| *n == named[0])
    };
    within(Duration::from_secs(30), "another one is named", || all_agree(&trio.sentinels));
    let new = trio.primary();
    trio.sentinels.iter().for_each(|sentinel| sentinel.signal("STOP"));
    trio.servers[0].launch();
    gateway.signal("CONT");
    eventually("the old one is read from", || trio.servers[0].calls("xread") > 0);
    trio.sentinels.iter().for_each(|sentinel| sentinel.signal("CONT"));
    let id = trio.at(&new).add("events:a", "after");
    assert_eq!(client.event().last_event_id, id, "no gap comes first");
}

#[test]
fn an_old_primary_that_still_answers_is_left() {
    let mut trio = Trio::start();
    let gateway = Setup::with_url(&trio.url()).start_ready();
    let mut was = 0;
    survives(&mut trio, &gateway, |trio, old| {
        was = old;
        let answer = trio.sentinels[0].run(&["SENTINEL", "FAILOVER", NAME]);
        assert_eq!(answer, Some(Answer::Text("OK".into())));
    });
    let Answer::List(role) = trio.servers[was].run(&["ROLE"]) else { panic!("no role") };
    eprintln!("the old one is a {:?} by now", role[0]);
    let left = Instant::now();
    let id = trio.at(&trio.primary()).add("events:b", "published to the new one");
    assert!(!id.is_empty() && left.elapsed() < RECOVERY);
    let published = gateway.publish("events:a", "by the gateway");
    let kept = ids(trio.at(&trio.primary()), "events:a");
    assert_eq!(kept.last().unwrap().to_string(), published, "it went to the new primary");
}

#[test]
fn a_well_replica_is_read_from_and_the_primary_where_there_is_none() {
    let mut trio = Trio::start();
    let gateway =
        Setup::with_url(&trio.url()).set("source", "read_from = \"replica\"").start_ready();
    let listeners = listeners(&gateway, &["a".to_owned()], 2);
    let listeners: Vec<_> = listeners.into_iter().map(|(_, listener)| listener).collect();
    eventually("they are live", || listeners.iter().all(Listener::is_live));
    let primary = || trio.servers[0].add("events:a", "x").parse().unwrap();
    let id = primary();
    eventually("it comes", || listeners.iter().all(|listener| listener.has(id)));
    let reads = |redis: &Redis| redis.calls("xread");
    assert_eq!(reads(&trio.servers[0]), 0, "the primary is left in peace");
    let chosen = (1..3).find(|index| reads(&trio.servers[*index]) > 0).unwrap();
    let other = 3 - chosen;
    gateway.publish("events:a", "to the primary");

    trio.servers[chosen].kill();
    let id = trio.servers[0].add("events:a", "y").parse().unwrap();
    eventually("it comes from the other replica", || listeners.iter().all(|l| l.has(id)));
    assert!(reads(&trio.servers[other]) > 0);
    trio.servers[other].kill();
    let id = trio.servers[0].add("events:a", "z").parse().unwrap();
    eventually("it comes from the primary", || listeners.iter().all(|l| l.has(id)));
    for listener in &listeners {
        let heard = listener.heard();
        heard.is_right(&ids(&trio.servers[0], "events:a"));
    }
}

#[test]
fn sentinels_may_ask_for_a_login_of_their_own() {
    let trio = Trio::with(&|_| Vec::new(), &|_| "user gw on >s3cret +sentinel +ping".to_owned());
    let folder = crate::support::Folder::new();
    let file = super::secret(&folder, "s3cret");
    let gateway = Setup::with_url(&trio.url())
        .set("source", "sentinel_username = \"gw\"")
        .set("source", &format!("sentinel_password_file = {file:?}"))
        .start_ready();
    super::works(&gateway, &trio.servers[0]);
    let wrong = super::secret(&folder, "wrong");
    let gateway = Setup::with_url(&trio.url())
        .set("source", "sentinel_username = \"gw\"")
        .set("source", &format!("sentinel_password_file = {wrong:?}"))
        .start();
    eventually("it is logged", || gateway.log().contains("WRONGPASS"));
}

#[test]
fn a_name_that_no_sentinel_knows_is_reported_to_the_operator() {
    let trio = Trio::start();
    let gateway = Setup::with_url(&trio.url().replace(NAME, "other")).start();
    eventually("it is logged", || gateway.log().contains("knows no primary called"));
}

#[test]
fn one_sentinel_of_three_suffices_and_none_is_waited_for() {
    let mut trio = Trio::start();
    let url = trio.url();
    trio.sentinels.drain(..2);
    let gateway = Setup::with_url(&url).start_ready();
    super::works(&gateway, &trio.servers[0]);
    trio.sentinels.clear();
    super::works(&gateway, &trio.servers[0]);
}
