//! Responses of the admin listener, and the refusals among them.

use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};

/// A body that is there at once.
pub(super) type Full = http_body_util::Full<Bytes>;
/// A response that says why not.
pub(super) type Refusal = Box<Response<Full>>;

pub(super) fn json_body(content: &serde_json::Value) -> Response<Full> {
    body("application/json", content.to_string())
}

pub(super) fn body(content_type: &'static str, content: String) -> Response<Full> {
    let mut response = Response::new(Full::from(content));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type.parse().expect("a header value"));
    headers.insert(CACHE_CONTROL, "no-store".parse().expect("a header value"));
    response
}
