//! Pages of other origins: which of them may read a stream, and whether with a browser's cookies.
//! <https://fetch.spec.whatwg.org/#http-cors-protocol>

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, COOKIE,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Request};

use crate::auth::cookies::{is_listed, is_of_host};
use crate::config::{Cors, Origins};

/// Headers that pages may send: `EventSource` asks in a preflight for an id that is no id of ours, and other
/// clients send a token.
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, cache-control, last-event-id");
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
        Origins::Listed(listed) => {
            // Also without an origin: a cache must not give one origin's response to another.
            headers.insert(VARY, HeaderValue::from_static("origin"));
            let Some(origin) = request.get(ORIGIN).filter(|origin| is_listed(listed, origin))
            else {
                return headers;
            };
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if cors.credentials {
                let yes = HeaderValue::from_static("true");
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            }
        }
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
pub fn page_access(cors: &Cors, request: &HeaderMap) -> PageAccess {
    let is_elsewhere = |origin: &HeaderValue| !is_of_host(origin, request);
    let allowed = headers(cors, request);
    if !request.get(ORIGIN).is_some_and(is_elsewhere)
        || !allowed.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
    {
        PageAccess::None
    } else if request.contains_key(COOKIE) && allowed.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS)
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
pub fn preflight(cors: &Cors, request: &HeaderMap) -> Option<HeaderMap> {
    if !headers(cors, request).contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        return None;
    }
    let mut allowed = HeaderMap::new();
    allowed.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
    allowed.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    allowed.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
    Some(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::cookies::tests::{listed, request};

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
