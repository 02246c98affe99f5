//! Tokens in cookies, which a browser adds to each request of a page: they count for our own pages and
//! those that may use them, and for no others.

use serde_json::{Value, json};

use super::{head, refused, setup, token};
use crate::support::browser::Browser;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup, exchange};
use crate::support::multiplexed::Session;

const FROM: &str = "from = [\"cookie:session\"]";

#[test]
fn a_cookie_counts_for_no_page_of_another_site() {
    let gateway = setup(&[FROM])
        .set("cors", "origins = [\"https://app.example\"]")
        .set("cors", "credentials = true")
        .start_ready();
    let cookie = format!("Cookie: session={}\r\n", token(&json!({})));
    let ask = |headers: &str| head(&gateway, "/any/a", &format!("{cookie}{headers}")).status;
    for ours in [
        "",
        "Sec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: cross-site\r\nOrigin: https://app.example\r\n",
    ] {
        assert_eq!(ask(ours), 200, "{ours}");
    }
    let foreign = [
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\nOrigin: https://evil.example\r\n",
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
    ];
    for theirs in foreign {
        assert_eq!(ask(theirs), 401, "{theirs}");
    }
    assert_eq!(refused(&gateway, "foreign"), foreign.len() as f64);
}

#[test]
fn a_cookie_counts_for_our_own_pages_whatever_names_the_host() {
    let gateway = setup(&[FROM]).start_ready();
    let cookie = format!("session={}", token(&json!({})));
    let ask = |target: &str, host: &str, origin: &str| {
        let head = format!(
            "HEAD {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nOrigin: {origin}\r\nCookie: {cookie}\r\n\r\n"
        );
        exchange(&gateway.address, &head).status
    };
    for (target, host, origin, status) in [
        ("/any/a", "events.example", "https://events.example", 200),
        ("/any/a", "events.example:443", "https://events.example", 200),
        ("/any/a", "Events.example.", "https://events.example", 200),
        ("http://events.example/any/a", "proxy.example", "http://events.example", 200),
        ("http://events.example/any/a", "evil.example", "http://evil.example", 401),
        ("/any/a", "events.example:8443", "https://events.example", 401),
    ] {
        assert_eq!(ask(target, host, origin), status, "{target} {host} {origin}");
    }
    // The authority of these requests is localhost.
    for (origin, status) in [("https://localhost", 200), ("https://evil.example", 0)] {
        let mut session = Session::open(&gateway.address);
        let id = session.get("/any/a", &[("origin", origin), ("cookie", &cookie)]);
        assert_eq!(session.status(id), status, "{origin}");
    }
}

/// What the page at `origin` sees of the stream at `url`, with this cookie in the browser.
fn listen(browser: &Browser, page: &Gateway, url: &str, session: &str) {
    browser.open(&format!("http://{}/livez", page.admin));
    let script = "
        document.cookie = 'session=' + SESSION + '; path=/';
        window.seen = []; window.state = []; window.answered = 0;
        const stream = new EventSource(URL, { withCredentials: true });
        stream.onmessage = event => window.seen.push(event.data);
        stream.onerror = () => window.state.push(stream.readyState);
        stream.onopen = () => window.state.push('open');
        fetch(URL, { credentials: 'include' })
            .then(response => { window.answered = response.status; })
            .catch(() => { window.answered = 'no answer'; });";
    let script = script.replace("SESSION", &Value::from(session).to_string());
    browser.script(&script.replace("URL", &Value::from(url).to_string()));
}

#[test]
fn a_browser_reads_across_origins_with_a_cookie_where_it_may_and_sees_why_not() {
    /// `EventSource.CLOSED`: for good.
    const CLOSED: u64 = 2;
    // A cookie knows no ports: what these pages set goes to the gateway as well.
    let [listed, unlisted] = [(); 2].map(|()| Setup::memory().start_ready());
    let origins = format!("origins = [\"http://{}\"]", listed.admin);
    let gateway =
        setup(&[FROM]).set("cors", &origins).set("cors", "credentials = true").start_ready();
    let url = format!("http://{}/any/a", gateway.address);
    let browser = Browser::start();
    let sees = |name: &str| browser.script(&format!("return window.{name}"));

    listen(&browser, &listed, &url, &token(&json!({})));
    eventually("the stream is open", || sees("state")[0] == "open");
    gateway.publish("events:a", "for whoever may read");
    eventually("the page reads", || sees("seen")[0] == "for whoever may read");
    eventually("so does a fetch", || sees("answered") == 200);

    listen(&browser, &listed, &url, "no token");
    eventually("EventSource gives up", || sees("state")[0] == CLOSED);
    eventually("a fetch sees the status", || sees("answered") == 401);

    listen(&browser, &unlisted, &url, &token(&json!({})));
    eventually("EventSource gives up", || sees("state")[0] == CLOSED);
    eventually("a fetch sees nothing", || sees("answered") == "no answer");
    // Twice: the stream and the fetch.
    eventually("its cookie did not count", || refused(&gateway, "foreign") == 2.0);
    assert_eq!(sees("seen"), json!([]));
}
