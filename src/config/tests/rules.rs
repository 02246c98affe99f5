//! How the streams of a route begin, speak and end: each key as it is read, and each fault of it.

use super::refused::{assert_told, told};
use super::*;
use crate::sse::{Controls, EndMarker};

const END: &str = "end = { field = \"type\", equals = \"done\" }";

fn route(lines: &str) -> Route {
    let loaded = with_route(lines).unwrap_or_else(|faults| panic!("{lines}: {faults}"));
    loaded.config.routes.into_iter().next().unwrap()
}

#[test]
fn a_route_that_names_none_of_them_is_as_before() {
    let Route { start, absent, ended, headers, rules, .. } = route("");
    assert_eq!((start, absent, ended), (RouteStart::Live, Absent::Wait, Ended::NoContent));
    assert!(headers.is_empty());
    let StreamRules {
        rendering,
        selected,
        signals,
        stalled,
        on_gap,
        snapshot,
        end_data,
        cuts,
        of_part,
    } = &*rules;
    assert!(!of_part && rendering == selected);
    assert_eq!((rendering.controls, &rendering.end), (Controls::Event, &None));
    assert_eq!((*signals, *stalled, end_data), (Signals::Comment, Duration::ZERO, &None));
    assert!(*on_gap == OnGap::Tell && snapshot.is_none() && !cuts);
}

#[test]
fn a_beginning_is_a_word_a_number_of_entries_or_a_time() {
    let start = |text: &str| route(&format!("start = \"{text}\"")).start;
    assert_eq!(start("live"), RouteStart::Live);
    assert_eq!(start("earliest"), RouteStart::Earliest);
    assert_eq!(start("last:1"), RouteStart::Newest(1));
    assert_eq!(start("last:10000"), RouteStart::Newest(10_000));
    assert_eq!(start("since:15m"), RouteStart::Back(Duration::from_secs(900)));
    let all = route("replay = \"all\"\nstart = \"last:10001\"");
    assert_eq!(all.start, RouteStart::Newest(10_001));
}

#[test]
fn an_end_is_a_field_and_its_values() {
    let end = |equals: &str| {
        let route = route(&format!("end = {{ field = \"type\", equals = {equals} }}"));
        route.rules.end().cloned().unwrap()
    };
    let marker = |equals: &[&str]| EndMarker {
        field: "type".into(),
        equals: equals.iter().map(|&value| value.to_owned()).collect(),
    };
    assert_eq!(end("\"done\""), marker(&["done"]));
    assert_eq!(end("[\"done\", \"error\"]"), marker(&["done", "error"]));
    assert_eq!(route("end = false").rules.end(), None);
    // A section of its own is a table, too.
    let section = route("[route.end]\nfield = \"type\"\nequals = \"done\"");
    assert_eq!(section.rules.end(), Some(&marker(&["done"])));
}

#[test]
fn every_key_of_a_streams_rules_is_read() {
    let read = route(&format!(
        "{END}\nstalled = \"5s\"\nabsent = \"204\"\nabsent_after = \"90s\"\non_gap = \"end\"\ncontrols = \"none\"\nend_data = \"[DONE]\"\nended = \"replay\""
    ));
    assert_eq!(read.absent, Absent::NoContent(Duration::from_secs(90)));
    assert_eq!(read.ended, Ended::Replay);
    let rules = &read.rules;
    assert_eq!((rules.controls(), rules.stalled), (Controls::None, Duration::from_secs(5)));
    assert_eq!(rules.end_data.as_deref(), Some("[DONE]"));
    assert!(rules.on_gap == OnGap::End && rules.cuts);
    assert!(!route(&format!("{END}\ncut = \"clean\"")).rules.cuts);
    assert_eq!(route("controls = \"comment\"").rules.controls(), Controls::Comment);
    assert_eq!(route("absent = \"204\"").absent, Absent::NoContent(Duration::from_secs(5)));
}

#[test]
fn an_event_may_have_no_name() {
    assert_eq!(route("event = \"\"").rules.rendering.event, EventName::Fixed(String::new()));
    let field = route("event = { field = \"t\", otherwise = \"\" }");
    let expected = EventName::Field { field: "t".into(), otherwise: String::new() };
    assert_eq!(field.rules.rendering.event, expected);
}

#[test]
fn headers_are_read_with_names_in_lower_case() {
    let read = route("headers = { \"X-Vercel-AI-UI-Message-Stream\" = \"v1\", x-empty = \"\" }");
    let mut headers: Vec<_> =
        read.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    headers.sort_unstable();
    assert_eq!(headers, [("x-empty", ""), ("x-vercel-ai-ui-message-stream", "v1")]);
}

#[test]
fn routes_of_the_environment_take_them_as_well() {
    let routes = "/a=a,start=last:5,absent=204,absent_after=0s,controls=none,on_gap=end,event=";
    let loaded = under(&[("SSEGATE_ROUTES", routes)]).unwrap_or_else(|faults| panic!("{faults}"));
    let route = &loaded.config.routes[0];
    assert_eq!((route.start, route.rules.controls()), (RouteStart::Newest(5), Controls::None));
    assert_eq!(route.absent, Absent::NoContent(Duration::ZERO));
    assert_eq!(route.rules.rendering.event, EventName::Fixed(String::new()));
}

#[test]
fn printed_rules_read_back_equal() {
    let text = format!(
        "{MINIMAL}end = {{ field = \"a b\", equals = [\"\", \"x\\\"y\"] }}\nended = \"replay\"\nend_data = \"a\\nb\"\ncut = \"clean\"\nstart = \"since:2h\"\nabsent = \"204\"\nheaders = {{ \"x.a\" = \"1\", b = \"\\\\\" }}\n"
    );
    let loaded = read(&text);
    let printed = print::print(&loaded);
    assert_eq!(read(&printed).config, loaded.config, "{printed}");
    let line = "headers = { \"x.a\" = \"1\", b = \"\\\\\" }";
    assert!(printed.contains(line), "{printed}");
    assert!(print::print(&read(MINIMAL)).contains("\nheaders = {} "));
}

#[test]
fn unusable_beginnings_are_faults() {
    for start in ["\"\"", "\"first\"", "\"last\"", "\"last:\"", "\"last:x\"", "\"last:+5\"", "5"]
        .into_iter()
        .chain(["\"since:\"", "\"since:15\"", "\"since:-1m\"", "\"earliest:1\"", "[\"live\"]"])
    {
        let begin = format!("gateway.toml:8:9: route.start = {start}: not a beginning; write ");
        assert_told(with_route(&format!("start = {start}")), &begin);
    }
    for count in [0, 10_001] {
        let begin = format!(
            "gateway.toml:8:9: route.start = \"last:{count}\": out of range; write \"last:1\" to \"last:10000\" (route.replay)"
        );
        assert_told(with_route(&format!("start = \"last:{count}\"")), &begin);
    }
    for start in ["earliest", "last:1", "since:1m"] {
        let begin = format!(
            "gateway.toml:8:9: route.start = \"{start}\": this route is live only (replay = 0); write \"live\""
        );
        assert_told(with_route(&format!("start = \"{start}\"\nreplay = 0")), &begin);
    }
    route("replay = 0\nstart = \"live\"");
}

#[test]
fn unusable_ends_are_faults() {
    let cases = [
        ("true", "does not say which entry ends a stream; write { field"),
        ("\"done\"", "does not say which entry ends a stream; write { field"),
        ("{ equals = \"done\" }", "names no field; write { field"),
        ("{ field = \"type\" }", "names no value of the field; write { field"),
        ("{ field = \"\", equals = \"done\" }", "not an entry's field"),
        ("{ field = \"t\", equals = \"done\", x = 1 }", "unknown key \"x\"; it takes field and"),
        ("{ field = \"t\", equals = 1 }", "equals is neither a text nor a list of texts"),
        ("{ field = \"t\", equals = [1] }", "equals is neither a text nor a list of texts"),
        ("{ field = \"t\", equals = [] }", "equals is empty, so no entry would end a stream"),
        ("{ field = \"t\", equals = [\"a\", \"a\"] }", "names the value \"a\" twice; remove one"),
    ];
    for (end, why) in cases {
        // What needs an end is not faulted on top.
        let lines = format!("end = {end}\nended = \"replay\"");
        assert_told(with_route(&lines), &format!("gateway.toml:8:7: route.end = {end}: {why}"));
    }
}

#[test]
fn what_is_about_the_end_needs_an_end() {
    for (line, column) in
        [("ended = \"replay\"", 9), ("end_data = \"[DONE]\"", 12), ("cut = \"clean\"", 7)]
    {
        let begin = format!("gateway.toml:8:{column}: route.{line}: is for streams that end, and");
        assert_told(with_route(line), &begin);
        route(&format!("{END}\n{line}"));
    }
    assert!(!route("cut = \"incomplete\"\nended = \"204\"\nend_data = \"\"").rules.cuts);
}

#[test]
fn a_stream_is_not_stalled_before_a_read_of_it_returns() {
    assert_told(
        with_route("stalled = \"4999ms\""),
        "gateway.toml:8:11: route.stalled = \"4999ms\": less than source.block = \"5s\", and a read of a silent stream takes as long as that; write \"5s\" or more, or \"0s\" for never",
    );
    let block = [("SSEGATE_SOURCE_BLOCK", "1s")];
    let text = |stalled: &str| format!("{MINIMAL}stalled = \"{stalled}\"\n");
    let under_block = |stalled: &str| parse(&text(stalled), "f", &env(&block), false);
    let stalled = under_block("1s").unwrap().config.routes[0].rules.stalled;
    assert_eq!(stalled, Duration::from_secs(1));
    assert!(told(under_block("999ms")).contains("less than source.block = \"1s\""));
    assert!(told(with_route("stalled = \"366d\"")).contains("out of range; write a value from"));
}

#[test]
fn a_state_is_in_a_key_or_in_the_stream() {
    let rules =
        route("snapshot = { newest_by = \"id\" }\nsnapshot_age = \"5s\"\nsnapshot_max = \"1MiB\"")
            .rules;
    let rule = SnapshotRule {
        of: StateTemplate::NewestBy("id".into()),
        max_age: Duration::from_secs(5),
        max_bytes: 1 << 20,
    };
    assert_eq!((rules.on_gap, rules.snapshot.as_ref()), (OnGap::Heal, Some(&rule)));
    assert!(!rules.rendering.gaps_have_ids);
    // Without a word of gaps their state still comes.
    assert_eq!(
        route("snapshot = { newest_by = \"id\" }\ncontrols = \"none\"").rules.on_gap,
        OnGap::Heal
    );
}

#[test]
fn unusable_rules_are_faults() {
    let cases = [
        ("absent = \"404\"", "8:10", "unknown; write \"wait\" or \"204\""),
        ("absent = 200", "8:10", "unknown; write \"wait\" or \"204\""),
        ("ended = \"410\"", "8:9", "unknown; write \"replay\" or \"204\""),
        ("absent_after = \"11m\"", "8:16", "out of range; write a value from \"0s\" to \"10m\""),
        ("absent_after = \"6s\"", "8:16", "is for absent = \"204\", and this route waits for"),
        ("on_gap = \"stop\"", "8:10", "unknown; write \"tell\" or \"end\""),
        ("controls = \"all\"", "8:12", "unknown; write \"event\" or \"comment\" or \"none\""),
        ("controls = \"none\"", "8:12", "entries could be lost without a word, for gaps are told"),
        ("cut = true", "8:7", "unknown; write \"incomplete\" or \"clean\""),
        ("end_data = 1", "8:12", "not a text; write it in quotes"),
    ];
    for (line, at, why) in cases {
        assert_told(with_route(line), &format!("gateway.toml:{at}: route.{line}: {why}"));
    }
    for controls in ["controls = \"comment\"", "controls = \"none\"\non_gap = \"end\""] {
        let told = told(with_route(&format!("signals = \"event\"\n{controls}")));
        let begin = "gateway.toml:8:11: route.signals = \"event\": is for control events, which this route does not send; write controls = \"event\"";
        assert!(told.starts_with(begin) && told.lines().count() == 1, "{told}");
    }
}

#[test]
fn headers_that_are_not_the_routes_are_faults() {
    let header = |name: &str, value: &str, why: &str| {
        let begin = format!("gateway.toml:8:13: route.headers: {name}: {why}");
        assert_told(with_route(&format!("headers = {{ {name} = {value} }}")), &begin);
    };
    for name in ["\"\"", "\"x y\"", "\"x:\"", "\"ä\""] {
        header(name, "\"v\"", "not a header's name");
    }
    for name in ["Connection", "keep-alive", "proxy-authenticate", "Proxy-Connection", "TE"]
        .into_iter()
        .chain(["trailer", "transfer-encoding", "upgrade"])
    {
        header(&format!("\"{name}\""), "\"v\"", "is about one connection");
    }
    for name in ["content-type", "Content-Length", "content-encoding", "cache-control", "vary"]
        .into_iter()
        .chain(["x-accel-buffering", "date", "referrer-policy", "retry-after", "www-authenticate"])
    {
        header(&format!("\"{name}\""), "\"v\"", "is the gateway's own; remove it");
    }
    header("\"access-control-allow-origin\"", "\"*\"", "is for pages of other origins; write it");
    header("\"set-cookie\"", "\"a=b\"", "would give every client the same cookie");
    for value in ["\"a\\r\\nb\"", "\"a\\nb\"", "\"a\\u0000\"", "\"a\\tb\"", "\"\\u007F\"", "\"ä\""]
        .into_iter()
        .chain(["\" a\"", "\"a \"", "1", "[\"a\"]"])
    {
        header("\"x-name\"", value, "has no usable value; write a text of ASCII");
    }
    assert_told(
        with_route("headers = { x-a = \"1\", X-A = \"2\" }"),
        "gateway.toml:8:24: route.headers: \"X-A\": is there twice, for the case of a name does",
    );
    assert_told(
        with_route("headers = \"x-a: 1\""),
        "gateway.toml:8:11: route.headers = \"x-a: 1\": not a table of headers; write { \"x-name\"",
    );
}
