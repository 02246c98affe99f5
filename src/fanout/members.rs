//! The members of one loop: their sockets, each in a slot, and which of them have input.

use std::io;
use std::ops::{Index, IndexMut, Range};

use slab::Slab;

use super::poller::{MemberSocket, SocketPoller};
use super::socket::Input;
use super::{Socket, uring};

/// So few slots are looked at whether they are vacant or not,
const FEW_SLOTS: usize = 256;
/// and more of them until only one in so many is taken.
const SPARSE: usize = 4;

/// Clients whose sockets one task writes to.
pub(super) struct Members<M> {
    seats: Slab<Seat<M>>,
    /// Watches their sockets; `None` as long as there was no more than one at once, or none is left.
    poller: Option<SocketPoller>,
}

struct Seat<M> {
    socket: MemberSocket,
    member: M,
}

/// In a round over all slots: lets other tasks have their turns now and then.
pub(super) async fn yield_at(slot: usize) {
    if slot % uring::MOST == uring::MOST - 1 {
        tokio::task::yield_now().await;
    }
}

impl<M> Members<M> {
    pub(super) fn with_capacity(slots: usize) -> Self {
        Self { seats: Slab::with_capacity(slots), poller: None }
    }

    /// Takes a member in; its slot. Where its socket cannot be watched, it comes back.
    pub(super) fn insert(&mut self, socket: Socket, member: M) -> Result<usize, (io::Error, M)> {
        if self.seats.is_empty() && self.poller.is_none() {
            return match MemberSocket::watched(socket) {
                Ok(socket) => Ok(self.seats.insert(Seat { socket, member })),
                Err(error) => Err((error, member)),
            };
        }
        let socket = MemberSocket::Bare(socket);
        let slot = self.seats.insert(Seat { socket, member });
        match self.watch(slot) {
            Ok(()) => Ok(slot),
            Err(error) => Err((error, self.seats.remove(slot).member)),
        }
    }

    /// Has an epoll watch a member's socket; the first time, those of all members.
    fn watch(&mut self, slot: usize) -> io::Result<()> {
        if let Some(poller) = &self.poller {
            return poller.add(slot, self.socket(slot));
        }
        let poller = SocketPoller::new()?;
        for (slot, seat) in &self.seats {
            poller.add(slot, seat.socket.get())?;
        }
        self.poller = Some(poller);
        Ok(())
    }

    /// Lets a member go, with its socket.
    pub(super) fn remove(&mut self, slot: usize) -> Option<(Socket, M)> {
        let Seat { socket, member } = self.seats.try_remove(slot)?;
        if let Some(poller) = &self.poller {
            poller.remove(socket.get());
        }
        if self.seats.is_empty() {
            self.poller = None;
        }
        Some((socket.into_bare(), member))
    }

    /// The slots of some members whose sockets have input.
    pub(super) async fn readable(&self) -> io::Result<Vec<usize>> {
        if let Some(poller) = &self.poller {
            return poller.readable().await;
        }
        match self.seats.iter().next() {
            Some((slot, seat)) => seat.socket.readable().await.map(|()| vec![slot]),
            None => std::future::pending().await,
        }
    }

    /// Discards what the member's client has sent; whether the client has left.
    pub(super) fn has_left(&self, slot: usize) -> bool {
        let seat = self.seats.get(slot);
        seat.is_some_and(|seat| seat.socket.get().discard_input() == Input::Closed)
    }

    /// Moves the members together where most slots are vacant, for each round looks at every slot; whether it did. Nobody
    /// may know a slot meanwhile.
    pub(super) fn close_ranks(&mut self) -> bool {
        let slots = self.seats.capacity();
        if slots <= FEW_SLOTS || self.seats.len() > slots / SPARSE {
            return false;
        }
        let Some(poller) = &self.poller else { return false };
        self.seats.compact(|seat, _, slot| poller.move_to(slot, seat.socket.get()).is_ok());
        self.seats.shrink_to_fit();
        true
    }

    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Every slot, taken or not.
    pub(super) fn slots(&self) -> Range<usize> {
        0..self.seats.capacity()
    }

    /// The slots, as many at once as are written to in one go.
    pub(super) fn bursts(&self) -> impl Iterator<Item = Range<usize>> + use<M> {
        let slots = self.slots();
        slots
            .clone()
            .step_by(uring::MOST)
            .map(move |first| first..slots.end.min(first + uring::MOST))
    }

    pub(super) fn contains(&self, slot: usize) -> bool {
        self.seats.contains(slot)
    }

    pub(super) fn get(&self, slot: usize) -> Option<&M> {
        self.seats.get(slot).map(|seat| &seat.member)
    }

    /// Its socket; the slot is taken.
    pub(super) fn socket(&self, slot: usize) -> &Socket {
        self.seats[slot].socket.get()
    }

    /// Each with its slot.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &M)> {
        self.seats.iter().map(|(slot, seat)| (slot, &seat.member))
    }
}

impl<M> Index<usize> for Members<M> {
    type Output = M;

    fn index(&self, slot: usize) -> &M {
        &self.seats[slot].member
    }
}

impl<M> IndexMut<usize> for Members<M> {
    fn index_mut(&mut self, slot: usize) -> &mut M {
        &mut self.seats[slot].member
    }
}
