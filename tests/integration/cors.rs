//! Pages of other origins: which a browser lets read a stream, and which it does not.

use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Response, Setup, exchange};

const APP: &str = "https://app.example";

fn gateway(cors: &[&str]) -> Gateway {
    cors.iter().fold(Setup::memory(), |setup, line| setup.set("cors", line)).start_ready()
}

fn ask(gateway: &Gateway, method: &str, path: &str, headers: &str) -> Response {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    exchange(&gateway.address, &head)
}

#[track_caller]
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut values = head.lines().filter_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    });
    let value = values.next();
    assert_eq!(values.next(), None, "{name} twice in {head}");
    value
}

fn allowed(head: &str) -> Option<&str> {
    header(head, "access-control-allow-origin")
}

#[test]
fn every_answer_allows_a_listed_origin_and_no_other() {
    let gateway = gateway(&[
        "origins = [\"https://app.example\", \"http://localhost:3000\"]",
        "credentials = true",
    ]);
    let mut client = Client::with(&gateway.address, "/events/a", &[("Origin", APP)]);
    assert_eq!(allowed(&client.head), Some(APP));
    assert_eq!(header(&client.head, "access-control-allow-credentials"), Some("true"));
    assert_eq!(header(&client.head, "vary"), Some("origin"));
    client.live();
    gateway.publish("events:a", "one");
    assert_eq!(client.entry().data, "one");
    let origin = format!("Origin: {APP}\r\n");
    for (path, status) in [("/events/a", 200), ("/nothing", 404), ("/events/a?last=x", 400)] {
        let response = ask(&gateway, "HEAD", path, &origin);
        assert_eq!((response.status, allowed(&response.head)), (status, Some(APP)), "{path}");
    }
    for unlisted in
        ["https://app.example.evil", "http://app.example", "null", "https://app.example:444"]
    {
        let client = Client::with(&gateway.address, "/events/a", &[("Origin", unlisted)]);
        assert_eq!(allowed(&client.head), None, "{unlisted}");
        assert_eq!(header(&client.head, "access-control-allow-credentials"), None, "{unlisted}");
    }
    // A cache may have it for one origin and be asked by another.
    assert_eq!(header(&Client::open(&gateway.address, "/events/a").head, "vary"), Some("origin"));
}

#[test]
fn any_origin_may_read_without_credentials_and_none_where_none_is_listed() {
    let any = gateway(&["origins = [\"*\"]"]);
    let client = Client::with(&any.address, "/events/a", &[("Origin", "https://anybody.example")]);
    assert_eq!(allowed(&client.head), Some("*"));
    assert_eq!(any.metric("ssegate_unsafe_config{choice=\"cors_any_origin\"}"), 1.0);
    assert_eq!(any.metric("ssegate_unsafe_config{choice=\"plain_redis\"}"), 0.0);
    any.has_logged("every page on the web can read");
    assert_eq!(header(&client.head, "access-control-allow-credentials"), None);
    let none = gateway(&[]);
    let client = Client::with(&none.address, "/events/a", &[("Origin", APP)]);
    assert!(!client.head.contains("access-control") && !client.head.contains("vary"));
    let asked = format!("Origin: {APP}\r\nAccess-Control-Request-Method: GET\r\n");
    assert_eq!(ask(&none, "OPTIONS", "/events/a", &asked).status, 405);
}

#[test]
fn a_refused_stream_says_so_to_its_page() {
    for (refuse, status) in [("retry", 200), ("status", 503)] {
        let gateway = Setup::memory()
            .set("cors", &format!("origins = [\"{APP}\"]"))
            .set("server", &format!("refuse = \"{refuse}\""))
            .set("limits", "clients_per_key = 1")
            .start_ready();
        let mut first = Client::open(&gateway.address, "/events/a");
        first.live();
        let headers = format!("Origin: {APP}\r\n");
        let refused = ask(&gateway, "GET", "/events/a", &headers);
        assert_eq!((refused.status, allowed(&refused.head)), (status, Some(APP)), "{refused:?}");
        assert!(refused.body.contains("clients_per_key"), "{refused:?}");
    }
}

#[test]
fn a_preflight_allows_a_listed_origin_what_it_may_send() {
    let gateway = gateway(&[&format!("origins = [\"{APP}\"]"), "credentials = true"]);
    let asked = "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: last-event-id,authorization\r\n";
    let preflight = ask(&gateway, "OPTIONS", "/events/a", &format!("Origin: {APP}\r\n{asked}"));
    assert_eq!((preflight.status, allowed(&preflight.head)), (204, Some(APP)), "{preflight:?}");
    let names = header(&preflight.head, "access-control-allow-headers").unwrap();
    for name in ["last-event-id", "authorization", "cache-control"] {
        assert!(names.split(", ").any(|allowed| allowed == name), "{names}");
    }
    assert_eq!(header(&preflight.head, "access-control-allow-credentials"), Some("true"));
    assert!(header(&preflight.head, "access-control-max-age").is_some());
    let unlisted =
        ask(&gateway, "OPTIONS", "/events/a", &format!("Origin: https://evil.example\r\n{asked}"));
    assert_eq!((unlisted.status, allowed(&unlisted.head)), (403, None), "{unlisted:?}");
    let nowhere = ask(&gateway, "OPTIONS", "/nothing", &format!("Origin: {APP}\r\n{asked}"));
    assert_eq!(nowhere.status, 404);
    // OPTIONS alone is no preflight.
    assert_eq!(ask(&gateway, "OPTIONS", "/events/a", &format!("Origin: {APP}\r\n")).status, 405);
}

#[test]
fn apps_and_subdomains_may_read_and_send_what_is_listed() {
    let gateway = gateway(&[
        "origins = [\"capacitor://localhost\", \"https://*.app.example\", \"null\"]",
        "headers = [\"Traceparent\", \"baggage\"]",
    ]);
    for origin in ["capacitor://localhost", "https://a.app.example", "null"] {
        let mut client = Client::with(&gateway.address, "/events/a", &[("Origin", origin)]);
        assert_eq!(allowed(&client.head), Some(origin));
        assert_eq!(header(&client.head, "access-control-expose-headers"), Some("retry-after"));
        client.live();
        let asked = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: traceparent\r\n"
        );
        let preflight = ask(&gateway, "OPTIONS", "/events/a", &asked);
        let names = header(&preflight.head, "access-control-allow-headers");
        let expected = "authorization, cache-control, last-event-id, traceparent, baggage";
        assert_eq!((preflight.status, names), (204, Some(expected)), "{preflight:?}");
    }
    for origin in ["tauri://localhost", "https://app.example", "https://b.a.app.example"] {
        let client = Client::with(&gateway.address, "/events/a", &[("Origin", origin)]);
        assert_eq!(allowed(&client.head), None, "{origin}");
    }
    gateway.has_logged("is the origin of every page in a sandbox");
}

#[test]
fn what_is_refused_for_its_head_is_told_to_the_page_as_well() {
    let gateway = Setup::memory()
        .set("cors", &format!("origins = [\"{APP}\"]"))
        .set("auth.jwt", "from = [\"query:token\"]")
        .set("limits", "header_bytes = \"16KiB\"")
        .start_ready();
    let origin = format!("Origin: {APP}\r\n");
    let long = "x".repeat(17 << 10);
    let get = |target: &str, lines: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: x\r\n{origin}{lines}\r\n")
    };
    for (request, status) in [
        (get(&format!("/events/a?token={}", &long[..15 << 10]), ""), 414),
        (get("/events/a", &format!("long: {long}\r\n")), 431),
        (get("/events/a", &"a: b\r\n".repeat(600)), 431),
        (get("/events/a", "no field\r\n"), 400),
        (get("/events/a", "Content-Length: x\r\n"), 400),
    ] {
        let refused = exchange(&gateway.address, &request);
        let head = &refused.head;
        assert_eq!((refused.status, allowed(head)), (status, Some(APP)), "{head}");
        assert_eq!(header(head, "vary"), Some("origin"), "{head}");
        assert_eq!(header(head, "referrer-policy"), Some("no-referrer"), "{head}");
        assert_eq!(header(head, "access-control-expose-headers"), Some("retry-after"), "{head}");
        assert!(refused.body.ends_with('\n') && refused.body.len() > 10, "{refused:?}");
    }
    let unlisted = exchange(
        &gateway.address,
        &get("/events/a", "no field\r\n").replace(APP, "https://a.example"),
    );
    assert_eq!((unlisted.status, allowed(&unlisted.head)), (400, None));
}

/// Opens the stream in the page and collects what comes.
const LISTEN: &str = "
    window.seen = []; window.state = [];
    const stream = new EventSource(arguments_url, { withCredentials: true });
    stream.onmessage = event => window.seen.push(event.data);
    stream.onerror = () => window.state.push(stream.readyState);
    stream.onopen = () => window.state.push('open');";

fn listen(browser: &Browser, url: &str) {
    browser.script(&LISTEN.replace("arguments_url", &Value::from(url).to_string()));
}

#[test]
fn a_browser_lets_the_pages_of_listed_origins_read_and_no_others() {
    // Any page of another origin does that may connect to others, unlike the operator's.
    let [listed, unlisted] = [(); 2].map(|()| Setup::memory().start_ready());
    let origins = format!("origins = [\"http://{}\"]", listed.admin);
    let gateway = gateway(&[&origins, "credentials = true"]);
    let url = format!("http://{}/events/a", gateway.address);
    let browser = Browser::start();
    browser.open(&format!("http://{}/livez", listed.admin));
    listen(&browser, &url);
    eventually("the stream is open", || browser.script("return window.state")[0] == "open");
    gateway.publish("events:a", "for the listed one");
    eventually("the page sees it", || {
        browser.script("return window.seen")[0] == "for the listed one"
    });
    // What has to be asked for beforehand: an id with other bytes, which a page may send by itself.
    let fetched = "window.answered = 0;
        fetch(URL, { headers: { 'Last-Event-ID': 'x'.repeat(200) }, credentials: 'include' })
            .then(response => { window.answered = response.status });"
        .replace("URL", &Value::from(&*url).to_string());
    browser.script(&fetched);
    eventually("the preflight passes", || browser.script("return window.answered") == 200);
    browser.open(&format!("http://{}/livez", unlisted.admin));
    listen(&browser, &url);
    // EventSource.CLOSED: for good.
    eventually("the browser refuses", || browser.script("return window.state")[0] == 2);
    gateway.publish("events:a", "not for strangers");
    assert_eq!(browser.script("return window.seen"), Value::Array(Vec::new()));
}
