//! A connection that is not closed before its client's input is read to its end: else the kernel would
//! reset what the client has not read yet.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

/// How long a client may take to close its end,
const CLIENTS_END: Duration = Duration::from_secs(1);
/// and how much it may still have sent: answers to what it was sent, or it does not mean to end.
const CLIENTS_LAST_BYTES: usize = 256 << 10;
/// Input taken from a client in one go; it is thrown away.
const INPUT_BYTES: usize = 4096;

/// A connection whose shutdown waits for the client's.
pub(super) struct LingeringClose<C> {
    connection: C,
    progress: Arc<Progress>,
    /// Set once our end is shut down.
    ends: Option<Pin<Box<Sleep>>>,
    /// Thrown away since.
    last_bytes: usize,
}

impl<C> LingeringClose<C> {
    pub(super) fn new(connection: C) -> Self {
        Self { connection, progress: Arc::default(), ends: None, last_bytes: 0 }
    }
}

/// What becomes of what is written.
#[derive(Default)]
struct Progress {
    bytes: AtomicUsize,
    /// The client's side takes nothing more now.
    is_blocked: AtomicBool,
}

/// Looks at a connection that somebody else has.
pub(super) struct Observer(Arc<Progress>);

impl<C> LingeringClose<C> {
    pub(super) fn observer(&self) -> Observer {
        Observer(self.progress.clone())
    }
}

impl Observer {
    /// Lets `ending` end, which writes what is left to be written and waits for the client: no longer
    /// than [`CLIENTS_END`] for its answer, and than `write_stall` in all.
    pub(super) async fn see_off<F: Future + Unpin>(
        &self,
        mut ending: F,
        write_stall: Duration,
    ) -> Option<F::Output> {
        let end = Instant::now() + write_stall;
        loop {
            let before = self.0.bytes.load(Relaxed);
            if let Ok(ended) = timeout(CLIENTS_END, &mut ending).await {
                return Some(ended);
            }
            let goes_on = self.0.is_blocked.load(Relaxed) || self.0.bytes.load(Relaxed) > before;
            if !goes_on || Instant::now() > end {
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

/// Not vectored: then h2 puts frames of up to 1 KiB together into one write, instead of 256 bytes, and
/// most events are between the two.
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
        if this.ends.is_none() {
            ready!(pin!(&mut this.connection).poll_shutdown(context))?;
        }
        let ends = this.ends.get_or_insert_with(|| Box::pin(sleep(CLIENTS_END)));
        let mut input = [0; INPUT_BYTES];
        loop {
            if ends.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut input);
            let read = ready!(pin!(&mut this.connection).poll_read(context, &mut buffer));
            this.last_bytes += buffer.filled().len();
            let is_done = buffer.filled().is_empty() || this.last_bytes > CLIENTS_LAST_BYTES;
            if read.is_err() || is_done {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
