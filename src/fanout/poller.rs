//! Tells which sockets of a shard or a hall have input, which is how a client leaves.
//!
//! A single socket is watched by the runtime itself. Several are in an epoll of their own: sockets that wait in no
//! runtime's reactor cost a few bytes each, and the epoll itself is watched through one `AsyncFd`.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Socket;
use super::socket::watched;

/// Sockets told of in one turn.
const EVENTS_PER_TURN: usize = 256;

/// What a socket is watched for.
const WATCHED: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP);

/// Watches several sockets.
pub(super) struct SocketPoller(AsyncFd<OwnedFd>);

/// A socket, and whether the runtime watches it by itself.
pub(super) enum MemberSocket {
    /// A [`SocketPoller`] does.
    Bare(Socket),
    /// It does, whoever else does.
    Watched(Box<AsyncFd<Socket>>),
}

impl MemberSocket {
    pub(super) fn watched(socket: Socket) -> io::Result<Self> {
        Ok(Self::Watched(Box::new(watched(socket, Interest::READABLE)?)))
    }

    pub(super) fn get(&self) -> &Socket {
        match self {
            Self::Bare(socket) => socket,
            Self::Watched(watched) => watched.get_ref(),
        }
    }

    /// The socket, which the runtime watches no longer.
    pub(super) fn into_bare(self) -> Socket {
        match self {
            Self::Bare(socket) => socket,
            Self::Watched(watched) => watched.into_inner(),
        }
    }

    /// Returns once it has input that was not read yet; never for one that the runtime does not watch.
    pub(super) async fn readable(&self) -> io::Result<()> {
        let Self::Watched(watched) = self else { return std::future::pending().await };
        loop {
            let mut ready = watched.readable().await?;
            if has_input(watched.get_ref()) {
                ready.retain_ready();
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

fn has_input(socket: &Socket) -> bool {
    let mut looked_at = [PollFd::new(socket, PollFlags::IN | PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // An interrupted call finds nothing; input that is there makes the socket ready again.
    poll(&mut looked_at, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

impl SocketPoller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        watched(epoll, Interest::READABLE).map(Self)
    }

    pub(super) fn add(&self, slot: usize, socket: &Socket) -> io::Result<()> {
        let data = epoll::EventData::new_u64(slot as u64);
        epoll::add(self.0.get_ref(), socket, data, WATCHED).map_err(io::Error::from)
    }

    /// The socket is in another slot from now on.
    pub(super) fn move_to(&self, slot: usize, socket: &Socket) -> io::Result<()> {
        let data = epoll::EventData::new_u64(slot as u64);
        epoll::modify(self.0.get_ref(), socket, data, WATCHED).map_err(io::Error::from)
    }

    pub(super) fn remove(&self, socket: &Socket) {
        // This fails only for a socket that is not in the epoll, and then there is nothing to do.
        let _ = epoll::delete(self.0.get_ref(), socket);
    }

    /// The slots of some sockets that have input. The epoll tells of them again until the input is read, so
    /// nothing is lost if the caller drops the answer.
    pub(super) async fn readable(&self) -> io::Result<Vec<usize>> {
        loop {
            let mut ready = self.0.readable().await?;
            let slots = look(ready.get_inner());
            if !slots.is_empty() {
                ready.retain_ready();
                return Ok(slots);
            }
            ready.clear_ready();
        }
    }
}

fn look(epoll: &OwnedFd) -> Vec<usize> {
    let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_PER_TURN);
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let spare = rustix::buffer::spare_capacity(&mut events);
    // An interrupted call finds nothing; input that is there makes the epoll ready again.
    let _ = epoll::wait(epoll, spare, Some(&at_once));
    let slot = |event: &epoll::Event| {
        let data = event.data;
        usize::try_from(data.u64()).expect("slots are indices")
    };
    events.iter().map(slot).collect()
}
