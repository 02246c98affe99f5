//! Further headers of a stream's response: they are there whatever carries it, nothing else of the head
//! changes, and a refusal has none of them.

use std::process::Command;

use super::protocols::{Answer, PROTOCOLS, on_both_sources, route};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};

const NAMES: [(&str, &str); 3] =
    [("x-vercel-ai-ui-message-stream", "v1"), ("x-empty", ""), ("x-words", "one, two=\"3\"")];
const OWN: [(&str, &str); 3] = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache, no-transform"),
    ("x-accel-buffering", "no"),
];
const ORIGIN: &str = "https://app.example";

fn routes() -> String {
    let headers = "headers = { \"X-Vercel-AI-UI-Message-Stream\" = \"v1\", x-empty = \"\", x-words = 'one, two=\"3\"' }";
    route("/events", "") + &route("/answers", headers)
}

/// The answer to `HEAD`, or an ordinary one, to its end.
fn whole(protocol: &str, gateway: &Gateway, path: &str, arguments: &[&str]) -> Answer {
    let mut curl = Command::new("curl");
    curl.args(["-si", "-m", "60", protocol, &format!("http://{}{path}", gateway.address)]);
    let output = curl.args(arguments).output().expect("curl must be installed");
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    Answer { head: head.to_owned(), body: body.to_owned() }
}

#[track_caller]
fn assert_fields(answer: &Answer, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        assert_eq!(answer.values(name), [*value], "{name} in {}", answer.head);
    }
}

#[test]
fn the_response_of_a_stream_has_them_beside_its_own() {
    on_both_sources(&routes(), |gateway| {
        for protocol in PROTOCOLS {
            let stream = Answer::live(protocol, gateway, "/answers/a", &[]);
            let head = whole(protocol, gateway, "/answers/a", &["-I"]);
            for answer in [&stream, &head] {
                assert_fields(answer, &NAMES);
                assert_fields(answer, &OWN);
            }
            let plain = Answer::live(protocol, gateway, "/events/a", &[]);
            assert_fields(&plain, &OWN);
            for (name, _) in NAMES {
                assert!(plain.values(name).is_empty(), "{}", plain.head);
            }
        }
    });
}

#[test]
fn head_is_answered_as_get_is_where_the_stream_is_over() {
    let end = "end = { field = \"payload\", equals = \"[END]\" }\nabsent = \"204\"";
    on_both_sources(&route("/answers", end), |gateway| {
        let ids = ["one", "[END]"].map(|payload| gateway.publish("events:a", payload));
        let [before, after] = ids.map(|id| format!("Last-Event-ID: {id}"));
        for protocol in PROTOCOLS {
            let head = |path, header: &str| whole(protocol, gateway, path, &["-I", "-H", header]);
            for over in [head("/answers/a", &after), head("/answers/of-nobody", "X-Nothing: 1")] {
                assert_eq!(over.head.split(' ').nth(1), Some("204"), "{}", over.head);
                assert_fields(&over, &[("cache-control", "no-store")]);
            }
            let goes_on = head("/answers/a", &before);
            assert_eq!(goes_on.head.split(' ').nth(1), Some("200"), "{}", goes_on.head);
            assert_fields(&goes_on, &OWN);
        }
    });
}

#[test]
fn a_page_of_another_origin_gets_them_and_may_read() {
    let setup = Setup::memory().set("cors", &format!("origins = [{ORIGIN:?}]"));
    let gateway = setup.routes(&routes()).start_ready();
    let origin = format!("Origin: {ORIGIN}");
    for protocol in PROTOCOLS {
        let answer = Answer::live(protocol, &gateway, "/answers/a", &[&origin]);
        assert_fields(&answer, &NAMES);
        assert_fields(&answer, &OWN);
        assert_fields(&answer, &[("access-control-allow-origin", ORIGIN)]);
        let head = whole(protocol, &gateway, "/answers/a", &["-I", "-H", &origin]);
        assert_fields(&head, &[("access-control-allow-origin", ORIGIN), NAMES[0]]);
    }
}

#[test]
fn a_refusal_has_none_of_them() {
    let setup = Setup::memory()
        .set("cors", &format!("origins = [{ORIGIN:?}]"))
        .set("server", "refuse = \"status\"")
        .set("limits", "clients_per_key = 1");
    let gateway = setup.routes(&routes()).start_ready();
    let mut held = Client::open(&gateway.address, "/answers/a");
    held.live();
    let origin = format!("Origin: {ORIGIN}");
    for protocol in PROTOCOLS {
        for (path, status) in [("/answers/a", " 503"), ("/answers/b?last=x", " 400")] {
            let answer = whole(protocol, &gateway, path, &["-H", &origin]);
            let first = answer.head.lines().next().unwrap();
            assert!(first.contains(status), "{protocol} {path}: {first}");
            for (name, _) in NAMES {
                assert!(answer.values(name).is_empty(), "{}", answer.head);
            }
            assert_fields(&answer, &[("access-control-allow-origin", ORIGIN)]);
        }
    }
}

#[test]
fn a_reload_changes_them_for_new_streams() {
    let gateway = Setup::memory().routes(&routes()).start_ready();
    assert_fields(&Answer::live(PROTOCOLS[0], &gateway, "/answers/a", &[]), &NAMES);
    let changed = route("/answers", "headers = { x-new = \"1\" }");
    gateway.write(&Setup::memory().routes(&changed));
    gateway.reload();
    for protocol in PROTOCOLS {
        let answer = Answer::live(protocol, &gateway, "/answers/a", &[]);
        assert_fields(&answer, &[("x-new", "1")]);
        assert!(answer.values(NAMES[0].0).is_empty(), "{}", answer.head);
    }
}
