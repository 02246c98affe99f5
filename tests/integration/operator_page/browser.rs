//! The page in a real browser, on a desk and on a phone.

use std::time::Duration;

use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::Redis;
use crate::support::{Folder, pause_of_the_scenario, within};

/// A cold browser on a loaded machine takes its time, and the page looks once a second.
const SEEN: Duration = Duration::from_secs(40);
const DESK: (u32, u32) = (1280, 800);
const PHONE: (u32, u32) = (375, 812);

const ENTER: &str = "\u{e007}";
const TAB: &str = "\u{e004}";
const DOWN: &str = "\u{e015}";
const ESCAPE: &str = "\u{e00c}";

/// Markup that would do something.
const MARKUP: &str = "<img id=evil src=x onerror=\"window.evil=1\"><script>window.evil=2</script>";

fn open(gateway: &Gateway, (width, height): (u32, u32)) -> Browser {
    let browser = Browser::start();
    browser.resize(width, height);
    browser.open(&format!("http://{}/", gateway.admin));
    browser
}

fn text(browser: &Browser, selector: &str) -> String {
    let script = format!("return document.querySelector({selector:?})?.textContent ?? ''");
    browser.script(&script).as_str().unwrap().to_owned()
}

#[track_caller]
fn shows(browser: &Browser, selector: &str, wanted: &str) {
    let mut seen = String::new();
    let shown = || {
        seen = text(browser, selector);
        seen.contains(wanted)
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        within(SEEN, &format!("{selector} shows {wanted:?}"), shown);
    }));
    assert!(outcome.is_ok(), "{selector} shows {seen:?}, not {wanted:?}");
}

fn is_true(browser: &Browser, expression: &str) -> bool {
    browser.script(&format!("return !!({expression})")) == true
}

/// What the console said that it should not.
fn faults(browser: &Browser) -> Vec<Value> {
    let mut said = browser.console();
    said.retain(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG");
    said
}

/// Nothing is wider than the window.
fn assert_fits(browser: &Browser, width: u32) {
    let wide = "return [document.documentElement.scrollWidth, \
        [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 \
        && !e.closest('.skip, #log, .scroll')).map((e) => e.tagName + '#' + e.id + '.' + e.className).slice(0, 5)]";
    let found = browser.script(wide);
    assert!(found[0].as_u64().unwrap() <= u64::from(width), "it scrolls sideways: {found}");
}

#[test]
fn a_keyboard_is_enough_to_find_a_stream_and_follow_it() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut clients: Vec<_> = ["a", "b", "b"]
        .map(|name| Client::open(&gateway.address, &format!("/events/{name}")))
        .into();
    clients.iter_mut().for_each(|client| drop(client.live()));
    let browser = open(&gateway, DESK);
    shows(&browser, "#feed", "Live");
    shows(&browser, "#redis", "Redis answers");
    shows(&browser, "#clients", "3");
    shows(&browser, "#rows tr:nth-child(1)", "events:b");
    shows(&browser, "#rows tr:nth-child(2)", "events:a");
    // The first Tab finds the way past everything.
    browser.press(TAB);
    assert!(is_true(&browser, "document.activeElement.className === 'skip'"));
    browser.press(ENTER);
    within(SEEN, "the streams have the focus", || {
        is_true(&browser, "document.activeElement.id === 'streams'")
    });
    // Filter box; then six headings, the fifth of which sorts by gaps; then a row.
    browser.press(TAB);
    assert!(is_true(&browser, "document.activeElement.id === 'filter'"));
    browser.press("events:");
    browser.press(TAB);
    browser.press(ENTER);
    shows(&browser, "#rows tr:nth-child(1)", "events:a");
    assert!(is_true(&browser, "document.querySelector('th.key').ariaSort === 'ascending'"));
    browser.press(ENTER);
    shows(&browser, "#rows tr:nth-child(1)", "events:b");
    browser.press(&TAB.repeat(6));
    browser.press(DOWN);
    assert_eq!(browser.script("return document.activeElement.textContent"), "events:a");
    browser.press(ENTER);
    shows(&browser, "#tail-title", "events:a");
    shows(&browser, "#log li:first-child", "Live");
    redis.add("events:a", MARKUP);
    shows(&browser, "#log li:first-child", MARKUP);
    let script = "for n = 1, 4 do redis.call('XADD', KEYS[1], '*', 'payload', n) end \
        return redis.call('XTRIM', KEYS[1], 'MAXLEN', 1)";
    redis.run(&["EVAL", script, "1", "events:a"]);
    shows(&browser, "#log li[data-type=gap]", "Gap");
    shows(&browser, "#log li[data-type=gap]", "3 lost");
    shows(&browser, "#gaps", "1");
    assert_eq!(
        browser.script("return document.querySelectorAll('#log :is(img, script), #evil').length"),
        0
    );
    assert_eq!(browser.script("return window.evil ?? null"), Value::Null);
    // The charts say in words what they draw.
    for (chart, words) in
        [("deliveries", "Deliveries a second, the last two minutes: now "), ("latency", "p99 now ")]
    {
        let label =
            browser.script(&format!("return document.querySelector('#{chart}-chart').ariaLabel"));
        assert!(label.as_str().unwrap().contains(words), "{chart}: {label}");
    }
    browser.script("document.querySelector('#numbers summary').click()");
    shows(&browser, "#numbers td:first-child", "0");
    // Paused, it says how many wait; then they are there.
    browser.script("document.querySelector('#pause').focus()");
    browser.press(ENTER);
    redis.add("events:a", "while paused");
    shows(&browser, "#pause", "Resume (1 new)");
    assert!(!text(&browser, "#log").contains("while paused"));
    browser.press(ENTER);
    shows(&browser, "#log li:first-child", "while paused");
    browser.press(ESCAPE);
    shows(&browser, "#tail-title", "Live tail");
    assert_eq!(
        browser.script("return document.activeElement.textContent"),
        "events:a",
        "back in its row"
    );
    assert_fits(&browser, DESK.0);
    assert_eq!(faults(&browser), Vec::<Value>::new());
}

#[test]
fn a_phone_shows_all_of_it_without_scrolling_sideways() {
    let long = "x".repeat(128);
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut clients: Vec<_> =
        [&*long, "b"].map(|name| Client::open(&gateway.address, &format!("/events/{name}"))).into();
    clients.iter_mut().for_each(|client| drop(client.live()));
    let browser = open(&gateway, PHONE);
    shows(&browser, "#feed", "Live");
    let key = format!("events:{long}");
    shows(&browser, "#rows", &key);
    assert_fits(&browser, PHONE.0);
    let whole = "[...document.querySelectorAll('#rows .pill')].every((pill) => \
        pill.getBoundingClientRect().right <= pill.parentElement.getBoundingClientRect().right + 1)";
    assert!(is_true(&browser, whole), "a reader's state is cut");
    let dark =
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((c) => c < 60)";
    for scheme in ["dark", "light"] {
        browser.prefer(scheme);
        assert_eq!(is_true(&browser, dark), scheme == "dark", "{scheme}");
    }
    browser.script("document.querySelectorAll('#rows button').forEach((b) => b.title.length > 100 && b.click())");
    shows(&browser, "#tail-title", &key);
    assert_eq!(browser.script("return document.querySelector('#tail-title').title"), key.as_str());
    redis.add(&key, &"a payload without a space".replace(' ', "-").repeat(40));
    redis.add(&key, &format!("{{\"n\":1}}\n{}", "line\n".repeat(9)));
    within(SEEN, "both are shown", || {
        is_true(&browser, "document.querySelectorAll('#log details').length === 2")
    });
    browser.script("document.querySelectorAll('#log details').forEach((d) => d.open = true)");
    shows(&browser, "#log details[open] > .data", "line\nline");
    assert_fits(&browser, PHONE.0);
    assert_eq!(faults(&browser), Vec::<Value>::new());
}

/// A reload has removed the route, and with it how the page renders; what is left is as the last client has it, who may
/// have lost less than all.
#[test]
fn a_gap_of_rows_is_shown_with_the_most_that_one_reader_lost() {
    let redis = Redis::start();
    let public = |path: &str, key: &str| {
        format!("[[route]]\npath = \"{path}\"\nkey = \"{key}\"\naccess = \"public\"\n")
    };
    let (rows, others) = (public("/rows", "rows"), public("/events/{name}", "events:{name}"));
    let setup = |routes: &str| {
        let limits = "send_buffer = \"16KiB\"\nwrite_stall = \"5m\"";
        Setup::redis(&redis).routes(routes).set("limits", limits)
    };
    let gateway = setup(&format!("{rows}filter = [\"tenant\"]\n{others}")).start_ready();
    let mut client = Client::with_small_window(&gateway.address, "/rows?tenant=acme");
    client.live();
    redis.run(&["XADD", "rows", "*", "tenant", "acme", "payload", &"x".repeat(900_000)]);
    within(SEEN, "it has half an event, and takes no more", || {
        gateway.report()["streams"][0]["followers"]["count"] == 1
    });
    gateway.write(&setup(&others));
    gateway.reload();
    let browser = open(&gateway, DESK);
    shows(&browser, "#rows tr:nth-child(1)", "rows");
    browser.script("document.querySelector('#rows button').click()");
    shows(&browser, "#log", "Live");
    super::lose_three(&redis, "rows");
    shows(&browser, "#log li[data-type=gap]", "at most 3 lost to one reader");
    drop(client);
}

#[test]
fn a_silent_gateway_and_an_absent_redis_are_shown() {
    let mut redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    client.live();
    let browser = open(&gateway, DESK);
    shows(&browser, "#rows .reader", "up");
    redis.kill();
    shows(&browser, "#rows .reader", "away");
    shows(&browser, "#redis", "Redis is away");
    redis.launch();
    shows(&browser, "#redis", "Redis answers");
    gateway.signal("STOP");
    shows(&browser, "#feed", "Stale");
    shows(&browser, "#detail", "last heard");
    assert!(is_true(&browser, "document.querySelector('#board[data-stale]')"));
    gateway.signal("CONT");
    shows(&browser, "#feed", "Live");
    drop(client);
    drop(gateway);
    shows(&browser, "#feed", "Reconnecting");
    shows(&browser, "#detail", "next try in");
}

/// One that wants a token, which is in a folder.
fn guarded() -> (Gateway, Folder) {
    let folder = Folder::new();
    let file = folder.0.join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let token_file = format!("token_file = {:?}", file.to_str().unwrap());
    (Setup::memory().set("admin", &token_file).start_ready(), folder)
}

#[test]
fn the_token_is_asked_for_and_kept_for_the_tab() {
    let (gateway, _folder) = guarded();
    let browser = open(&gateway, PHONE);
    within(SEEN, "the token is asked for", || {
        is_true(&browser, "document.activeElement.id === 'token'")
    });
    // As it does by itself once a second.
    browser.script("showState()");
    assert_eq!(text(&browser, "#feed"), "Locked");
    assert!(is_true(&browser, "document.querySelector('#board').hidden"));
    assert_fits(&browser, PHONE.0);
    browser.press("wrong");
    browser.press(ENTER);
    shows(&browser, "#refused", "not the one");
    browser.press("s3cret");
    browser.press(ENTER);
    shows(&browser, "#feed", "Live");
    browser.open(&format!("http://{}/", gateway.admin));
    shows(&browser, "#feed", "Live");
    assert!(is_true(&browser, "document.querySelector('#ask').hidden"));
}

/// For changes to how the page looks: `SHOTS=folder cargo test --test integration
/// operator_page::browser::shots -- --ignored` leaves pictures of it there.
#[test]
#[ignore = "its pictures are for people"]
fn shots() {
    let folder = std::path::PathBuf::from(std::env::var_os("SHOTS").expect("a folder in SHOTS"));
    let mut redis = Redis::start();
    let gateway = Setup::redis(&redis).set("source", "linger = \"1s\"").start_ready();
    let browser = open(&gateway, DESK);
    shows(&browser, "#feed", "Live");
    shoot(&browser, &folder, "empty");
    let long = format!("tenant-4f1d0c9e.{}", "eu-central-1.audit-trail.".repeat(4));
    redis.run(&["SET", "events:not-a-stream", "x"]);
    let mut clients = Vec::new();
    for n in 0..14 {
        let name =
            if n == 3 { long.trim_end_matches('.').to_owned() } else { format!("host-{n:02}") };
        clients.extend(
            (0..=(14 - n) / 3).map(|_| Client::open(&gateway.address, &format!("/events/{name}"))),
        );
    }
    let refused = Client::open(&gateway.address, "/events/not-a-stream");
    let feed = |rounds: u64| {
        for round in 0..rounds {
            for n in 0..8_u64 {
                if round % (n + 1) == 0 {
                    let payload = format!(
                        r#"{{"severity":"low","source":"fw-0{n}","message":"dropped 192.0.2.{} to web-03:{}"}}"#,
                        round % 250,
                        1000 + round * 7 % 9000
                    );
                    redis.add(&format!("events:host-{n:02}"), &payload);
                }
            }
            pause_of_the_scenario(Duration::from_millis(60 + round * 37 % 90), "uneven load");
        }
    };
    feed(120);
    browser.script("[...document.querySelectorAll('#rows button')].find((b) => b.textContent === 'events:host-00').click()");
    let script = "for n = 1, 4 do redis.call('XADD', KEYS[1], '*', 'payload', n) end \
        return redis.call('XTRIM', KEYS[1], 'MAXLEN', 1)";
    feed(60);
    redis.run(&["EVAL", script, "1", "events:host-00"]);
    redis.add("events:host-00", &format!("{MARKUP}\n{}", "a second line and more. ".repeat(20)));
    feed(3);
    shoot(&browser, &folder, "busy");
    redis.kill();
    shows(&browser, "#redis", "Redis is away");
    shoot(&browser, &folder, "redis-away");
    drop((clients, refused, gateway));
    shows(&browser, "#detail", "next try in");
    shoot(&browser, &folder, "gateway-away");
    let (gateway, _folder) = guarded();
    browser.open(&format!("http://{}/", gateway.admin));
    within(SEEN, "the token is asked for", || {
        is_true(&browser, "document.activeElement.id === 'token'")
    });
    shoot(&browser, &folder, "token");
}

fn shoot(browser: &Browser, folder: &std::path::Path, name: &str) {
    for ((width, height), size) in [(DESK, "desk"), (PHONE, "phone")] {
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            browser.resize(width, height);
            browser.script("scrollTo(0, 0)");
            // It is drawn again with the next overview, a second later.
            pause_of_the_scenario(Duration::from_millis(1200), "time to see it drawn");
            let file = folder.join(format!("{name}-{size}-{scheme}.png"));
            std::fs::write(file, browser.screenshot()).unwrap();
        }
    }
    browser.resize(DESK.0, DESK.1);
}
