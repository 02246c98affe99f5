//! The event streams of the operator's page. A task of its own fills each of them, at most one piece
//! ahead of the client. Their number is limited, and a client that takes nothing is disconnected.

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
use super::page::harden;
use super::response::Refusal;
use crate::http::response::text;
use crate::sse::{MEDIA_TYPE, comment, escaped_line_ends};

/// Event streams at once; a page has two.
pub(super) const MOST_STREAMS: usize = 16;

/// The body of an event stream.
pub(super) struct EventBody(mpsc::Receiver<Bytes>);

/// What fills it.
pub(super) struct Events {
    pieces: mpsc::Sender<Bytes>,
    /// A client may take nothing for this long.
    write_stall: Duration,
    /// Ends its connection.
    cut: CancellationToken,
}

/// The client has left.
pub(super) struct Gone;

/// A response that `fill` fills until it returns or the client leaves.
pub(super) fn open<F>(
    visit: &Visit,
    fill: impl FnOnce(Events) -> F,
) -> Result<Response<EventBody>, Refusal>
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
    let filling = fill(events);
    tokio::spawn(async move {
        tokio::select! {
            // Both ends are the same: the client has left, or there is nothing more to send.
            _ = filling => {}
            () = pieces.closed() => {}
        }
        drop(permit);
    });
    visit.streaming.store(true, Ordering::Relaxed);
    Ok(head(EventBody(body)))
}

/// The head of an event stream.
pub(super) fn head<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    harden(headers);
    response
}

impl Events {
    /// Sends an event, and waits for a slow client.
    pub(super) async fn event(&self, name: &str, data: &Value) -> Result<(), Gone> {
        // The JSON has no line breaks, so one `data:` line carries it.
        let data = escaped_line_ends(data.to_string());
        self.send(format!("event: {name}\ndata: {data}\n\n")).await
    }

    /// Sends a comment as a sign of life.
    pub(super) async fn keepalive(&self) -> Result<(), Gone> {
        self.send(comment::KEEPALIVE.into()).await
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

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}
