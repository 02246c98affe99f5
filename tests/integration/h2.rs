//! HTTP/2 and TLS, as real clients speak them: curl, the h2 crate, a browser.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ssegate::sse::parse::{Item, Parser};

use crate::support::browser::Browser;
use crate::support::gateway::{Gateway, Setup};
use crate::support::multiplexed::Session;
use crate::support::tls::Authority;
use crate::support::{Folder, eventually};

/// Peers that break the rules, or keep them and do harm.
mod attacks;
/// What holds for each stream holds over HTTP/2.
mod streams;
/// Handshakes, certificates, and their exchange.
mod tls;

/// As long as a busy machine may take.
const CURL: [&str; 3] = ["-sN", "-m", "60"];

/// What curl prints.
fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(CURL).args(arguments).output();
    let output = output.expect("curl must be installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What curl prints of a stream, up to the end of the event that has this.
fn curl_until(last: &str, arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    let mut curl = curl.args(CURL).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let (mut text, mut seen) = (String::new(), false);
    for line in BufReader::new(curl.stdout.take().unwrap()).lines().map_while(Result::ok) {
        text += &line;
        text.push('\n');
        seen |= line.contains(last);
        if seen && line.is_empty() {
            break;
        }
    }
    curl.kill().unwrap();
    curl.wait().unwrap();
    text
}

/// Its version of HTTP and the status.
fn answer(gateway: &Gateway, arguments: &[&str], path: &str) -> String {
    let authority = format!("{}{path}", gateway.address);
    let url = |scheme: &str| format!("{scheme}://{authority}");
    let tls = arguments.contains(&"--cacert");
    let url = url(if tls { "https" } else { "http" });
    let write_out = ["-o", "/dev/null", "-w", "%{http_version} %{http_code}"];
    curl(&[arguments, &write_out, &[&url]].concat())
}

#[test]
fn curl_speaks_both_versions_with_and_without_tls() {
    const PATHS: [(&str, &str); 3] =
        [("/events/a?last=x", "400"), ("/nothing", "404"), ("/events/a", "200")];
    let authority = Authority::new();
    let plain = Setup::memory().start_ready();
    let tls = Setup::memory().tls(&authority.sign("127.0.0.1")).start_ready();
    let file = authority.file();
    for (gateway, arguments, version) in [
        (&plain, &["--http1.1"][..], "1.1"),
        (&plain, &["--http2-prior-knowledge"], "2"),
        (&tls, &["--http1.1", "--cacert", &file], "1.1"),
        (&tls, &["--http2", "--cacert", &file], "2"),
    ] {
        for (path, code) in PATHS {
            let said = answer(gateway, &[arguments, &["-I"]].concat(), path);
            assert_eq!(said, format!("{version} {code}"), "{arguments:?} {path}");
        }
        let posted = answer(gateway, &[arguments, &["-d", "x"]].concat(), "/events/a");
        assert_eq!(posted, format!("{version} 405"), "{arguments:?}");
        let with_body = [arguments, &["-X", "GET", "-d", "x"]].concat();
        assert_eq!(answer(gateway, &with_body, "/events/a"), format!("{version} 400"));
    }
    let accepted = |gateway: &Gateway, proto| {
        gateway.metric(&format!("ssegate_connections_accepted_total{{proto=\"{proto}\"}}"))
    };
    assert_eq!(accepted(&plain, "http2"), 5.0);
    assert_eq!(accepted(&tls, "http2"), 5.0);
    assert_eq!(accepted(&tls, "http1"), 5.0);
}

#[test]
fn a_stream_says_the_same_whatever_carries_it() {
    let authority = Authority::new();
    let tls = Setup::memory().tls(&authority.sign("127.0.0.1")).start_ready();
    let plain = Setup::memory().start_ready();
    let file = authority.file();
    let large = "ä".repeat(200_000);
    for gateway in [&plain, &tls] {
        for payload in ["one", &large, "three"] {
            gateway.publish("events:a", payload);
        }
    }
    let mut bodies = Vec::new();
    for (gateway, arguments) in [
        (&plain, &["--http1.0"][..]),
        (&plain, &["--http1.1"]),
        (&plain, &["--http2-prior-knowledge"]),
        (&tls, &["--http1.0", "--cacert", &file]),
        (&tls, &["--http1.1", "--cacert", &file]),
        (&tls, &["--http2", "--cacert", &file]),
    ] {
        let scheme = if arguments.len() > 1 { "https" } else { "http" };
        let url = format!("{scheme}://{}/events/a?last_event_id=earliest", gateway.address);
        let body = curl_until("\"live\"", &[arguments, &[&url]].concat());
        let (mut parser, mut items) = (Parser::new(), Vec::new());
        parser.feed(body.as_bytes(), &mut items).unwrap();
        let events = items.into_iter().filter_map(|item| match item {
            Item::Event(event) if event.event_type == "message" => Some(event.data),
            Item::Event(event) => Some(event.data),
            Item::Comment(_) => None,
        });
        bodies.push((arguments.join(" "), events.collect::<Vec<_>>()));
    }
    for (arguments, body) in &bodies {
        assert_eq!(body.len(), 4, "{arguments}: three entries and that it is live");
        assert!(body[..3] == ["one".to_owned(), large.clone(), "three".to_owned()]);
        assert_eq!(body[3], r#"{"type":"live","replayed":3}"#);
    }
}

/// Reads one stream of the h2 crate's until it has so many entries; their payloads.
async fn entries(mut body: h2::RecvStream, count: usize) -> Vec<String> {
    let (mut parser, mut items, mut found) = (Parser::new(), Vec::new(), Vec::new());
    while found.len() < count {
        let data = body.data().await.expect("the stream goes on").unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        parser.feed(&data, &mut items).unwrap();
        for item in items.drain(..) {
            if let Item::Event(event) = item
                && event.event_type == "message"
            {
                found.push(event.data);
            }
        }
    }
    found
}

/// With the smallest windows that HTTP/2 begins with, which a large entry does not fit into.
#[test]
fn a_hundred_streams_of_one_connection_get_everything_in_order() {
    const STREAMS: usize = 100;
    let gateway = Setup::memory().start_ready();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let heard = runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(&gateway.address).await.unwrap();
        let (mut requests, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let mut streams = Vec::new();
        for nth in 0..STREAMS {
            let url = format!("http://localhost/events/{}", nth % 4);
            let request = hyper::Request::get(url).body(()).unwrap();
            requests = requests.ready().await.unwrap();
            let (response, _) = requests.send_request(request, true).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            let headers = response.headers();
            assert_eq!(headers["content-type"], "text/event-stream; charset=utf-8");
            assert!(!headers.contains_key("connection"), "{headers:?}");
            streams.push(tokio::spawn(entries(response.into_body(), 30)));
        }
        let publishing = tokio::task::spawn_blocking(move || {
            for nth in 0..120 {
                let length = if nth % 40 < 4 { 100_000 } else { 200 };
                let payload = format!("{}:{}", nth / 4, "x".repeat(length));
                gateway.publish(&format!("events:{}", nth % 4), &payload);
            }
            gateway
        });
        let mut heard = Vec::new();
        for stream in streams {
            heard.push(stream.await.unwrap());
        }
        (heard, publishing.await.unwrap())
    });
    for stream in &heard.0 {
        for (nth, payload) in stream.iter().enumerate() {
            let (number, rest) = payload.split_once(':').unwrap();
            assert_eq!(number, nth.to_string());
            assert!(rest.len() == if nth % 10 == 0 { 100_000 } else { 200 });
        }
    }
    assert_eq!(heard.1.metric("ssegate_connections_accepted_total{proto=\"http2\"}"), 1.0);
    drop(runtime);
    eventually("all have left", || heard.1.metric("ssegate_clients") == 0.0);
}

#[test]
fn a_unix_socket_speaks_no_tls_but_http2() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let path = folder.0.join("http.sock");
    let listen = format!("listen = [\"unix:{}\", \"127.0.0.1:0\"]", path.display());
    let gateway = Setup::memory().set("server", &listen).tls(&authority.sign("127.0.0.1"));
    let gateway = gateway.start_ready();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let write_out = ["-o", "/dev/null", "-w", "%{http_code}", "http://localhost/nothing"];
        let to = ["--unix-socket", path.to_str().unwrap(), version];
        assert_eq!(curl(&[&to[..], &write_out].concat()), "404", "{version}");
    }
    drop(gateway);
}

/// Without a proxy a browser has six connections per host over HTTP/1, and so six streams.
#[test]
fn a_browser_has_ten_streams_at_once() {
    let authority = Authority::new();
    let gateway = Setup::memory().tls(&authority.sign("127.0.0.1")).start_ready();
    let browser = Browser::start_trusting_all();
    browser.open(&format!("https://{}/nothing", gateway.address));
    browser.script(
        "window.heard = []; window.sources = [];
         for (let i = 0; i < 10; i++) {
             const source = new EventSource('/events/' + i);
             source.onmessage = event => heard.push(i + event.data);
             sources.push(source);
         }",
    );
    let all_open = "return sources.every(source => source.readyState === EventSource.OPEN)";
    eventually("all are open", || browser.script(all_open) == true);
    (0..10).for_each(|i| drop(gateway.publish(&format!("events:{i}"), "!")));
    let all_heard = "return new Set(heard).size === 10 && heard.length === 10";
    eventually("each has heard its own", || browser.script(all_heard) == true);
    assert_eq!(gateway.metric("ssegate_clients"), 10.0);
    // It may open another one that it does not need then.
    assert!(gateway.metric("ssegate_connections_accepted_total{proto=\"http2\"}") <= 3.0);
}

/// A connection that some stream went over.
fn live(gateway: &Gateway) -> (Session, u32) {
    let mut session = Session::open(&gateway.address);
    let id = session.stream("/events/a");
    session.live(id);
    (session, id)
}
