//! The responses of the public side: heads of streams, refusals, the demo's page.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Response, StatusCode};

use super::plan::Plan;
use crate::sse::MEDIA_TYPE;

/// The demo's page.
pub(super) fn demo_page() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(crate::demo::PAGE));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A response with a line of text, which says to a developer what is wrong.
pub fn text(status: StatusCode, message: &str) -> Box<Response<Full<Bytes>>> {
    let mut response = Response::new(Full::from(format!("{message}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Box::new(response)
}

/// A response with JSON.
pub fn json(status: StatusCode, content: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Besides the content type, they make proxies pass each event on at once.
const STREAM_HEADERS: &[(&str, &str)] = &[
    ("content-type", MEDIA_TYPE),
    ("cache-control", "no-cache, no-transform"),
    ("x-accel-buffering", "no"),
];

/// Every status code of ours, for metrics that start at zero.
pub const STATUSES: [u16; 19] =
    [200, 204, 400, 401, 403, 404, 405, 406, 408, 409, 413, 414, 415, 421, 429, 431, 501, 503, 504];
/// The status code of an accepted stream.
pub(super) const STREAM_STATUS: u16 = 200;
/// The status code of a refused stream, where `server.refuse` asks for one.
pub(super) const REFUSED_STATUS: u16 = 503;
/// The status code where the stream is over, or there is none: an `EventSource` does not come back.
pub(super) const OVER_STATUS: u16 = 204;
/// What hyper itself answers to a head that it cannot parse.
pub(super) const MALFORMED_STATUS: u16 = 400;
/// What hyper answers to a head that is too large.
pub(super) const TOO_LARGE_STATUS: u16 = 431;

/// The head of a stream's response, for a socket that has left hyper.
pub fn stream_head(plan: &Plan) -> Vec<u8> {
    let mut head = status_line(plan.framed, "200 OK").into_bytes();
    // With it Node's fetch takes the body for whole where it is not.
    if !(plan.framed && plan.cuts) {
        append_header(&mut head, "connection", b"close");
    }
    for (name, value) in STREAM_HEADERS {
        append_header(&mut head, name, value.as_bytes());
    }
    if plan.framed {
        append_header(&mut head, "transfer-encoding", b"chunked");
    }
    append_headers(&mut head, &plan.stream_headers);
    end_of_head(head, &plan.headers)
}

/// A stream's response, for hyper.
pub(super) fn stream_response<B>(plan: &Plan, body: B) -> Response<B> {
    let mut response = Response::new(body);
    for (name, value) in STREAM_HEADERS {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    response.headers_mut().extend(HeaderMap::clone(&plan.stream_headers));
    response.headers_mut().extend(plan.headers.clone());
    response
}

fn append_header(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

fn append_headers(head: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        append_header(head, name.as_str(), value.as_bytes());
    }
}

fn end_of_head(mut head: Vec<u8>, headers: &HeaderMap) -> Vec<u8> {
    append_headers(&mut head, headers);
    head.extend_from_slice(b"\r\n");
    head
}

/// A whole response that refuses a stream with a status code, for a socket that has left hyper.
pub(super) fn refused(plan: &Plan, retry_after: Duration, reason: &str) -> Vec<u8> {
    let mut headers = plan.headers.clone();
    headers.insert(RETRY_AFTER, retry_after.as_secs().max(1).into());
    closing(plan.framed, StatusCode::SERVICE_UNAVAILABLE, &refused_body(reason), &headers)
}

/// A whole response without a body, where the stream is over or there is none.
pub(super) fn over(plan: &Plan) -> Vec<u8> {
    let mut head = status_line(plan.framed, "204 No Content").into_bytes();
    append_header(&mut head, "connection", b"close");
    append_header(&mut head, "cache-control", b"no-store");
    end_of_head(head, &plan.headers)
}

/// The same, for hyper.
pub(super) fn over_response(plan: &Plan) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().extend(plan.headers.clone());
    response
}

/// A whole response with a line of text, after which the connection closes.
pub(super) fn closing(
    framed: bool,
    status: StatusCode,
    message: &str,
    headers: &HeaderMap,
) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let status = status_line(framed, &format!("{} {reason}", status.as_u16()));
    let length = message.len() + 1;
    let head = format!(
        "{status}connection: close\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\ncontent-length: {length}\r\n"
    );
    let mut response = end_of_head(head.into_bytes(), headers);
    response.extend_from_slice(message.as_bytes());
    response.push(b'\n');
    response
}

/// Why a head is refused that is too large.
pub(super) fn too_large(header_bytes: usize) -> String {
    format!(
        "the head is larger than {header_bytes} bytes, or has too many lines (limits.header_bytes)"
    )
}

/// The same, for hyper.
pub(super) fn refused_response(
    plan: &Plan,
    retry_after: Duration,
    reason: &str,
) -> Response<Full<Bytes>> {
    let mut response = *text(StatusCode::SERVICE_UNAVAILABLE, &refused_body(reason));
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, retry_after.as_secs().max(1).into());
    headers.extend(plan.headers.clone());
    response
}

fn refused_body(reason: &str) -> String {
    format!("not now: {reason}")
}

fn status_line(framed: bool, status: &str) -> String {
    let version = if framed { "1.1" } else { "1.0" };
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    format!("HTTP/{version} {status}\r\ndate: {date}\r\n")
}
