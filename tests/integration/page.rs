//! The demo in a real browser: it fills by itself, survives the daemon's death, shows markup as text, and has a
//! table that stays right.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::address::own_addresses;
use crate::support::browser::Browser;
use crate::support::client::Client;
use crate::support::gateway::exchange;
use crate::support::program::ssegate;
use crate::support::within;

/// A browser that has lost its server comes back after up to three times `retry`, and then some.
const BACK: Duration = Duration::from_secs(40);
/// "At once", as seen on a screen.
const AT_ONCE: Duration = Duration::from_secs(5);

/// `ssegate --demo` on ports that stay the same when it is started again.
struct Demo {
    process: Child,
    address: String,
    admin: String,
    env: &'static [(&'static str, &'static str)],
}

impl Demo {
    fn start() -> Self {
        Self::with(&[])
    }

    /// With these in its environment besides.
    fn with(env: &'static [(&str, &str)]) -> Self {
        // No other test takes these while the gateway is away.
        let [address, admin] = own_addresses().map(|address| address.to_string());
        let process = launch(&address, &admin, env);
        let demo = Self { process, address, admin, env };
        demo.answers();
        demo
    }

    fn answers(&self) {
        within(BACK, "the demo listens", || {
            TcpStream::connect(&self.address).is_ok() && TcpStream::connect(&self.admin).is_ok()
        });
    }

    /// As `kill -9`, and a start right after it.
    fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = launch(&self.address, &self.admin, self.env);
        self.answers();
    }

    fn publish(&self, payload: &str) {
        self.publish_to("events:demo", payload);
    }

    fn publish_to(&self, key: &str, payload: &str) {
        let length = payload.len();
        let response = exchange(
            &self.admin,
            &format!(
                "POST /publish/{key} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{payload}",
                self.admin
            ),
        );
        assert_eq!(response.status, 200, "{response:?}");
    }

    /// Gaps after which a client got the state.
    fn gaps_healed(&self) -> u64 {
        let request =
            format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin);
        let response = exchange(&self.admin, &request);
        let mut lines = response.body.lines();
        let value = lines.find_map(|line| line.strip_prefix("ssegate_gaps_healed_total "));
        value.expect("it is counted from the start").parse().unwrap()
    }

    /// The rows of the table of services now, as another client has them.
    fn services(&self) -> BTreeMap<String, Value> {
        let request = format!("GET /events/services HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        let mut client = Client::raw(&self.address, &request);
        let state = client.event();
        assert_eq!(state.event_type, "snapshot", "{state:?}");
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let texts: BTreeMap<String, String> = serde_json::from_str(&state.data).unwrap();
        let mut rows: BTreeMap<_, _> =
            texts.into_iter().map(|(name, text)| (name, read(&text))).collect();
        loop {
            let event = client.event();
            if event.event_type == "ssegate" {
                return rows;
            }
            let row = read(&event.data);
            if let Some(id) = row["id"].as_str() {
                rows.insert(id.to_owned(), row.clone());
            }
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(address: &str, admin: &str, env: &[(&str, &str)]) -> Child {
    ssegate()
        .arg("--demo")
        .envs(env.iter().copied())
        .env("SSEGATE_SERVER_LISTEN", address)
        .env("SSEGATE_SERVER_HOSTS", address.split(':').next().unwrap())
        .env("SSEGATE_ADMIN_LISTEN", admin)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn is_live(browser: &Browser) -> bool {
    browser.script("return document.querySelector('#state[data-state=live]') !== null") == true
}

/// The table of services as it is shown: name, state, latency.
fn table(browser: &Browser) -> Value {
    browser.script(
        "return [...document.querySelectorAll('#services tr')].map((tr) => [...tr.cells].map((td) => td.textContent))",
    )
}

/// All six services are shown, each as it is.
#[track_caller]
fn table_is_right(browser: &Browser, demo: &Demo) {
    let cells = |(name, row): (String, Value)| {
        let latency = row["latency_ms"].as_u64().map_or("–".into(), |ms| format!("{ms} ms"));
        json!([name, row["state"], latency])
    };
    within(BACK, "the table is the state", || {
        let expected: Vec<_> = demo.services().into_iter().map(cells).collect();
        expected.len() == 6 && table(browser) == json!(expected)
    });
}

fn number(browser: &Browser, script: &str) -> u64 {
    browser.script(script).as_u64().expect("a number")
}

fn total(browser: &Browser) -> u64 {
    number(browser, "return Number(document.querySelector('#total').textContent.replace(/,/g, ''))")
}

fn rows(browser: &Browser) -> u64 {
    number(browser, "return document.querySelectorAll('tbody#log tr[data-kind=event]').length")
}

/// What the console said that it should not; a connection that the test broke is no fault.
fn faults(browser: &Browser, broken: bool) -> Vec<Value> {
    let mut said = browser.console();
    said.retain(|entry| !(broken && entry["source"] == "network"));
    said.retain(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG");
    said
}

#[test]
fn the_demo_has_an_event_at_once_for_a_client_on_the_command_line() {
    let demo = Demo::start();
    let request = format!(
        "GET /events/demo HTTP/1.1\r\nHost: {}\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\n\r\n",
        demo.address
    );
    let begin = std::time::Instant::now();
    let mut client = Client::raw(&demo.address, &request);
    assert!(client.head.starts_with("HTTP/1.1 200 "), "{}", client.head);
    let event = client.entry();
    let took = begin.elapsed();
    assert!(took < AT_ONCE, "the first event came after {took:?}");
    let data: Value = serde_json::from_str(&event.data).unwrap();
    assert!(data["message"].is_string(), "{data}");
}

#[test]
fn the_page_fills_by_itself_and_comes_back_after_the_daemon_was_killed() {
    let mut demo = Demo::start();
    let browser = Browser::start();
    browser.open(&format!("http://{}/", demo.address));
    within(BACK, "the page is live", || is_live(&browser));
    within(BACK, "the log has rows", || rows(&browser) > 0);
    let before = total(&browser);
    within(BACK, "the total grows", || total(&browser) > before);
    assert_eq!(faults(&browser, false), Vec::<Value>::new());

    // Known to this document only: a reload would lose it.
    browser.script("window.mark = 'the same document'");
    demo.restart();
    let gap = "return document.querySelector('tbody#log tr[data-kind=control][data-type=gap]')?.textContent ?? ''";
    within(BACK, "the page tells of the gap", || browser.script(gap) != "");
    let text = browser.script(gap);
    assert!(text.as_str().unwrap().contains("began anew"), "{text}");
    within(BACK, "the page is live again", || is_live(&browser));
    let before = total(&browser);
    within(BACK, "the total grows again", || total(&browser) > before);
    assert_eq!(browser.script("return window.mark"), "the same document");
    assert_eq!(faults(&browser, true), Vec::<Value>::new());
}

#[test]
fn the_page_shows_markup_in_a_payload_as_text() {
    let demo = Demo::start();
    let browser = Browser::start();
    browser.open(&format!("http://{}/", demo.address));
    within(BACK, "the page is live", || is_live(&browser));
    let markup =
        "<img id=evil src=x onerror=\"window.evil=1\"><script>window.evil=2</script><b>bold</b>";
    // As a field of a payload that the page knows, and as a payload of no known form.
    for payload in [serde_json::json!({ "message": markup }).to_string(), markup.to_owned()] {
        demo.publish(&payload);
    }
    let shown =
        "return [...document.querySelectorAll('tbody#log td.message')].map((td) => td.textContent)";
    within(BACK, "both are shown as they came", || {
        let shown = browser.script(shown);
        let same = |cell: &&Value| cell.as_str() == Some(markup);
        shown.as_array().expect("cells").iter().filter(same).count() == 2
    });
    let made = "return document.querySelectorAll('tbody#log :is(img, script, b), #evil').length";
    assert_eq!(browser.script(made), 0);
    assert_eq!(browser.script("return window.evil ?? null"), Value::Null);
    assert_eq!(faults(&browser, false), Vec::<Value>::new());
}

#[test]
fn the_table_of_services_stays_right_over_a_restart_and_a_trim() {
    let mut demo = Demo::with(&[
        // The page is away for a second or more, again and again,
        ("SSEGATE_SERVER_MAX_CONNECTION_AGE", "2s"),
        ("SSEGATE_SERVER_RETRY", "1s"),
        // and this is all that the stream and the gateway keep.
        ("SSEGATE_RING_ENTRIES", "50"),
    ]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", demo.address));
    table_is_right(&browser, &demo);
    browser.script("window.mark = 'the same document'");
    demo.restart();
    within(BACK, "the restart is healed", || demo.gaps_healed() > 0);
    table_is_right(&browser, &demo);

    let before = demo.gaps_healed();
    within(BACK, "the trim is healed", || {
        // None of a service.
        (0..60).for_each(|_| demo.publish_to("events:services", "{}"));
        demo.gaps_healed() > before
    });
    table_is_right(&browser, &demo);
    assert_eq!(browser.script("return window.mark"), "the same document");
    assert_eq!(faults(&browser, true), Vec::<Value>::new());
}
