//! The body of a stream that hyper writes (HTTP/2, TLS): its catch-up subscriber puts one piece at a time into
//! it, and hyper takes that when the client can be sent more.
//!
//! Both are polled in one task, the catch-up subscriber first: no delivery wakes a second task, and the catch-up subscriber's
//! clocks run while hyper waits for a client that takes nothing and so does not poll the body.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;

/// A piece is no larger: what a client that stalls may hold in memory is a few of them, and whoever
/// takes one in each `write_stall` is not stalled. HTTP/2 makes frames of no more by default.
pub(super) const PIECE_BYTES: usize = 16 << 10;

/// The body, as hyper sees it.
pub struct Body(Slot);

/// The body, as its catch-up subscriber sees it.
pub(super) struct Sink(Slot);

/// A catch-up subscriber whose client's bytes hyper writes.
pub struct Following {
    follower: Pin<Box<dyn Future<Output = BodyEnd> + Send>>,
    slot: Slot,
}

/// How such a catch-up subscriber ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEnd {
    /// Hyper took everything, the end of the body too, or is gone itself.
    All,
    /// The client is cut where it stands.
    Part,
}

/// Shared by the two, in one task: nobody ever waits for the lock.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    piece: Option<Bytes>,
    /// Nothing comes after the piece.
    ended: bool,
    /// Hyper has dropped the body: all is said, or the client left.
    gone: bool,
    /// The catch-up subscriber waits for the piece to be taken.
    awaited: bool,
}

/// A body and its catch-up subscriber's end of it.
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
    /// Puts the piece where there is room for it; whether there was.
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

    /// Returns once there is room for a piece, or nobody to take one.
    pub(super) async fn has_room(&self) {
        // No waker is kept, here and below: whoever changes the slot is polled in the same task.
        std::future::poll_fn(|_| {
            let mut slot = self.0.state();
            slot.awaited = slot.piece.is_some() && !slot.gone;
            if slot.awaited { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Returns once hyper needs the body no more.
    pub(super) async fn gone(&self) {
        std::future::poll_fn(|_| if self.0.state().gone { Poll::Ready(()) } else { Poll::Pending })
            .await;
    }

    async fn end(&self) {
        self.0.state().ended = true;
        self.gone().await;
    }

    /// Says the last words and ends the body; returns when hyper is done with it.
    pub(super) async fn finish(&self, closing_frame: &[u8], write_stall: Duration) -> BodyEnd {
        let finish = async {
            for piece in closing_frame.chunks(PIECE_BYTES) {
                self.has_room().await;
                self.put(|| Bytes::copy_from_slice(piece))?;
            }
            self.end().await;
            Ok::<_, io::Error>(())
        };
        match tokio::time::timeout(write_stall, finish).await {
            Ok(Ok(())) => BodyEnd::All,
            Ok(Err(_)) | Err(_) => BodyEnd::Part,
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

impl Following {
    pub(super) fn new(
        body: &Body,
        follower: impl Future<Output = BodyEnd> + Send + 'static,
    ) -> Self {
        Self { follower: Box::pin(follower), slot: body.0.clone() }
    }

    /// Whether the catch-up subscriber can go on at once, for hyper has taken what it waited for.
    fn can_go_on(&self) -> bool {
        let slot = self.slot.state();
        slot.awaited && slot.piece.is_none()
    }
}

/// Runs `hyper`, and beside it the catch-up subscriber that `opened` hands out once there is one, to the end of
/// both. A client that is cut is one whose `hyper` is dropped unfinished; one to whom everything was
/// said gets `write_stall` to take it.
pub async fn beside<H: Future>(
    hyper: H,
    mut opened: impl FnMut() -> Option<Following>,
    write_stall: Duration,
) -> Option<H::Output> {
    let mut hyper = pin!(Some(hyper));
    let mut following: Option<Following> = None;
    let first = std::future::poll_fn(|context| {
        loop {
            following = following.take().or_else(&mut opened);
            let said = following.as_mut().map(|following| following.follower.as_mut());
            if let Some(Poll::Ready(said)) = said.map(|follower| follower.poll(context)) {
                return Poll::Ready(Ok(said));
            }
            let running = hyper.as_mut().as_pin_mut().expect("it is dropped below, not before");
            if let Poll::Ready(output) = running.poll(context) {
                return Poll::Ready(Err(output));
            }
            if following.is_none() {
                following = opened();
                if following.is_some() {
                    continue;
                }
            }
            if !following.as_ref().is_some_and(Following::can_go_on) {
                return Poll::Pending;
            }
        }
    });
    match first.await {
        Ok(BodyEnd::Part) => None,
        Ok(BodyEnd::All) => {
            let running = hyper.as_mut().as_pin_mut()?;
            tokio::time::timeout(write_stall, running).await.ok()
        }
        Err(output) => {
            // With its body: the catch-up subscriber hears of it.
            hyper.set(None);
            if let Some(following) = following.or_else(opened) {
                following.follower.await;
            }
            Some(output)
        }
    }
}
