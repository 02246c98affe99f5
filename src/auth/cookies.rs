//! Whether a token in a cookie counts. A browser adds cookies to requests of any site's page, so the page
//! that asks has to be one that may use them.

use hyper::HeaderMap;
use hyper::header::{HOST, HeaderValue, ORIGIN};

use crate::config::Cors;

/// Whether a cookie counts for this request: for pages of our own origin, for those of origins that may use
/// credentials, and for clients that send neither header, which no current browser does.
pub fn may_use_cookies(cors: &Cors, request: &HeaderMap) -> bool {
    let is_listed = |origin| cors.origins.lists(origin);
    let trusted = || cors.credentials && request.get(ORIGIN).is_some_and(is_listed);
    match (request.get("sec-fetch-site"), request.get(ORIGIN)) {
        (Some(site), _) => site == "same-origin" || site == "none" || trusted(),
        (None, Some(origin)) => is_of_host(origin, request) || trusted(),
        (None, None) => true,
    }
}

/// Whether this origin is that of the host that the request names.
pub fn is_of_host(origin: &HeaderValue, request: &HeaderMap) -> bool {
    let host = request.get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let schemes = [&b"http://"[..], b"https://"];
    let mut names = schemes.iter().filter_map(|scheme| origin.as_bytes().strip_prefix(*scheme));
    !host.is_empty() && names.any(|name| name.eq_ignore_ascii_case(host))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{AllowedOrigin, Origins};

    pub(crate) fn request(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    pub(crate) fn listed(credentials: bool) -> Cors {
        let origin = AllowedOrigin::Exact(HeaderValue::from_static("https://app.example"));
        Cors { origins: Origins::Listed(vec![origin]), credentials, headers: Vec::new() }
    }

    #[test]
    fn a_cookie_counts_for_our_own_pages_and_those_that_may_use_credentials() {
        let own = [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://gateway.example:8443"), ("host", "gateway.example:8443")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")],
        ];
        for pairs in own {
            assert!(may_use_cookies(&listed(true), &request(pairs)), "{pairs:?}");
        }
        let foreign = [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("origin", "https://evil.example")],
            &[("sec-fetch-site", ""), ("origin", "null")],
            &[("origin", "https://gateway.example.evil"), ("host", "gateway.example")],
            &[("origin", "https://")],
            &[("origin", "null")],
        ];
        for pairs in foreign {
            assert!(!may_use_cookies(&listed(true), &request(pairs)), "{pairs:?}");
        }
        let app = request(&[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")]);
        assert!(!may_use_cookies(&listed(false), &app));
        let any = Cors { origins: Origins::Any, ..listed(false) };
        assert!(!may_use_cookies(&any, &app));
    }
}
