//! Limits how often a client sends HTTP/2 frames that request nothing: pings, settings, resets, empty DATA
//! and the like. h2 bounds the memory that each kind takes, not how often it comes.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So many window updates, and so many other frames, may come at once,
const BURST: f64 = 1000.0;
/// so many more each second,
const PER_SECOND: f64 = 100.0;
/// and one window update for so many bytes that we sent: a client may answer each frame with two, and the
/// smallest event takes 40 bytes in its frame.
const BYTES_PER_UPDATE: f64 = 16.0;

/// A frame's head: length, type, flags, stream (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;
/// The preface, before the first frame.
const PREFACE_BYTES: usize = 24;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;

/// A connection that fails when its client sends too many frames.
pub(super) struct FrameLimit<C> {
    connection: C,
    frames: Frames,
    updates: Allowance,
    others: Allowance,
}

/// Finds the frames in what is read.
struct Frames {
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// Bytes to skip: of the preface, then of each frame's payload.
    skip_bytes: usize,
}

/// Counts of frames that request nothing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Idle {
    updates: u32,
    others: u32,
}

/// How many frames may still come.
struct Allowance {
    frames: f64,
    as_of: Instant,
}

impl<C> FrameLimit<C> {
    pub(super) fn new(connection: C) -> Self {
        let frames = Frames { head: [0; HEAD_BYTES], head_bytes: 0, skip_bytes: PREFACE_BYTES };
        Self { connection, frames, updates: Allowance::new(), others: Allowance::new() }
    }
}

impl Frames {
    /// The frames in these bytes that request nothing.
    fn idle_in(&mut self, mut bytes: &[u8]) -> Idle {
        let mut idle = Idle::default();
        loop {
            let skipped = self.skip_bytes.min(bytes.len());
            self.skip_bytes -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD_BYTES - self.head_bytes).min(bytes.len());
            if taken == 0 {
                return idle;
            }
            self.head[self.head_bytes..][..taken].copy_from_slice(&bytes[..taken]);
            self.head_bytes += taken;
            bytes = &bytes[taken..];
            if self.head_bytes < HEAD_BYTES {
                return idle;
            }
            let [a, b, c, kind, ..] = self.head;
            self.head_bytes = 0;
            self.skip_bytes = u32::from_be_bytes([0, a, b, c]) as usize;
            match kind {
                // Requests, which other limits count.
                HEADERS => {}
                WINDOW_UPDATE => idle.updates += 1,
                _ => idle.others += 1,
            }
        }
    }
}

impl Allowance {
    fn new() -> Self {
        Self { frames: BURST, as_of: Instant::now() }
    }

    fn spend(&mut self, frames: u32) -> io::Result<()> {
        if frames == 0 {
            return Ok(());
        }
        let now = Instant::now();
        self.earn(now.duration_since(self.as_of).as_secs_f64() * PER_SECOND);
        self.as_of = now;
        self.frames -= f64::from(frames);
        if self.frames >= 0.0 {
            return Ok(());
        }
        Err(io::Error::other("too many HTTP/2 frames that request nothing"))
    }

    fn earn(&mut self, frames: f64) {
        self.frames = (self.frames + frames).min(BURST);
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for FrameLimit<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = into.filled().len();
        ready!(pin!(&mut this.connection).poll_read(context, into))?;
        let idle = this.frames.idle_in(&into.filled()[before..]);
        let spent = this.updates.spend(idle.updates).and(this.others.spend(idle.others));
        Poll::Ready(spent)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for FrameLimit<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(pin!(&mut self.connection).poll_write(context, bytes))?;
        self.updates.earn(written as f64 / BYTES_PER_UPDATE);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        frame.resize(HEAD_BYTES + usize::from(length), 0xff);
        frame
    }

    #[test]
    fn frames_are_found_wherever_reads_split_them() {
        let mut bytes = vec![b'P'; PREFACE_BYTES];
        for (kind, length) in [(4, 12), (HEADERS, 200), (6, 8), (0, 0), (9, 255), (8, 4)] {
            bytes.extend(frame(kind, length));
        }
        for size in 1..bytes.len() {
            let mut limit = FrameLimit::new(());
            let (mut updates, mut others) = (0, 0);
            for part in bytes.chunks(size) {
                let idle = limit.frames.idle_in(part);
                (updates, others) = (updates + idle.updates, others + idle.others);
            }
            assert_eq!((updates, others), (1, 4), "in reads of {size}");
        }
    }

    #[test]
    fn a_client_that_reads_much_may_send_much() {
        let mut allowed = Allowance::new();
        assert!(allowed.spend(999).is_ok());
        assert!(allowed.spend(500).is_err());
        allowed.earn(1000.0);
        assert!(allowed.spend(400).is_ok());
        assert!(allowed.spend(5000).is_err());
    }
}
