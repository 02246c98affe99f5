use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup, exchange};
use crate::support::history::ids;
use crate::support::post::{curl, ids_in, post};
use crate::support::redis::{Answer, Redis};
use crate::support::tls::Authority;
use crate::support::{DEADLINE, Folder, pause_of_the_scenario};

pub(super) const NDJSON: &str = "Content-Type: application/x-ndjson";

/// A route whose entries anybody may add, on these terms.
pub(super) fn route(terms: &str) -> String {
    format!(
        "[[route]]\npath = \"/events/{{name}}\"\nkey = \"events:{{name}}\"\naccess = \"public\"\ndata = \"*\"\npublish = {{ access = \"public\", {terms} }}\n"
    )
}

/// The fields of all entries, in their order.
pub(super) fn entries(redis: &Redis, key: &str) -> Vec<Vec<(String, String)>> {
    let Answer::List(entries) = redis.run(&["XRANGE", key, "-", "+"]) else { panic!("no stream") };
    let text = |answer: &Answer| match answer {
        Answer::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    let fields = |entry: &Answer| match entry {
        Answer::List(parts) => match &parts[1] {
            Answer::List(words) => {
                words.chunks(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    entries.iter().map(fields).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Both sources, with a route on these terms.
fn both(terms: &str) -> (Redis, [Gateway; 2]) {
    let redis = Redis::start();
    let gateways = [Setup::redis(&redis), Setup::memory()];
    (redis, gateways.map(|setup| setup.routes(&route(terms)).start_ready()))
}

#[test]
fn a_body_is_the_payload_of_an_entry_and_comes_to_the_clients_of_the_route() {
    let (redis, gateways) = both("");
    for gateway in &gateways {
        let mut client = Client::open(&gateway.address, "/events/a");
        client.live();
        let id = &ids_in(&post(gateway, "/events/a", &[], "héllo\r\n\"x\""))[0];
        let event = client.entry();
        assert_eq!(&event.last_event_id, id);
        assert_eq!(event.data, "{\"payload\":\"héllo\\r\\n\\\"x\\\"\"}");
        // An empty body is an entry, too.
        ids_in(&post(gateway, "/events/a", &[], ""));
        assert_eq!(client.entry().data, "{\"payload\":\"\"}");
        assert_eq!(gateway.metric("ssegate_entries_published_total{through=\"route\"}"), 2.0);
        gateway.publish("events:a", "by the operator");
        assert_eq!(gateway.metric("ssegate_entries_published_total{through=\"admin\"}"), 1.0);
    }
    assert_eq!(entries(&redis, "events:a")[0], pairs(&[("payload", "héllo\r\n\"x\"")]));
}

#[test]
fn the_members_of_an_object_become_fields() {
    let (redis, gateways) = both("fields = \"json\"");
    let body = "{\"type\":\"a\\nb\",\"n\":1.50,\"o\":{\"x\":[1, 2]},\"t\":true,\"z\":null}";
    for gateway in &gateways {
        for headers in [&[][..], &["Content-Type: application/json"]] {
            ids_in(&post(gateway, "/events/a", headers, body));
        }
        let mut client = Client::open(&gateway.address, "/events/a?last=1");
        let data: serde_json::Value = serde_json::from_str(&client.entry().data).unwrap();
        assert_eq!(data["o"], "{\"x\":[1, 2]}");
        assert_eq!(data["n"], "1.50");
    }
    let fields =
        [("type", "a\nb"), ("n", "1.50"), ("o", "{\"x\":[1, 2]}"), ("t", "true"), ("z", "null")];
    assert_eq!(entries(&redis, "events:a"), [pairs(&fields), pairs(&fields)]);
}

#[test]
fn each_line_is_an_entry_and_all_are_added_side_by_side() {
    let (redis, gateways) = both("fields = \"json\", rate = \"0/s\"");
    let lines: Vec<_> = (0..1000).map(|n| format!("{{\"n\":{n}}}")).collect();
    for gateway in &gateways {
        let added = ids_in(&post(gateway, "/events/a", &[NDJSON], &lines.join("\n")));
        assert_eq!(added.len(), 1000);
        let three = "\r\n{\"n\":\"x\"}\r\n \n{\"n\":\"y\"}\n{\"n\":\"z\"}";
        assert_eq!(ids_in(&post(gateway, "/events/b", &[NDJSON], three)).len(), 3);
        let one = post(gateway, "/events/b", &[NDJSON], "{\"n\":1}\n");
        assert!(one.body.starts_with("{\"ids\":[\""), "{one:?}");
        let mut client = Client::open(&gateway.address, "/events/a?last=1000");
        for id in &added {
            assert_eq!(&client.entry().last_event_id, id);
        }
    }
    assert_eq!(redis.calls("exec"), 2, "an entry by itself needs none");
    let all = entries(&redis, "events:a");
    assert!((0..1000).all(|n| all[n] == pairs(&[("n", &n.to_string())])));
}

/// The operator's way is the same code.
#[test]
fn the_admin_listener_takes_lines_too() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let url = format!("http://{}/publish/events:a", gateway.admin);
    let answer = curl(&["-H", NDJSON, "--data-binary", "one\ntwo\n", &url]);
    assert!(answer.contains("{\"ids\":[\""), "{answer}");
    assert_eq!(ids(&redis, "events:a").len(), 2);
    assert_eq!(entries(&redis, "events:a")[1], pairs(&[("payload", "two")]));
}

/// By a user who may add entries and nothing else, they are added one by one.
#[test]
fn lines_need_no_right_but_that_of_adding() {
    let redis = Redis::start();
    let rights =
        ["on", ">s", "%RW~events:*", "+xread", "+xinfo|stream", "+xrange", "+xrevrange", "+xadd"];
    let user: Vec<_> = ["ACL", "SETUSER", "gw"].into_iter().chain(rights).collect();
    redis.run(&user);
    let folder = Folder::new();
    let file = folder.0.join("password");
    std::fs::write(&file, "s").unwrap();
    let gateway = Setup::redis(&redis)
        .set("source", "username = \"gw\"")
        .set("source", &format!("password_file = {file:?}"))
        .routes(&route("expire = \"1h\""))
        .start_ready();
    assert_eq!(ids_in(&post(&gateway, "/events/a", &[NDJSON], "1\n2\n3")).len(), 3);
    assert_eq!(entries(&redis, "events:a").len(), 3);
    // It may not renew the time to live either: the entries are there, and the operator is told.
    gateway.has_logged("their key's time to live could not be renewed");
}

#[test]
fn an_entry_renews_the_keys_time_to_live_and_trims_the_stream() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis)
        .routes(&route("expire = \"1h\", maxlen = 100, rate = \"0/s\""))
        .start_ready();
    let time_to_live = |key: &str| match redis.run(&["PTTL", key]) {
        Answer::Number(ms) => ms,
        other => panic!("{other:?}"),
    };
    ids_in(&post(&gateway, "/events/a", &[], "one"));
    assert!((3_500_000..=3_600_000).contains(&time_to_live("events:a")));
    redis.run(&["PEXPIRE", "events:a", "60000"]);
    ids_in(&post(&gateway, "/events/a", &[NDJSON], &"x\n".repeat(1000)));
    assert!(time_to_live("events:a") > 3_500_000);
    let Answer::Number(length) = redis.run(&["XLEN", "events:a"]) else { panic!("no stream") };
    assert!((100..=200).contains(&length), "about a hundred: {length}");
    // A key of another type stays as it is.
    redis.run(&["SET", "events:b", "mine"]);
    assert_eq!(post(&gateway, "/events/b", &[], "x").status, 409);
    assert_eq!(time_to_live("events:b"), -1);
    let forever = Setup::redis(&redis).routes(&route("maxlen = 0, rate = \"0/s\"")).start_ready();
    (0..12).for_each(|_| {
        ids_in(&post(&forever, "/events/c", &[NDJSON], &"x\n".repeat(1000)));
    });
    assert_eq!(redis.run(&["XLEN", "events:c"]), Answer::Number(12_000));
    assert_eq!(time_to_live("events:c"), -1);
}

#[test]
fn a_stream_of_the_embedded_source_expires_as_one_of_redis_does() {
    let routes = route("expire = \"1s\", maxlen = 2, rate = \"0/s\"")
        + "absent = \"204\"\nabsent_after = \"0s\"\n";
    let gateway = Setup::memory().routes(&routes).start_ready();
    let last = ids_in(&post(&gateway, "/events/a", &[NDJSON], "1\n2\n3"));
    let mut client = Client::open(&gateway.address, "/events/a?last=10");
    assert_eq!(client.entry().last_event_id, last[1], "two are kept");
    ids_in(&post(&gateway, "/events/b", &[], "1"));
    pause_of_the_scenario(Duration::from_millis(1_200), "its time to live is over");
    // Nobody has asked for it yet.
    let head = "HEAD /events/b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(&gateway.address, head).status, 204);
}

#[test]
fn who_reads_need_not_publish_and_a_route_without_it_takes_nothing() {
    let gateway = Setup::memory().start_ready();
    let refused = post(&gateway, "/events/a", &[], "x");
    assert_eq!((refused.status, refused.body.as_str()), (405, "only GET and HEAD\n"));
    assert!(refused.head.to_lowercase().contains("allow: get, head\r\n"), "{refused:?}");
    let publishing = Setup::memory().routes(&route("")).start_ready();
    let put = curl(&["-X", "PUT", "-d", "x", &format!("http://{}/events/a", publishing.address)]);
    assert!(put.starts_with("HTTP/1.1 405") && put.contains("allow: GET, HEAD, POST"), "{put}");
}

/// One connection carries many of them, and then a stream.
#[test]
fn a_connection_stays_usable_after_each_answer() {
    let (_redis, gateways) = both("fields = \"json\", max_bytes = \"100B\"");
    for gateway in &gateways {
        let stream = TcpStream::connect(&gateway.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut reader = BufReader::new(stream);
        let mut ask = |request: &str| {
            reader.get_mut().write_all(request.as_bytes()).unwrap();
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(reader.read_line(&mut head).unwrap() > 0, "closed after {head:?}");
            }
            if let Some(length) = head.split("content-length: ").nth(1) {
                let length = length.split("\r\n").next().unwrap().parse().unwrap();
                reader.read_exact(&mut vec![0; length]).unwrap();
            }
            head.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
        };
        let good = "POST /events/a HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        let chunked = "POST /events/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
        let bad = "POST /events/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{a}";
        let large =
            format!("POST /events/a HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n{:200}", "");
        for _ in 0..3 {
            assert_eq!(ask(good), 200);
            assert_eq!(ask(chunked), 200);
            assert_eq!(ask(bad), 400);
            assert_eq!(ask(&large), 413);
        }
        assert_eq!(ask("GET /events/a HTTP/1.1\r\nHost: x\r\n\r\n"), 200);
    }
}

#[test]
fn every_version_of_http_carries_entries() {
    let authority = Authority::new();
    let setup = || Setup::memory().routes(&route("fields = \"json\", max_bytes = \"20KiB\""));
    let plain = setup().start_ready();
    let tls = setup().tls(&authority.sign("127.0.0.1")).start_ready();
    let (large, folder) = (format!("{{\"a\":\"{}\"}}", "x".repeat(40_000)), Folder::new());
    for (gateway, scheme, version) in [
        (&plain, "http", "--http1.0"),
        (&plain, "http", "--http1.1"),
        (&plain, "http", "--http2-prior-knowledge"),
        (&tls, "https", "--http1.1"),
        (&tls, "https", "--http2"),
    ] {
        let url = format!("{scheme}://{}/events/a", gateway.address);
        let ask = |arguments: &[&str]| {
            let common = [version, "--cacert", &authority.file(), &url];
            let answer = curl(&[&common[..], arguments].concat());
            let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
            (status, answer)
        };
        let json = "Content-Type: application/json";
        let (status, answer) = ask(&["-H", json, "-d", "{\"a\":1}"]);
        assert_eq!(status, "200", "{version}: {answer}");
        let (status, answer) = ask(&["-H", NDJSON, "--data-binary", "{\"a\":1}\n{\"a\":2}"]);
        assert!(status == "200" && answer.contains("\"ids\""), "{version}: {answer}");
        assert_eq!(ask(&["-H", json, "-d", "{a"]).0, "400", "{version}");
        assert_eq!(ask(&["-H", json, "-d", &large]).0, "413", "{version}");
        assert_eq!(ask(&["-X", "PUT", "-d", "x"]).0, "405", "{version}");
        let lines = format!("{{\"a\":\"{}\"}}\n", "x".repeat(10_000)).repeat(50);
        let file = folder.0.join("lines");
        std::fs::write(&file, lines).unwrap();
        let from = format!("@{}", file.display());
        let (status, answer) = ask(&["-H", NDJSON, "-H", "Expect:", "--data-binary", &from]);
        assert_eq!(status, "200", "{version}: {answer}");
    }
}

/// A client that waits to be told to go on is told so, and is not where its body is refused anyway.
#[test]
fn a_body_is_asked_for_only_where_it_is_wanted() {
    let gateway = Setup::memory().routes(&route("max_bytes = \"10B\"")).start_ready();
    let url = format!("http://{}/events/a", gateway.address);
    let answer = curl(&["-H", "Expect: 100-continue", "-d", "x", &url]);
    assert!(answer.starts_with("HTTP/1.1 100 ") && answer.contains("HTTP/1.1 200"), "{answer}");
    let answer = curl(&["-H", "Expect: 100-continue", "-d", "longer than it may be", &url]);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[test]
fn a_publish_is_a_line_of_the_access_log() {
    let gateway = Setup::memory().set("log", "access = true").routes(&route("")).start_ready();
    post(&gateway, "/events/a", &[], "x");
    gateway.has_logged("\"method\":\"POST\",\"path\":\"/events/a\"");
}

/// Redis allows entries after the one that ends a stream, and so does the gateway.
#[test]
fn entries_after_the_end_are_added() {
    let routes = route("fields = \"json\"") + "end = { field = \"type\", equals = \"done\" }\n";
    let gateway = Setup::memory().routes(&routes).start_ready();
    for body in ["{\"type\":\"done\"}", "{\"type\":\"more\"}"] {
        ids_in(&post(&gateway, "/events/a", &[], body));
    }
}
