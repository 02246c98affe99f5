//! A key that is not there when a client comes.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use super::{Scene, everywhere, on_redis, routes};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::multiplexed::Session;
use crate::support::redis::Redis;

const SOON: &str = "absent = \"204\"\nabsent_after = \"1s\"\nstart = \"earliest\"";
const LATE: &str = "absent = \"204\"\nabsent_after = \"120s\"\nstart = \"earliest\"";

/// Asks for a stream, and waits for nothing.
fn ask(scene: &Scene) -> TcpStream {
    let mut socket = TcpStream::connect(&scene.gateway.address).unwrap();
    let request = b"GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n";
    std::io::Write::write_all(&mut socket, request).unwrap();
    eventually("it counts as a client", || scene.gateway.metric("ssegate_clients") > 0.0);
    socket
}

#[test]
fn a_key_that_does_not_come_is_204() {
    everywhere(SOON, |scene| {
        assert_eq!(scene.status(""), 204);
        let old = Client::raw(&scene.gateway.address, "GET /events/a HTTP/1.0\r\n\r\n");
        assert!(old.head.starts_with("HTTP/1.0 204 "), "{}", old.head);
        let mut session = Session::open(&scene.gateway.address);
        let stream = session.get("/events/a", &[]);
        assert_eq!(session.status(stream), 204);
        eventually("nothing is left", || {
            let metric = |name| scene.gateway.metric(name);
            metric("ssegate_clients") == 0.0 && metric("ssegate_readers") == 0.0
        });
    });
}

#[test]
fn a_key_that_comes_is_a_stream_and_no_head_is_sent_before() {
    everywhere(LATE, |scene| {
        let mut socket = ask(scene);
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(socket.read(&mut [0; 100]).is_err(), "a head was sent before the key was there");
        scene.publish(&["one"]);
        let mut client = Client::over(socket, "");
        assert!(client.head.starts_with("HTTP/1.1 200 "), "{}", client.head);
        assert_eq!(client.entry().data, "one");
    });
}

#[test]
fn a_key_that_is_there_is_not_waited_for() {
    on_redis(LATE, |redis, gateway, _| {
        let scene = Scene { gateway };
        redis.add("events:a", "one");
        let mut client = scene.open("");
        assert_eq!(client.entry().data, "one");
        client.live();
        // An empty stream is there as well.
        redis.run(&["XTRIM", "events:a", "MAXLEN", "0"]);
        scene.open("").live();
    });
}

#[test]
fn who_leaves_while_it_waits_is_noticed() {
    on_redis(LATE, |_, gateway, _| {
        let scene = Scene { gateway };
        drop(ask(&scene));
        let clients = || scene.gateway.metric("ssegate_clients");
        eventually("the client that left", || clients() == 0.0);
        let mut session = Session::open(&scene.gateway.address);
        let stream = session.get("/events/a", &[]);
        eventually("it counts", || clients() == 1.0);
        session.reset(stream);
        eventually("the stream that was reset", || clients() == 0.0);
    });
}

#[test]
fn a_drain_does_not_wait_for_a_key() {
    let redis = Redis::start();
    let setup = Setup::redis(&redis).routes(&routes(LATE)).set("server", "refuse = \"status\"");
    let scene = Scene { gateway: setup.start_ready() };
    let socket = ask(&scene);
    scene.gateway.signal("TERM");
    let client = Client::over(socket, "");
    assert!(client.head.starts_with("HTTP/1.1 503 "), "{}", client.head);
}

#[test]
fn a_key_that_cannot_be_read_is_refused_at_once() {
    let redis = Redis::start();
    let setup = Setup::redis(&redis).routes(&routes(LATE)).set("server", "refuse = \"status\"");
    let scene = Scene { gateway: setup.start_ready() };
    let socket = ask(&scene);
    redis.run(&["SET", "events:a", "no stream"]);
    let client = Client::over(socket, "");
    assert!(client.head.starts_with("HTTP/1.1 503 "), "{}", client.head);
}

#[test]
fn by_default_a_key_is_waited_for() {
    everywhere("start = \"earliest\"", |scene| {
        let mut client = scene.open("");
        client.live();
        scene.publish(&["one"]);
        assert_eq!(client.entry().data, "one");
    });
}
