//! Redis away, back, emptied, frozen, or refusing: the clients stay, and hear what they must.

use std::time::{Duration, Instant};

use ssegate::sse::parse::Item;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, SOON, Setup};
use crate::support::redis::{Answer, Connection, Redis};
use crate::support::{DEADLINE, eventually, pause_of_the_scenario};

/// Connections to Redis that die in every way that there is.
mod dead;
/// Redis is there and refuses: a key's type, a right, a login.
mod refused;

const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
const TWO_ROUTES: &str = r#"
[[route]]
path = "/events/{name}"
key = "events:{name}"
access = "public"
[[route]]
path = "/told/{name}"
key = "events:{name}"
access = "public"
signals = "event"
"#;

/// The next `ids.len()` events are these entries and nothing else.
#[track_caller]
fn expect(client: &mut Client, ids: &[String]) {
    for id in ids {
        let event = client.event();
        assert_eq!((&*event.event_type, &event.last_event_id), ("message", id), "{event:?}");
    }
}

/// Why the stream of this client is unavailable; it is told to come back much later.
#[track_caller]
fn unavailable_reason(mut client: Client) -> String {
    let (control, _) = client.control();
    assert_eq!(control["type"], "unavailable", "{control}");
    assert!(client.rest().is_empty() && client.complete, "the stream ends well");
    let retry = client.reconnection_time().unwrap();
    assert!(retry >= Duration::from_secs(10), "five times the usual: {retry:?}");
    control["reason"].as_str().unwrap().to_owned()
}

/// Everything that a client heard, by kind.
#[derive(Default)]
struct Heard {
    entries: Vec<String>,
    controls: Vec<String>,
    comments: Vec<String>,
}

impl Heard {
    #[track_caller]
    fn listen(&mut self, client: &mut Client, enough: impl Fn(&Self) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !enough(self) {
            match client.next_within(end.saturating_duration_since(Instant::now())) {
                Some(Item::Event(event)) if event.event_type == "message" => {
                    self.entries.push(event.last_event_id);
                }
                Some(Item::Event(event)) => self.controls.push(event.data),
                Some(Item::Comment(text)) => self.comments.push(text),
                None => {
                    panic!("heard only {:?} {:?} {:?}", self.entries, self.controls, self.comments)
                }
            }
        }
    }

    fn count(&self, comment: &str) -> usize {
        self.comments.iter().filter(|text| *text == comment).count()
    }
}

fn live(gateway: &Gateway, path: &str) -> Client {
    let mut client = Client::open(&gateway.address, path);
    client.live();
    client
}

fn cut_off(gateway: &Gateway) -> f64 {
    let of = |reason| {
        gateway.metric(&format!("ssegate_client_disconnects_total{{reason=\"{reason}\"}}"))
    };
    ["client", "slow", "rotated", "drain", "error"].into_iter().map(of).sum()
}

/// Lines of the log with all of these words.
fn lines(gateway: &Gateway, words: &[&str]) -> usize {
    gateway.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[test]
fn a_start_without_redis_waits_for_it() {
    let mut redis = Redis::with(&DURABLE);
    let ids: Vec<_> = (0..3).map(|number| redis.add("events:a", &number.to_string())).collect();
    redis.kill();
    let gateway = Setup::redis(&redis).set("server", "keepalive = \"1s\"").start();
    assert_eq!(gateway.admin_get("/livez").status, 200);
    assert_eq!(gateway.admin_get("/readyz").status, 503);
    assert_eq!(gateway.metric("ssegate_redis_connected"), 0.0);

    let asked = Instant::now();
    let live = Client::open(&gateway.address, "/events/a");
    let waited = asked.elapsed();
    assert!(waited >= Duration::from_millis(1900) && waited < SOON * 2, "after {waited:?}");
    assert_eq!(unavailable_reason(live), "source");
    let last = Client::open(&gateway.address, "/events/a?last=1");
    assert_eq!(unavailable_reason(last), "source", "the newest are not known either");

    let asked = Instant::now();
    let mut resumed = Client::resume(&gateway.address, "/events/a", &ids[0]);
    let mut earliest = Client::open(&gateway.address, "/events/a?last_event_id=earliest");
    assert!(asked.elapsed() < Duration::from_millis(1900), "a known start need not wait");
    for client in [&mut resumed, &mut earliest] {
        client.comment("reconnecting");
        client.comment("reconnecting");
    }
    assert_eq!(gateway.admin_get("/readyz").status, 503);

    redis.launch();
    expect(&mut resumed, &ids[1..]);
    expect(&mut earliest, &ids);
    assert_eq!((resumed.live().0, earliest.live().0), (2, 3));
    eventually("the gateway is ready", || gateway.admin_get("/readyz").status == 200);
    let id = redis.add("events:a", "live");
    expect(&mut resumed, std::slice::from_ref(&id));
    expect(&mut earliest, &[id]);
}

#[test]
fn clients_stay_through_a_killed_redis_and_miss_nothing() {
    let mut redis = Redis::with(&DURABLE);
    let gateway =
        Setup::redis(&redis).set("server", "keepalive = \"1s\"").routes(TWO_ROUTES).start_ready();
    let mut plain: Vec<_> = (0..3).map(|_| live(&gateway, "/events/a")).collect();
    let mut with_signals = live(&gateway, "/told/a");
    let mut ids: Vec<_> =
        (0..20).map(|number| redis.add("events:a", &number.to_string())).collect();
    redis.kill();
    let killed = Instant::now();
    let mut heard: Vec<Heard> = plain.iter().map(|_| Heard::default()).collect();
    for (client, heard) in plain.iter_mut().zip(&mut heard) {
        heard.listen(client, |heard| heard.count("reconnecting") == 1);
    }
    assert!(killed.elapsed() < SOON, "noticed after {:?}", killed.elapsed());
    for (client, heard) in plain.iter_mut().zip(&mut heard) {
        heard.listen(client, |heard| heard.count("reconnecting") == 3);
    }
    // Clients that connect meanwhile wait with them.
    let mut late = Client::resume(&gateway.address, "/events/a", &ids[9]);
    let mut heard_late = Heard::default();
    heard_late.listen(&mut late, |heard| heard.count("reconnecting") == 1);

    redis.launch();
    ids.extend((20..40).map(|number| redis.add("events:a", &number.to_string())));
    for (client, heard) in plain.iter_mut().zip(&mut heard) {
        heard.listen(client, |heard| heard.entries.len() >= 40);
        assert_eq!((&heard.entries, heard.count("reconnected")), (&ids, 1));
        assert!(heard.controls.is_empty(), "nothing was lost: {:?}", heard.controls);
    }
    let mut heard = Heard::default();
    heard.listen(&mut with_signals, |heard| heard.entries.len() >= 40);
    assert_eq!(heard.entries, ids);
    let mut controls = heard.controls;
    controls.retain(|data| data != r#"{"type":"ping"}"#);
    let up = controls.pop();
    assert_eq!(up.as_deref(), Some(r#"{"type":"source","up":true}"#));
    assert!(!controls.is_empty(), "the loss is an event as well");
    assert!(controls.iter().all(|data| data == r#"{"type":"source","up":false}"#), "{controls:?}");
    heard_late.listen(&mut late, |heard| heard.entries.len() >= 30);
    assert_eq!(heard_late.entries, ids[10..]);
    assert_eq!(cut_off(&gateway), 0.0);
}

#[test]
fn a_client_that_connects_meanwhile_to_a_known_key_waits_with_the_others() {
    let mut redis = Redis::with(&DURABLE);
    let gateway = Setup::redis(&redis).start_ready();
    let mut early = live(&gateway, "/events/a");
    let before = redis.add("events:a", "before");
    expect(&mut early, std::slice::from_ref(&before));
    redis.kill();
    early.comment("reconnecting");

    let asked = Instant::now();
    let mut late = Client::open(&gateway.address, "/events/a");
    assert!(asked.elapsed() < Duration::from_millis(1900), "a known position need not wait");
    late.comment("reconnecting");
    assert_eq!(late.live(), (0, before));

    redis.launch();
    let after = redis.add("events:a", "after");
    late.comment("reconnected");
    for client in [&mut early, &mut late] {
        expect(client, std::slice::from_ref(&after));
    }
    assert_eq!(cut_off(&gateway), 0.0);
}

#[test]
fn a_redis_that_comes_back_empty_is_a_reset() {
    let mut redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut client = live(&gateway, "/events/a");
    let id = redis.add("events:a", "of the first life");
    expect(&mut client, std::slice::from_ref(&id));
    redis.kill();
    redis.launch();
    let added = redis.run(&["XADD", "events:a", "5-1", "payload", "lower than before"]);
    assert_eq!(added, Answer::Text("5-1".into()));
    let (gap, _) = client.control();
    assert_eq!((&gap["type"], &gap["reason"]), (&"gap".into(), &"reset".into()), "{gap}");
    assert_eq!(gap["after"], id);
    expect(&mut client, &["5-1".into()]);
    let next = redis.add("events:a", "next");
    expect(&mut client, &[next]);
    let resets = gateway.metric("ssegate_gaps_total{scope=\"reader\",reason=\"reset\"}");
    assert_eq!((resets, cut_off(&gateway)), (1.0, 0.0));
}

#[test]
fn a_frozen_redis_is_noticed_and_nothing_comes_twice() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).set("source", "block = \"500ms\"").start_ready();
    let mut client = live(&gateway, "/events/a");
    let mut ids = vec![redis.add("events:a", "before")];
    expect(&mut client, &ids);
    let mut producer = Connection::open(&redis).unwrap();
    redis.signal("STOP");
    for number in 0..5 {
        let payload = format!("while frozen {number}");
        producer.send(&[b"XADD", b"events:a", b"*", b"payload", payload.as_bytes()]).unwrap();
    }
    let frozen = Instant::now();
    client.comment("reconnecting");
    let noticed = frozen.elapsed();
    assert!(noticed >= Duration::from_secs(2), "too early: {noticed:?}");
    assert!(noticed < dead::NOTICED, "too late: {noticed:?}");
    redis.signal("CONT");
    ids.clear();
    for _ in 0..5 {
        let Some(Answer::Text(id)) = producer.answer() else { panic!("not added") };
        ids.push(id);
    }
    client.comment("reconnected");
    expect(&mut client, &ids);
    assert_eq!(client.next_within(Duration::from_millis(300)), None);
    assert!(gateway.metric("ssegate_reader_errors_total{code=\"TIMEOUT\"}") >= 1.0);
}

#[test]
fn connections_killed_again_and_again_lose_and_double_nothing() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut clients: Vec<_> = (0..3).map(|_| live(&gateway, "/events/a")).collect();
    let mut producer = Connection::open(&redis).unwrap();
    let mut ids = Vec::new();
    let reconnects = || gateway.metric("ssegate_redis_reconnects_total");
    for number in 0..200 {
        if number >= 60 && reconnects() >= 2.0 {
            break;
        }
        let payload = number.to_string();
        let added = producer.run(&["XADD", "events:a", "*", "payload", &payload]);
        let Some(Answer::Text(id)) = added else { panic!("{added:?}") };
        ids.push(id);
        producer.run(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
        // More and more time, so that a reader comes back in between on a loaded machine too.
        pause_of_the_scenario(Duration::from_millis(20 + number), "between two kills");
    }
    clients.iter_mut().for_each(|client| expect(client, &ids));
    assert!(reconnects() >= 2.0, "the last return alone is no test");
    assert_eq!(cut_off(&gateway), 0.0);
}

#[test]
fn a_key_that_does_not_exist_is_open_and_waits() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).set("source", "block = \"200ms\"").start_ready();
    let mut client = Client::open(&gateway.address, "/events/none");
    assert_eq!(client.live(), (0, "0-0".into()));
    assert_eq!(client.next_within(Duration::from_millis(600)), None);
    assert_eq!(redis.run(&["EXISTS", "events:none"]), Answer::Number(0));
    let id = redis.add("events:none", "the first");
    expect(&mut client, &[id]);
}

#[test]
fn a_redis_that_blinks_does_not_empty_the_load_balancer() {
    let mut redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    assert_eq!(gateway.admin_get("/readyz?strict").status, 200);
    redis.kill();
    eventually("strict fails", || gateway.admin_get("/readyz?strict").status == 503);
    let lax = gateway.admin_get("/readyz");
    assert_eq!(lax.status, 200);
    assert!(lax.body.contains("away"), "the body tells: {}", lax.body);
    assert_eq!(gateway.metric("ssegate_redis_connected"), 0.0);
    assert_eq!(gateway.post("events:a", "no").status, 503);
    redis.launch();
    eventually("strict is content", || gateway.admin_get("/readyz?strict").status == 200);
    assert_eq!(gateway.metric("ssegate_redis_connected"), 1.0);
}

#[test]
fn retries_back_off_and_the_log_has_each_change_once() {
    let mut redis = Redis::start();
    let gateway = Setup::redis(&redis).start_ready();
    let mut client = live(&gateway, "/events/a");
    let errors =
        |code: &str| gateway.metric(&format!("ssegate_reader_errors_total{{code=\"{code}\"}}"));
    let attempts = || ["IO", "TIMEOUT", "ERR"].into_iter().map(errors).sum::<f64>();
    redis.kill();
    client.comment("reconnecting");
    pause_of_the_scenario(Duration::from_secs(3), "Redis is away");
    // On average 5 in the first second and 2 in each further one.
    let tried = attempts();
    assert!((3.0..=30.0).contains(&tried), "{tried} attempts in 3 s");
    assert_eq!(lines(&gateway, &["events:a", "\"WARN\""]), 1, "one line for the loss");
    redis.launch();
    client.comment("reconnected");
    eventually("the return is logged", || lines(&gateway, &["events:a", "reader is back"]) == 1);
    assert_eq!(lines(&gateway, &["events:a", "\"WARN\""]), 1);
    assert!(lines(&gateway, &["source does not answer"]) <= 1);
    assert_eq!(gateway.metric("ssegate_redis_reconnects_total"), 1.0);
}
