//! Faults of a configuration, and their messages.

use super::*;

pub(super) fn told(loaded: Result<Loaded, Faults>) -> String {
    loaded.expect_err("this is a fault").to_string()
}

/// `loaded` has one fault, whose message begins with `begin`.
#[track_caller]
pub(super) fn assert_told(loaded: Result<Loaded, Faults>, begin: &str) {
    let told = told(loaded);
    assert!(told.starts_with(begin), "expected: {begin}\ntold: {told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn all_faults_are_reported_at_once_each_at_its_place() {
    let text = r#"[server]
keepalive = "15x"
keepalve = "15s"
listen = [
  "127.0.0.1:8080",
  "nowhere",
]
workers = "many"

[sorce]
url = "memory:"

[ring]
entries = 0
bytes = "8MB"

[log]
level = "inof"

[[route]]
path = "/a/{x}/{x}"
key = "a:{y}"
replay = -1
event = "ssegate"
"#;
    let env = env(&[("SSEGATE_RING_TOTAL_BYTES", "lots"), ("SSEGATE_RING_BITES", "1")]);
    let told = told(parse(text, "gateway.toml", &env, false));
    let begins = [
        "gateway.toml: source.url: missing, and there is no default; write",
        "gateway.toml:2:13: server.keepalive = \"15x\": not a duration; write a number and a unit, as in \"15s\" or \"250ms\"",
        "gateway.toml:3:1: server.keepalve: unknown key; did you mean \"keepalive\"?",
        "gateway.toml:6:3: server.listen: \"nowhere\": not an address; write \"HOST:PORT\"",
        "gateway.toml:8:11: server.workers = \"many\": not a whole number",
        "gateway.toml:10:2: sorce: unknown section; did you mean \"source\"?",
        "gateway.toml:14:11: ring.entries = 0: out of range; write a value from 1 to 4294967295",
        "gateway.toml:15:9: ring.bytes = \"8MB\": not a size; write",
        "gateway.toml:18:9: log.level = \"inof\": \"inof\" is neither a level nor a target with one (as in \"ssegate=debug\"); did you mean \"info\"?",
        "gateway.toml:20:1: route.access: missing; there is no default; write access = \"public\"",
        "gateway.toml:21:8: route.path = \"/a/{x}/{x}\": has the variable {x} twice",
        "gateway.toml:23:10: route.replay = -1: not a number of entries",
        "gateway.toml:24:9: route.event = \"ssegate\": taken",
        "environment: SSEGATE_RING_BITES: unknown variable; it is SSEGATE_SECTION_KEY for a key of gateway.toml; did you mean SSEGATE_RING_BYTES?",
        "environment: SSEGATE_RING_TOTAL_BYTES = \"lots\": not a size; write",
    ];
    for (line, begin) in told.lines().zip(begins) {
        assert!(line.starts_with(begin), "expected: {begin}\ntold: {line}");
    }
    assert_eq!(told.lines().count(), begins.len(), "{told}");
}

#[test]
fn a_syntax_error_is_reported_with_the_other_faults() {
    let text = MINIMAL.replace("[source]", "[server]\nretry = 2s\nretry = \"x\"\n[source]");
    let told = told(parse(&text, "f", &[], false));
    assert!(told.starts_with("f:3:"), "{told}");
    assert!(told.contains("not TOML: "), "{told}");
    assert!(
        told.lines().all(|line| line.starts_with("f:3:") || line.starts_with("f:4:")),
        "{told}"
    );

    let text = format!("{MINIMAL}key = \"twice\"\n[ring]\nentries = false\n");
    let told = self::told(parse(&text, "f", &[], false));
    assert!(told.contains("f:8:1: not TOML: duplicate key"), "{told}");
    assert!(told.contains("f:10:11: ring.entries = false: not a whole number"), "{told}");
}

#[test]
fn a_malformed_line_causes_no_other_fault() {
    let text = format!("[server]\nlisten = [\"127.0.0.1:9464\"\n[admin]{MINIMAL}");
    let told = told(parse(&text, "f", &[], false));
    assert!(told.lines().all(|line| line.contains("not TOML")), "{told}");
}

#[test]
fn a_malformed_line_does_not_make_its_key_missing() {
    let text = MINIMAL.replace("\"public\"", "public");
    let told = told(parse(&text, "f", &[], false));
    assert!(
        told.lines().all(|line| line.starts_with("f:7:") && line.contains("not TOML")),
        "{told}"
    );
}

#[test]
fn unknown_names_are_reported_without_their_values() {
    let hint = "environment: SSEGATE_SOURCE_PASSWORD: unknown variable; it is SSEGATE_SECTION_KEY for a key of gateway.toml; did you mean SSEGATE_SOURCE_PASSWORD_FILE?";
    assert_told(under(&[("SSEGATE_SOURCE_PASSWORD", "hunter2")]), hint);
    assert_told(under(&[("SSEGATE_CONFIG", "a")]), "environment: SSEGATE_CONFIG: unknown variable");
    assert_told(under(&[("SSEGATE_ROUTE_PATH", "a")]), "environment: SSEGATE_ROUTE_PATH: unknown");
    assert_told(
        with_source("url = \"memory:\"\npassword = \"hunter2\""),
        "gateway.toml:3:1: source.password: unknown key; did you mean \"password_file\"?",
    );
    assert_told(with_source("url = \"memory:\"\n[auth]\n"), "gateway.toml:3:2: [auth]: unknown");
    assert!(!told(under(&[("SSEGATE_SOURCE_PASSWORD", "hunter2")])).contains("hunter2"));
}

#[test]
fn no_fault_shows_a_password_of_the_url() {
    let urls = [
        "redis://me:hunter2",
        "redis://me:hunter2@",
        "redis://me:hunter2@h:99999",
        "redis://me:hunter2@h?password=hunter2",
        "redis://me:hun#ter2@h",
        "rediss://me:hunter2@h?x",
        "redis-sentinel://me:hunter2@h",
        "redis-sentinel://me:hunter2@h,/name",
        "redis-sentinel://me:hunter2@h,h:99999/name",
        "redis-cluster://me:hunter2@h/x",
        "redsi://me:hunter2@h",
        "redis+unix://me:hunter2@/path",
        "me:hunter2@h",
    ];
    for url in urls {
        for loaded in
            [with_source(&format!("url = \"{url}\"")), under(&[("SSEGATE_SOURCE_URL", url)])]
        {
            let told = told(loaded);
            assert!(!told.contains("hunter2") && !told.contains("hun#"), "{told}");
        }
    }
    let told = told(with_source("url = [\"redis://me:hunter2@h\"]"));
    assert_eq!(told, "gateway.toml:2:7: source.url: not a text; write it in quotes");
}

#[test]
fn unusable_listeners_are_faults() {
    let long = format!("systemd:{}", "x".repeat(256));
    for listen in
        ["8080", ":8080", "*:8080", "h:port", "127.0.0.1", "unix:", "unix:run", "::1:8080"]
            .into_iter()
            .chain(["systemd:", "systemd:a:b", "systemd:ä", &long])
    {
        assert_told(
            under(&[("SSEGATE_SERVER_LISTEN", listen)]),
            &format!("environment: SSEGATE_SERVER_LISTEN: \"{listen}\": not a"),
        );
    }
    assert_told(
        under(&[("SSEGATE_SERVER_LISTEN", "")]),
        "environment: SSEGATE_SERVER_LISTEN = \"\": nowhere",
    );
    for twice in ["127.0.0.1:1,127.0.0.1:1", "systemd:a,systemd:a"] {
        assert!(told(under(&[("SSEGATE_SERVER_LISTEN", twice)])).contains("twice"));
    }
    let both = [("SSEGATE_SERVER_LISTEN", "systemd:a"), ("SSEGATE_ADMIN_LISTEN", "systemd:a")];
    assert!(told(under(&both)).contains("is in server.listen too"));
    under(&[("SSEGATE_SERVER_LISTEN", "127.0.0.1:0,127.0.0.1:0")]).unwrap();
    let public = under(&[("SSEGATE_ADMIN_LISTEN", "127.0.0.1:8080")]);
    assert!(told(public).contains("is in server.listen too"));
    assert_told(
        under(&[("SSEGATE_SERVER_HOSTS", "ok,http://x")]),
        "environment: SSEGATE_SERVER_HOSTS: \"http://x\": not a host",
    );
}

#[test]
fn an_admin_listener_that_other_machines_reach_needs_a_token() {
    for listen in ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:9464"] {
        let begin = format!("environment: SSEGATE_ADMIN_LISTEN = \"{listen}\": is reachable");
        assert_told(under(&[("SSEGATE_ADMIN_LISTEN", listen)]), &begin);
    }
    for listen in ["127.0.0.2:9464", "[::1]:9464", "unix:/run/a", ""] {
        under(&[("SSEGATE_ADMIN_LISTEN", listen)]).unwrap();
    }
    let file = scratch_file("token", b"abc\n");
    let token = ("SSEGATE_ADMIN_TOKEN_FILE", file.to_str().unwrap());
    let loaded = under(&[("SSEGATE_ADMIN_LISTEN", "0.0.0.0:9464"), token]).unwrap();
    assert_eq!(loaded.config.admin.token.unwrap().expose(), "abc");
    std::fs::write(&file, "two words").unwrap();
    assert!(told(under(&[token])).contains("holds no bearer token"));
    std::fs::write(&file, "\n").unwrap();
    assert!(told(under(&[token])).contains("holds no secret"));
    remove(&file);
}

#[test]
fn an_unreadable_secret_is_reported_at_its_line() {
    assert_told(
        with_source("url = \"memory:\"\npassword_file = \"/no/such\""),
        "gateway.toml:3:17: source.password_file = \"/no/such\": cannot be read as /no/such: No such file",
    );
}

#[test]
fn unusable_routes_are_faults() {
    let cases = [
        ("event = \"a\\nb\"", "8:9: route.event = \"a\\nb\": not an event's name"),
        (
            "event = { otherwise = \"a\" }",
            "8:9: route.event = { otherwise = \"a\" }: names no field",
        ),
        (
            "event = { field = \"a\", x = 1 }",
            "8:9: route.event = { field = \"a\", x = 1 }: unknown key",
        ),
        ("data = \"\"", "8:8: route.data = \"\": not an entry's field"),
        ("data = []", "8:8: route.data = []: names no field"),
        ("data = [\"a\", \"a\"]", "8:8: route.data = [\"a\", \"a\"]: names the field \"a\" twice"),
        ("missing = true", "8:11: route.missing = true: neither"),
        ("replay = \"some\"", "8:10: route.replay = \"some\": not a number of entries"),
        ("replay = 1.5", "8:10: route.replay = a number with a fraction: not a number"),
        (
            "signals = \"loud\"",
            "8:11: route.signals = \"loud\": unknown; write \"comment\" or \"event\"",
        ),
    ];
    for (lines, told) in cases {
        assert_told(with_route(lines), &format!("gateway.toml:{told}"));
    }
    let unknown = MINIMAL.replace("events:{name}", "events:{nam}");
    assert!(
        told(parse(&unknown, "f", &[], false))
            .contains("not a variable of the path \"/events/{name}\"; did you mean \"name\"?")
    );
    assert_told(parse("[source]\nurl=\"memory:\"", "f", &[], false), "f: [[route]]: missing");
    assert_told(
        parse("[source]\nurl=\"memory:\"\n[route]\npath=\"/\"", "f", &[], false),
        "f:3:2: route: not a list of routes; begin each with [[route]]",
    );
}

#[test]
fn ambiguous_routes_are_reported_with_both_lines() {
    let second = "[[route]]\npath = \"/{any}/x\"\nkey = \"k\"\naccess = \"public\"";
    assert_told(
        with_route(second),
        "gateway.toml:9:8: route.path = \"/{any}/x\": can match the same path as \"/events/{name}\" (gateway.toml:5:8)",
    );
}

#[test]
fn durations_and_sizes_stay_within_bounds() {
    for (name, value) in [
        ("SERVER_KEEPALIVE", "999ms"),
        ("SERVER_KEEPALIVE", "15"),
        ("SERVER_KEEPALIVE", "1.5s"),
        ("SERVER_KEEPALIVE", "-1s"),
        ("SERVER_KEEPALIVE", "99999999999999999999s"),
        ("SERVER_KEEPALIVE", "999999999999999999d"),
        ("SERVER_RETRY", "99ms"),
        ("SOURCE_BLOCK", "0s"),
        ("SOURCE_READ_COUNT", "0"),
        ("SOURCE_MAX_ENTRY", "513MiB"),
        ("SOURCE_MAX_ENTRY", "17179869184GiB"),
        ("LIMITS_READERS", "0"),
        ("LIMITS_REPLAYS", "0"),
        ("LIMITS_CLIENTS", "-1"),
        ("LOG_LEVEL", ""),
        ("LOG_LEVEL", "info,ssegate=loud"),
        ("LOG_FORMAT", "xml"),
        ("ADMIN_PUBLISH", "yes"),
    ] {
        let name = format!("SSEGATE_{name}");
        assert_told(under(&[(&name, value)]), &format!("environment: {name} = \"{value}\": "));
    }
}
