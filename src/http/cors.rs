//! Pages of other origins: which may read a stream, and whether a browser's cookies count for them.
//! <https://fetch.spec.whatwg.org/#http-cors-protocol>

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, COOKIE,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Request};

use crate::auth::cookies::{is_listed, is_of_host};
use crate::config::{Cors, Origins};

/// What a stream is asked for with. `EventSource` itself sends an id that is no id of ours only after a
/// preflight, and other clients send a token.
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, cache-control, last-event-id");
/// Browsers ask again after ten minutes; a change of the configuration is seen by then.
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// What a response says to the browser of whoever sent `request`.
pub fn headers(cors: &Cors, request: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    match &cors.origins {
        Origins::None => {}
        Origins::Any => {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Origins::Listed(listed) => {
            // Also where no origin is named: a cache must not hand on what was for another one.
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

/// What a page may do with a stream because we say so, from the least on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading {
    /// Nothing: it is of our own origin, or no page, or may not read at all.
    Unsaid,
    /// Read it.
    Plain,
    /// Read it with a browser's cookies.
    WithCookies,
}

/// What we let the page do that sent `request`.
pub fn reading(cors: &Cors, request: &HeaderMap) -> Reading {
    let is_elsewhere = |origin: &HeaderValue| !is_of_host(origin, request);
    let said = headers(cors, request);
    if !request.get(ORIGIN).is_some_and(is_elsewhere)
        || !said.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
    {
        Reading::Unsaid
    } else if request.contains_key(COOKIE) && said.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS) {
        Reading::WithCookies
    } else {
        Reading::Plain
    }
}

/// Whether a browser asks what it may ask for.
pub fn is_preflight<B>(cors: &Cors, request: &Request<B>) -> bool {
    cors.origins != Origins::None
        && request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight, besides [`headers`]; `None`: that origin may not ask for anything.
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

    fn request(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn listed(credentials: bool) -> Cors {
        let origin = HeaderValue::from_static("https://app.example");
        Cors { origins: Origins::Listed(vec![origin]), credentials }
    }

    #[test]
    fn an_origin_is_echoed_only_if_it_is_listed_to_the_letter() {
        let allowed = |origin| {
            let headers = headers(&listed(true), &request(&[("origin", origin)]));
            assert_eq!(headers.get(VARY).unwrap(), "origin");
            headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
        };
        assert_eq!(allowed("https://app.example").unwrap(), "https://app.example");
        for stranger in [
            "http://app.example",
            "https://app.example:8443",
            "https://app.example.evil",
            "https://evil-app.example",
            "null",
            "*",
            "",
        ] {
            assert_eq!(allowed(stranger), None, "{stranger}");
        }
    }
}
