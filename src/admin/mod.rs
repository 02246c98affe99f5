//! The admin listener: probes, metrics, the state of the streams, a page that shows it, publishing.
//!
//! - `GET /livez`, `GET /readyz`, `GET /metrics`: without a token
//! - `GET /streams`, `GET /state`
//! - `GET /`: the page for a browser, without a token; a list of these paths for other clients
//! - `GET /overview`, `GET /tail/{key}`: event streams for the page
//! - `POST /publish/{key}`, where `admin.publish` is on

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http_body_util::Either;
use hyper::body::Incoming;
use hyper::header::ALLOW;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::auth::host;
use crate::http::listener::{Connection, Serve};
use crate::http::peer::Peer;
use crate::http::response::text;
use crate::http::rewind::Rewind;
use crate::http::server::proxied_peer;
use crate::limits::PendingSlot;
use crate::state::State;

mod events;
mod guard;
mod overview;
mod page;
mod publish;
pub mod report;
mod response;
mod tail;

use response::{Full, Refusal, body, json_body};

/// Serves admin connections.
#[derive(Clone)]
pub struct Admin {
    state: Arc<State>,
    /// Permits for event streams.
    streams: Arc<Semaphore>,
    /// When the gateway began to serve.
    since: Instant,
    /// Whether each connection begins with a PROXY header.
    behind_proxy: bool,
}

/// A connection is closed at this age,
const MAX_AGE: Duration = Duration::from_secs(600);
/// or, if it has an event stream, at this one.
const MAX_STREAM_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// What hyper holds at most for a slow client.
const BUFFER_BYTES: usize = 32 << 10;

type Answer = Response<Either<Full, events::EventBody>>;

/// What the requests of one connection share.
struct Visit {
    admin: Admin,
    peer: Peer,
    /// Whether it has an event stream.
    streaming: AtomicBool,
    /// Cancelled when its client takes nothing.
    cut: CancellationToken,
}

impl Admin {
    /// One serves all listeners.
    pub fn new(state: Arc<State>) -> Self {
        let streams = Arc::new(Semaphore::new(events::MOST_STREAMS));
        Self { state, streams, since: Instant::now(), behind_proxy: false }
    }

    /// The same on one listener.
    #[must_use]
    pub fn on(&self, behind_proxy: bool) -> Self {
        Self { behind_proxy, ..self.clone() }
    }
}

impl Serve for Admin {
    async fn serve<C: Connection>(self, connection: C, peer: Peer, mut slot: PendingSlot) {
        let state = self.state.clone();
        let id = state.next_connection();
        let mut connection = Rewind::new(connection);
        let peer = if self.behind_proxy {
            let named = slot.until(
                state.config().limits.header_timeout,
                proxied_peer(&state, &mut connection, id, peer),
            );
            let Ok(Some(named)) = named.await else { return };
            named
        } else {
            peer
        };
        let eviction = slot.eviction_handle();
        // Registered before any request shows a token: a reload may change it from here on.
        let recheck = state.admin_recheck.notified();
        let (streaming, cut) = (AtomicBool::new(false), CancellationToken::new());
        let visit = Arc::new(Visit { admin: self, peer, streaming, cut });
        let service = service_fn(|request| {
            eviction.postpone();
            let visit = visit.clone();
            async move { Ok::<_, Infallible>(answer(&visit, request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(state.config().limits.header_timeout)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(connection), service);
        let served = async {
            tokio::select! {
                outcome = served => Some(outcome),
                () = visit.cut.cancelled() => None,
                () = visit.is_overdue() => None,
                () = recheck => None,
            }
        };
        match slot.until(MAX_STREAM_AGE, served).await {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(error))) => {
                debug!(connection = id.connection, %error, "admin connection ended");
            }
            Ok(None) => {
                debug!(
                    connection = id.connection,
                    "admin connection closed: it was too old or too slow, or the token has changed"
                );
            }
            Err(cut) => {
                debug!(connection = id.connection, why = cut.as_str(), "admin connection closed");
            }
        }
    }
}

impl Visit {
    /// Returns at the maximum age of a connection without an event stream.
    async fn is_overdue(&self) {
        tokio::time::sleep(MAX_AGE).await;
        if self.streaming.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

async fn answer(visit: &Visit, request: Request<Incoming>) -> Answer {
    let state = &visit.admin.state;
    let path = request.uri().path().to_owned();
    if let Some(fault) = host::fault(&request) {
        return text(StatusCode::BAD_REQUEST, fault).map(Either::Left);
    }
    if let Some(key) = path.strip_prefix("/publish/") {
        let outcome = publish::publish(state, key, request).await;
        return outcome.unwrap_or_else(|refusal| *refusal).map(Either::Left);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = *text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        refusal.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("a header value"));
        return refusal.map(Either::Left);
    }
    if path == "/overview" || path.starts_with("/tail/") {
        let streamed = stream(visit, &path, &request);
        return streamed.unwrap_or_else(|refusal| refusal.map(Either::Left));
    }
    let shown = show(visit, &path, &request).await;
    shown.unwrap_or_else(|refusal| *refusal).map(Either::Left)
}

/// Answers what is no event stream.
async fn show(
    visit: &Visit,
    path: &str,
    request: &Request<Incoming>,
) -> Result<Response<Full>, Refusal> {
    let state = &visit.admin.state;
    if let Some(file) = page::file(path, request.headers()) {
        return Ok(file);
    }
    match path {
        "/streams" | "/state" => guard::read(state, visit.peer, request)?,
        "/" => guard::token(state, request.headers())?,
        _ => {}
    }
    Ok(match path {
        "/livez" => *text(StatusCode::OK, "ok"),
        "/readyz" => ready(state, request.uri().query() == Some("strict")),
        "/metrics" => metrics(state.clone()).await,
        "/streams" => json_body(&report::streams(state)),
        "/state" => json_body(&report::gateway(state)),
        "/" => *text(
            StatusCode::OK,
            "ssegate\n\n/livez\n/readyz\n/readyz?strict\n/metrics\n/streams\n/state\n/overview\n/tail/{key}",
        ),
        _ => return Err(text(StatusCode::NOT_FOUND, "no such page; / lists what there is")),
    })
}

/// Opens an event stream for the page.
fn stream(
    visit: &Visit,
    path: &str,
    request: &Request<Incoming>,
) -> Result<Answer, Box<Response<Full>>> {
    let state = &visit.admin.state;
    guard::read(state, visit.peer, request)?;
    if request.method() == Method::HEAD {
        return Ok(events::head(Either::Left(Full::default())));
    }
    let response = match path.strip_prefix("/tail/") {
        Some(key) => {
            let tail = tail::open(state, &publish::decoded_key(key)?)?;
            events::open(visit, |events| tail.fill(state.clone(), events))
        }
        None => events::open(visit, |events| overview::fill(visit.admin.clone(), events)),
    };
    response.map(|response| response.map(Either::Right))
}

/// Ready from the first answer of Redis to the drain: a short outage must not take the gateway out of the
/// load balancer, because its open streams survive it.
fn ready(state: &State, strict: bool) -> Response<Full> {
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

/// Not in a worker: before Linux 6.2, counting the descriptors of many clients takes a while.
async fn metrics(state: Arc<State>) -> Response<Full> {
    let render = move || state.metrics.render(&state.gauges());
    match tokio::task::spawn_blocking(render).await {
        Ok(text) => body("text/plain; version=0.0.4; charset=utf-8", text),
        // The runtime is shutting down.
        Err(error) => *text(StatusCode::SERVICE_UNAVAILABLE, &format!("no metrics: {error}")),
    }
}
