//! A connection whose first bytes were read ahead, to find out what it speaks. Its server reads them again.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::listener::Connection;

/// Room for the next read: most requests come in one.
const READ_BYTES: usize = 1024;

/// A connection with some bytes already read.
pub struct Rewind<C> {
    /// Read, but not consumed yet.
    ahead: BytesMut,
    connection: C,
}

impl<C: Connection> Rewind<C> {
    /// With nothing read yet.
    pub fn new(connection: C) -> Self {
        Self { ahead: BytesMut::new(), connection }
    }

    /// What was read ahead.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Reads more bytes ahead, up to `limit` in all. Returns how many; zero at the end of the input or at the
    /// limit. Cancelling it loses nothing.
    pub async fn look_further(&mut self, limit: usize) -> io::Result<usize> {
        let room = limit.saturating_sub(self.ahead.len());
        if self.ahead.len() == self.ahead.capacity() {
            self.ahead.reserve(room.min(READ_BYTES));
        }
        let mut input = (&mut self.connection).take(room as u64);
        input.read_buf(&mut self.ahead).await
    }

    /// Drops the first `length` bytes of what was read ahead.
    pub fn consume(&mut self, length: usize) {
        self.ahead.advance(length);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }
}

impl<C: Connection> AsyncRead for Rewind<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.connection).poll_read(context, into);
        }
        let length = self.ahead.len().min(into.remaining());
        into.put_slice(&self.ahead[..length]);
        self.consume(length);
        Poll::Ready(Ok(()))
    }
}

impl<C: Connection> AsyncWrite for Rewind<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

impl<C: Connection> Connection for Rewind<C> {
    /// What was read ahead is lost.
    fn detach(self) -> io::Result<OwnedFd> {
        self.connection.detach()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn bytes_read_ahead_are_read_again_unless_they_were_consumed() {
        let (connection, mut client) = UnixStream::pair().unwrap();
        let mut connection = Rewind::new(connection);
        client.write_all(b"header\nrequest").await.unwrap();
        assert_eq!(connection.look_further(3).await.unwrap(), 3);
        assert_eq!(connection.look_further(3).await.unwrap(), 0, "no more than the limit");
        while connection.look_further(10).await.unwrap() > 0 {}
        assert_eq!(connection.ahead(), b"header\nreq");
        connection.consume(7);
        client.shutdown().await.unwrap();
        let mut read = String::new();
        connection.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "request");
        connection.write_all(b"answer").await.unwrap();
        drop(connection);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }
}
