//! Where a client begins that names no beginning: where its route says. A client that does name one, if only by
//! the words of other servers, begins there.

use serde_json::json;

use super::protocols::{Answer, PROTOCOLS, on_both_sources, route};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::redis::{Answer as Reply, Redis};

fn routes() -> String {
    [
        route("/events", ""),
        route("/live", "start = \"live\""),
        route("/earliest", "start = \"earliest\""),
        route("/last", "start = \"last:2\""),
        route("/since", "start = \"since:15m\""),
    ]
    .concat()
}

fn publish(gateway: &Gateway, count: usize) -> Vec<String> {
    (0..count).map(|n| gateway.publish("events:a", &n.to_string())).collect()
}

#[test]
fn a_client_without_an_id_begins_where_the_route_says() {
    on_both_sources(&routes(), |gateway| {
        let ids = publish(gateway, 5);
        for protocol in PROTOCOLS {
            for (path, from) in
                [("/events", 5), ("/live", 5), ("/earliest", 0), ("/last", 3), ("/since", 0)]
            {
                for (query, headers) in
                    [("", &[][..]), ("?last_event_id=", &[]), ("", &["Last-Event-ID;"])]
                {
                    let path = format!("{path}/a{query}");
                    let answer = Answer::live(protocol, gateway, &path, headers);
                    assert_eq!(answer.ids(), ids[from..], "{protocol} {path} {headers:?}");
                    let live = answer.events().pop().unwrap();
                    let replayed = json!({"type": "live", "replayed": 5 - from});
                    let data: serde_json::Value = serde_json::from_str(&live.data).unwrap();
                    assert_eq!(data, replayed, "{protocol} {path}");
                    assert_eq!(live.last_event_id, ids[4], "{protocol} {path}");
                }
            }
        }
    });
}

#[test]
fn a_client_that_names_a_beginning_begins_there_on_any_route() {
    on_both_sources(&routes(), |gateway| {
        let ids = publish(gateway, 5);
        let after_third = format!("Last-Event-ID: {}", ids[2]);
        for protocol in PROTOCOLS {
            for path in ["/events", "/earliest", "/last", "/since"] {
                for (query, header, from) in [
                    ("", "Last-Event-ID: -1", 0),
                    ("", "Last-Event-ID: 0", 0),
                    ("", "Last-Event-ID: 0-0", 0),
                    ("", "Last-Event-ID: $", 5),
                    ("", after_third.as_str(), 3),
                    ("?last_event_id=-1", "X: y", 0),
                    ("?lastEventId=0", "X: y", 0),
                    ("?lastEventId=%24", "X: y", 5),
                    ("?last=1", "X: y", 4),
                    ("?since=1h", "X: y", 0),
                    ("?last=1", "Last-Event-ID: $", 5),
                ] {
                    let path = format!("{path}/a{query}");
                    let answer = Answer::live(protocol, gateway, &path, &[header]);
                    assert_eq!(answer.ids(), ids[from..], "{protocol} {path} {header}");
                }
            }
        }
    });
}

#[test]
fn a_time_back_leaves_out_what_is_older() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).routes(&routes()).start_ready();
    let old = jiff::Timestamp::now().as_millisecond() - 16 * 60_000;
    let old = format!("{old}-0");
    assert_eq!(redis.run(&["XADD", "events:a", &old, "payload", "x"]), Reply::Text(old.clone()));
    let new = redis.add("events:a", "y");
    for protocol in PROTOCOLS {
        let ids = |path: &str| Answer::live(protocol, &gateway, path, &[]).ids();
        assert_eq!(ids("/since/a").join(" "), new, "{protocol}");
        assert_eq!(ids("/earliest/a").join(" "), format!("{old} {new}"), "{protocol}");
    }
}

#[test]
fn the_id_of_an_empty_stream_still_tells_of_what_was_trimmed() {
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).routes(&routes()).start_ready();
    let mut client = Client::open(&gateway.address, "/events/a");
    let (_, mark) = client.live();
    assert_eq!(mark, "0-0");
    client.leave();
    let ids: Vec<_> = (0..5).map(|n| redis.add("events:a", &n.to_string())).collect();
    redis.run(&["XTRIM", "events:a", "MAXLEN", "2"]);
    // Another gateway, which was not there.
    let gateway = Setup::redis(&redis).routes(&routes()).start_ready();
    let mut resumed = Client::resume(&gateway.address, "/events/a", &mark);
    let (gap, _) = resumed.control();
    assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("trimmed")), "{gap}");
    assert_eq!(resumed.event().last_event_id, ids[3]);
    // From the start: what is kept, and it misses nothing that it had been promised.
    let mut fresh = Client::resume(&gateway.address, "/events/a", "0");
    assert_eq!(fresh.event().last_event_id, ids[3]);
}

#[test]
fn a_stream_without_a_name_for_its_events_has_no_event_line() {
    let routes = route("/plain", "event = \"\"\nstart = \"earliest\"")
        + &route("/field", "event = { field = \"type\", otherwise = \"\" }\nstart = \"earliest\"");
    let redis = Redis::start();
    let gateway = Setup::redis(&redis).routes(&routes).start_ready();
    redis.run(&["XADD", "events:a", "1-0", "payload", "x", "type", "step"]);
    redis.run(&["XADD", "events:a", "2-0", "payload", "y"]);
    for protocol in PROTOCOLS {
        let plain = Answer::live(protocol, &gateway, "/plain/a", &[]).body;
        let entries = "id: 1-0\ndata: x\n\nid: 2-0\ndata: y\n\nid: 2-0\nevent: ssegate\n";
        assert!(plain.contains(entries), "{protocol}: {plain}");
        let field = Answer::live(protocol, &gateway, "/field/a", &[]).body;
        let entries = "id: 1-0\nevent: step\ndata: x\n\nid: 2-0\ndata: y\n\n";
        assert!(field.contains(entries), "{protocol}: {field}");
    }
}

#[test]
fn a_reload_changes_where_new_clients_begin() {
    let gateway = Setup::memory().start_ready();
    let ids = publish(&gateway, 3);
    let mut before = Client::open(&gateway.address, "/events/a");
    assert_eq!(before.live(), (0, ids[2].clone()));
    gateway.write(&Setup::memory().routes(&route("/events", "start = \"last:2\"")));
    gateway.reload();
    let mut after = Client::open(&gateway.address, "/events/a");
    assert_eq!(after.event().last_event_id, ids[1]);
    // The one that was there goes on.
    let id = gateway.publish("events:a", "new");
    assert_eq!(before.event().last_event_id, id);
}
