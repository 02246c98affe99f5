//! Whether a token in a cookie counts. A browser adds cookies to requests of any site's page, so the page
//! that asks has to be one that may use them.

use hyper::Request;
use hyper::header::{HeaderValue, ORIGIN};

use super::host;
use crate::config::Cors;

/// Whether a cookie counts for this request: for pages of our own origin, for those of origins that may use
/// credentials, and for clients that send neither header, which no current browser does.
pub fn may_use_cookies<B>(cors: &Cors, request: &Request<B>) -> bool {
    let header = |name: &str| request.headers().get(name).filter(|value| !value.is_empty());
    let is_listed = |origin| cors.origins.lists(origin);
    let trusted = || cors.credentials && header(ORIGIN.as_str()).is_some_and(is_listed);
    match (header("sec-fetch-site"), header(ORIGIN.as_str())) {
        (Some(site), _) => site == "same-origin" || site == "none" || trusted(),
        (None, Some(origin)) => is_of_host(origin, request) || trusted(),
        (None, None) => true,
    }
}

/// Whether this origin is that of the host that the request names.
pub fn is_of_host<B>(origin: &HeaderValue, request: &Request<B>) -> bool {
    let Some((scheme, own)) = origin.to_str().ok().and_then(|origin| origin.split_once("://"))
    else {
        return false;
    };
    let own_port = match scheme {
        "http" => "80",
        "https" => "443",
        _ => return false,
    };
    let (asked, asked_port) = host::parts(host::asked(request), own_port);
    let (own, port) = host::parts(own, own_port);
    !asked.is_empty() && own.eq_ignore_ascii_case(asked) && port == asked_port
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{AllowedOrigin, Origins};
    use hyper::HeaderMap;

    pub(crate) fn request(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn asks(pairs: &[(&'static str, &'static str)]) -> Request<()> {
        let mut asks = Request::new(());
        *asks.headers_mut() = request(pairs);
        asks
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
            &[("origin", "https://gateway.example"), ("host", "Gateway.example.:443")],
            &[("origin", ""), ("sec-fetch-site", "")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")],
        ];
        for pairs in own {
            assert!(may_use_cookies(&listed(true), &asks(pairs)), "{pairs:?}");
        }
        let foreign = [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("origin", "https://evil.example")],
            &[("sec-fetch-site", ""), ("origin", "null")],
            &[("origin", "https://gateway.example.evil"), ("host", "gateway.example")],
            &[("origin", "https://gateway.example"), ("host", "gateway.example:80")],
            &[("origin", "capacitor://gateway.example"), ("host", "gateway.example")],
            &[("origin", "https://")],
            &[("origin", "null")],
        ];
        for pairs in foreign {
            assert!(!may_use_cookies(&listed(true), &asks(pairs)), "{pairs:?}");
        }
        let app = asks(&[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")]);
        assert!(!may_use_cookies(&listed(false), &app));
        let any = Cors { origins: Origins::Any, ..listed(false) };
        assert!(!may_use_cookies(&any, &app));
    }
}
