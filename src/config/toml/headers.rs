//! Reads `headers` of a route: further headers of its responses, none of which may change what the gateway
//! says in its own.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::section::Section;
use crate::config::units::{Item, WrittenValue};

/// Headers of one connection, which a response must not carry over HTTP/2 and which frame the body over HTTP/1.
const OF_A_CONNECTION: [&str; 6] =
    ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// Headers that the gateway writes, and those that would say something else of its body.
const OWN: [&str; 11] = [
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "referrer-policy",
    "retry-after",
    "vary",
    "www-authenticate",
    "x-accel-buffering",
];

pub(super) fn headers(section: &mut Section<'_, '_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let found = section.found("headers", WrittenValue::Table(Vec::new()));
    section.show(&found, found.value.to_string());
    let WrittenValue::Table(items) = &found.value else {
        section.fault(&found, "not a table of headers; write { \"x-name\" = \"value\" }");
        return headers;
    };
    for item in items {
        let read = name(item).and_then(|name| {
            let value = value(item)?;
            match headers.insert(name, value) {
                Some(_) => {
                    Err("is there twice, for the case of a name does not count; remove one".into())
                }
                None => Ok(()),
            }
        });
        if let Err(why) = read {
            section.fault_in(&found, item.name_at, &item.name.as_str().into(), &why);
        }
    }
    headers
}

fn name(item: &Item) -> Result<HeaderName, String> {
    let name: HeaderName =
        item.name.parse().map_err(|_| "not a header's name; write it as in \"x-name\"")?;
    let text = name.as_str();
    if OF_A_CONNECTION.contains(&text) || text.starts_with("proxy-") {
        return Err(
            "is about one connection, and the gateway and proxies write it; remove it".into()
        );
    }
    if OWN.contains(&text) {
        return Err("is the gateway's own; remove it".into());
    }
    if text.starts_with("access-control-") {
        return Err("is for pages of other origins; write it in [cors]".into());
    }
    if text == "set-cookie" {
        return Err("would give every client the same cookie; let the application set it".into());
    }
    Ok(name)
}

fn value(item: &Item) -> Result<HeaderValue, String> {
    const EXPECTED: &str = "has no usable value; write a text of ASCII without control characters, and without a space at either end";
    let WrittenValue::Text(text) = &item.value else { return Err(EXPECTED.into()) };
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    // HTTP/2 forbids them; HTTP/1 drops them.
    if !is_plain || text.trim() != text {
        return Err(EXPECTED.into());
    }
    HeaderValue::from_str(text).map_err(|_| EXPECTED.into())
}
