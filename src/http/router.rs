//! Which request gets what: the only file that knows status codes of the public side.
//!
//! - `GET` of a route's path: a stream; `HEAD`: its head alone
//! - `OPTIONS` of it, from a page of another origin: what the page may ask for
//! - `GET /` under `--demo`: the page
//! - anything else: refused, with a line of text that says why

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderValue,
    REFERRER_POLICY, RETRY_AFTER, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};

use super::{cors, start_param};
use crate::auth::TokenEnd;
use crate::auth::grant::{AuthContext, Credential};
use crate::auth::{Admission, Denied, Gate};
use crate::config::{Config, Route};
use crate::stream::start::Start;

/// What a request gets.
pub enum Decision {
    /// A stream; the socket leaves hyper.
    Stream(Plan),
    /// An ordinary response.
    Respond(Response<Full<Bytes>>),
}

/// A stream that a client asked for and may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Index of its route in the configuration.
    pub route: usize,
    /// The stream key.
    pub key: String,
    /// Where it begins.
    pub start: Start,
    /// HTTP/1.1: chunks; HTTP/1.0: the end of the connection ends the body.
    pub framed: bool,
    /// What its response says besides what each stream's says.
    pub headers: HeaderMap,
    /// Who reads it, where a token says so.
    pub principal: Option<Arc<str>>,
    /// When its token ends, where it has one.
    pub token: Option<TokenEnd>,
    /// The token itself.
    pub credential: Option<Credential>,
    /// Why it cannot be served now, where that is known already.
    pub unavailable: Option<&'static str>,
}

/// Decides what a request gets.
pub fn decide<B>(config: &Config, gate: &Gate, request: &Request<B>) -> Decision {
    let mut headers = cors::headers(&config.cors, request.headers());
    if gate.reads_query() {
        // A page that is shown for such a URL would pass it on.
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    match plan(config, gate, request) {
        Ok(Decision::Stream(mut plan)) => {
            plan.headers.extend(headers);
            Decision::Stream(plan)
        }
        Ok(Decision::Respond(mut response)) => {
            response.headers_mut().extend(headers);
            Decision::Respond(response)
        }
        // A page that may read is to see why not.
        Err(mut refusal) => {
            refusal.headers_mut().extend(headers);
            Decision::Respond(*refusal)
        }
    }
}

/// Whether whoever has a stream on this basis would be let in to it once more by this request.
pub fn still_allows<B>(
    config: &Config,
    gate: &Gate,
    request: &Request<B>,
    context: &AuthContext,
) -> bool {
    let found = find(config, request.uri().path()).ok();
    let is_still_allowed = found.is_some_and(|(_, route, variables)| {
        route.key.key(&variables) == *context.key
            && gate.still_allows(route, &variables, request, context.credential.as_ref())
    });
    is_still_allowed && check_host(config, request).is_ok()
}

/// What a request may ask with: its target, and the query in it, where tokens are.
const TARGET_BYTES: usize = 8 << 10;
const QUERY_BYTES: usize = 6 << 10;

/// A refusal, and which limit's it is, where the target is longer than anybody needs.
pub fn too_long(target: &Uri) -> Option<(&'static str, Refusal)> {
    let query = target.query().map_or(0, str::len);
    let all = target.path().len() + query;
    let (reason, most) = if query > QUERY_BYTES {
        ("query", QUERY_BYTES)
    } else if all > TARGET_BYTES {
        ("request_line", TARGET_BYTES)
    } else {
        return None;
    };
    let message = format!("longer than {most} bytes: {reason}");
    Some((reason, text(StatusCode::URI_TOO_LONG, &message)))
}

type Refusal = Box<Response<Full<Bytes>>>;

fn plan<B>(config: &Config, gate: &Gate, request: &Request<B>) -> Result<Decision, Refusal> {
    check_host(config, request)?;
    let path = request.uri().path();
    if config.demo && path == "/" {
        check_method(request)?;
        return Ok(Decision::Respond(page()));
    }
    let (index, route, variables) = find(config, path)?;
    if cors::is_preflight(&config.cors, request) {
        return preflight(config, request.headers()).map(Decision::Respond);
    }
    check_method(request)?;
    let (grant, unavailable) = match gate.admit(route, &variables, request) {
        Ok(grant) => (grant, None),
        // Not the client's fault, and to be tried again.
        Err(Denied::Keys) => (Admission::default(), Some("keys")),
        Err(denied) => return Err(denial(denied)),
    };
    check_accept(request.headers())?;
    check_bodiless(request.headers())?;
    let start = start_param::start(request, route.replay).map_err(|why| bad(&why))?;
    let plan = Plan {
        route: index,
        key: route.key.key(&variables),
        start,
        framed: request.version() == Version::HTTP_11,
        headers: HeaderMap::new(),
        principal: grant.principal,
        token: grant.token,
        credential: grant.credential,
        unavailable,
    };
    if request.method() == Method::HEAD {
        return match unavailable {
            None => Ok(Decision::Respond(stream_response(&plan, Full::default()))),
            Some(_) => Err(text(StatusCode::SERVICE_UNAVAILABLE, "not now")),
        };
    }
    Ok(Decision::Stream(plan))
}

/// Against DNS rebinding: a name that is not ours was resolved to our address by somebody else.
fn check_host<B>(config: &Config, request: &Request<B>) -> Result<(), Refusal> {
    if request.headers().get_all(HOST).iter().count() > 1 {
        // Which of them a proxy before us went by nobody knows (RFC 9112, 3.2).
        return Err(bad("more than one Host"));
    }
    let allowed = &config.server.hosts;
    if allowed.is_empty() {
        return Ok(());
    }
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host =
        request.uri().authority().map(hyper::http::uri::Authority::as_str).or(header).unwrap_or("");
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let known = allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    if known {
        Ok(())
    } else {
        Err(text(StatusCode::MISDIRECTED_REQUEST, "this Host is not served here (server.hosts)"))
    }
}

/// A route, its index, and its variables in a request.
type Found<'a> = (usize, &'a Route, Vec<(String, String)>);

/// The most specific route that matches.
fn find<'a>(config: &'a Config, path: &str) -> Result<Found<'a>, Refusal> {
    let matching = config.routes.iter().enumerate().filter_map(|(index, route)| {
        let variables = route.path.matches(path)?;
        Some((index, route, variables))
    });
    // No two routes are equally specific: the configuration would have been refused.
    let best = matching.min_by(|(_, a, _), (_, b, _)| a.path.by_specificity(&b.path));
    best.ok_or_else(|| text(StatusCode::NOT_FOUND, "no such route"))
}

/// Who is not let in learns whether another token may help, and no more (RFC 6750, 3).
fn denial(denied: Denied) -> Refusal {
    let (message, challenge) = match denied {
        Denied::Match => {
            return text(StatusCode::FORBIDDEN, "the token is good, and not for this path");
        }
        Denied::Missing => ("a token is needed", "Bearer"),
        _ => ("the token is not accepted", "Bearer error=\"invalid_token\""),
    };
    let mut response = text(StatusCode::UNAUTHORIZED, message);
    let challenge = HeaderValue::from_static(challenge);
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

fn preflight(config: &Config, request: &HeaderMap) -> Result<Response<Full<Bytes>>, Refusal> {
    let Some(headers) = cors::preflight(&config.cors, request) else {
        return Err(text(StatusCode::FORBIDDEN, "no pages of this origin (cors.origins)"));
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = headers;
    Ok(response)
}

fn check_method<B>(request: &Request<B>) -> Result<(), Refusal> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(());
    }
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
    response.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("a header value"));
    Err(response)
}

/// A client that takes no event stream at all would not understand one.
fn check_accept(headers: &HeaderMap) -> Result<(), Refusal> {
    // How specific the best range so far is, and whether it is accepted; nothing named: anything is.
    let mut best = None;
    let mut named = false;
    for value in headers.get_all(ACCEPT) {
        for range in value.to_str().unwrap_or("*/*").split(',') {
            named = true;
            let mut parts = range.split(';').map(str::trim);
            let specificity = match &*parts.next().unwrap_or("").to_ascii_lowercase() {
                "text/event-stream" => 2,
                "text/*" => 1,
                "*/*" => 0,
                _ => continue,
            };
            let refused = parts.any(
                |p| matches!(p.strip_prefix("q=").map(str::parse::<f32>), Some(Ok(q)) if q <= 0.0),
            );
            best = best.max(Some((specificity, !refused)));
        }
    }
    if best.map_or(!named, |(_, accepted)| accepted) {
        return Ok(());
    }
    Err(text(StatusCode::NOT_ACCEPTABLE, "this is an event stream: accept text/event-stream"))
}

fn check_bodiless(headers: &HeaderMap) -> Result<(), Refusal> {
    let empty = headers.get(CONTENT_LENGTH).is_none_or(|length| length.as_bytes() == b"0");
    if empty && !headers.contains_key(TRANSFER_ENCODING) && !headers.contains_key(EXPECT) {
        return Ok(());
    }
    Err(text(StatusCode::BAD_REQUEST, "a stream is asked for without a body and without Expect"))
}

fn bad(message: &str) -> Refusal {
    text(StatusCode::BAD_REQUEST, message)
}

fn page() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(crate::demo::PAGE));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, "text/html; charset=utf-8".parse().expect("a header value"));
    headers.insert(CACHE_CONTROL, "no-cache".parse().expect("a header value"));
    response
}

/// A refusal, with a line of text for whoever debugs it.
pub fn text(status: StatusCode, message: &str) -> Box<Response<Full<Bytes>>> {
    let mut response = Response::new(Full::from(format!("{message}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, "text/plain; charset=utf-8".parse().expect("a header value"));
    headers.insert(CACHE_CONTROL, "no-store".parse().expect("a header value"));
    Box::new(response)
}

/// The refusal of a stream that is asked for with a body.
pub fn unwanted_body() -> Box<Response<Full<Bytes>>> {
    bad("a stream is asked for without a body")
}

/// What makes an event stream pass every proxy at once.
const STREAM_HEADERS: &[(&str, &str)] = &[
    ("content-type", "text/event-stream"),
    ("cache-control", "no-cache, no-transform"),
    ("x-accel-buffering", "no"),
];

/// Every status code that is answered with, for metrics that start at zero.
pub const STATUSES: [u16; 12] = [200, 204, 400, 401, 403, 404, 405, 406, 414, 421, 431, 503];
/// The status code of an accepted stream.
pub const STREAM_STATUS: u16 = 200;
/// The status code of one that is refused where the operator wants it so.
pub const REFUSED_STATUS: u16 = 503;
/// What hyper itself answers to a head that it cannot read.
pub const MALFORMED_STATUS: u16 = 400;
/// And to one that is too large.
pub const TOO_LARGE_STATUS: u16 = 431;

/// The head of a stream's response, as bytes for a socket that has left hyper.
pub fn stream_head(plan: &Plan) -> Vec<u8> {
    let mut head = status_line(plan.framed, "200 OK").into_bytes();
    for (name, value) in STREAM_HEADERS {
        append_header(&mut head, name, value.as_bytes());
    }
    if plan.framed {
        append_header(&mut head, "transfer-encoding", b"chunked");
    }
    end_of_head(head, plan)
}

/// A stream's response, for hyper.
pub fn stream_response<B>(plan: &Plan, body: B) -> Response<B> {
    let mut response = Response::new(body);
    for (name, value) in STREAM_HEADERS {
        response.headers_mut().insert(*name, value.parse().expect("a header value"));
    }
    response.headers_mut().extend(plan.headers.clone());
    response
}

fn append_header(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

fn end_of_head(mut head: Vec<u8>, plan: &Plan) -> Vec<u8> {
    for (name, value) in &plan.headers {
        append_header(&mut head, name.as_str(), value.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A whole response that refuses a stream, for clients that know what a status code is.
pub fn refused(plan: &Plan, retry_after: Duration, reason: &str) -> Vec<u8> {
    let body = refused_body(reason);
    let status = status_line(plan.framed, "503 Service Unavailable");
    let wait_seconds = retry_after.as_secs().max(1);
    let length = body.len() + 1;
    let head = format!(
        "{status}retry-after: {wait_seconds}\r\ncontent-type: text/plain; charset=utf-8\r\n\
         cache-control: no-store\r\ncontent-length: {length}\r\n"
    );
    let mut response = end_of_head(head.into_bytes(), plan);
    response.extend_from_slice(body.as_bytes());
    response.push(b'\n');
    response
}

/// The same, for hyper.
pub fn refused_response(plan: &Plan, retry_after: Duration, reason: &str) -> Response<Full<Bytes>> {
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
    format!("HTTP/{version} {status}\r\ndate: {date}\r\nconnection: close\r\n")
}
