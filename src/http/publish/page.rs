//! Whether a page may publish: a browser lets any page of any site send a `POST`, with the browser's cookies,
//! and only keeps the answer from it.

use hyper::Request;
use hyper::header::ORIGIN;

use crate::auth::cookies::is_of_host;
use crate::config::{Cors, Origins};

/// Whether a page sent this that may not publish: one of another origin that `[cors]` does not list.
///
/// Whoever sends neither header is no browser's page.
pub(in crate::http) fn is_foreign<B>(cors: &Cors, request: &Request<B>) -> bool {
    let header = |name: &str| request.headers().get(name).filter(|value| !value.is_empty());
    let origin = header(ORIGIN.as_str());
    let is_listed =
        origin.is_some_and(|origin| cors.origins == Origins::Any || cors.origins.lists(origin));
    if is_listed {
        return false;
    }
    match (header("sec-fetch-site"), origin) {
        (Some(site), _) => site != "same-origin" && site != "none",
        (None, Some(origin)) => !is_of_host(origin, request),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::cookies::tests::{listed, request};

    fn is_refused(cors: &Cors, pairs: &[(&'static str, &'static str)]) -> bool {
        let mut asks = Request::new(());
        *asks.headers_mut() = request(pairs);
        is_foreign(cors, &asks)
    }

    #[test]
    fn pages_of_our_own_origin_and_of_those_that_are_listed_may_publish() {
        let own = [
            &[][..],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://other.example")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://gw.example"), ("host", "gw.example")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")],
            &[("origin", "https://app.example")],
        ];
        let foreign = [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("origin", "https://evil.gw.example")],
            &[("origin", "https://evil.example"), ("host", "gw.example")],
            &[("origin", "null"), ("host", "gw.example")],
        ];
        // Whether cookies count is another question.
        for cors in [listed(true), listed(false)] {
            assert!(own.iter().all(|pairs| !is_refused(&cors, pairs)));
            assert!(foreign.iter().all(|pairs| is_refused(&cors, pairs)));
        }
        let any = Cors { origins: Origins::Any, ..listed(false) };
        assert!(!is_refused(
            &any,
            &[("sec-fetch-site", "cross-site"), ("origin", "https://x.example")]
        ));
        assert!(
            is_refused(&any, &[("sec-fetch-site", "cross-site")]),
            "of no origin that is known"
        );
    }
}
