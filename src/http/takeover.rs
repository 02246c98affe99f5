//! Streams over HTTP/1 without TLS: hyper parses the request, and answers every ordinary one. For a stream
//! the service answers nothing; the connection's task drops hyper, takes its socket, and hands it to the
//! fan-out as a bare descriptor. Nothing has been written for the request by then, so the response's head is
//! ours.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tracing::debug;

use super::admission::{StreamRequest, refusal_event};
use super::listener::Connection;
use super::merged_over::find_starts;
use super::over::{NoStream, find_start};
use super::plan::Plan;
use super::publish::route::{self, PublishPlan};
use super::refused_heads::RefusedHeads;
use super::request::{Requester, count_response, decide, has_content, head_of};
use super::request_head::{count_refused_head, most_fields};
use super::response;
use super::router::{self, Decision};
use super::{head, merged};
use crate::config::{self, Absent};
use crate::fanout::{Socket, close, close_with, left, welcome};
use crate::limits::{EvictionHandle, PendingSlot};
use crate::state::{Serving, State};
use crate::telemetry::metrics::DisconnectReason;

/// While there are more pending connections than this, none is kept for a second request: hyper costs 13 KB
/// by then.
const MAX_KEPT_ALIVE: usize = 1000;

/// Serves ordinary requests until one is for a stream, which gets the socket.
pub(super) async fn serve<C: Connection>(
    requests: Requests,
    connection: C,
) -> Option<(Socket, Box<StreamRequest>)> {
    let Requests { state, stream, requester, .. } = &requests;
    let (state, stream, Requester { id, peer }) = (state.clone(), stream.clone(), *requester);
    let has_published = requests.has_published.clone();
    let config::Limits { header_timeout, header_bytes, write_stall, .. } = state.config().limits;
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .keep_alive(state.pending.count() < MAX_KEPT_ALIVE)
        .max_headers(most_fields(header_bytes))
        .max_buf_size(header_bytes)
        .serve_connection(TokioIo::new(RefusedHeads::new(connection, state.clone())), requests);
    // By hand: only `poll_without_shutdown` leaves the socket open.
    let outcome = std::future::poll_fn(|context| {
        let polled = http.poll_without_shutdown(context);
        match stream.take() {
            Some(stream) => Poll::Ready(Ok(Some(stream))),
            None => polled.map_ok(|()| None),
        }
    });
    let outcome = outcome.await;
    let mut connection = http.into_parts().io.into_inner().into_inner();
    match outcome {
        Ok(Some(stream)) => match connection.detach() {
            Ok(socket) => return Some((Socket::new(socket), stream)),
            Err(error) => {
                debug!(connection = id.connection, %peer, %error, "connection ended before its stream began");
            }
        },
        // Its client may still be sending a body that was refused: closed at once, it would lose the answer.
        Ok(None) if has_published.load(Ordering::Relaxed) => {
            if let Ok(socket) = connection.detach() {
                close_with(Socket::new(socket), Vec::new(), write_stall).await;
            }
        }
        Ok(None) => drop(connection.shutdown().await),
        Err(error) => {
            count_refused_head(&state, &error);
            debug!(connection = id.connection, %peer, %error, "connection ended");
            // Its client may still be sending: closed at once, it would lose the answer.
            if let Ok(socket) = connection.detach() {
                close_with(Socket::new(socket), Vec::new(), write_stall).await;
            }
        }
    }
    None
}

/// A stream request on its way from the service to the connection's task.
#[derive(Clone, Default)]
struct RequestSlot(Arc<Mutex<Option<Box<StreamRequest>>>>);

impl RequestSlot {
    fn put(&self, stream: Box<StreamRequest>) {
        *self.lock() = Some(stream);
    }

    fn take(&self) -> Option<Box<StreamRequest>> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<StreamRequest>>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

/// The service of one connection.
pub(super) struct Requests {
    state: Arc<State>,
    requester: Requester,
    eviction: Arc<EvictionHandle>,
    stream: RequestSlot,
    /// Whether one of its requests had entries to add.
    has_published: Arc<AtomicBool>,
}

impl Requests {
    pub(super) fn new(
        state: Arc<State>,
        requester: Requester,
        eviction: Arc<EvictionHandle>,
    ) -> Self {
        let (stream, has_published) = Default::default();
        Self { state, requester, eviction, stream, has_published }
    }
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        self.eviction.postpone();
        let serving = self.state.serving();
        match decide(&self.state, &serving, &request) {
            Decision::Respond(response) => {
                let status = response.status().as_u16();
                count_response(&self.state, &serving, self.requester, &request, status);
                Answer::Now(Some(response))
            }
            Decision::Head(plan) => Answer::Later(Box::pin(head_alone(
                (self.state.clone(), serving),
                self.requester,
                plan,
                request,
            ))),
            Decision::Publish(plan) => {
                self.eviction.prolong();
                self.has_published.store(true, Ordering::Relaxed);
                Answer::Later(Box::pin(publish(
                    (self.state.clone(), serving),
                    self.requester,
                    *plan,
                    request,
                )))
            }
            Decision::Stream(plan) if request.body().is_end_stream() => {
                self.stream.put(StreamRequest::new(serving, self.requester, plan, &request));
                Answer::Now(None)
            }
            Decision::Stream(plan) => Answer::Later(Box::pin(after_body(
                (self.state.clone(), serving),
                (self.requester, self.stream.clone()),
                plan,
                request,
            ))),
        }
    }
}

async fn publish(
    (state, serving): (Arc<State>, Arc<Serving>),
    requester: Requester,
    plan: PublishPlan,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let head = head_of(&request);
    let response = route::answer((&state, &serving), requester.peer, plan, request).await;
    count_response(&state, &serving, requester, &head, response.status().as_u16());
    response
}

async fn head_alone(
    (state, serving): (Arc<State>, Arc<Serving>),
    requester: Requester,
    plan: Plan,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let response = head::answer((&state, &serving), requester, plan, &request).await;
    count_response(&state, &serving, requester, &request, response.status().as_u16());
    response
}

/// The refusal of a stream that is asked for with content; without any the stream goes to the slot.
async fn after_body(
    (state, serving): (Arc<State>, Arc<Serving>),
    (requester, slot): (Requester, RequestSlot),
    plan: Plan,
    mut request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if !has_content(request.body_mut()).await {
        slot.put(StreamRequest::new(serving, requester, plan, &request));
        return std::future::pending().await;
    }
    let refusal = router::unwanted_body(&serving.config, &serving.gate, request.headers());
    count_response(&state, &serving, requester, &request, refusal.status().as_u16());
    *refusal
}

/// An ordinary response. For a stream it stays pending: hyper is dropped with it.
pub(super) enum Answer {
    /// Known with the head.
    Now(Option<Response<Full<Bytes>>>),
    /// The end of the request's body decides, or the source.
    Later(Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>),
}

impl Future for Answer {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(response) => response.take().map_or(Poll::Pending, |it| Poll::Ready(Ok(it))),
            Self::Later(answer) => answer.as_mut().poll(context).map(Ok),
        }
    }
}

/// Opens the stream on a socket, or refuses it there.
pub(super) async fn open(
    state: &Arc<State>,
    socket: Socket,
    stream: Box<StreamRequest>,
    slot: PendingSlot,
) {
    if stream.plan.merged.is_some() {
        return open_merged(state, socket, stream, slot).await;
    }
    let (permit, lease) = match stream.admit(state) {
        Ok(admitted) => admitted,
        Err(reason) => return refuse(state, socket, &stream, reason, slot),
    };
    // From here on it counts as a client, even while it waits for the source.
    drop(slot);
    let subscriber = stream.subscriber(state, permit, lease);
    let started = tokio::select! {
        started = find_start(state, &stream, &subscriber.lease) => started,
        // Watched only where it may wait for long: that costs a place in the runtime's reactor.
        () = left(&socket), if stream.route().absent != Absent::Wait => {
            return subscriber.ended(&state.metrics, DisconnectReason::Client);
        }
    };
    let response = match started {
        Ok(start) => {
            let head = response::stream_head(&stream.plan);
            let machine = stream.begin(state, &subscriber, start, head);
            return welcome(&state.fanout, socket, subscriber, machine);
        }
        Err(why) => no_stream(state, &stream, why),
    };
    close(&state.fanout, socket, subscriber.admitted, response);
}

/// The same for a stream that is merged of several.
async fn open_merged(
    state: &Arc<State>,
    socket: Socket,
    stream: Box<StreamRequest>,
    slot: PendingSlot,
) {
    let Some(parts) = &stream.plan.merged else { return };
    let (admitted, leases) = match merged::admit(state, &stream, parts) {
        Ok(admitted) => admitted,
        Err(reason) => return refuse(state, socket, &stream, reason, slot),
    };
    // From here on it counts as a client, even while it waits for the source.
    drop(slot);
    let started = tokio::select! {
        started = find_starts(state, &stream, parts, &leases) => started,
        () = left(&socket), if stream.route().absent != Absent::Wait => {
            let route = stream.route_number();
            return admitted.ended(&state.metrics, route, DisconnectReason::Client);
        }
    };
    match started {
        Ok(starts) => {
            let head = response::stream_head(&stream.plan);
            let opened = merged::begin(state, &stream, parts, admitted, leases, &starts, head);
            opened.welcome(&state.fanout, socket);
        }
        Err(why) => {
            let response = no_stream(state, &stream, why);
            close(&state.fanout, socket, admitted, response);
        }
    }
}

/// Refuses the stream of a client that has no permit.
fn refuse(
    state: &State,
    socket: Socket,
    stream: &StreamRequest,
    reason: &'static str,
    mut slot: PendingSlot,
) {
    let refusal = refusal(state, stream, reason);
    let write_stall = stream.serving.settings.write_stall;
    state.fanout.tasks.spawn(async move {
        // It keeps its slot while it closes, unless it is evicted.
        let _ = slot.until(Duration::MAX, close_with(socket, refusal, write_stall)).await;
    });
}

/// The whole response to a client that was admitted, and gets no stream.
fn no_stream(state: &State, stream: &StreamRequest, why: NoStream) -> Vec<u8> {
    match why {
        NoStream::Refused(reason) => refusal(state, stream, reason),
        NoStream::Over => {
            stream.count_over(state, response::OVER_STATUS);
            response::over(&stream.plan)
        }
        NoStream::EndAgain => {
            stream.count_over(state, response::STREAM_STATUS);
            [response::stream_head(&stream.plan), stream.end_again()].concat()
        }
    }
}

/// The whole response to a stream that is refused.
fn refusal(state: &State, stream: &StreamRequest, reason: &'static str) -> Vec<u8> {
    stream.count_refusal(state, reason);
    let settings = &stream.serving.settings;
    let wait = settings.refusal_time(reason);
    if stream.refuses_by_status() {
        state.metrics.responded(response::REFUSED_STATUS);
        return response::refused(&stream.plan, wait, reason);
    }
    state.metrics.responded(response::STREAM_STATUS);
    refused_stream(stream, wait, reason)
}

/// A stream that ends after one event.
fn refused_stream(stream: &StreamRequest, wait: Duration, reason: &'static str) -> Vec<u8> {
    let format = stream.format(0);
    let mut bytes = response::stream_head(&stream.plan);
    format.append_event(&refusal_event(wait, reason), &mut bytes);
    if !stream.route().rules.cuts {
        bytes.extend_from_slice(format.end());
    }
    bytes
}
