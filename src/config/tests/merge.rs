//! Routes that merge several streams, and faults of them.

use super::refused::{assert_told, told};
use super::*;
use crate::sse::{Controls, EventName};

/// One route with these lines, and no key.
fn merged(lines: &str) -> Result<Loaded, Faults> {
    let path = if lines.contains("path") { "" } else { "path = \"/all/{user}\"\n" };
    let access = if lines.contains("access") { "" } else { "access = \"public\"\n" };
    let text = format!("[source]\nurl = \"redis://127.0.0.1\"\n[[route]]\n{path}{access}{lines}\n");
    parse(&text, "f", &[], false)
}

fn route(lines: &str) -> Route {
    let loaded = merged(lines).unwrap_or_else(|faults| panic!("{lines}: {faults}"));
    assert_eq!(loaded.warnings.len(), 0, "{lines}: {:?}", loaded.warnings);
    loaded.config.routes.into_iter().next().unwrap()
}

const MERGE: &str =
    "merge = [{ name = \"chat\", key = \"chat:{user}\" }, { name = \"a-1.x\", key = \"alerts\" }]";
const CHOSEN: &str =
    "path = \"/any\"\nmerge_query = { name = \"stream\", key = \"events:{stream}\" }";

#[test]
fn a_route_reads_one_stream_or_several_or_those_that_clients_choose() {
    let Streams::Merged(parts) = route(MERGE).streams else { panic!("not merged") };
    let parts: Vec<_> = parts.iter().map(|part| (&*part.name, part.key.as_str())).collect();
    assert_eq!(parts, [("chat", "chat:{user}"), ("a-1.x", "alerts")]);
    let Streams::Chosen { query, key, most } = route(CHOSEN).streams else { panic!("not chosen") };
    assert_eq!((&*query, key.as_str(), most), ("stream", "events:{stream}", 32));
    let own = CHOSEN.replace(" }", ", most = 64 }");
    assert!(matches!(route(&own).streams, Streams::Chosen { most: 64, .. }));
}

#[test]
fn a_part_tells_everything_as_events_and_has_its_name_in_types_where_that_is_wanted() {
    let plain = route(&format!("{MERGE}\ncontrols = \"comment\""));
    assert_eq!(plain.rules.controls(), Controls::Comment);
    assert_eq!((plain.part_rules.controls(), plain.part_rules.of_part), (Controls::Event, true));
    assert_eq!(plain.part_rendering("chat", false).stream, None);
    let is_shared = |route: &Route, selects| {
        let made = || route.part_rendering("chat", selects);
        Arc::ptr_eq(&made(), &made())
    };
    assert!(is_shared(&plain, false) && is_shared(&plain, true));
    let fixed = |name: &str| EventName::Fixed(name.into());
    for (event, expected) in [
        ("{ stream = true }", fixed("message")),
        ("{ stream = true, name = \"log\" }", fixed("log")),
        (
            "{ stream = true, field = \"type\", otherwise = \"x\" }",
            EventName::Field { field: "type".into(), otherwise: "x".into() },
        ),
    ] {
        let route = route(&format!("{MERGE}\nevent = {event}"));
        let rendering = route.part_rendering("chat", false);
        assert_eq!((&rendering.event, rendering.stream.as_deref()), (&expected, Some("chat")));
        assert!(is_shared(&route, false) && is_shared(&route, true), "clients share it");
        assert!(route.makes(&rendering) && !route.makes(&route.rules.rendering), "{event}");
    }
}

#[test]
fn faults_of_merged_streams_say_what_to_write() {
    let list = |parts: &str| format!("merge = [{parts}]");
    let part = |name: &str| format!("{{ name = \"{name}\", key = \"k\" }}");
    let many: Vec<_> = (0..65).map(|n| part(&format!("p{n}"))).collect();
    let long: Vec<_> = (10..64).map(|n| part(&format!("{n}{}", "x".repeat(62)))).collect();
    for (lines, why) in [
        (format!("{MERGE}\nkey = \"k\""), "is besides key, which it takes the place of"),
        (format!("{MERGE}\n{CHOSEN}"), "is besides merge_query"),
        (list(""), "has 0 streams; write 1 to 64"),
        (list(&many.join(", ")), "has 65 streams; write 1 to 64"),
        (list(&long.join(", ")), "a last event id of these streams can have 5777 bytes"),
        (list(&format!("{}, {}", part("a"), part("a"))), "has the name \"a\" twice"),
        (list(&part("a b")), "\"a b\" is not the name of a stream; write 1 to 64 letters"),
        (list(&part(&"x".repeat(65))), "is not the name of a stream"),
        (list("\"chat\""), "\"chat\" is not a stream; write a list, as in"),
        (list("{ name = \"a\" }"), "the stream \"a\" has no key"),
        (list("{ key = \"a\" }"), "a stream has no name"),
        (list("{ name = \"a\", key = \"b\", most = 1 }"), "unknown key \"most\""),
        (list("{ name = \"a\", key = \"b{\" }"), "the key \"b{\" has a brace without"),
        ("merge = \"chat\"".into(), "not a list of streams"),
        (list("{ name = \"a\", key = \"b:{usr}\" }"), "{usr} is not a variable of the path"),
        (format!("{MERGE}\nsnapshot = \"s\""), "a state is that of one stream"),
        (format!("{CHOSEN}\nkey = \"k\""), "is besides key"),
        (
            CHOSEN.replace(" }", ", most = 0 }"),
            "most = 0 is out of range; write a number from 1 to 64",
        ),
        (CHOSEN.replace(" }", ", most = 65 }"), "most = 65 is out of range"),
        (CHOSEN.replace("{stream}", "x"), "does not have {stream}"),
        (CHOSEN.replace("\"stream\"", "\"last\""), "says where a client begins"),
        (CHOSEN.replace("\"stream\"", "\"Last-Event-ID\""), "says where a client begins"),
        (CHOSEN.replace("\"stream\"", "\"a b\""), "is not the name of a parameter"),
        (
            CHOSEN.replace("\"stream\"", &format!("{:?}", "p".repeat(65))),
            "has 65 letters, and a request has it once for each stream",
        ),
        (CHOSEN.replace("/any", "/any/{stream}"), "is a variable of the path"),
        ("path = \"/a\"\nmerge_query = {}".into(), "names no parameter of the query"),
        (format!("{MERGE}\nevent = {{ stream = true, name = \"\" }}"), "has no type after"),
    ] {
        let told = told(merged(&lines));
        assert!(told.contains(why), "{lines}\nexpected: {why}\ntold: {told}");
    }
    assert_told(merged(""), "f:3:1: route.key: missing; write the stream key that it reads");
    let one = merged("key = \"k:{user}\"\nevent = { stream = true }");
    assert!(told(one).contains("stream = true is for routes that merge"));
}

#[test]
fn a_merged_route_does_not_publish() {
    let publish = "publish = { access = \"public\" }";
    let told = told(merged(&format!("{MERGE}\n{publish}")));
    assert!(told.contains("entries that clients publish go to one stream key"), "{told}");
}

#[test]
fn tokens_are_held_against_what_clients_choose() {
    let keys = "[auth.jwt]\nkeys = [{ alg = \"HS256\", secret = \"x\" }]\n";
    let of = |lines: &str| merged(&format!("{CHOSEN}\naccess = \"jwt\"\n{lines}\n{keys}"));
    let untold = told(of(""));
    assert!(untold.contains("any valid token would open every {stream}"), "{untold}");
    let other = told(of("match = { streem = \"s\" }"));
    assert!(other.contains("{streem} is not a variable of the path"), "{other}");
    assert!(!told(of("match = { stream = \"s\" }")).contains("route"), "nothing but the secret");
    let from = format!("{CHOSEN}\n[auth.jwt]\nfrom = [\"query:stream\"]");
    assert!(told(merged(&from)).contains("the parameter \"stream\" is where tokens are"));
}
