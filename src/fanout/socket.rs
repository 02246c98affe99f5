//! A client's socket outside of hyper and of the runtime: it sends, and tells when the client has left.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Input taken from a client in one call; it is discarded.
const INPUT_BYTES: usize = 4096;

/// A connected TCP or unix stream socket in non-blocking mode.
#[derive(Debug)]
pub struct Socket(OwnedFd);

/// What a client's input tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// There is none.
    None,
    /// Some was discarded; there may be more.
    Discarded,
    /// The client has left.
    Closed,
}

impl Socket {
    /// Takes over a socket that nobody else reads or writes.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Writes what the kernel takes at once; zero: nothing now.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match send(&self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => Ok(sent),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Discards what the client sent.
    pub fn discard_input(&self) -> Input {
        let mut buffer = [0_u8; INPUT_BYTES];
        match recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Input::Closed,
            Ok(_) => Input::Discarded,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Input::None,
            Err(_) => Input::Closed,
        }
    }

    /// Ends our direction; the client reads the end of the stream.
    pub fn finish(&self) {
        // It fails for a client that has left, which is fine.
        let _ = shutdown(&self.0, Shutdown::Write);
    }
}

/// Returns once the client has left; whatever it sends is thrown away.
pub async fn left(socket: &Socket) {
    match watched(socket.as_fd(), Interest::READABLE) {
        Ok(watching) => wait_until_left(&watching, || socket.discard_input()).await,
        // Without a descriptor for the watch nobody notices.
        Err(_) => std::future::pending().await,
    }
}

/// The same, of a socket that is watched.
pub(super) async fn wait_until_left<T: AsRawFd>(
    watching: &AsyncFd<T>,
    discard_input: impl Fn() -> Input,
) {
    loop {
        let Ok(mut ready) = watching.readable().await else { return };
        match discard_input() {
            Input::Closed => return,
            Input::None => ready.clear_ready(),
            Input::Discarded => {}
        }
    }
}

/// Registers a descriptor that its owner closes and nobody else does with the runtime's reactor.
#[expect(
    deprecated,
    reason = "the replacement is unsafe because a type's as_raw_fd could name \
    another descriptor each time; OwnedFd's, which is behind all of ours, does not"
)]
pub(super) fn watched<T: AsRawFd + AsFd>(inner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(inner, interest)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
