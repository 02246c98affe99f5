//! The operator's page: three files, and nothing from other servers. They hold no secrets, so they need no
//! token; the page asks for it, and gets its data from `/overview` and `/tail/{key}`.

use hyper::Response;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

use super::response::Full;

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// One script, in the order in which its parts need each other.
const SCRIPT: &str = concat!(
    "\"use strict\";\n",
    include_str!("page/live.js"),
    include_str!("page/chart.js"),
    include_str!("page/streams.js"),
    include_str!("page/tail.js"),
    include_str!("page/page.js"),
);

/// Allows these files and what they fetch from this listener, and no markup made from text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

/// The file at `path`, if it is one of the page's; `/` is, for clients that accept markup.
pub(super) fn file(path: &str, headers: &HeaderMap) -> Option<Response<Full>> {
    let (content_type, content) = match path {
        "/" if wants_markup(headers) => ("text/html; charset=utf-8", HTML),
        "/page.css" => ("text/css; charset=utf-8", STYLE),
        "/page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => return None,
    };
    let mut response = Response::new(Full::from(content));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    harden(headers);
    Some(response)
}

/// Keeps pages of other origins from using a response.
pub(super) fn harden(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(policy, HeaderValue::from_static("same-origin"));
}

fn wants_markup(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_other_servers_and_makes_no_markup_from_text() {
        for part in [HTML, STYLE, SCRIPT] {
            let without_namespace = part.replace("http://www.w3.org/2000/svg", "");
            for foreign in ["https://", "http://", "url(", "@import"] {
                assert!(!without_namespace.contains(foreign), "{foreign} in the page");
            }
        }
        for maker in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!SCRIPT.contains(maker), "{maker}");
        }
        for inline in ["<style", "style=", "onclick", "onload", "onerror", "javascript:"] {
            assert!(!HTML.contains(inline), "{inline}: the policy forbids it");
        }
    }
}
