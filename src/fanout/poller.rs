//! A shard's own epoll: tells which of its sockets have input, which is how a client leaves.
//!
//! Sockets that wait in no runtime's reactor cost a few bytes each; the epoll itself is watched
//! through one `AsyncFd`.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{Timespec, epoll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Socket;
use super::socket::watched;

/// Sockets told of in one turn.
const EVENTS_PER_TURN: usize = 256;

/// What a socket is watched for.
const WATCHED: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP);

pub(super) struct SocketPoller(AsyncFd<OwnedFd>);

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
