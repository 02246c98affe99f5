//! HTTP/2: one connection, many streams, each run in a task of its own.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::debug;

use super::halves::run_both;
use super::mailbox::{MAILBOX, Mailbox};
use super::service::{UNWANTED_BODY_BYTES, answer};
use crate::config;
use crate::fanout::LogId;
use crate::http::frame_limit::FrameLimit;
use crate::http::lingering_close::LingeringClose;
use crate::http::peer::Peer;
use crate::http::request::{Requester, count_pending_end};
use crate::http::request_head::most_list_bytes;
use crate::limits::{PendingEnd, PendingSlot};
use crate::state::State;

/// Streams that one connection may have open. A browser has one connection for each host.
const MAX_STREAMS: u32 = 128;
/// Bytes of a stream that h2 may hold besides the piece that it was given last.
const SEND_BUFFER_BYTES: usize = 16 << 10;
/// The least that HTTP/2 allows for a connection.
const CONNECTION_WINDOW_BYTES: u32 = 65_535;
/// Requests that a client has reset before we saw them; more at once end the connection.
const MAX_PENDING_RESETS: usize = 32;
/// Stream errors that a connection may make in its life.
const MAX_STREAM_ERRORS: usize = 128;

/// Serves HTTP/2.
pub(in crate::http) async fn serve_http2<C>(
    state: &Arc<State>,
    connection: C,
    requester: Requester,
    slot: PendingSlot,
) where
    C: AsyncRead + AsyncWrite + Unpin,
{
    state.metrics.accepted_http2.increment(1);
    let open = Arc::new(watch::Sender::new(0));
    let (Requester { id, peer }, requests) = (requester, AtomicU32::new(0));
    let streams = Streams { state: state.clone(), peer, mailbox: Mailbox::default(), open };
    let service = service_fn(|request| {
        let state = state.clone();
        let stream = Some(requests.fetch_add(1, Ordering::Relaxed) + 1);
        let requester = Requester { id: LogId { stream, ..id }, peer };
        // Boxed, so that its room is given back once the stream is open.
        Box::pin(async move { answer(&state, request, requester, &MAILBOX.get()).await })
    });
    let connection = LingeringClose::new(connection);
    let progress = connection.progress();
    let config::Limits { header_bytes, write_stall, .. } = state.config().limits;
    let http = http2::Builder::new(streams.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(state.config().server.keepalive)
        .keep_alive_timeout(write_stall)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(most_list_bytes(header_bytes))
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .initial_stream_window_size(UNWANTED_BODY_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_STREAM_ERRORS)
        .serve_connection(TokioIo::new(FrameLimit::new(connection)), service);
    let mut http = YieldFirst { connection: pin!(http), has_yielded: false };
    let outcome = match streams.run_until_idle(&mut http, slot).await {
        Served::Done(outcome) => Some(outcome),
        Served::Pending(end) => return count_pending_end(state, requester, end),
        Served::Idle => {
            http.connection.as_mut().graceful_shutdown();
            progress.wait_for_end(http, write_stall).await
        }
    };
    match outcome {
        Some(Ok(())) => {}
        Some(Err(error)) => debug!(connection = id.connection, %peer, %error, "connection ended"),
        None => {
            debug!(connection = id.connection, %peer, "connection closed: the client did not close its end");
        }
    }
}

/// A connection that lets other tasks run before it is polled: what its streams have to say of one batch
/// then goes into one write, instead of one write each.
struct YieldFirst<'a, H> {
    connection: Pin<&'a mut H>,
    has_yielded: bool,
}

impl<H: Future> Future for YieldFirst<'_, H> {
    type Output = H::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<H::Output> {
        self.has_yielded = !self.has_yielded;
        if self.has_yielded {
            // The runtime polls a task that wakes itself after all others.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.connection.as_mut().poll(context)
    }
}

/// How the service of a connection came to an end.
enum Served<T> {
    /// hyper has ended it.
    Done(T),
    /// It has no stream, and gets none any more: none came for `header_timeout`, or the drain admits none.
    Idle,
    /// It was closed while it was pending.
    Pending(PendingEnd),
}

/// The streams of one connection; hyper's executor.
#[derive(Clone)]
struct Streams {
    state: Arc<State>,
    peer: Peer,
    mailbox: Mailbox,
    /// How many are open.
    open: Arc<watch::Sender<usize>>,
}

impl Streams {
    /// Runs the connection. While it has no stream it is pending: it holds a slot, and may be evicted.
    async fn run_until_idle<H: Future + Unpin>(
        &self,
        mut http: H,
        slot: PendingSlot,
    ) -> Served<H::Output> {
        let mut open = self.open.subscribe();
        let mut slot = Some(slot);
        loop {
            let is_idle = *open.borrow_and_update() == 0;
            if !is_idle {
                slot = None;
                tokio::select! {
                    outcome = &mut http => return Served::Done(outcome),
                    // An error would say that the sender is gone; it is ours.
                    _ = open.wait_for(|open| *open == 0) => continue,
                }
            }
            let Some(slot) = &mut slot else {
                tokio::select! {
                    outcome = &mut http => return Served::Done(outcome),
                    next = self.state.pending.slot(self.peer.address()) => slot = Some(next),
                }
                continue;
            };
            let has_had_stream = self.mailbox.drain_token.get().is_some();
            let until_stream = async {
                tokio::select! {
                    outcome = &mut http => Some(Served::Done(outcome)),
                    _ = open.changed() => None,
                    () = self.state.fanout.refusing.cancelled(), if has_had_stream => Some(Served::Idle),
                    () = sleep(self.state.config().limits.header_timeout) => Some(Served::Idle),
                }
            };
            match slot.until(Duration::MAX, until_stream).await {
                Ok(Some(served)) => return served,
                Ok(None) => slot.eviction_handle().postpone(),
                Err(end) => return Served::Pending(end),
            }
        }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, hyper_half: F) {
        let mailbox = self.mailbox.for_next_stream();
        let write_stall = self.state.config().limits.write_stall;
        let open = OpenStream::new(self.open.clone());
        tokio::spawn(async move {
            let hyper_half = MAILBOX.scope(mailbox.clone(), hyper_half);
            run_both(hyper_half, || mailbox.take(), |_| (), write_stall).await;
            drop(open);
        });
    }
}

/// Counts one open stream.
struct OpenStream(Arc<watch::Sender<usize>>);

impl OpenStream {
    fn new(open: Arc<watch::Sender<usize>>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}
