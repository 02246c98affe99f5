//! Streams that stay with hyper: over HTTP/2, where a connection has many, and over TLS. Each has a
//! catch-up subscriber of its own, which is polled in the task of hyper that writes its body.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::arrival::{PublicServer, is_cut};
use super::lingering_close::LingeringClose;
use super::meter::Meter;
use super::peer::Peer;
use super::router::{self, Decision};
use super::takeover::{self, HEAD_BYTES, MAX_HEADERS, StreamRequest};
use super::visit::{Requester, answered, decide};
use crate::config::{self, Refuse};
use crate::fanout::{Body, Following, LogId, Subscriber, beside, follow_in_body};
use crate::limits::{PendingEnd, PendingSlot};
use crate::state::State;

/// Streams that one connection may have open. A browser has one connection for each host.
const STREAMS: u32 = 128;
/// Bytes of a stream that h2 may hold besides the piece that it was given last.
const SEND_BUFFER_BYTES: usize = 16 << 10;
/// We take no bodies.
const RECEIVE_WINDOW_BYTES: u32 = 16 << 10;
/// The least that HTTP/2 allows for a connection.
const CONNECTION_WINDOW_BYTES: u32 = 65_535;
/// Requests that were reset before we saw them; more of them at once end the connection.
const RESETS_PENDING: usize = 32;
/// Errors of single streams that a connection may make in its life.
const STREAM_ERRORS: usize = 128;

/// A body that was not asked for is thrown away up to this, and no longer than this.
const REFUSED_BODY_BYTES: usize = RECEIVE_WINDOW_BYTES as usize;
const REFUSED_BODY: Duration = Duration::from_millis(200);

/// A response: whole, or a stream.
type Answer = Response<Either<Full<Bytes>, Body>>;

tokio::task_local! {
    /// Where the service leaves the catch-up subscriber of the stream that it opens in this task.
    static DESK: Desk;
}

/// From a service to the task that runs it.
#[derive(Clone, Default)]
struct Desk {
    following: Arc<Mutex<Option<Following>>>,
    /// The connection's, once it has a stream: the process ends after it.
    held: Arc<OnceLock<TaskTrackerToken>>,
    /// Told when a client was admitted.
    opened: Arc<Notify>,
}

impl Desk {
    /// For another stream of the same connection.
    fn another(&self) -> Self {
        Self { following: Arc::default(), ..self.clone() }
    }

    fn put(&self, following: Following) {
        *self.following.lock().expect("no holder of the lock panics") = Some(following);
    }

    fn take(&self) -> Option<Following> {
        self.following.lock().expect("no holder of the lock panics").take()
    }
}

/// Serves HTTP/1 over TLS.
pub(super) async fn serve_http1<C>(
    public: &PublicServer,
    connection: C,
    requester: Requester,
    mut slot: PendingSlot,
) where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let state = &public.state;
    state.metrics.accepted.increment(1);
    let desk = Desk::default();
    // Not for ever: with its first stream the connection is no longer pending.
    let eviction = Arc::downgrade(&slot.eviction_handle());
    let service = service_fn(|request| {
        if let Some(eviction) = eviction.upgrade() {
            eviction.postpone();
        }
        let (public, desk) = (public.clone(), desk.clone());
        Box::pin(async move { answer(&public, request, requester, &desk).await })
    });
    let config::Limits { header_timeout, write_stall, .. } = state.config().limits;
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(LingeringClose::new(connection)), service);
    let mut served = pin!(beside(http, || desk.take(), write_stall));
    let until_stream = async {
        tokio::select! {
            outcome = &mut served => Some(outcome),
            () = desk.opened.notified() => None,
        }
    };
    let outcome = match slot.until(header_timeout + write_stall, until_stream).await {
        Ok(Some(outcome)) => outcome,
        Ok(None) => {
            drop(slot);
            served.await
        }
        Err(cut) => return is_cut(state, requester, cut),
    };
    if let Some(Err(error)) = outcome {
        let Requester { id, peer } = requester;
        takeover::count_refused_head(state, &error);
        debug!(connection = id.connection, %peer, %error, "connection ended");
    }
}

/// Serves HTTP/2.
pub(super) async fn serve_http2<C>(
    public: &PublicServer,
    connection: C,
    requester: Requester,
    slot: PendingSlot,
) where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let state = &public.state;
    state.metrics.accepted_http2.increment(1);
    let open = Arc::new(watch::Sender::new(0));
    let (Requester { id, peer }, requests) = (requester, AtomicU32::new(0));
    let streams = Streams { state: state.clone(), peer, desk: Desk::default(), open };
    let service = service_fn(|request| {
        let public = public.clone();
        let stream = Some(requests.fetch_add(1, Ordering::Relaxed) + 1);
        let requester = Requester { id: LogId { stream, ..requester.id }, ..requester };
        // Boxed, so that its room is given back once the stream is open.
        Box::pin(async move { answer(&public, request, requester, &DESK.get()).await })
    });
    let connection = LingeringClose::new(connection);
    let observer = connection.observer();
    let write_stall = state.config().limits.write_stall;
    let http = http2::Builder::new(streams.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(state.config().server.keepalive)
        .keep_alive_timeout(write_stall)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).expect("a head is small"))
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .initial_stream_window_size(RECEIVE_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_pending_accept_reset_streams(RESETS_PENDING)
        .max_local_error_reset_streams(STREAM_ERRORS)
        .serve_connection(TokioIo::new(Meter::new(connection)), service);
    let mut http = InTurn { http: pin!(http), has_waited: false };
    let ended = match streams.while_of_use(&mut http, slot).await {
        Ok(outcome) => Some(outcome),
        Err(Some(cut)) => return is_cut(state, requester, cut),
        Err(None) => {
            http.http.as_mut().graceful_shutdown();
            observer.see_off(http, write_stall).await
        }
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => debug!(connection = id.connection, %peer, %error, "connection ended"),
        None => {
            debug!(connection = id.connection, %peer, "connection closed: its client says no more");
        }
    }
}

/// A connection that lets its streams' tasks have their turn before it writes: what they all have to say
/// of one batch then goes into one write, and not each into its own.
struct InTurn<'a, H> {
    http: Pin<&'a mut H>,
    has_waited: bool,
}

impl<H: Future> Future for InTurn<'_, H> {
    type Output = H::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<H::Output> {
        self.has_waited = !self.has_waited;
        if self.has_waited {
            // The runtime puts who wakes itself behind all others.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.http.as_mut().poll(context)
    }
}

/// The streams of one HTTP/2 connection, each run in a task of its own.
#[derive(Clone)]
struct Streams {
    state: Arc<State>,
    /// Whose connection it is.
    peer: Peer,
    desk: Desk,
    open: Arc<watch::Sender<usize>>,
}

impl Streams {
    /// Runs the connection. It is an error, without a [`PendingEnd`], that there is no stream, and none came for
    /// a while or is to come any more. Without one it is pending, and may have to give way.
    async fn while_of_use<H: Future + Unpin>(
        &self,
        mut http: H,
        slot: PendingSlot,
    ) -> Result<H::Output, Option<PendingEnd>> {
        let mut open = self.open.subscribe();
        let mut slot = Some(slot);
        loop {
            let is_idle = *open.borrow_and_update() == 0;
            if !is_idle {
                slot = None;
                tokio::select! {
                    outcome = &mut http => return Ok(outcome),
                    // The sender is ours: it cannot be gone.
                    _ = open.wait_for(|open| *open == 0) => continue,
                }
            }
            let Some(slot) = &mut slot else {
                tokio::select! {
                    outcome = &mut http => return Ok(outcome),
                    another = self.state.pending.slot(self.peer.address()) => slot = Some(another),
                }
                continue;
            };
            let has_served = self.desk.held.get().is_some();
            let idle = async {
                tokio::select! {
                    outcome = &mut http => Some(Ok(outcome)),
                    _ = open.changed() => None,
                    () = self.state.fanout.draining.cancelled(), if has_served => Some(Err(None)),
                    () = sleep(self.state.config().limits.header_timeout) => Some(Err(None)),
                }
            };
            match slot.until(Duration::MAX, idle).await {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => slot.eviction_handle().postpone(),
                Err(cut) => return Err(Some(cut)),
            }
        }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let desk = self.desk.another();
        let write_stall = self.state.config().limits.write_stall;
        let counted = Counted::new(self.open.clone());
        tokio::spawn(async move {
            let hyper = DESK.scope(desk.clone(), stream);
            beside(hyper, || desk.take(), write_stall).await;
            drop(counted);
        });
    }
}

/// One open stream.
struct Counted(Arc<watch::Sender<usize>>);

impl Counted {
    fn new(open: Arc<watch::Sender<usize>>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

async fn answer(
    public: &PublicServer,
    request: Request<Incoming>,
    requester: Requester,
    desk: &Desk,
) -> Result<Answer, Infallible> {
    let state = &public.state;
    let is_bodiless = request.body().is_end_stream();
    let is_head = request.method() == Method::HEAD;
    let serving = state.serving();
    let response = match decide(state, &serving, &request) {
        Decision::Respond(response) => response,
        // In HTTP/2 no header tells of a body.
        Decision::Stream(_) if !is_bodiless => *router::unwanted_body(),
        Decision::Stream(mut plan) => {
            plan.framed = false;
            if request.version() < Version::HTTP_2 {
                // A client comes back over another connection, perhaps to another gateway.
                plan.headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let wanted = StreamRequest::by(serving, requester, plan, &request);
            // With its head: a stream is long.
            drop(request);
            return Ok(open(state, &wanted, desk).await);
        }
    };
    answered(state, &serving, requester, &request, response.status().as_u16());
    // Some clients take an answer before their body's end for an error (curl 7.88).
    let body = Limited::new(request.into_body(), REFUSED_BODY_BYTES);
    let _ = timeout(REFUSED_BODY, body.collect()).await;
    // Over HTTP/2, hyper would send it (RFC 9110, 9.3.2: a head alone).
    Ok(response.map(|body| Either::Left(if is_head { Full::default() } else { body })))
}

/// Opens the stream, or tells the client why not now.
async fn open(state: &Arc<State>, wanted: &StreamRequest, desk: &Desk) -> Answer {
    desk.held.get_or_init(|| state.hosted.token());
    match admit(state, wanted, desk).await {
        Ok(client) => {
            let handoff = takeover::handoff(state, &client, wanted, Vec::new());
            let (following, body) = follow_in_body(&state.fanout, client, handoff);
            desk.put(following);
            router::stream_response(&wanted.plan, Either::Right(body))
        }
        Err(reason) => refuse(state, wanted, reason).map(Either::Left),
    }
}

async fn admit(
    state: &Arc<State>,
    wanted: &StreamRequest,
    desk: &Desk,
) -> Result<Subscriber, &'static str> {
    let (permit, lease) = takeover::admit(state, wanted)?;
    // From here on it is a client, if only to wait for Redis.
    desk.opened.notify_one();
    let client = takeover::client(state, wanted, permit, lease);
    takeover::wait_for_tail(&client.lease, wanted.plan.start).await?;
    Ok(client)
}

fn refuse(state: &State, wanted: &StreamRequest, reason: &'static str) -> Response<Full<Bytes>> {
    takeover::tell_of_refusal(state, wanted, reason);
    let settings = &wanted.serving.settings;
    let wait = settings.long_reconnection_time();
    if settings.refuse == Refuse::Status {
        state.metrics.responded(router::REFUSED_STATUS);
        return router::refused_response(&wanted.plan, wait, reason);
    }
    state.metrics.responded(router::STREAM_STATUS);
    router::stream_response(&wanted.plan, Full::from(takeover::comes_back(wait, reason)))
}
