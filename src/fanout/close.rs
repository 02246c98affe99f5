//! The end of a stream: a closing frame, then a shutdown of our direction, then the client's input read to its
//! end. A close with unread input would make the kernel reset what the client has not read yet.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::socket::{Input, watched};
use super::{Fanout, Socket};

/// How long a client may take to close its direction once we have closed ours.
pub const CLIENT_CLOSE_TIME: Duration = Duration::from_secs(1);

/// Writes the closing frame and closes, in a task of its own; `held` (a subscriber's permits) is given back when
/// that is done.
pub fn close<T: Send + 'static>(
    fanout: &Arc<Fanout>,
    socket: Socket,
    held: T,
    closing_frame: Vec<u8>,
) {
    let write_stall = fanout.settings().write_stall;
    fanout.tasks.spawn(async move {
        close_with(socket, closing_frame, write_stall).await;
        drop(held);
    });
}

/// Writes the closing frame, which the client takes within `write_stall` or not at all, and closes.
pub async fn close_with(socket: Socket, closing_frame: Vec<u8>, write_stall: Duration) {
    let Ok(socket) = watched(socket, Interest::READABLE | Interest::WRITABLE) else {
        return;
    };
    if matches!(timeout(write_stall, send_all(&socket, &closing_frame)).await, Ok(Ok(()))) {
        socket.get_ref().finish();
        // Whether the client closed or took too long: the socket is closed now.
        let _ = timeout(CLIENT_CLOSE_TIME, read_to_end(&socket)).await;
    }
}

async fn send_all(socket: &AsyncFd<Socket>, mut bytes: &[u8]) -> std::io::Result<()> {
    loop {
        // A send first: there may be room in a socket that the kernel does not call writable yet.
        let sent = socket.get_ref().send(bytes)?;
        bytes = &bytes[sent..];
        if bytes.is_empty() {
            return Ok(());
        }
        // Readiness may be old: the next wait is a true one.
        socket.writable().await?.clear_ready();
    }
}

async fn read_to_end(socket: &AsyncFd<Socket>) -> std::io::Result<()> {
    loop {
        let mut ready = socket.readable().await?;
        match socket.get_ref().discard_input() {
            Input::Closed => return Ok(()),
            Input::None => ready.clear_ready(),
            Input::Discarded => {}
        }
    }
}
