//! Pages of other origins: which of them may read a stream, and whether with a browser's cookies.
//! <https://fetch.spec.whatwg.org/#http-cors-protocol>

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, COOKIE, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Request};

use crate::auth::cookies::is_of_host;
use crate::config::{Cors, Origins};

/// Headers that every page may send: `EventSource` asks in a preflight for an id that is no id of ours, and other
/// clients send a token.
const REQUEST_HEADERS: [&str; 3] = ["authorization", "cache-control", "last-event-id"];
/// Those that a page may send to publish, besides.
const PUBLISH_HEADERS: [&str; 2] = ["content-type", "idempotency-key"];
/// Headers of ours that a page may read and that it could not read by itself.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static("retry-after");
/// Browsers ask again after ten minutes: no later they see a change of the configuration.
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// The headers of a response to `request` that tell the browser what its page may do.
pub fn headers(cors: &Cors, request: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    match &cors.origins {
        Origins::None => {}
        Origins::Any => {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Origins::Listed(_) => {
            // Also without an origin: a cache must not give one origin's response to another.
            headers.insert(VARY, HeaderValue::from_static("origin"));
            let is_listed = |origin: &&HeaderValue| cors.origins.lists(origin);
            let Some(origin) = request.get(ORIGIN).filter(is_listed) else { return headers };
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if cors.credentials {
                let yes = HeaderValue::from_static("true");
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            }
        }
    }
    if cors.origins != Origins::None {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
    }
    headers
}

/// What our headers let a page do with a stream, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageAccess {
    /// Nothing: it is of our own origin, no page at all, or may not read.
    None,
    /// Read it.
    Read,
    /// Read it with the browser's cookies.
    ReadWithCookies,
}

/// What our headers let the page do that sent `request`.
pub fn page_access<B>(cors: &Cors, request: &Request<B>) -> PageAccess {
    let is_elsewhere = |origin: &HeaderValue| !is_of_host(origin, request);
    let allowed = headers(cors, request.headers());
    if !request.headers().get(ORIGIN).is_some_and(is_elsewhere)
        || !allowed.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
    {
        PageAccess::None
    } else if request.headers().contains_key(COOKIE)
        && allowed.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS)
    {
        PageAccess::ReadWithCookies
    } else {
        PageAccess::Read
    }
}

/// Whether this is a preflight: a browser asks what a page may send.
pub fn is_preflight<B>(cors: &Cors, request: &Request<B>) -> bool {
    cors.origins != Origins::None
        && request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight, besides [`headers`]; `None`: the origin may not read.
///
/// `publishes`: it is about a route where entries may be added.
pub fn preflight(cors: &Cors, publishes: bool, request: &HeaderMap) -> Option<HeaderMap> {
    if !headers(cors, request).contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        return None;
    }
    let mut allowed = HeaderMap::new();
    let methods = if publishes { "GET, HEAD, POST" } else { "GET, HEAD" };
    allowed.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    let publishing = if publishes { &PUBLISH_HEADERS[..] } else { &[] };
    let names = REQUEST_HEADERS.iter().chain(publishing).copied();
    let names = names.chain(cors.headers.iter().map(HeaderName::as_str));
    let names = names.collect::<Vec<_>>().join(", ");
    let names = names.parse().expect("names of headers are a value of one");
    allowed.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
    allowed.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
    Some(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::cookies::tests::{listed, request};

    #[test]
    fn a_wildcard_stands_for_one_label_of_the_domain() {
        let text = "[source]\nurl = \"memory:\"\n[cors]\norigins = [\"https://*.example.com\", \"http://*.localhost:3000\", \"capacitor://localhost\"]\n[[route]]\npath = \"/a\"\nkey = \"a\"\naccess = \"public\"\n";
        let cors = crate::config::parse(text, "f", &[], false).unwrap().config.cors;
        let allowed = |origin| {
            let headers = headers(&cors, &request(&[("origin", origin)]));
            headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
        };
        for listed in [
            "https://a.example.com",
            "https://xn--mnchen-3ya.example.com",
            "http://tenant-1.localhost:3000",
            "capacitor://localhost",
        ] {
            assert!(allowed(listed), "{listed}");
        }
        for other in [
            "https://example.com",
            "https://.example.com",
            "https://a.b.example.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://a.example.com.evil",
            "https://evil.com/.example.com",
            "https://evil.com#.example.com",
            "https://evilexample.com",
            "http://a.localhost",
            "capacitor://localhost.evil",
            "ionic://localhost",
        ] {
            assert!(!allowed(other), "{other}");
        }
    }

    #[test]
    fn only_an_origin_that_is_listed_exactly_is_echoed() {
        let allowed = |origin| {
            let headers = headers(&listed(true), &request(&[("origin", origin)]));
            assert_eq!(headers.get(VARY).unwrap(), "origin");
            headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
        };
        assert_eq!(allowed("https://app.example").unwrap(), "https://app.example");
        for other in [
            "http://app.example",
            "https://app.example:8443",
            "https://app.example.evil",
            "https://evil-app.example",
            "null",
            "*",
            "",
        ] {
            assert_eq!(allowed(other), None, "{other}");
        }
    }
}
