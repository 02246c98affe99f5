//! Faults of the processes: Redis killed, frozen, demoted; the gateway killed, its clock, its limits.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::{FAR_BEHIND, Over};
use crate::proxy::Ill;
use crate::publishers::{Durability, amid};
use crate::scene::{Scene, clock_file, few_descriptors};
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::redis::{Answer, Redis};
use crate::support::sentinel::{NAME, newest_primary};
use crate::support::{eventually, pause_of_the_scenario, within};
use crate::writer::Writer;

/// Sentinels take no longer than this.
const FAILOVER: Duration = Duration::from_secs(30);

pub(super) fn redis_killed(scene: &mut Scene) -> Over {
    scene.redis_mut().kill();
    scene.wait(100, 1500);
    scene.redis_mut().launch();
    Over::now()
}

/// The same; on its stage Redis keeps nothing.
pub(super) fn redis_emptied(scene: &mut Scene) -> Over {
    redis_killed(scene)
}

pub(super) fn redis_frozen(scene: &mut Scene) -> Over {
    scene.redis().signal("STOP");
    pause_of_the_scenario(scene.lasting(5_000, 10_000), "Redis is frozen");
    scene.redis().signal("CONT");
    Over::now()
}

/// A replica of a server that is not there: it takes no writes, and still serves reads.
pub(super) fn redis_demoted(scene: &mut Scene) -> Over {
    done(scene.redis(), &["REPLICAOF", "127.0.0.1", "1"]);
    scene.wait(300, 2000);
    done(scene.redis(), &["REPLICAOF", "NO", "ONE"]);
    Over::now()
}

/// Its replica takes over, it becomes the replica's replica, and then everything is as before.
pub(super) fn redis_relieved(scene: &mut Scene) -> Over {
    let swap = |scene: &Scene, old: usize, new: usize| {
        let (old, new) = (&scene.servers[old], &scene.servers[new]);
        let (mut writer, mut beside) = (scene.writing.lock(), scene.beside.writing.lock());
        done(old, &["CLIENT", "PAUSE", "5000", "WRITE"]);
        eventually("the replica has everything", || offset(new) >= offset(old));
        done(new, &["REPLICAOF", "NO", "ONE"]);
        done(old, &["CLIENT", "UNPAUSE"]);
        beside.iter_mut().chain([&mut *writer]).for_each(|writer| writer.redirect(new.socket()));
        drop((writer, beside));
        old.follow(new);
    };
    swap(scene, 0, 1);
    scene.wait(300, 1000);
    swap(scene, 1, 0);
    Over::now()
}

/// The sentinels name another; the old one comes back empty, and thinks itself the primary at first.
pub(super) fn primary_killed(scene: &mut Scene) -> Over {
    let old = scene.primary;
    scene.redis_mut().kill();
    let over = replaced(scene, old);
    scene.servers[old].launch();
    over
}

/// By order, while the old one still takes writes.
pub(super) fn primary_replaced(scene: &mut Scene) -> Over {
    let ordered = scene.sentinels[0].run(&["SENTINEL", "FAILOVER", NAME]);
    assert_eq!(ordered, Some(Answer::Text("OK".into())));
    replaced(scene, scene.primary)
}

pub(super) fn redis_killed_amid_publishes(scene: &mut Scene) -> Over {
    amid(scene, redis_killed, Durability::Kept)
}

pub(super) fn redis_frozen_amid_publishes(scene: &mut Scene) -> Over {
    amid(scene, redis_frozen, Durability::Kept)
}

pub(super) fn primary_replaced_amid_publishes(scene: &mut Scene) -> Over {
    amid(scene, primary_replaced, Durability::LostByFailover)
}

/// Over when the new primary answers writes.
fn replaced(scene: &mut Scene, old: usize) -> Over {
    let sentinels: Vec<_> = scene.sentinels.iter().map(|s| s.address.clone()).collect();
    within(FAILOVER, "the sentinels name another primary", || {
        let named = newest_primary(&sentinels);
        let index = scene.servers.iter().position(|s| Some(s.address()) == named);
        scene.primary = index.unwrap_or(old);
        scene.primary != old
    });
    let redirect = |writer: &mut Writer| writer.redirect(scene.redis().socket());
    redirect(&mut scene.writing.lock());
    scene.beside.writing.lock().iter_mut().for_each(redirect);
    eventually("the new primary answers writes", || scene.writing.lock().add());
    Over::now()
}

fn offset(redis: &Redis) -> u64 {
    let Answer::Text(info) = redis.run(&["INFO", "replication"]) else { panic!("no INFO") };
    let is_replica = info.contains("role:slave");
    let name = if is_replica { "slave_repl_offset:" } else { "master_repl_offset:" };
    info.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
}

fn done(redis: &Redis, command: &[&str]) {
    assert_eq!(redis.run(command), Answer::Text("OK".into()), "{command:?}");
}

pub(super) fn clock_ahead(scene: &mut Scene) -> Over {
    step_clock(scene, "+3600")
}

pub(super) fn clock_back(scene: &mut Scene) -> Over {
    step_clock(scene, "-3600")
}

/// There, back after a while, and there again.
fn step_clock(scene: &mut Scene, seconds: &str) -> Over {
    let file = clock_file(&scene.folder);
    let new = file.with_extension("new");
    for offset in [seconds, "+0", seconds] {
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(&new, &file).unwrap();
        scene.wait(200, 700);
        let off = seconds_off(&scene.gateway().address);
        let wanted: f64 = offset.parse().unwrap();
        assert!((off - wanted).abs() < 10.0, "its clock is off by {off} s, not {wanted}");
    }
    Over::now()
}

/// How far the clock of the gateway is ahead of ours, by the head of a stream.
fn seconds_off(address: &str) -> f64 {
    let head = Client::open(address, "/events").head;
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let date = lines.find(|(name, _)| name.eq_ignore_ascii_case("date"));
    let (_, date) = date.expect("the head has a date");
    let unix = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    unix(httpdate::parse_http_date(date).unwrap()) - unix(SystemTime::now())
}

/// No descriptor is left, a crowd knocks, and the reader loses its connection meanwhile.
pub(super) fn descriptors_exhausted(scene: &mut Scene) -> Over {
    let pid = Pid::from_raw(i32::try_from(scene.gateway().pid()).unwrap());
    // It has inherited what we have.
    let before = getrlimit(Resource::Nofile);
    // It is the numbers that are limited: so few that what the reader frees is no help either.
    let few = Rlimit { current: Some(scene.rng.u64(3..8)), ..before };
    prlimit(pid, Resource::Nofile, few).unwrap();
    let address = scene.gateway().address.clone();
    let crowd: Vec<_> = (0..100).map(|_| TcpStream::connect(&address).unwrap()).collect();
    scene.wait(200, 500);
    let _ = scene.redis().run(&["CLIENT", "KILL", "TYPE", "normal"]);
    scene.wait(500, 2000);
    drop(crowd);
    let log = scene.gateway().log();
    let starved = log.contains("cannot read") && !log.contains("reader is back");
    assert!(starved && log.contains("Too many open files"), "it still had descriptors: {log}");
    prlimit(pid, Resource::Nofile, before).unwrap();
    Over::now()
}

/// A crowd wants as many as it was started with, and the reader loses its connection: there is one for the
/// next.
pub(super) fn crowded_out(scene: &mut Scene) -> Over {
    let address = scene.gateway().address.clone();
    let crowd: Vec<_> = (0..few_descriptors(scene.plan))
        .map(|number| {
            let mut stream = TcpStream::connect(&address).unwrap();
            // Half of them say what they want, and the others nothing.
            let request = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";
            stream.write_all(&request.as_bytes()[..request.len() * (number % 2)]).unwrap();
            stream
        })
        .collect();
    scene.wait(200, 500);
    let _ = scene.redis().run(&["CLIENT", "KILL", "TYPE", "normal"]);
    scene.wait(500, 2000);
    let log = scene.gateway().log();
    assert!(!log.contains("Too many open files"), "the crowd had them all: {log}");
    drop(crowd);
    Over::now()
}

pub(super) fn gateway_killed(scene: &mut Scene) -> Over {
    drop(scene.lose_gateway());
    scene.wait(50, 1000);
    scene.start_gateway();
    Over::now()
}

pub(super) fn gateway_terminated(scene: &mut Scene) -> Over {
    let gateway = scene.lose_gateway();
    gateway.signal("TERM");
    is_followed(scene, gateway)
}

/// Clients have half of an event each, and go on taking it at their own pace.
pub(super) fn gateway_terminated_amid_events(scene: &mut Scene) -> Over {
    scene.client_side().strike_all(Ill::Stalled);
    assert!(scene.writing.lock().burst(FAR_BEHIND, None), "a burst was not taken");
    scene.gateway_has_read_all();
    scene.wait(100, 300);
    let gateway = scene.lose_gateway();
    gateway.signal("TERM");
    scene.wait(0, 500);
    scene.client_side().heal();
    is_followed(scene, gateway)
}

/// It ends as it should, and after a while there is another one.
fn is_followed(scene: &mut Scene, mut gateway: Gateway) -> Over {
    let status = gateway.wait();
    assert_eq!((status.code(), status.signal()), (Some(0), None), "{}", gateway.log());
    scene.wait(0, 500);
    scene.start_gateway();
    Over::now()
}
