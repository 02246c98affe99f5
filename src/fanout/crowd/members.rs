//! Who is in a crowd: clients that join, that go back to tasks of their own, and that leave.

use std::io;

use super::task::{Crowd, Member, count};
use super::write::{Composed, Position};
use crate::fanout::Socket;
use crate::fanout::merged::{LevelPart, LevelStream};
use crate::fanout::poller::{MemberSocket, SocketPoller};
use crate::fanout::socket::Input;
use crate::telemetry::metrics::DisconnectReason;

impl Crowd {
    /// Takes a client in: writes what it misses, which others have had.
    pub(super) fn admit(&mut self, socket: Socket, mut stream: LevelStream) {
        let mut positions = stream.positions();
        let Some(missing) = self.missing(&positions) else {
            return stream.go_on(&self.fanout, socket, Vec::new());
        };
        let bytes = &missing.bytes;
        let sent = if bytes.is_empty() { Ok(0) } else { socket.send(bytes) };
        let Ok(sent) = sent else {
            return stream.admitted.ended(
                &self.fanout.metrics,
                stream.route,
                DisconnectReason::Client,
            );
        };
        let (events, rest) = missing.advance(&mut positions, sent);
        count(&self.fanout.metrics, &stream.admitted, stream.route, events, sent);
        if sent < bytes.len() {
            stream.move_to(&positions);
            return stream.go_on(&self.fanout, socket, rest.to_vec());
        }
        self.take_in(socket, stream);
    }

    /// What a client at these positions misses; `None`: it has to catch up by itself.
    fn missing(&self, positions: &[Position]) -> Option<Composed> {
        let (mut positions, mut composed) = (positions.to_vec(), Composed::default());
        for (part, crowd) in self.positions.iter().enumerate() {
            let from_seq = positions[part].seq;
            let batches = self.batches(part, from_seq, crowd.seq)?;
            let end_seq = batches.last().map_or(from_seq, |last| last.end_seq());
            let is_whole = from_seq == crowd.seq || from_seq < crowd.seq && end_seq >= crowd.seq;
            if !is_whole {
                return None;
            }
            let formats = (self.parts[part].format, self.format);
            composed.add(&mut positions, part, &batches, crowd.seq, formats);
        }
        Some(composed)
    }

    fn take_in(&mut self, socket: Socket, stream: LevelStream) {
        let LevelStream { admitted, route, rules, parts, .. } = stream;
        let is_watched = self.members.is_empty() && self.poller.is_none();
        let socket =
            if is_watched { MemberSocket::watched(socket) } else { Ok(MemberSocket::Bare(socket)) };
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                self.fanout.warn_unwatched(&admitted, &error);
                return admitted.ended(&self.fanout.metrics, route, DisconnectReason::Error);
            }
        };
        let due = admitted.next_deadline();
        let subscribers = parts.into_iter().map(|part| part.subscriber).collect();
        let slot = self.members.insert(Member { socket, admitted, route, rules, subscribers });
        if !is_watched && let Err(error) = self.watch(slot) {
            self.fanout.warn_unwatched(&self.members[slot].admitted, &error);
            return self.remove_for(slot, DisconnectReason::Error);
        }
        if let Some(due) = due {
            self.next_deadline = Some(self.next_deadline.map_or(due, |next| next.min(due)));
        }
    }

    /// Has an epoll watch a member's socket; the first time, those of all members.
    fn watch(&mut self, slot: usize) -> io::Result<()> {
        if let Some(poller) = &self.poller {
            return poller.add(slot, self.members[slot].socket.get());
        }
        let poller = SocketPoller::new()?;
        for (slot, member) in &self.members {
            poller.add(slot, member.socket.get())?;
        }
        self.poller = Some(poller);
        Ok(())
    }

    /// The slots of some members whose sockets have input.
    pub(super) async fn readable(&self) -> io::Result<Vec<usize>> {
        if let Some(poller) = &self.poller {
            return poller.readable().await;
        }
        match self.members.iter().next() {
            Some((slot, member)) => member.socket.readable().await.map(|()| vec![slot]),
            None => std::future::pending().await,
        }
    }

    /// Removes the clients that left; what else they send is discarded.
    pub(super) fn read_input(&mut self, slots: &[usize]) {
        for slot in slots {
            let Some(member) = self.members.get(*slot) else { continue };
            if member.socket.get().discard_input() == Input::Closed {
                self.remove(*slot);
            }
        }
    }

    /// A client has left.
    pub(super) fn remove(&mut self, slot: usize) {
        self.remove_for(slot, DisconnectReason::Client);
    }

    fn remove_for(&mut self, slot: usize, reason: DisconnectReason) {
        if let Some(Member { admitted, route, .. }) = self.take(slot) {
            admitted.ended(&self.fanout.metrics, route, reason);
        }
    }

    fn take(&mut self, slot: usize) -> Option<Member> {
        let member = self.members.try_remove(slot)?;
        if let Some(poller) = &self.poller {
            poller.remove(member.socket.get());
        }
        Some(member)
    }

    /// Sends a member back to a task of its own, at these positions and with these bytes to be written first.
    pub(super) fn send_back(&mut self, slot: usize, positions: &[Position], unsent: Vec<u8>) {
        let Some(member) = self.take(slot) else { return };
        let Member { socket, admitted, route, rules, subscribers } = member;
        let parts = subscribers.into_iter().zip(positions);
        let parts = parts.map(|(subscriber, position)| {
            let Position { name, seq, id } = position.clone();
            LevelPart { name, subscriber, seq, id }
        });
        let format = self.format;
        let stream = LevelStream { admitted, format, route, rules, parts: parts.collect() };
        stream.go_on(&self.fanout, socket.into_bare(), unsent);
    }
}

impl LevelStream {
    fn positions(&self) -> Vec<Position> {
        let position = |part: &LevelPart| {
            let LevelPart { name, seq, id, .. } = part;
            Position { name: name.clone(), seq: *seq, id: *id }
        };
        self.parts.iter().map(position).collect()
    }

    fn move_to(&mut self, positions: &[Position]) {
        for (part, position) in self.parts.iter_mut().zip(positions) {
            (part.seq, part.id) = (position.seq, position.id);
        }
    }
}
