//! The slot between a catch-up subscriber and the body that hyper writes (HTTP/2, TLS). It holds one piece:
//! the catch-up subscriber puts it there, and hyper takes it when the client can be sent more.
//!
//! Both ends are polled in one task (`http/hosted/` has the picture), so the slot keeps no wakers. A channel
//! behind http-body-util's `StreamBody` would wake the task for each piece, and could not say that the body
//! has ended with a piece: over HTTP/2 that would cost a frame more.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;

/// The size of a piece. A stalled client holds a few of them in memory, and a client that takes one in each
/// `write_stall` is not stalled. An HTTP/2 frame carries no more by default.
pub(super) const PIECE_BYTES: usize = 16 << 10;

/// h2 drops what it has not written yet of a stream that is cut, and its connection writes in a task of its own. What
/// a client does not take within this it is not told; it knows by the cut that it does not have everything.
const CUT_DELAY: Duration = Duration::from_millis(100);

/// hyper's end: the body.
pub struct Body(Slot);

/// The catch-up subscriber's end.
pub(super) struct Sink(Slot);

/// The catch-up half of a stream: a catch-up subscriber that fills a body.
pub struct CatchUpHalf {
    catch_up: Pin<Box<dyn Future<Output = BodyEnd> + Send>>,
    slot: Slot,
}

/// How the catch-up half ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// hyper took everything, the end of the body included, or has dropped the body.
    All,
    /// The client is to be cut: it gets no more of the body.
    Part,
}

/// Shared by both ends, which are in one task: the lock is always free.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    piece: Option<Bytes>,
    /// The body ends after the piece.
    ended: bool,
    /// hyper has dropped the body: it was written to its end, or the client left.
    gone: bool,
    /// The catch-up subscriber waits for the piece to be taken.
    awaited: bool,
}

/// A body that is left incomplete after these bytes, and what fills it.
pub fn cut_after(bytes: Vec<u8>, write_stall: Duration) -> (CatchUpHalf, Body) {
    let (sink, body) = body();
    let half =
        CatchUpHalf::new(&body, async move { sink.finish(&bytes, false, write_stall).await });
    (half, body)
}

/// Both ends of a body.
pub(super) fn body() -> (Sink, Body) {
    let slot = Slot::default();
    (Sink(slot.clone()), Body(slot))
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

impl Sink {
    /// Puts a piece into the slot, if it is empty; returns whether it was.
    pub(super) fn put(&self, piece: impl FnOnce() -> Bytes) -> io::Result<bool> {
        let mut slot = self.0.state();
        if slot.gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let has_room = slot.piece.is_none();
        if has_room {
            slot.piece = Some(piece());
        }
        Ok(has_room)
    }

    /// Returns once the slot is empty, or hyper has dropped the body.
    pub(super) async fn has_room(&self) {
        // No waker is kept, here and below: the other end is polled in the same task.
        std::future::poll_fn(|_| {
            let mut slot = self.0.state();
            slot.awaited = slot.piece.is_some() && !slot.gone;
            if slot.awaited { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Returns once hyper has dropped the body.
    pub(super) async fn gone(&self) {
        std::future::poll_fn(|_| if self.0.state().gone { Poll::Ready(()) } else { Poll::Pending })
            .await;
    }

    async fn end(&self) {
        self.0.state().ended = true;
        self.gone().await;
    }

    /// Writes the closing frame, and ends the body if it `is_whole`; returns when hyper has dropped it, or has taken
    /// all that there is of it.
    pub(super) async fn finish(
        &self,
        closing_frame: &[u8],
        is_whole: bool,
        write_stall: Duration,
    ) -> BodyEnd {
        let finish = async {
            for piece in closing_frame.chunks(PIECE_BYTES) {
                self.has_room().await;
                self.put(|| Bytes::copy_from_slice(piece))?;
            }
            if is_whole {
                self.end().await;
            } else {
                self.has_room().await;
                tokio::time::sleep(CUT_DELAY).await;
            }
            Ok::<_, io::Error>(())
        };
        match tokio::time::timeout(write_stall, finish).await {
            Ok(Ok(())) if is_whole => BodyEnd::All,
            Ok(Ok(()) | Err(_)) | Err(_) => BodyEnd::Part,
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut slot = self.0.state();
        match slot.piece.take() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if slot.ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        let slot = self.0.state();
        slot.ended && slot.piece.is_none()
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.0.state().gone = true;
    }
}

impl Body {
    /// Takes the piece in the slot, for who is no hyper.
    pub(super) fn take(&self) -> Option<Bytes> {
        self.0.state().piece.take()
    }
}

impl CatchUpHalf {
    pub(super) fn new(
        body: &Body,
        catch_up: impl Future<Output = BodyEnd> + Send + 'static,
    ) -> Self {
        Self { catch_up: Box::pin(catch_up), slot: body.0.clone() }
    }

    /// Whether it can go on at once: hyper has taken the piece that it waited for.
    pub fn can_go_on(&self) -> bool {
        let slot = self.slot.state();
        slot.awaited && slot.piece.is_none()
    }
}

impl Future for CatchUpHalf {
    type Output = BodyEnd;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<BodyEnd> {
        self.catch_up.as_mut().poll(context)
    }
}
