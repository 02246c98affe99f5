//! A Redis that answers and refuses: its clients are disconnected, or wait for the operator.

use std::time::Duration;

use super::{expect, lines, live, unavailable_reason};
use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::redis::{Answer, Connection, Redis};
use crate::support::{DEADLINE, eventually, pause_of_the_scenario, within};

#[test]
fn a_key_of_another_type_disconnects_its_clients_and_no_others() {
    let redis = Redis::start();
    redis.run(&["SET", "events:text", "no stream"]);
    let gateway = Setup::redis(&redis).set("source", "block = \"200ms\"").start_ready();
    let mut other = live(&gateway, "/events/other");
    for path in ["/events/text", "/events/text?last_event_id=earliest"] {
        assert_eq!(unavailable_reason(Client::open(&gateway.address, path)), "WRONGTYPE", "{path}");
    }
    let mut client = live(&gateway, "/events/a");
    let id = redis.add("events:a", "still a stream");
    expect(&mut client, &[id]);
    redis.run(&["SET", "events:a", "a stream no more"]);
    assert_eq!(unavailable_reason(client), "WRONGTYPE");
    let state = gateway.streams();
    let state = state.as_array().unwrap().iter().find(|s| s["key"] == "events:a").unwrap().clone();
    assert_eq!((&state["reader"], &state["error"]), (&"refused".into(), &"WRONGTYPE".into()));

    redis.run(&["DEL", "events:a"]);
    let first = redis.add("events:a", "a stream again");
    let mut served = None;
    within(DEADLINE, "a new client is served", || {
        let mut client = Client::open(&gateway.address, "/events/a?last_event_id=earliest");
        let event = client.event();
        let is_served = event.last_event_id == first;
        if is_served {
            served = Some(client);
        }
        pause_of_the_scenario(Duration::from_millis(100), "a client that was disconnected");
        is_served
    });
    let id = redis.add("events:a", "on it goes");
    let mut served = served.unwrap();
    served.live();
    expect(&mut served, &[id]);

    let id = redis.add("events:other", "undisturbed");
    expect(&mut other, &[id]);
    assert!(gateway.metric("ssegate_reader_errors_total{code=\"WRONGTYPE\"}") >= 2.0);
}

#[test]
fn a_key_that_may_not_be_read_disconnects_its_clients() {
    let redis = Redis::start();
    let limited = ["ACL", "SETUSER", "default", "resetkeys", "~events:mine*"];
    assert_eq!(redis.run(&limited), Answer::Text("OK".into()));
    let gateway = Setup::redis(&redis).set("source", "block = \"200ms\"").start_ready();
    let mut mine = live(&gateway, "/events/mine");
    for path in ["/events/yours", "/events/yours?last_event_id=earliest"] {
        assert_eq!(unavailable_reason(Client::open(&gateway.address, path)), "NOPERM", "{path}");
    }
    assert_eq!(gateway.post("events:yours", "no").status, 403);
    let id = redis.add("events:mine", "allowed");
    expect(&mut mine, &[id]);
    assert_eq!(gateway.admin_get("/readyz").status, 200);
}

#[test]
fn a_login_that_fails_is_an_error_in_the_log_and_is_tried_again() {
    let redis = Redis::start();
    let before = redis.add("events:a", "before");
    let mut operator = Connection::open(&redis).unwrap();
    operator.run(&["CONFIG", "SET", "requirepass", "other"]).unwrap();
    let secret = crate::support::Folder::new();
    let file = secret.0.join("password");
    std::fs::write(&file, "s3cret").unwrap();
    let password = format!("password_file = {:?}", file.to_str().unwrap());
    for (setup, code) in [
        (Setup::redis(&redis), "NOAUTH"),
        (Setup::redis(&redis).set("source", &password), "WRONGPASS"),
    ] {
        operator.run(&["CONFIG", "SET", "requirepass", "other"]).unwrap();
        let gateway = setup.set("server", "keepalive = \"1s\"").start();
        eventually("the log tells", || lines(&gateway, &["refuses the login", code]) > 0);
        assert_eq!(gateway.admin_get("/readyz").status, 503);
        assert_eq!(gateway.post("events:a", "no").status, 403);
        let mut waiting = Client::open(&gateway.address, "/events/a?last_event_id=earliest");
        waiting.comment("reconnecting");
        waiting.comment("reconnecting");
        assert_eq!(unavailable_reason(Client::open(&gateway.address, "/events/a")), "source");
        assert_eq!(gateway.streams()[0]["error"], code);
        assert!(!gateway.log().contains("s3cret"), "a password is in the log");

        operator.run(&["CONFIG", "SET", "requirepass", "s3cret"]).unwrap();
        if code == "NOAUTH" {
            operator.run(&["CONFIG", "SET", "requirepass", ""]).unwrap();
        }
        expect(&mut waiting, std::slice::from_ref(&before));
        eventually("the gateway is ready", || gateway.admin_get("/readyz").status == 200);
    }
}
