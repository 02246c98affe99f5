//! A connection that reads the client's input to its end before it closes: closing with unread input would
//! make the kernel reset the connection, and the client lose what it has not read yet.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

use crate::fanout::CLIENT_CLOSE_TIME;

/// How much a client may send until it closes: more than answers to our frames is no sign of an end.
const MAX_LAST_BYTES: usize = 256 << 10;
/// Input read from a client in one go; it is thrown away.
const INPUT_BYTES: usize = 4096;

/// A connection whose shutdown waits for the client's end.
pub(super) struct LingeringClose<C> {
    connection: C,
    progress: Arc<Counts>,
    /// When the wait is over; set once our end is shut down.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Input thrown away since then.
    last_bytes: usize,
}

impl<C> LingeringClose<C> {
    pub(super) fn new(connection: C) -> Self {
        Self { connection, progress: Arc::default(), deadline: None, last_bytes: 0 }
    }
}

/// What was written.
#[derive(Default)]
struct Counts {
    bytes: AtomicUsize,
    /// The socket's buffer is full.
    is_blocked: AtomicBool,
}

/// Sees how a connection's writes fare while hyper owns it.
pub(super) struct ConnectionProgress(Arc<Counts>);

impl<C> LingeringClose<C> {
    pub(super) fn progress(&self) -> ConnectionProgress {
        ConnectionProgress(self.progress.clone())
    }
}

impl ConnectionProgress {
    /// Runs `ending`, which writes the rest and waits for the client's end. It is given up when nothing was
    /// written for [`CLIENT_CLOSE_TIME`], or after `write_stall` in all.
    pub(super) async fn wait_for_end<F: Future + Unpin>(
        &self,
        mut ending: F,
        write_stall: Duration,
    ) -> Option<F::Output> {
        let end = Instant::now() + write_stall;
        loop {
            let before = self.0.bytes.load(Relaxed);
            if let Ok(ended) = timeout(CLIENT_CLOSE_TIME, &mut ending).await {
                return Some(ended);
            }
            let makes_progress =
                self.0.is_blocked.load(Relaxed) || self.0.bytes.load(Relaxed) > before;
            if !makes_progress || Instant::now() > end {
                return None;
            }
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for LingeringClose<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        pin!(&mut self.connection).poll_read(context, into)
    }
}

/// Not vectored: h2 then puts frames of up to 1 KiB together into one write, with vectored writes only those
/// of up to 256 bytes; most events are between the two.
impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LingeringClose<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = pin!(&mut self.connection).poll_write(context, bytes);
        self.progress.is_blocked.store(polled.is_pending(), Relaxed);
        if let Poll::Ready(Ok(written)) = polled {
            self.progress.bytes.fetch_add(written, Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.deadline.is_none() {
            ready!(pin!(&mut this.connection).poll_shutdown(context))?;
        }
        let deadline = this.deadline.get_or_insert_with(|| Box::pin(sleep(CLIENT_CLOSE_TIME)));
        let mut input = [0; INPUT_BYTES];
        loop {
            if deadline.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut input);
            let read = ready!(pin!(&mut this.connection).poll_read(context, &mut buffer));
            this.last_bytes += buffer.filled().len();
            let is_done = buffer.filled().is_empty() || this.last_bytes > MAX_LAST_BYTES;
            if read.is_err() || is_done {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
