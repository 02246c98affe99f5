//! Publishing, from outside and by the operator; here the connections that it uses: opened when they are needed, over any way to log in, replaced when
//! they lead nowhere; and what is told of a publish whose outcome nobody knows.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::history::ids;
use crate::support::redis::{Answer, Redis};
use crate::support::{Folder, eventually};

/// Nodes of a cluster that are lost after a redirection.
mod asking;
/// What docs/publishing.md shows, done as it is written.
mod documented;
/// Names that tell an entry that is sent again.
mod names;
/// Browsers' pages: whose may publish, and with which cookies.
mod pages;
/// Rates, and the room for bodies.
mod rates;
/// Each refusal, its status and its words.
mod refusals;
/// A `POST` to a route: what becomes of a body.
mod routes;
/// Sentinels and clusters.
mod topologies;

/// A command is given up after 2 s, and a connection is opened within 2 s; what a loaded machine adds.
const GIVEN_UP: Duration = Duration::from_millis(4_000 + 1_500);
/// How often the connections for commands failed.
const ERRORS: &str = "ssegate_redis_command_connections_total{event=\"error\"}";

fn ok(redis: &Redis, command: &[&str]) {
    assert_eq!(redis.run(command), Answer::Text("OK".into()), "{command:?}");
}

fn payloads(redis: &Redis, payload: &str) -> usize {
    let all = redis.run(&["XRANGE", "events:a", "-", "+"]);
    format!("{all:?}").matches(&format!("{payload:?}")).count()
}

#[test]
fn no_connection_is_opened_before_the_first_publish_and_a_crowd_opens_one_client() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let before = redis.clients();
    std::thread::scope(|scope| {
        for number in 0..64 {
            let gateway = &gateway;
            scope.spawn(move || gateway.publish("events:a", &number.to_string()));
        }
    });
    assert_eq!(ids(&redis, "events:a").len(), 64);
    assert_eq!(redis.clients(), before + 2, "two connections, whoever publishes");
    assert_eq!(gateway.metric(ERRORS), 0.0);
}

#[test]
fn a_user_who_may_add_and_nothing_else_publishes() {
    let redis = Redis::start();
    ok(
        &redis,
        &[
            "ACL",
            "SETUSER",
            "gw",
            "on",
            ">secret",
            "%RW~events:*",
            "+xread",
            "+xinfo|stream",
            "+xrange",
            "+xrevrange",
            "+xadd",
        ],
    );
    let folder = Folder::new();
    let file = folder.0.join("password");
    std::fs::write(&file, "secret\n").unwrap();
    let gateway = Setup::redis(&redis)
        .set("source", "username = \"gw\"")
        .set("source", &format!("password_file = {file:?}"))
        .start_ready();
    let id = gateway.publish("events:a", "one");
    assert_eq!(ids(&redis, "events:a")[0].to_string(), id);
    let refused = gateway.post("other", "one");
    assert_eq!((refused.status, refused.body.contains("NOPERM")), (403, true), "{refused:?}");
    gateway.publish("events:a", "two");
}

/// The password of the file is read at each login, for reading and for publishing.
#[test]
fn a_password_that_is_renewed_in_its_file_is_used_without_a_restart() {
    let redis = Redis::start();
    let (folder, new) = (Folder::new(), ["ACL", "SETUSER", "default", "resetpass", ">new"]);
    ok(&redis, &["ACL", "SETUSER", "root", "on", "nopass", "allkeys", "allcommands"]);
    ok(&redis, &["ACL", "SETUSER", "default", "resetpass", ">old"]);
    let file = folder.0.join("password");
    std::fs::write(&file, "old").unwrap();
    let gateway =
        Setup::redis(&redis).set("source", &format!("password_file = {file:?}")).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    gateway.publish("events:a", "with the old one");
    assert_eq!(client.entry().data, "with the old one");
    let as_root = |command: &[&str]| {
        let mut connection = crate::support::redis::Connection::open(&redis).unwrap();
        connection.run(&["AUTH", "root", ""]).unwrap();
        connection.run(command)
    };
    assert_eq!(as_root(&new), Some(Answer::Text("OK".into())));
    std::fs::write(&file, "new").unwrap();
    as_root(&["CLIENT", "KILL", "USER", "default", "SKIPME", "yes"]);
    eventually("it is published", || gateway.post("events:a", "with the new one").status == 200);
    client.comment("reconnecting");
    client.comment("reconnected");
    assert_eq!(client.entry().data, "with the new one");
}

#[test]
fn a_server_without_hello_is_spoken_to_in_resp2() {
    let redis = Redis::with(&["--rename-command", "HELLO", ""]);
    let gateway = Setup::redis(&redis).start_ready();
    for number in 0..3 {
        gateway.publish("events:a", &number.to_string());
    }
    assert_eq!(ids(&redis, "events:a").len(), 3);
}

#[test]
fn a_primary_that_becomes_a_replica_is_left_for_its_primary() {
    let (old, new) = (Redis::on_tcp(&[]), Redis::on_tcp(&[]));
    let gateway = Setup::with_url(&format!("redis://{}", old.address())).start_ready();
    gateway.publish("events:a", "to the first");
    old.follow(&new);
    let refused = gateway.post("events:a", "nowhere");
    assert_eq!((refused.status, refused.body.contains("READONLY")), (503, true), "{refused:?}");
    let id = gateway.publish("events:a", "to the second");
    assert_eq!(ids(&new, "events:a").last().unwrap().to_string(), id);
    assert_eq!(payloads(&new, "nowhere"), 0);
}

#[test]
fn what_a_frozen_server_was_sent_is_not_known_and_nothing_more_is_sent() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    gateway.publish("events:a", "before");
    redis.signal("STOP");
    let asked = Instant::now();
    let unknown = gateway.post("events:a", "once at most");
    assert_eq!(unknown.status, 504, "{unknown:?}");
    assert!(unknown.body.contains("whether it was carried out is not known"), "{unknown:?}");
    let refused = gateway.post("events:a", "never");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(asked.elapsed() < 2 * GIVEN_UP, "{:?}", asked.elapsed());
    let unresponsive = "ssegate_redis_command_connections_total{event=\"unresponsive\"}";
    assert!(gateway.metric(unresponsive) >= 1.0);
    gateway.has_logged("Redis left a command unanswered");
    redis.signal("CONT");
    eventually("it publishes again", || gateway.post("events:a", "after").status == 200);
    assert!(payloads(&redis, "once at most") <= 1);
    assert_eq!(payloads(&redis, "never"), 0);
}

#[test]
fn a_server_that_is_away_is_told_at_once_and_used_again_when_it_is_back() {
    let mut redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let gateway = Setup::redis(&redis).start_ready();
    gateway.publish("events:a", "before");
    redis.kill();
    eventually("it is known to be away", || gateway.post("events:a", "meanwhile").status == 503);
    let asked = Instant::now();
    assert_eq!(gateway.post("events:a", "meanwhile").status, 503);
    assert!(asked.elapsed() < GIVEN_UP, "{:?}", asked.elapsed());
    gateway.has_logged("a connection for commands to Redis was lost");
    redis.launch();
    eventually("it publishes again", || gateway.post("events:a", "after").status == 200);
    assert_eq!(payloads(&redis, "before"), 1);
    assert!(gateway.metric(ERRORS) >= 1.0);
}

/// Clients that give up while connections are opened leave none behind.
#[test]
fn publishers_that_give_up_leave_nothing_behind() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let before = redis.clients();
    redis.signal("STOP");
    let request = "POST /publish/events:a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx";
    for _ in 0..20 {
        let mut stream = std::net::TcpStream::connect(&gateway.admin).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
    }
    redis.signal("CONT");
    gateway.publish("events:a", "after");
    eventually("only one client is left", || redis.clients() == before + 2);
}

#[test]
fn connections_that_are_lost_while_nobody_publishes_are_opened_again() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    gateway.publish("events:a", "before");
    redis.run(&["CLIENT", "KILL", "TYPE", "normal"]);
    let count = |event: &str| {
        gateway.metric(&format!("ssegate_redis_command_connections_total{{event={event:?}}}"))
    };
    eventually("both are back", || count("reconnect") == 2.0);
    assert!(count("error") >= 2.0);
    gateway.has_logged("a connection for commands to Redis is back");
    gateway.publish("events:a", "after");
}

/// A server whose answer to `XADD` is `answer`; it stops with the test program.
fn answering(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    let asked = String::from_utf8_lossy(&bytes[..read]).to_uppercase();
                    let reply: &[u8] = if asked.contains("XADD") {
                        answer
                    } else if asked.contains("HELLO") {
                        b"-ERR unknown command 'HELLO'\r\n"
                    } else if asked.contains("PING") {
                        b"+PONG\r\n"
                    } else if asked.contains("ROLE") {
                        b"*2\r\n$6\r\nmaster\r\n*0\r\n"
                    } else {
                        b"-ERR unknown command\r\n"
                    };
                    if stream.write_all(reply).is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("redis://{address}")
}

#[test]
fn an_odd_answer_is_the_error_of_that_publish_alone() {
    let odd: [&'static [u8]; 6] = [
        b"+OK\r\n",
        b":5\r\n",
        b"*0\r\n",
        b"$-1\r\n",
        b"*2\r\n$1\r\nx\r\n:1\r\n",
        b"?nonsense\r\n",
    ];
    for answer in odd {
        let gateway = Setup::with_url(&answering(answer)).start();
        for _ in 0..2 {
            let response = gateway.post("events:a", "x");
            let text = String::from_utf8_lossy(answer);
            assert_eq!(response.status, 504, "{text:?}: {response:?}");
        }
        assert_eq!(gateway.admin_get("/livez").status, 200);
    }
    let gateway = Setup::with_url(&answering(b"-OOM command not allowed\r\n")).start();
    assert_eq!(gateway.post("events:a", "x").status, 503);
}

/// Large payloads and many at once come through in order of their ids, byte for byte.
#[test]
fn what_is_published_side_by_side_arrives_once_and_whole() {
    const EACH: usize = 30;
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let payload = |publisher: usize, number: usize| {
        format!("{publisher}-{number}:{}", "x".repeat(publisher * 7_000))
    };
    let publisher = |gateway: &Gateway, publisher: usize| {
        let publish = |number| gateway.publish("events:a", &payload(publisher, number));
        (0..EACH).map(publish).collect::<Vec<_>>()
    };
    let published: Vec<String> = std::thread::scope(|scope| {
        let gateway = &gateway;
        let all: Vec<_> = (0..8).map(|p| scope.spawn(move || publisher(gateway, p))).collect();
        all.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect()
    });
    let mut kept: Vec<_> = ids(&redis, "events:a").iter().map(ToString::to_string).collect();
    let mut published = published;
    kept.sort();
    published.sort();
    assert_eq!(kept, published);
    let Answer::List(entries) = redis.run(&["XRANGE", "events:a", "-", "+"]) else { panic!() };
    let all = format!("{entries:?}");
    for p in 0..8 {
        for n in 0..EACH {
            assert_eq!(all.matches(&format!("{:?}", payload(p, n))).count(), 1, "{p} {n}");
        }
    }
}
