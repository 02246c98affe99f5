//! Where a catch-up subscriber's bytes go: a bare socket, or a body that hyper writes.

use std::io;

use bytes::Bytes;
use tokio::io::unix::AsyncFd;

use super::Socket;
use super::body::{PIECE_BYTES, Sink};
use super::socket::wait_until_left;

pub(super) enum SubscriberWriter {
    /// The client's socket; it can go to a shard.
    Socket(AsyncFd<Socket>),
    /// A body; nobody but a catch-up subscriber can fill it.
    Body(Sink),
}

impl SubscriberWriter {
    /// No more than this is taken in one go, and to make more ready is work for nothing.
    pub(super) fn most_bytes(&self) -> usize {
        match self {
            Self::Socket(_) => usize::MAX,
            Self::Body(_) => PIECE_BYTES,
        }
    }

    /// Sends what is taken at once; zero: nothing now.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.get_ref().send(bytes),
            Self::Body(body) => {
                let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
                // An empty piece is an empty frame, and clients leave for a hundred of these.
                if piece.is_empty() {
                    return Ok(0);
                }
                Ok(if body.put(|| Bytes::copy_from_slice(piece))? { piece.len() } else { 0 })
            }
        }
    }

    /// The same, without a copy where a body takes it.
    pub(super) fn send_shared(&self, bytes: &Bytes) -> io::Result<usize> {
        match self {
            Self::Body(body) if !bytes.is_empty() && bytes.len() <= PIECE_BYTES => {
                Ok(if body.put(|| bytes.clone())? { bytes.len() } else { 0 })
            }
            _ => self.send(bytes),
        }
    }

    /// Returns once something may be taken.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Socket(socket) => {
                // Readiness may be old: a failed send clears it, and the next wait is a true one.
                socket.writable().await?.clear_ready();
            }
            Self::Body(body) => body.has_room().await,
        }
        Ok(())
    }

    /// Returns once the client has left; whatever it sends is thrown away.
    pub(super) async fn left(&self) {
        match self {
            Self::Socket(socket) => {
                wait_until_left(socket, || socket.get_ref().discard_input()).await;
            }
            Self::Body(body) => body.gone().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fanout::body::body;

    /// Of a client from which entries are withheld there is often nothing to be sent.
    #[test]
    fn what_is_empty_is_no_piece_of_a_body() {
        let (sink, body) = body();
        let writer = SubscriberWriter::Body(sink);
        assert_eq!(writer.send(b"").unwrap(), 0);
        assert_eq!(writer.send_shared(&Bytes::new()).unwrap(), 0);
        assert_eq!(body.take(), None);
        assert_eq!(writer.send(b"x").unwrap(), 1);
        assert_eq!(body.take(), Some("x".into()));
    }
}
