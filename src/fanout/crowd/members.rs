//! Who is in a hall: clients that join, that go back to tasks of their own, and that leave.

use std::time::Instant;

use super::CrowdKey;
use super::hall::{Crowd, Hall, Member, Part};
use super::news::count;
use super::write::{Composed, Position};
use crate::fanout::Socket;
use crate::fanout::merged::{LevelPart, LevelStream};
use crate::telemetry::metrics::DisconnectReason;

impl Hall {
    /// Takes a client in: writes what it misses, which others have had.
    pub(super) fn admit(&mut self, socket: Socket, mut stream: LevelStream) {
        let mut positions = stream.positions();
        let Some(missing) = self.missing(&stream) else {
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

    /// What a client misses of what others have; `None`: it has to catch up by itself.
    fn missing(&self, stream: &LevelStream) -> Option<Composed> {
        let (mut positions, mut composed) = (stream.positions(), Composed::default());
        for (index, part) in stream.parts.iter().enumerate() {
            let feed = self.feeds.of_topic(part.subscriber.topic());
            let Some(feed) = feed.and_then(|feed| self.feeds.get(feed)) else { continue };
            let format = part.subscriber.format;
            let batches = feed.missing(part.seq, format)?;
            composed.add(&mut positions, index, &batches, feed.seq, (format, stream.format));
        }
        Some(composed)
    }

    fn take_in(&mut self, socket: Socket, stream: LevelStream) {
        let crowd = self.crowd_of(&stream);
        let place = self.crowds[crowd].slots.len();
        let LevelStream { admitted, route, rules, parts, .. } = stream;
        let due = admitted.next_deadline();
        let subscribers = parts.into_iter().map(|part| part.subscriber).collect();
        let member = Member { admitted, route, rules, subscribers, crowd, place };
        match self.members.insert(socket, member) {
            Ok(slot) => self.crowds[crowd].slots.push(slot),
            Err((error, Member { admitted, .. })) => {
                self.fanout.warn_unwatched(&admitted, &error);
                admitted.ended(&self.fanout.metrics, route, DisconnectReason::Error);
                return self.close_if_empty(crowd);
            }
        }
        if let Some(due) = due {
            self.next_deadline = Some(self.next_deadline.map_or(due, |next| next.min(due)));
        }
    }

    /// Those that follow the same.
    fn crowd_of(&mut self, stream: &LevelStream) -> usize {
        let key = CrowdKey::of(stream);
        if let Some(crowd) = self.by_key.get(&key) {
            return *crowd;
        }
        let entry = self.crowds.vacant_entry();
        let crowd = entry.key();
        let part = |(index, part): (usize, &LevelPart)| {
            let feed = self.feeds.follow(crowd, index, part);
            Part { name: part.name.clone(), feed, format: part.subscriber.format }
        };
        entry.insert(Crowd {
            key: key.clone(),
            format: stream.format,
            parts: stream.parts.iter().enumerate().map(part).collect(),
            slots: Vec::with_capacity(1),
            last_write: Instant::now(),
        });
        self.by_key.insert(key, crowd);
        crowd
    }

    fn close_if_empty(&mut self, crowd: usize) {
        if !self.crowds[crowd].slots.is_empty() {
            return;
        }
        let Crowd { key, parts, .. } = self.crowds.remove(crowd);
        self.by_key.remove(&key);
        for part in parts {
            self.feeds.unfollow(crowd, part.feed);
        }
    }

    /// Removes the clients that left; what else they send is discarded.
    pub(super) fn read_input(&mut self, slots: &[usize]) {
        for slot in slots {
            if self.members.has_left(*slot) {
                self.remove(*slot);
            }
        }
    }

    /// A client has left.
    pub(super) fn remove(&mut self, slot: usize) {
        if let Some((_, Member { admitted, route, .. })) = self.take(slot) {
            admitted.ended(&self.fanout.metrics, route, DisconnectReason::Client);
        }
    }

    fn take(&mut self, slot: usize) -> Option<(Socket, Member)> {
        let (socket, member) = self.members.remove(slot)?;
        let slots = &mut self.crowds[member.crowd].slots;
        slots.swap_remove(member.place);
        if let Some(moved) = slots.get(member.place) {
            self.members[*moved].place = member.place;
        }
        self.close_if_empty(member.crowd);
        Some((socket, member))
    }

    /// Sends a member back to a task of its own, at these positions and with these bytes to be written first.
    pub(super) fn send_back(&mut self, slot: usize, positions: &[Position], unsent: Vec<u8>) {
        let Some(crowd) = self.members.get(slot).map(|member| member.crowd) else { return };
        let format = self.crowds[crowd].format;
        let Some((socket, member)) = self.take(slot) else { return };
        let Member { admitted, route, rules, subscribers, .. } = member;
        let parts = subscribers.into_iter().zip(positions);
        let parts = parts.map(|(subscriber, position)| {
            let Position { name, seq, id } = position.clone();
            LevelPart { name, subscriber, seq, id }
        });
        let stream = LevelStream { admitted, format, route, rules, parts: parts.collect() };
        stream.go_on(&self.fanout, socket, unsent);
    }

    /// Moves the members together where most have left. Nobody may know a slot meanwhile.
    pub(super) fn close_ranks(&mut self) {
        if self.members.close_ranks() {
            for (slot, member) in self.members.iter() {
                self.crowds[member.crowd].slots[member.place] = slot;
            }
        }
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
