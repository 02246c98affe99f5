//! What matches, what doesn't, and that no path or template whatever does any harm.

use proptest::prelude::*;

use super::*;

/// Some of the letters and digits as well.
const MORE_THAN_NEEDED: percent_encoding::AsciiSet =
    percent_encoding::NON_ALPHANUMERIC.add(b'a').add(b'Z').add(b'0');

fn path(text: &str) -> PathTemplate {
    PathTemplate::parse(text).unwrap()
}

/// What `{name}` is in `/events/{name}` for a request of `raw`.
fn name(raw: &str) -> Option<String> {
    let variables = path("/events/{name}").matches(raw)?;
    let [(name, value)] = variables.as_slice() else { panic!("{variables:?}") };
    assert_eq!(name, "name");
    Some(value.clone())
}

#[test]
fn a_variable_is_one_whole_segment() {
    assert_eq!(name("/events/a.B_c-9").as_deref(), Some("a.B_c-9"));
    assert_eq!(name("/events/..."), Some("...".into()));
    let long = "x".repeat(128);
    assert_eq!(name(&format!("/events/{long}")), Some(long.clone()));
    let others = [
        "/events/",
        "/events",
        "/events/a/",
        "/events/a/b",
        "/event/a",
        "events/a",
        "",
        "/",
        "//events/a",
        "/events//a",
    ];
    for other in others {
        assert_eq!(name(other), None, "{other}");
    }
    assert_eq!(name(&format!("/events/x{long}")), None);
}

#[test]
fn segments_are_decoded_exactly_once() {
    assert_eq!(name("/events/%61b"), Some("ab".into()));
    assert_eq!(name("/%65vents/ab"), Some("ab".into()));
    let others = [
        "%2561", "a%2Fb", "a%2fb", "%2e", "%2E%2e", ".", "..", ".%2e", "%zz", "%", "a%", "%00",
        "a%0d%0aX", "a b", "a%20b", "a?b", "a:b", "{x}", "*", "%ff", "%c3%a9", "é",
    ];
    for other in others {
        assert_eq!(name(&format!("/events/{other}")), None, "{other}");
    }
}

#[test]
fn the_root_and_literals_match() {
    assert_eq!(path("/").matches("/"), Some(vec![]));
    assert_eq!(path("/").matches("/a"), None);
    assert_eq!(path("/v1/logs/stream").matches("/v1/logs/stream"), Some(vec![]));
    assert_eq!(path("/v1/é").matches("/v1/%C3%A9"), Some(vec![]));
    assert_eq!(path("/a").matches("/a%2F"), None);
}

#[test]
fn path_templates_that_cannot_be_are_refused() {
    let templates = [
        "", "a", "//", "/a/", "/a//b", "/{a}/{a}", "/{}", "/{a b}", "/{1}", "/x{a}", "/{a}x",
        "/{a", "/a}", "/{{a}}", "/.", "/a/..", "/a b", "/a%20b", "/a?b", "/a#b", "/a\n",
    ];
    for template in templates {
        assert!(PathTemplate::parse(template).is_err(), "{template:?}");
    }
}

#[test]
fn a_literal_beats_a_variable_unless_it_loses_elsewhere() {
    let ambiguous = |a: &str, b: &str| {
        assert_eq!(path(a).is_ambiguous_with(&path(b)), path(b).is_ambiguous_with(&path(a)));
        path(a).is_ambiguous_with(&path(b))
    };
    assert!(ambiguous("/a", "/a"));
    assert!(ambiguous("/{a}", "/{b}"));
    assert!(ambiguous("/x/{a}", "/{b}/y"));
    assert!(!ambiguous("/x/{a}", "/{b}/{c}"));
    assert!(!ambiguous("/x/y", "/{b}/y"));
    assert!(!ambiguous("/x", "/y"));
    assert!(!ambiguous("/x", "/x/y"));
    assert!(!ambiguous("/x/{a}/1", "/{b}/y/2"));
    assert!(!ambiguous("/x:y/{a}", "/{b}/z"), "a variable never has the value x:y");
    assert_eq!(path("/x/{a}").by_specificity(&path("/{b}/{c}")), Ordering::Less);
    assert_eq!(path("/{a}/y").by_specificity(&path("/x/y")), Ordering::Greater);
}

#[test]
fn keys_are_put_together() {
    let variables = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())];
    let key = |text: &str| KeyTemplate::parse(text).unwrap().key(&variables);
    assert_eq!(key("fixed"), "fixed");
    assert_eq!(key("x:{a}:{b}{a}"), "x:1:21");
    assert_eq!(key("{{tag}}:{a}"), "{tag}:1");
    assert_eq!(key("{{{a}}}"), "{1}");
    for text in ["", "{", "}", "{a", "a}", "{}", "{a}}", "{ a }", "{{}", "{a{b}}"] {
        assert!(KeyTemplate::parse(text).is_err(), "{text:?}");
    }
    assert!(KeyTemplate::parse("{a}{b}").unwrap().is_bare());
    assert!(!KeyTemplate::parse("x{a}").unwrap().is_bare());
}

#[test]
fn a_key_is_told_from_those_that_no_value_makes() {
    let may_be = |template: &str, key: &str| KeyTemplate::parse(template).unwrap().may_be(key);
    assert!(may_be("siem:logs", "siem:logs") && !may_be("siem:logs", "siem:logs2"));
    assert!(may_be("events:{name}", "events:a.b-c") && !may_be("events:{name}", "events:"));
    assert!(!may_be("events:{name}", "events:a b") && !may_be("events:{name}", "other:a"));
    assert!(may_be("{a}:{b}", "x:y") && may_be("{a}{b}-", "abc-") && !may_be("{a}:{b}", "x:y:z"));
    assert!(may_be("{{{a}}}:x", "{tag}:x") && !may_be("{{{a}}}:x", "tag:x"));
    let long = "x".repeat(VARIABLE_MAX_BYTES);
    assert!(may_be("e:{n}", &format!("e:{long}")) && !may_be("e:{n}", &format!("e:{long}x")));
}

proptest! {
    #![proptest_config(crate::seed::cases())]

    #[test]
    fn no_template_and_no_path_does_harm(template in "\\PC*", path in "\\PC*") {
        let _ = KeyTemplate::parse(&template);
        if let Ok(template) = PathTemplate::parse(&template) {
            let _ = template.matches(&path);
        }
    }

    #[test]
    fn braces_do_no_harm(template in "[{}a/%]{0,12}", raw in "[%0-9a-fA-F./{}]{0,24}") {
        let _ = KeyTemplate::parse(&template);
        if let Ok(template) = PathTemplate::parse(&template) {
            let _ = template.matches(&raw);
        }
        let _ = path("/{a}/{b}").matches(&raw);
    }

    #[test]
    fn a_variable_stays_within_its_characters(segment in "(%[0-9a-fA-F]{2}|\\PC){0,140}") {
        if let Some(value) = name(&format!("/events/{segment}")) {
            prop_assert!(is_value(&value));
        }
    }

    #[test]
    fn every_value_arrives_however_it_is_encoded(value in "[A-Za-z0-9._-]{1,128}") {
        prop_assume!(value != "." && value != "..");
        let encoded = percent_encoding::percent_encode(value.as_bytes(), &MORE_THAN_NEEDED).to_string();
        prop_assert_eq!(name(&format!("/events/{value}")), Some(value.clone()));
        prop_assert_eq!(name(&format!("/events/{encoded}")), Some(value));
    }

    #[test]
    fn unambiguous_templates_have_an_order(
        a in "(/(x|y|\\{a\\})){1,3}", b in "(/(x|y|\\{a\\})){1,3}", raw in "(/(x|y)){1,3}",
    ) {
        let (Ok(a), Ok(b)) = (PathTemplate::parse(&a), PathTemplate::parse(&b)) else { return Ok(()) };
        if a.matches(&raw).is_some() && b.matches(&raw).is_some() && !a.is_ambiguous_with(&b) {
            prop_assert_ne!(a.by_specificity(&b), Ordering::Equal);
        }
    }
}
