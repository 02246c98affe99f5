//! What feeds the operator's page: right figures, the tail of a stream, and who may read them.

use std::time::Instant;

use serde_json::Value;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Response, Setup, exchange};
use crate::support::redis::Redis;
use crate::support::{DEADLINE, Folder, eventually};

mod bounds;
mod browser;

/// What the page is made of, and what feeds it.
const PATHS: [&str; 5] = ["/", "/page.css", "/page.js", "/overview", "/tail/events:a"];

/// An event stream of the admin listener.
fn listen(gateway: &Gateway, path: &str) -> Client {
    let client = Client::raw(&gateway.admin, &request(path, &gateway.admin, ""));
    assert!(client.head.starts_with("HTTP/1.1 200 "), "{path}: {}", client.head);
    client
}

fn request(path: &str, host: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n")
}

/// The answer to a request that is no stream, or is refused.
fn ask(gateway: &Gateway, path: &str, host: &str, headers: &str) -> Response {
    let headers = format!("connection: close\r\n{headers}");
    exchange(&gateway.admin, &request(path, host, &headers))
}

/// Reads on to an event of this name for which `is_it` holds.
#[track_caller]
fn until(client: &mut Client, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let (end, mut last) = (Instant::now() + DEADLINE, Value::Null);
    while Instant::now() < end && !client.has_ended() {
        let event = client.event();
        if event.event_type == name {
            last = serde_json::from_str(&event.data).unwrap();
            if is_it(&last) {
                return last;
            }
        }
    }
    panic!("no such {name}; the last was {last}");
}

/// The next event, with its name.
#[track_caller]
fn next(client: &mut Client) -> (String, Value) {
    let event = client.event();
    (event.event_type, serde_json::from_str(&event.data).unwrap())
}

/// What an overview says of one key.
fn row<'a>(overview: &'a Value, key: &str) -> &'a Value {
    let rows = overview["streams"].as_array().unwrap().iter();
    rows.into_iter().find(|row| row["key"] == key).unwrap_or(&Value::Null)
}

#[test]
fn the_overview_shows_clients_entries_deliveries_and_gaps() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut overview = listen(&gateway, "/overview");
    assert!(
        overview.head.contains("content-type: text/event-stream; charset=utf-8"),
        "{}",
        overview.head
    );
    let (name, first) = next(&mut overview);
    assert_eq!(
        (&*name, &first["streams"], &first["clients"]["now"]),
        ("overview", &serde_json::json!([]), &0.into())
    );
    let mut clients: Vec<_> = ["a", "a", "b"]
        .map(|name| Client::open(&gateway.address, &format!("/events/{name}")))
        .into();
    clients.iter_mut().for_each(|client| drop(client.live()));
    let id = redis.add("events:a", "one");
    clients[..2].iter_mut().for_each(|client| drop(client.entry()));
    let data = until(&mut overview, "overview", |data| data["totals"]["deliveries"] == 2);
    assert_eq!(
        (&data["clients"]["now"], &data["readers"]["now"]),
        (&3.into(), &2.into()),
        "{data}"
    );
    assert_eq!(data["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&data["totals"]["entries"], &data["totals"]["gaps"]),
        (&1.into(), &0.into()),
        "{data}"
    );
    assert_eq!(data["connections"]["http1_accepted"], 3, "{data}");
    let (a, b) = (row(&data, "events:a"), row(&data, "events:b"));
    assert_eq!((&a["clients"], &a["entries"], &a["last_id"]), (&2.into(), &1.into(), &id.into()));
    assert_eq!((&a["reader"], &a["gaps"], &b["clients"]), (&"up".into(), &0.into(), &1.into()));

    // One gap for all clients, one for a single client.
    lose_three(&redis, "events:a");
    let data = until(&mut overview, "overview", |data| data["totals"]["gaps"] == 1);
    assert_eq!(row(&data, "events:a")["gaps"], 1, "{data}");
    Client::resume(&gateway.address, "/events/b", "5-5").control();
    let data = until(&mut overview, "overview", |data| data["totals"]["gaps"] == 2);
    assert_eq!(
        (&row(&data, "events:a")["gaps"], &row(&data, "events:b")["gaps"]),
        (&1.into(), &1.into())
    );
    clients.drain(..2).for_each(Client::leave);
    until(&mut overview, "overview", |data| row(data, "events:a")["clients"] == 0);
}

/// Four entries in one step, of which only the last is kept.
fn lose_three(redis: &Redis, key: &str) {
    let script = "for n = 1, 4 do redis.call('XADD', KEYS[1], '*', 'payload', n) end \
        return redis.call('XTRIM', KEYS[1], 'MAXLEN', 1)";
    redis.run(&["EVAL", script, "1", key]);
}

#[test]
fn latency_is_that_of_the_last_second() {
    let gateway = Setup::memory().start_ready();
    let mut overview = listen(&gateway, "/overview");
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    gateway.publish("events:a", "x");
    client.entry();
    let data = until(&mut overview, "overview", |data| data["latency"]["deliveries"] != 0);
    let latency = &data["latency"];
    let (p50, p99) = (latency["p50_ms"].as_f64().unwrap(), latency["p99_ms"].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p99 && p99 <= 10_000.0, "{latency}");
    let (_, quiet) = next(&mut overview);
    assert!(quiet["latency"]["p99_ms"].is_null(), "nothing came since: {quiet}");
}

#[test]
fn a_redis_that_goes_away_and_comes_back_is_seen() {
    let mut redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let mut overview = listen(&gateway, "/overview");
    let mut tail = listen(&gateway, "/tail/events:a");
    until(&mut tail, "control", |data| data["type"] == "live");
    redis.kill();
    let data = until(&mut overview, "overview", |data| {
        row(data, "events:a")["reader"] == "away" && data["source"]["up"] == false
    });
    let away = row(&data, "events:a");
    assert_eq!((&away["waits_for"], &away["clients"]), (&"retry".into(), &1.into()), "{away}");
    assert!(!away["error_text"].as_str().unwrap().is_empty(), "{away}");
    until(&mut tail, "control", |data| data["type"] == "source" && data["up"] == false);
    redis.launch();
    until(&mut tail, "control", |data| data["type"] == "source" && data["up"] == true);
    until(&mut overview, "overview", |data| {
        row(data, "events:a")["reader"] == "up" && data["source"]["up"] == true
    });
    redis.add("events:a", "after");
    assert_eq!(until(&mut tail, "entry", |_| true)["data"], "after");
}

#[test]
fn the_tail_shows_what_clients_are_sent() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let ids = ["one", "two"].map(|payload| redis.add("events:a", payload));
    ids.iter().for_each(|id| assert_eq!(client.entry().last_event_id, *id));
    eventually("its reader waits", || redis.blocked() == 1);
    let mut tail = listen(&gateway, "/tail/events:a");
    // First what is in memory, then the mark.
    for (id, payload) in ids.iter().zip(["one", "two"]) {
        let (name, entry) = next(&mut tail);
        assert_eq!(
            (&*name, &entry["id"], &entry["data"]),
            ("entry", &id.as_str().into(), &payload.into())
        );
        assert_eq!((&entry["event"], &entry["cut"]), (&"message".into(), &false.into()), "{entry}");
    }
    let (name, live) = next(&mut tail);
    assert_eq!((&*name, &live["type"], &live["replayed"]), ("control", &"live".into(), &2.into()));
    assert_eq!(live["id"], ids[1].as_str());
    let id = redis.add("events:a", "three");
    assert_eq!(next(&mut tail).1["id"], id.as_str());
    lose_three(&redis, "events:a");
    let gap = until(&mut tail, "control", |data| data["type"] == "gap");
    assert_eq!((&gap["reason"], &gap["lost"]), (&"trimmed".into(), &3.into()), "{gap}");
    assert_eq!(until(&mut tail, "entry", |_| true)["data"], "4");
    eventually("the tail costs Redis nothing", || redis.blocked() == 1);
    let streams = gateway.streams();
    assert_eq!(
        (&streams[0]["clients"], &streams[0]["onlookers"]),
        (&1.into(), &1.into()),
        "{streams}"
    );
    assert_eq!(gateway.metric("ssegate_clients"), 1.0, "an onlooker is no client");
    drop(tail);
    eventually("it is given back", || gateway.streams()[0]["onlookers"] == 0);
}

#[test]
fn a_tail_opens_what_clients_could_and_nothing_else() {
    let redis = Redis::start();
    let odd = "<img src=x onerror=\\\"evil()\\\">/\u{fc} \\u0001";
    let routes = format!(
        "[[route]]\npath = \"/events/{{name}}\"\nkey = \"events:{{name}}\"\naccess = \"public\"\n\
         [[route]]\npath = \"/odd\"\nkey = \"{odd}\"\nevent = \"odd\"\naccess = \"public\"\n"
    );
    let gateway = Setup::redis(&redis).routes(&routes).start_ready();
    redis.run(&["XADD", "secret", "*", "payload", "x"]);
    let status = |path: &str| ask(&gateway, path, &gateway.admin, "").status;
    for path in [
        "/tail/secret",
        "/tail/events:",
        "/tail/events:a%20b",
        "/tail/events%3Aa/b",
        "/tail",
        "/tails/events:a",
    ] {
        assert_eq!(status(path), 404, "{path}");
    }
    for path in ["/tail/", "/tail/%ff"] {
        assert_eq!(status(path), 400, "{path}");
    }
    assert_eq!(gateway.streams(), serde_json::json!([]), "none of them opened a stream");
    let mut new = listen(&gateway, "/tail/events%3Anew");
    until(&mut new, "control", |data| data["type"] == "live");
    let id = redis.add("events:new", "first");
    assert_eq!(until(&mut new, "entry", |_| true)["id"], id.as_str());

    let encoded = "%3Cimg%20src=x%20onerror=%22evil()%22%3E%2F%C3%BC%20%01";
    let mut tail = listen(&gateway, &format!("/tail/{encoded}"));
    until(&mut tail, "control", |data| data["type"] == "live");
    let key = "<img src=x onerror=\"evil()\">/\u{fc} \u{1}";
    redis.add(key, "</script>\u{0}\r\ndata: not a line of ours\n\n\u{2028}");
    let entry = until(&mut tail, "entry", |_| true);
    assert_eq!(entry["data"], "</script>\u{0}\ndata: not a line of ours\n\n\u{2028}");
    assert_eq!(entry["event"], "odd", "as its route has it");
    let mut overview = listen(&gateway, "/overview");
    let (_, data) = next(&mut overview);
    assert_eq!(row(&data, key)["onlookers"], 1, "{data}");
}

#[test]
fn the_public_listener_serves_neither_page_nor_streams() {
    let gateway = Setup::memory().start_ready();
    for path in PATHS {
        for accept in ["*/*", "text/html", "text/event-stream"] {
            let headers = format!("accept: {accept}\r\nconnection: close\r\n");
            let response = exchange(&gateway.address, &request(path, &gateway.address, &headers));
            assert_eq!(response.status, 404, "{path}: {response:?}");
            assert_eq!(response.body, "no such route\n", "{path}");
        }
    }
}

#[test]
fn the_page_is_open_and_its_data_want_the_token() {
    let folder = Folder::new();
    let file = folder.0.join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let token_file = format!("token_file = {:?}", file.to_str().unwrap());
    let gateway = Setup::memory().set("admin", &token_file).start_ready();
    let html = "accept: text/html,application/xhtml+xml\r\n";
    for path in ["/", "/page.css", "/page.js"] {
        let response = ask(&gateway, path, "gateway.example", html);
        assert_eq!(response.status, 200, "{path}");
        let head = response.head.to_ascii_lowercase();
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'",
            "x-frame-options: deny",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(head.contains(header), "{header} in {head}");
        }
        assert!(!response.body.contains("s3cret"));
    }
    assert_eq!(
        ask(&gateway, "/", "x", "accept: */*\r\n").status,
        401,
        "the list is for the operator"
    );
    for path in ["/overview", "/tail/events:a"] {
        for wrong in [
            "",
            "authorization: Bearer s3cre\r\n",
            "authorization: Bearer\r\n",
            "cookie: token=s3cret\r\n",
        ] {
            assert_eq!(
                ask(&gateway, path, &gateway.admin, wrong).status,
                401,
                "{path} with {wrong:?}"
            );
        }
        assert_eq!(ask(&gateway, &format!("{path}?token=s3cret"), &gateway.admin, "").status, 401);
        // A name will do here: a page of another origin does not know the token.
        let right = request(path, "gateway.example", "authorization: Bearer s3cret\r\n");
        let client = Client::raw(&gateway.admin, &right);
        assert!(client.head.starts_with("HTTP/1.1 200 "), "{}", client.head);
    }
    assert!(!gateway.log().contains("s3cret"), "a token is in the log");
}

#[test]
fn pages_of_other_origins_read_nothing() {
    let gateway = Setup::memory().start_ready();
    let admin = gateway.admin.as_str();
    for path in ["/overview", "/tail/events:a", "/streams", "/state"] {
        let foreign = [
            (admin, "origin: http://evil.example\r\n"),
            (admin, "sec-fetch-site: cross-site\r\n"),
            (admin, "sec-fetch-site: same-site\r\n"),
            // A foreign name that resolves to this machine: the browser sends nothing that shows it.
            ("evil.example:9464", ""),
            ("evil.example", "sec-fetch-site: same-origin\r\n"),
            ("localhost.evil.example", ""),
            ("", ""),
        ];
        for (host, headers) in foreign {
            let response = ask(&gateway, path, host, headers);
            assert_eq!(response.status, 403, "{path} at {host:?} with {headers:?}");
        }
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:9464", "[::1]:9464"] {
            let client =
                Client::raw(admin, &request(path, host, "sec-fetch-site: same-origin\r\n"));
            assert!(client.head.starts_with("HTTP/1.1 200 "), "{path} at {host}: {}", client.head);
        }
    }
}

#[test]
fn over_a_unix_socket_any_host_name_is_accepted() {
    let folder = Folder::new();
    let listen = format!("listen = \"unix:{}\"", folder.0.join("admin.sock").display());
    let gateway = Setup::memory().set("admin", &listen).start_ready();
    for path in ["/overview", "/tail/events:a"] {
        let head = |headers: &str| {
            let request = format!(
                "HEAD {path} HTTP/1.1\r\nhost: gateway.example\r\nconnection: close\r\n{headers}\r\n"
            );
            exchange(&gateway.admin, &request).status
        };
        assert_eq!((head(""), head("sec-fetch-site: cross-site\r\n")), (200, 403), "{path}");
    }
    assert_eq!(gateway.streams(), serde_json::json!([]), "a HEAD opens nothing");
}
