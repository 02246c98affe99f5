//! `publish` of a route: its keys, its defaults, and each fault of it.

use super::refused::{assert_told, told};
use super::*;
use crate::config::publish::{BodyFields, Publish, Rate};

const KEYS: &str = "[auth.jwt]\nkeys = [{ alg = \"HS256\", secret_file = ";

/// The route's `publish`, where `jwt` says whether there are keys.
fn publish(lines: &str) -> Publish {
    let loaded = with_route(lines).unwrap_or_else(|faults| panic!("{lines}: {faults}"));
    loaded.config.routes[0].publish.clone().unwrap()
}

#[test]
fn nobody_publishes_unless_a_route_says_so() {
    assert_eq!(read(MINIMAL).config.routes[0].publish, None);
    assert_eq!(with_route("publish = false").unwrap().config.routes[0].publish, None);
}

#[test]
fn every_key_has_a_default_but_access() {
    let all = publish("publish = { access = \"public\" }");
    let expected = Publish {
        access: Access::Public,
        fields: BodyFields::Payload,
        max_bytes: 64 << 10,
        rate: Some(Rate { entries: 100, per: Duration::from_secs(1) }),
        maxlen: 10_000,
        expire: None,
    };
    assert_eq!(all, expected);
    let written = publish(
        "publish = { access = \"public\", fields = \"json\", max_bytes = \"1KiB\", rate = \"5/m\", maxlen = 0, expire = \"1h\" }",
    );
    let expected = Publish {
        access: Access::Public,
        fields: BodyFields::Json,
        max_bytes: 1024,
        rate: Some(Rate { entries: 5, per: Duration::from_secs(60) }),
        maxlen: 0,
        expire: Some(Duration::from_secs(3600)),
    };
    assert_eq!(written, expected);
    assert_eq!(publish("publish = { access = \"public\", rate = \"0/s\" }").rate, None);
    // A section of its own is a table, too.
    assert_eq!(publish("[route.publish]\naccess = \"public\"").maxlen, 10_000);
}

#[test]
fn who_may_read_may_not_therefore_publish() {
    let secret = scratch_file("publish-secret", &[b'x'; 64]);
    let keys = format!("{KEYS}{:?} }}]\n", secret.to_str().unwrap());
    let with_keys = |lines: &str| parse(&format!("{keys}{MINIMAL}{lines}\n"), "f", &[], false);
    let loaded =
        with_keys("publish = { access = \"jwt\", match = { name = \"writes\" } }").unwrap();
    let route = &loaded.config.routes[0];
    let rule = Match { variable: "name".into(), claim: "writes".into() };
    assert_eq!(route.access, Access::Public);
    assert_eq!(route.publish.as_ref().unwrap().access, Access::Jwt(vec![rule]));
    assert!(told(with_keys("publish = { access = \"jwt\" }")).contains("would open every {name}"));
    remove(&secret);
    assert!(
        told(with_route("publish = { access = \"jwt\", match = \"any\" }")).contains("needs keys")
    );
}

#[test]
fn what_is_wrong_is_told_where_it_stands() {
    let cases = [
        ("publish = true", "8:11: route.publish = true: neither a table nor false"),
        ("publish = {}", "8:11: route.publish.access: missing; there is no default"),
        (
            "publish = { access = \"all\" }",
            "8:22: route.publish.access = \"all\": unknown; write \"jwt\"",
        ),
        (
            "publish = { access = \"public\", max_len = 1 }",
            "8:32: route.publish.max_len: unknown key; did you mean \"maxlen\"?",
        ),
        (
            "publish = { access = \"public\", match = \"any\" }",
            "8:40: route.publish.match = \"any\": is for tokens, but access is \"public\"",
        ),
        ("publish = { access = \"public\", rate = 5 }", "8:39: route.publish.rate = 5: not a rate"),
        (
            "publish = { access = \"public\", rate = \"+5/s\" }",
            "8:39: route.publish.rate = \"+5/s\": not a rate",
        ),
        (
            "publish = { access = \"public\", rate = \"5/d\" }",
            "8:39: route.publish.rate = \"5/d\": not a rate",
        ),
        (
            "publish = { access = \"public\", max_bytes = 0 }",
            "8:44: route.publish.max_bytes = 0: out of range",
        ),
        (
            "publish = { access = \"public\", expire = \"1ms\" }",
            "8:41: route.publish.expire = \"1ms\": out of range",
        ),
        (
            "publish = { access = \"public\", fields = \"xml\" }",
            "8:41: route.publish.fields = \"xml\": unknown; write \"payload\" or \"json\"",
        ),
    ];
    for (lines, told) in cases {
        assert_told(with_route(lines), &format!("gateway.toml:{told}"));
    }
}

#[test]
fn what_anybody_may_publish_is_a_risk_that_is_told_at_its_route() {
    let second = "[[route]]\npath = \"/b\"\nkey = \"b\"\naccess = \"public\"\npublish = { access = \"public\" }";
    let loaded = with_route(second).unwrap();
    assert_eq!(loaded.config.risks()[0].choice, "public_publish");
    let warning = loaded.warnings[0].to_string();
    assert!(
        warning.starts_with("gateway.toml:12:11: route.publish = { access = \"public\""),
        "{warning}"
    );
    let larger = with_route("publish = { access = \"public\", max_bytes = \"2MiB\" }").unwrap();
    assert!(larger.warnings.iter().any(|w| w.message.starts_with("larger than source.max_entry")));
}

#[test]
fn the_effective_table_is_printed_as_it_can_be_read() {
    let printed = print::print(&with_route("publish = { access = \"public\" }").unwrap());
    let line = "publish = { access = \"public\", fields = \"payload\", max_bytes = \"64KiB\", rate = \"100/s\", maxlen = 10000, expire = \"0s\" }";
    assert!(printed.contains(line), "{printed}");
}

#[test]
fn several_entries_have_a_bound_that_follows_from_that_of_one() {
    let of = |max_bytes: usize| {
        Publish { max_bytes, ..publish("publish = { access = \"public\" }") }.several_bytes()
    };
    assert_eq!(of(100), 101_000);
    assert_eq!(of(64 << 10), 8 << 20);
    assert_eq!(of(16 << 20), (16 << 20) + 1);
}
