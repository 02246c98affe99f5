//! The event streams that feed the operator's page. Each is filled by a task of its own, which is one
//! piece ahead of its client at most; there may be so many, and a client that takes nothing is cut.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Visit;
use super::guard::Refusal;
use super::page::harden;
use crate::http::response::text;

/// So many pages may be open at once, each with two of these.
pub(super) const MOST_STREAMS: usize = 16;

/// The body of one.
pub(super) struct Stream(mpsc::Receiver<Bytes>);

/// Its other end.
pub(super) struct Events {
    pieces: mpsc::Sender<Bytes>,
    /// A client may take nothing for this long.
    write_stall: Duration,
    /// Ends its connection.
    cut: CancellationToken,
}

/// Nobody reads on.
pub(super) struct Gone;

/// A response that `tell` fills until it returns or the client leaves.
pub(super) fn open<F>(
    visit: &Visit,
    tell: impl FnOnce(Events) -> F,
) -> Result<Response<Stream>, Refusal>
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let Ok(permit) = visit.admin.streams.clone().try_acquire_owned() else {
        return Err(text(StatusCode::SERVICE_UNAVAILABLE, "too many pages follow this already"));
    };
    let (pieces, body) = mpsc::channel(1);
    let events = Events {
        pieces: pieces.clone(),
        write_stall: visit.admin.state.fanout.settings().write_stall,
        cut: visit.cut.clone(),
    };
    let telling = tell(events);
    tokio::spawn(async move {
        tokio::select! {
            // Whether it was the first to notice that the client left makes no difference.
            _ = telling => {}
            () = pieces.closed() => {}
        }
        drop(permit);
    });
    visit.streaming.store(true, Ordering::Relaxed);
    Ok(head(Stream(body)))
}

/// The head of such a response.
pub(super) fn head<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    harden(headers);
    response
}

impl Events {
    /// Tells this, waiting for a client that is slow.
    pub(super) async fn tell(&self, name: &str, data: &Value) -> Result<(), Gone> {
        // JSON on one line, so one `data:` line carries it.
        self.send(format!("event: {name}\ndata: {data}\n\n")).await
    }

    /// A sign of life.
    pub(super) async fn alive(&self) -> Result<(), Gone> {
        self.send(": keepalive\n\n".into()).await
    }

    async fn send(&self, text: String) -> Result<(), Gone> {
        match tokio::time::timeout(self.write_stall, self.pieces.send(text.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Gone),
            Err(_) => {
                self.cut.cancel();
                Err(Gone)
            }
        }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}
