//! Long ids and long requests through the shipped proxies: what a client comes back with has to pass.

use serde_json::Value;

use crate::support::address::own_addresses;
use crate::support::browser::Browser;
use crate::support::front::{Connection, Front, Protocol, soon};
use crate::support::gateway::{Gateway, Setup};
use crate::support::proxies::{HOST, Kind, Proxy};
use crate::support::redis::Redis;
use crate::support::{DEADLINE, eventually, swarm, within};

/// As many streams with the longest names as one id can have,
const STREAMS: usize = 24;
/// which has 20 digits in each of its numbers.
const NUMBER: u64 = 18_446_744_073_709_551_000;

const ROUTE: &str = r#"
[[route]]
path   = "/events/any"
merge_query = { name = "stream", key = "events:{stream}", most = 64 }
access = "public"
"#;

/// The name of a stream, which is long.
fn name(number: usize) -> String {
    // So that the longest id has 4,095 bytes: the last comma of 4,096 is not there.
    let length = if number == STREAMS - 1 { 120 } else { 128 };
    format!("{number:0>length$}")
}

fn key(number: usize) -> String {
    format!("events:{}", name(number))
}

/// The request that chooses all streams.
fn path() -> String {
    let chosen: Vec<_> = (0..STREAMS).map(|number| format!("stream={}", name(number))).collect();
    format!("/events/any?{}", chosen.join("&"))
}

/// Redis with an entry in each stream. Those behind it have numbers just as long.
fn redis() -> Redis {
    let redis = Redis::start();
    for number in 0..STREAMS {
        let id = format!("{NUMBER}-{NUMBER}");
        redis.run(&["XADD", &key(number), &id, "payload", "first"]);
    }
    redis
}

/// At the address of an earlier one, or at one of its own.
fn gateway(redis: &Redis, page: &Gateway, earlier: Option<&Gateway>) -> Gateway {
    let [public, admin] = match earlier {
        Some(earlier) => [earlier.address.clone(), earlier.admin.clone()],
        None => own_addresses().map(|address| address.to_string()),
    };
    Setup::redis(redis)
        .routes(ROUTE)
        .set("server", &format!("listen = [{public:?}]"))
        .set("admin", &format!("listen = {admin:?}"))
        .set("server", "retry = \"200ms\"")
        .set("proxy", "trusted = [\"127.0.0.1\"]")
        .set("cors", &format!("origins = [\"http://{}\"]", page.admin))
        .start_ready()
}

#[test]
fn a_browser_resumes_the_longest_id_through_nginx() {
    a_browser_resumes_the_longest_id(Kind::Nginx);
}

#[test]
fn a_browser_resumes_the_longest_id_through_haproxy() {
    a_browser_resumes_the_longest_id(Kind::Haproxy);
}

fn a_browser_resumes_the_longest_id(kind: Kind) {
    let (redis, page) = (redis(), Setup::memory().start_ready());
    let mut first = gateway(&redis, &page, None);
    let proxy = Proxy::start(kind, &first);
    let browser = Browser::start_resolving(HOST, &proxy.address.ip().to_string());
    browser.open(&format!("http://{}/livez", page.admin));
    let url = format!("https://{HOST}:{}{}", proxy.address.port(), path());
    let follow = "window.seen = []; window.told = []; window.id = '';
        window.source = new EventSource(URL);
        source.onmessage = event => { seen.push(event.data); id = event.lastEventId; };
        source.addEventListener('ssegate', event => told.push(JSON.parse(event.data).type));";
    browser.script(&follow.replace("URL", &Value::from(url).to_string()));
    let has_told = |count: usize| {
        let told = format!("return told.filter(type => type === 'live').length === {count}");
        within(DEADLINE * 2, "the page is level", || browser.script(&told) == true);
    };
    has_told(1);
    redis.add(&key(3), "while it is there");
    eventually("the page sees it", || browser.script("return seen.length") == 1);
    assert_eq!(browser.script("return id.length"), 4095, "the longest");

    first.kill();
    let gone = "return source.readyState !== EventSource.OPEN";
    eventually("the page has noticed", || browser.script(gone) == true);
    let mut missed: Vec<_> = [0, 3, 3, STREAMS - 1]
        .into_iter()
        .enumerate()
        .map(|(at, number)| {
            let payload = format!("{at} of those that it missed");
            redis.add(&key(number), &payload);
            payload
        })
        .collect();
    let second = gateway(&redis, &page, Some(&first));
    has_told(2);
    second_entry(&redis, &browser, missed.len() + 2);
    let seen = browser.script("return seen.sort()");
    missed.extend(["last".to_owned(), "while it is there".to_owned()]);
    assert_eq!(seen, Value::from(missed));
    let others = browser.script("return told.filter(type => type !== 'live')");
    assert_eq!(others, Value::from(Vec::<Value>::new()), "nothing was lost: {}", second.log());
}

/// It goes on from there.
fn second_entry(redis: &Redis, browser: &Browser, count: usize) {
    redis.add(&key(7), "last");
    eventually("the page sees it", || browser.script("return seen.length") == count);
}

/// What the page of docs/clients.md asks with after a while: its id is in the URL, a newer one is a header. Here a
/// token is in the URL too, and there are as many cookies as a browser has of one.
#[test]
fn the_longest_request_passes_every_proxy() {
    let (redis, page, runtime) = (redis(), Setup::memory().start_ready(), swarm::runtime());
    let gateway = gateway(&redis, &page, None);
    let id = |seq: u64| {
        let parts = (0..STREAMS).map(|number| format!("{}={NUMBER}-{seq}", name(number)));
        parts.collect::<Vec<_>>().join(",")
    };
    // A URL has these in other words.
    let older = id(NUMBER - 1).replace('=', "%3D").replace(',', "%2C");
    let url = format!("{}&last_event_id={older}&token={}", path(), "t".repeat(2_000));
    let (newer, cookie) = (id(NUMBER), format!("c={}", "c".repeat(4_094)));
    let headers = [("last-event-id", &*newer), ("cookie", &*cookie)];
    let mut expected = Vec::new();
    let mut failed = Vec::new();
    for (kind, protocols) in [
        (Kind::Nginx, &[Protocol::Http1, Protocol::Http2][..]),
        (Kind::Caddy, &[Protocol::Http1, Protocol::Http2]),
        (Kind::Haproxy, &[Protocol::Http1, Protocol::Http2]),
        (Kind::Envoy, &[Protocol::Http1, Protocol::Http2]),
        (Kind::Apache, &[Protocol::Http1]),
    ] {
        let proxy = Proxy::start(kind, &gateway);
        let front = Front::of(&proxy);
        for &protocol in protocols {
            let number = expected.len() % STREAMS;
            let payload = format!("before {kind:?} over {protocol:?}");
            redis.add(&key(number), &payload);
            expected.push(payload);
            expected.sort();
            let asked = runtime.block_on(async {
                let mut connection = ready(&front, protocol).await;
                let mut stream = soon(connection.get(&url, &headers)).await?;
                let mut told = Vec::new();
                for _ in &expected {
                    told.push(soon(stream.event()).await.data);
                }
                told.sort();
                assert_eq!(told, expected);
                assert_eq!(soon(stream.told()).await, "live");
                Ok::<_, crate::support::front::Refusal>(())
            });
            if let Err(why) = asked {
                failed.push(format!("{kind:?} over {protocol:?}: {why:?}"));
            }
        }
    }
    assert_eq!(failed, Vec::<String>::new(), "a URL of {} bytes", url.len());
}

/// A connection to a proxy that has found its gateway: a short request is answered.
async fn ready(front: &Front, protocol: Protocol) -> Connection {
    soon(async {
        loop {
            let Ok(mut connection) = front.connect(protocol).await else { continue };
            let Ok(mut stream) = connection.get("/events/any?stream=a", &[]).await else {
                continue;
            };
            while let Ok(Some(item)) = stream.next().await {
                if let ssegate::sse::parse::Item::Event(_) = item {
                    return front.connect(protocol).await.unwrap();
                }
            }
        }
    })
    .await
}
