//! Streams that the new file would refuse, wherever they are: each ends with `expired`, and no other does.

use super::*;
use crate::support::redis::Redis;

#[test]
fn a_stream_whose_route_is_gone_or_changed_ends() {
    let routes = |all: &[(&str, &str)]| {
        let all: Vec<_> = all.iter().map(|(path, key)| route(path, key)).collect();
        Setup::memory().routes(&all.concat())
    };
    let gateway = routes(&[
        ("/events/{name}", "events:{name}"),
        ("/gone/{name}", "events:{name}"),
        ("/moved/{name}", "events:{name}"),
        ("/x/{name}", "{name}:x"),
    ])
    .start_ready();
    let mut kept = [live(&gateway, "/events/a"), live(&gateway, "/x/a")];
    let mut ended = ["/gone/a", "/gone/b", "/moved/a", "/x/special"].map(|path| {
        let mut client = live(&gateway, path);
        client.send(b"");
        client
    });
    let mut session = Session::open(&gateway.address);
    let (stays, ends) = (session.stream("/events/a"), session.stream("/gone/a"));
    session.live(stays);
    session.live(ends);
    // A literal goes before the variable now.
    gateway.write(&routes(&[
        ("/x/special", "special"),
        ("/x/{name}", "{name}:x"),
        ("/moved/{name}", "moved:{name}"),
        ("/events/{name}", "events:{name}"),
    ]));
    let begin = Instant::now();
    assert_eq!(judged(&gateway.reload()), (3, 5));
    for client in &mut ended {
        expires(client, begin);
    }
    assert_eq!(session.control(ends).0, json!({"type": "expired"}));
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    assert_eq!(session.end(ends), End::Whole);
    let left = "ssegate_client_disconnects_total{reason=\"expired\"}";
    eventually("they are counted", || gateway.metric(left) == 5.0);
    gateway.publish("events:a", "on");
    gateway.publish("a:x", "on");
    assert_eq!(kept.each_mut().map(|client| client.event().data), ["on", "on"]);
    assert_eq!(session.event(stays).data, "on");
    // What is allowed again is as good as ever.
    gateway.write(&routes(&[("/gone/{name}", "events:{name}"), ("/x/{name}", "{name}:x")]));
    assert_eq!(judged(&gateway.reload()), (1, 2));
    let mut back = live(&gateway, "/gone/a");
    gateway.publish("events:a", "back");
    assert_eq!(back.event().data, "back");
}

#[test]
fn a_stream_of_an_origin_or_host_that_is_no_longer_listed_ends() {
    let setup = |origins: &str, hosts: &str| {
        Setup::memory()
            .set("cors", &format!("origins = {origins}"))
            .set("server", &format!("hosts = {hosts}"))
    };
    let both = "[\"https://a.example\", \"https://b.example\"]";
    let gateway = setup(both, "[]").start_ready();
    let open = |headers: &str| {
        let request = format!("GET /events/a HTTP/1.1\r\n{headers}\r\n\r\n");
        let mut client = Client::raw(&gateway.address, &request);
        client.live();
        client
    };
    let mut kept = [
        open("Host: one.example:80"),
        open("Host: one.example\r\nOrigin: https://a.example"),
        // The gateway's own page, and one that might not read before, either.
        open("Host: one.example\r\nOrigin: https://one.example"),
        open("Host: one.example\r\nOrigin: https://c.example"),
    ];
    let long = "x".repeat(2000);
    let mut ended = [
        open("Host: two.example"),
        open(&format!("Host: {long}")),
        open("Host: one.example\r\nOrigin: https://b.example"),
    ];
    gateway.write(&setup("[\"https://a.example\"]", "[\"one.example\"]"));
    let begin = Instant::now();
    assert_eq!(judged(&gateway.reload()), (4, 3));
    for client in &mut ended {
        expires(client, begin);
    }
    gateway.publish("events:a", "on");
    for client in &mut kept {
        assert_eq!(client.event().data, "on");
    }
}

#[test]
fn a_stream_without_a_token_ends_where_one_is_now_required() {
    let gateway = Setup::memory().start_ready();
    let mut client = live(&gateway, "/events/a");
    let secret = gateway.folder.0.join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    let guarded =
        route("/events/{name}", "events:{name}").replace("\"public\"", "\"jwt\"\nmatch = \"any\"");
    let keys = format!("keys = [{{ alg = \"HS256\", secret_file = {secret:?} }}]");
    gateway.write(&Setup::memory().routes(&guarded).set("auth.jwt", &keys));
    let begin = Instant::now();
    assert_eq!(judged(&gateway.reload()), (0, 1));
    expires(&mut client, begin);
    assert_eq!(gateway.get("/events/a").status, 401);
}

/// One that replays, one that waits for Redis, one that takes nothing for a while.
#[test]
fn streams_that_are_in_no_shard_end_as_well() {
    let mut redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let payload = "x".repeat(50_000);
    for _ in 0..200 {
        redis.add("events:a", &payload);
    }
    let path = "/events/a?last_event_id=earliest";
    let mut behind = Client::with_small_window(&gateway.address, path);
    let mut live = live(&gateway, "/events/a");
    eventually("it takes no more", || {
        let streams = gateway.streams();
        streams[0]["followers"]["count"] == 1
    });
    redis.kill();
    live.comment("reconnecting");
    let mut waits = Client::resume(&gateway.address, "/events/b", "5-5");
    eventually("all are there", || gateway.metric("ssegate_clients") == 3.0);
    gateway.write(&Setup::redis(&redis).routes(&route("/other", "other")));
    let begin = Instant::now();
    assert_eq!(judged(&gateway.reload()), (0, 3));
    expires(&mut live, begin);
    expires(&mut waits, begin);
    let rest = behind.rest();
    assert!(rest.len() < 200, "it was not behind");
    assert!(format!("{:?}", rest.last()).contains("expired") && behind.complete);
}

/// A request may be admitted before the reload, and become a stream only after all others were checked.
#[test]
fn nobody_slips_through_while_the_file_is_read() {
    let gateway = Setup::memory().start_ready();
    let gone = Setup::memory().routes(&route("/other", "other"));
    for _ in 0..10 {
        let crowd = [(); 4].map(|()| {
            let address = gateway.address.clone();
            std::thread::spawn(move || {
                let request = "GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n";
                let come = std::iter::repeat_with(|| Client::raw(&address, request));
                let is_in = |client: &Client| client.head.starts_with("HTTP/1.1 200 ");
                come.take_while(is_in).collect::<Vec<_>>()
            })
        });
        eventually("some come", || gateway.metric("ssegate_clients") >= 5.0);
        gateway.write(&gone);
        gateway.reload();
        let held = crowd.map(|some| some.join().unwrap());
        eventually("none is left", || gateway.metric("ssegate_clients") == 0.0);
        drop(held);
        gateway.write(&Setup::memory());
        gateway.reload();
    }
}

#[test]
fn an_entry_is_kept_as_the_routes_make_it_now_and_not_as_they_once_did() {
    const PAYLOAD_BYTES: usize = 100_000;
    let setup = |event: &str| {
        let route = route("/events/{name}", "events:{name}");
        Setup::memory().routes(&format!("{route}event = {event:?}\n"))
    };
    let gateway = setup("a").start_ready();
    let mut client = live(&gateway, "/events/a");
    for event in ["b", "c", "d"] {
        gateway.write(&setup(event));
        assert_eq!(judged(&gateway.reload()), (1, 0));
        // The next one comes before the old one leaves: the key is read all the time.
        client = live(&gateway, "/events/a");
        eventually("the old one has left", || gateway.metric("ssegate_clients") == 1.0);
    }
    gateway.publish("events:a", &"x".repeat(PAYLOAD_BYTES));
    assert_eq!(client.event().event_type, "d");
    let kept = gateway.metric("ssegate_buffered_bytes");
    assert!(kept < 1.5 * PAYLOAD_BYTES as f64, "{kept} bytes");
}
