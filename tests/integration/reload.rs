//! A configuration that is read again while streams run: all of it applies from one moment on, or nothing;
//! clients that are still allowed notice nothing, and the others' streams end with `expired`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, SOON, Setup, exchange};
use crate::support::multiplexed::{End, Session};

/// Limits that are lower than what is held.
mod limits;
/// Under load.
mod load;
/// Faulty files.
mod refused;
/// Settings that take effect only with a restart, and what stays guarded until then.
mod restart_required;
/// Streams that are not allowed any more.
mod streams;

/// A page's, and whether it may read what it asked for.
fn origin(gateway: &Gateway, path: &str) -> (u16, bool) {
    let head = "Host: x\r\nOrigin: https://app.example\r\nConnection: close\r\n\r\n";
    let response = exchange(&gateway.address, &format!("HEAD {path} HTTP/1.1\r\n{head}"));
    let may_read = "access-control-allow-origin: https://app.example";
    (response.status, response.head.contains(may_read))
}

/// A route without a token.
fn route(path: &str, key: &str) -> String {
    format!("[[route]]\npath = {path:?}\nkey = {key:?}\naccess = \"public\"\n")
}

fn live(gateway: &Gateway, path: &str) -> Client {
    let mut client = Client::open(&gateway.address, path);
    client.live();
    client
}

/// Hears `expired` and the end of the stream, in time and after a while to come back.
#[track_caller]
fn expires(client: &mut Client, since: Instant) {
    let (control, _) = client.control();
    assert!(since.elapsed() < Duration::from_secs(5), "after {:?}", since.elapsed());
    assert_eq!(control, json!({"type": "expired"}));
    assert_eq!((client.rest(), client.complete), (Vec::new(), true));
    let wait = client.reconnection_time().unwrap();
    assert!((SOON..=SOON * 2).contains(&wait), "{wait:?}");
}

/// How many streams went on and how many ended, as the log says.
#[track_caller]
fn judged(line: &Value) -> (u64, u64) {
    let number = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("{line}"));
    (number("kept"), number("ended"))
}

#[test]
fn routes_limits_and_origins_change_in_one_step_and_streams_go_on() {
    let gateway = Setup::memory().start_ready();
    let mut client = live(&gateway, "/events/a");
    let mut session = Session::open(&gateway.address);
    let hosted = session.stream("/events/a");
    session.live(hosted);
    assert_eq!(gateway.get("/more/a").status, 404);
    assert_eq!(origin(&gateway, "/events/a"), (200, false));
    gateway.publish("events:a", "before");

    let both = route("/more/{name}", "events:{name}") + &route("/events/{name}", "events:{name}");
    gateway.write(
        &Setup::memory()
            .routes(&both)
            .set("cors", "origins = [\"https://app.example\"]")
            .set("limits", "clients_per_key = 3")
            .set("server", "hosts = [\"x\", \"localhost\"]")
            .set("admin", "publish = true"),
    );
    assert_eq!(judged(&gateway.reload()), (2, 0));
    assert_eq!(origin(&gateway, "/more/a"), (200, true));
    assert_eq!(exchange(&gateway.address, "HEAD /more/a HTTP/1.1\r\nHost: y\r\n\r\n").status, 421);
    let mut other = live(&gateway, "/more/a");
    let (refused, _) = Client::open(&gateway.address, "/events/a").control();
    assert_eq!(refused["reason"], "clients_per_key");

    gateway.publish("events:a", "after");
    for data in ["before", "after"] {
        assert_eq!((client.event().data, session.event(hosted).data), (data.into(), data.into()));
    }
    assert_eq!(other.event().data, "after");
    // The route is counted on, wherever it stands in the file.
    let sent = |path: &str| {
        let name = format!("ssegate_events_sent_total{{route={path:?}}}");
        eventually("it is counted", || gateway.metric(&name) > 0.0);
        gateway.metric(&name)
    };
    assert_eq!((sent("/events/{name}"), sent("/more/{name}")), (4.0, 1.0));
}

#[test]
fn how_streams_behave_changes_while_they_run() {
    let setup = || Setup::memory().set("server", "keepalive = \"1h\"");
    let gateway = setup().start_ready();
    let mut client = live(&gateway, "/events/a");
    let mut session = Session::open(&gateway.address);
    let hosted = session.stream("/events/a");
    session.live(hosted);
    gateway.write(&setup().set("server", "keepalive = \"1s\""));
    gateway.reload();
    client.comment("keepalive");
    session.comment(hosted, "keepalive");
}

#[test]
fn a_stream_keeps_its_route_and_a_new_one_gets_the_changed_route() {
    let gateway = Setup::memory().start_ready();
    let mut before = live(&gateway, "/events/a");
    let renamed = route("/events/{name}", "events:{name}") + "event = \"log\"\n";
    gateway.write(&Setup::memory().routes(&renamed));
    assert_eq!(judged(&gateway.reload()), (1, 0));
    let mut after = live(&gateway, "/events/a");
    gateway.publish("events:a", "x");
    assert_eq!([before.event().event_type, after.event().event_type], ["message", "log"]);
}

#[test]
fn what_is_logged_and_how_readers_read_changes_as_well() {
    let setup = || Setup::memory().set("source", "linger = \"1h\"");
    let gateway = setup().start_ready();
    drop(live(&gateway, "/events/a"));
    gateway.publish("events:a", "x");
    eventually("nobody is there", || gateway.metric("ssegate_clients") == 0.0);
    let access = || gateway.log().matches("\"message\":\"access\"").count();
    let debug = || gateway.log().contains("\"level\":\"DEBUG\"");
    assert!(access() == 0 && !debug());
    gateway.write(
        &setup()
            .set("source", "linger = \"0s\"")
            .set("log", "access = true")
            .set("log", "level = \"debug\""),
    );
    gateway.reload();
    drop(live(&gateway, "/events/b"));
    eventually("it is logged", || access() == 1 && debug());
    eventually("its reader goes with it", || {
        gateway.streams().as_array().unwrap().iter().all(|stream| stream["key"] != "events:b")
    });
    gateway.write(&setup());
    gateway.reload();
    drop(live(&gateway, "/events/a"));
    eventually("it has left", || gateway.metric("ssegate_clients") == 0.0);
    assert_eq!(access(), 1);
}
