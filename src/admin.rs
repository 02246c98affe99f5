//! The operator's listener: probes, metrics, the state of the streams, publishing.
//!
//! - `GET /livez`, `GET /readyz`, `GET /metrics`: without a token
//! - `GET /streams`, `GET /state`, `GET /`
//! - `POST /publish/{key}`, where `admin.publish` is on

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, ORIGIN};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tracing::debug;

use crate::http::listener::{Connection, Serve};
use crate::http::peer::Peer;
use crate::http::router::text;
use crate::limits::Place;
use crate::report;
use crate::source::{Class, Error};
use crate::state::State;

/// Serves admin connections.
#[derive(Clone)]
pub struct Admin(pub Arc<State>);

/// A connection is kept no longer than this, however busy.
const MAX_AGE: Duration = Duration::from_secs(600);
/// A body of what is to be published takes no longer than this.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

type Answer = Response<Full<Bytes>>;

impl Serve for Admin {
    async fn serve<C: Connection>(self, connection: C, _: Peer, mut place: Place) {
        let state = self.0;
        let id = state.next_connection();
        let turn = place.turn();
        let service = service_fn(|request| {
            turn.put_off();
            let state = state.clone();
            async move { Ok::<_, std::convert::Infallible>(answer(&state, request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(state.config.limits.header_timeout)
            .serve_connection(TokioIo::new(connection), service);
        match place.until(MAX_AGE, served).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(connection = id.connection, %error, "admin connection ended"),
            Err(cut) => {
                debug!(connection = id.connection, why = cut.as_str(), "admin connection closed");
            }
        }
    }
}

async fn answer(state: &Arc<State>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    if let Some(key) = path.strip_prefix("/publish/") {
        return publish(state, key, request).await.unwrap_or_else(|refusal| *refusal);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = *text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        refusal.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("a header value"));
        return refusal;
    }
    match &*path {
        "/livez" => *text(StatusCode::OK, "ok"),
        "/readyz" => ready(state, request.uri().query() == Some("strict")),
        "/metrics" => metrics(state.clone()).await,
        "/streams" | "/state" | "/" if !may(state, request.headers()) => *unauthorized(),
        "/streams" => json_body(&report::streams(state)),
        "/state" => json_body(&report::gateway(state)),
        "/" => *text(
            StatusCode::OK,
            "ssegate\n\n/livez\n/readyz\n/readyz?strict\n/metrics\n/streams\n/state",
        ),
        _ => *text(StatusCode::NOT_FOUND, "no such page; / lists what there is"),
    }
}

/// Ready once Redis has answered once, and then until drain: a Redis that blinks must not empty the
/// load balancer, for the streams that are open here stay open.
fn ready(state: &State, strict: bool) -> Answer {
    let up = state.source_up.load(Ordering::Relaxed);
    let draining = state.fanout.draining.is_cancelled();
    let seen = state.source_seen.load(Ordering::Relaxed);
    let ready = !draining && seen && (up || !strict);
    let source = match (up, seen) {
        (true, _) => "up",
        (false, true) => "away",
        (false, false) => "never answered yet",
    };
    let draining = if draining { "draining" } else { "serving" };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    *text(status, &format!("{draining}\nsource: {source}"))
}

/// Beside the workers: with many clients, counting descriptors takes its time before Linux 6.2.
async fn metrics(state: Arc<State>) -> Answer {
    let render = move || state.metrics.render(&state.now());
    match tokio::task::spawn_blocking(render).await {
        Ok(text) => body("text/plain; version=0.0.4; charset=utf-8", text),
        // The process ends this moment.
        Err(error) => *text(StatusCode::SERVICE_UNAVAILABLE, &format!("no metrics: {error}")),
    }
}

async fn publish(
    state: &State,
    key: &str,
    request: Request<Incoming>,
) -> Result<Answer, Box<Answer>> {
    if !state.config.admin.publish {
        return Err(text(StatusCode::NOT_FOUND, "publishing is off (admin.publish)"));
    }
    if request.method() != Method::POST {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only POST");
        refusal.headers_mut().insert(ALLOW, "POST".parse().expect("a header value"));
        return Err(refusal);
    }
    if !may(state, request.headers()) {
        return Err(unauthorized());
    }
    let guarded = state.config.admin.token.is_some();
    if is_foreign(request.headers()) || (!guarded && is_rebound(request.headers())) {
        return Err(text(StatusCode::FORBIDDEN, "a page of another origin may not publish"));
    }
    let key = percent_encoding::percent_decode_str(key).decode_utf8();
    let key = key.ok().filter(|key| !key.is_empty());
    let key =
        key.ok_or_else(|| text(StatusCode::BAD_REQUEST, "the stream key is empty or no UTF-8"))?;
    let limit = state.config.source.max_entry_bytes;
    let payload = Limited::new(request.into_body(), limit).collect();
    let payload = tokio::time::timeout(BODY_TIMEOUT, payload)
        .await
        .map_err(|_| text(StatusCode::REQUEST_TIMEOUT, "the body took too long"))?;
    let payload = payload.map_err(|error| {
        if !error.is::<http_body_util::LengthLimitError>() {
            return text(StatusCode::BAD_REQUEST, "the body ended early");
        }
        let message = format!("the body is larger than {limit} bytes (source.max_entry)");
        text(StatusCode::PAYLOAD_TOO_LARGE, &message)
    })?;
    match state.readers.source.publish(&key, payload.to_bytes()).await {
        Ok(id) => Ok(body("application/json", json!({ "id": id.to_string() }).to_string())),
        Err(error) => Err(not_published(&key, &error)),
    }
}

fn not_published(key: &str, error: &Error) -> Box<Answer> {
    debug!(key, %error, "not published");
    let status = match (error.class, error.code) {
        (_, "WRONGTYPE") => StatusCode::CONFLICT,
        (Class::Key | Class::Login, _) => StatusCode::FORBIDDEN,
        (Class::Away | Class::TooLarge, _) => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, &error.to_string())
}

/// Whether the request carries the token, where there is one.
fn may(state: &State, headers: &HeaderMap) -> bool {
    let Some(token) = &state.config.admin.token else { return true };
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or("");
    same_in_constant_time(given.as_bytes(), token.expose().as_bytes())
}

/// Compares without telling by its time how much of a guess was right.
fn same_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn unauthorized() -> Box<Answer> {
    let mut refusal =
        text(StatusCode::UNAUTHORIZED, "a bearer token is required (admin.token_file)");
    let challenge = "Bearer".parse().expect("a header value");
    refusal.headers_mut().insert(hyper::header::WWW_AUTHENTICATE, challenge);
    refusal
}

/// Whether a browser sends this for a page whose name was made to resolve to this machine (DNS
/// rebinding): to the browser it is of our origin, but its Host is neither an address nor `localhost`.
fn is_rebound(headers: &HeaderMap) -> bool {
    if !headers.contains_key(ORIGIN) && !headers.contains_key("sec-fetch-site") {
        return false;
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<Authority>().ok());
    let name = authority.as_ref().map_or("", Authority::host);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    !name.eq_ignore_ascii_case("localhost") && address.parse::<IpAddr>().is_err()
}

/// Whether a browser sends this for a page that is not ours.
fn is_foreign(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(hyper::header::HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let own = host.map(|host| format!("http://{host}"));
    origin.to_str().ok() != own.as_deref()
}

fn json_body(content: &serde_json::Value) -> Answer {
    body("application/json", content.to_string())
}

fn body(content_type: &'static str, content: String) -> Answer {
    let mut response = Response::new(Full::from(content));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type.parse().expect("a header value"));
    headers.insert(CACHE_CONTROL, "no-store".parse().expect("a header value"));
    response
}
