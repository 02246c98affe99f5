//! Who is in a shard: subscribers that join, that leave for catch-up, and that are disconnected.

use std::sync::Arc;
use std::time::Instant;

use super::Joining;
use super::groups::Groups;
use super::task::{Member, Shard, WRITE_BYTES};
use crate::fanout::broadcast_write::{BroadcastWrite, Sent};
use crate::fanout::catchup::{CatchUp, DeliveryState, Phase, catch_up};
use crate::fanout::deadline::Deadline;
use crate::fanout::members::yield_at;
use crate::fanout::signal::is_up;
use crate::fanout::wire::{WritePosition, id_before};
use crate::fanout::{Socket, Subscriber, close};
use crate::sse::Control;
use crate::stream::{Batch, ReaderState};
use crate::telemetry::metrics::DisconnectReason;

impl Shard {
    /// Takes a subscriber in: writes what its client misses, skips what it already has.
    pub(super) fn admit(&mut self, joining: Joining) {
        let Joining { socket, subscriber, next_seq, mut delivery } = joining;
        let agrees = delivery.source_down != is_up(&self.reader);
        let missing = self.missing(&subscriber, next_seq).filter(|missing| {
            agrees && !self.is_refused() && !subscriber.may_leave_in(missing, next_seq)
        });
        let Some(missing) = missing else {
            // Catch-up brings what is missing, and tells of Redis.
            let phase = Phase::Ring(WritePosition { seq: next_seq, offset: 0 });
            let machine = CatchUp::at(&subscriber, phase, delivery, Vec::new());
            return self.hand_over(socket, subscriber, machine);
        };
        let metrics = self.fanout.metrics.clone();
        let missing = match subscriber.selection() {
            Some(selection) => subscriber.format.selected(&missing, selection),
            None => missing,
        };
        let mut broadcast = BroadcastWrite::new(&missing, next_seq, metrics.routes().len());
        broadcast.add(0, subscriber.format, next_seq);
        let not_whole = broadcast.send(false, |_| (&socket, &subscriber)).pop();
        broadcast.count(&metrics);
        match not_whole.map(|(_, sent)| sent) {
            None => self.take_in(socket, subscriber, next_seq),
            Some(Sent::Short(done)) => {
                let WritePosition { seq, offset } = done.position;
                delivery.last_id = id_before(&missing, seq).or(delivery.last_id);
                let half_written = (offset > 0).then(|| id_before(&missing, seq + 1)).flatten();
                let (phase, unsent) = (Phase::Ring(done.position), done.rest.to_vec());
                let machine = CatchUp::at(&subscriber, phase, delivery, unsent);
                self.hand_over(socket, subscriber, machine.amid(half_written).behind());
            }
            Some(Sent::Failed) => {
                self.inbox.subscriber_left();
                subscriber.ended(&metrics, DisconnectReason::Client);
            }
        }
    }

    pub(super) fn hand_over(&self, socket: Socket, subscriber: Subscriber, machine: CatchUp) {
        self.inbox.subscriber_left();
        catch_up(&self.fanout, socket, subscriber, machine);
    }

    pub(super) fn take_in(&mut self, socket: Socket, subscriber: Subscriber, next_seq: u64) {
        let due = subscriber.next_end();
        let has_until = next_seq.max(self.position);
        let slot = match self.members.insert(socket, Member { subscriber, has_until }) {
            Ok(slot) => slot,
            Err((error, Member { subscriber, .. })) => {
                self.fanout.warn_unwatched(&subscriber.admitted, &error);
                self.inbox.subscriber_left();
                return subscriber.ended(&self.fanout.metrics, DisconnectReason::Error);
            }
        };
        if let Some(groups) = &mut self.groups {
            groups.insert(slot, &self.members[slot].subscriber);
        }
        if self.draining {
            self.set_expiry(slot, self.fanout.drain_expiry());
        } else if let Some(due) = due {
            self.note_deadline(due);
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        matches!(self.reader, ReaderState::Refused(_))
    }

    /// The batches between a subscriber and the shard; `None` where it has to catch up by itself.
    pub(super) fn missing(
        &self,
        subscriber: &Subscriber,
        next_seq: u64,
    ) -> Option<Vec<Arc<Batch>>> {
        if next_seq >= self.position {
            return Some(Vec::new());
        }
        let state = self.topic.state();
        let batches = state.ring.from(next_seq).take_while(|batch| batch.first_seq < self.position);
        let batches: Vec<_> = batches.cloned().collect();
        let first = batches.first()?;
        let last = batches.last()?;
        // The shard stands between two batches, so what it misses are whole ones.
        let whole = first.first_seq <= next_seq && last.end_seq() == self.position;
        let small = batches.iter().map(|batch| batch.size_bytes()).sum::<usize>() <= WRITE_BYTES;
        (whole && small && subscriber.format.is_in(first)).then_some(batches)
    }

    pub(super) async fn apply_deadlines(&mut self, now: Instant) {
        self.next_deadline = None;
        for slot in self.members.slots() {
            yield_at(slot).await;
            let Some(member) = self.members.get(slot) else { continue };
            let stalled = || member.subscriber.stalled_end();
            match member.subscriber.admitted.deadline(now, self.draining).or_else(stalled) {
                Some(Deadline::End(control, reason)) => self.disconnect(slot, control, reason),
                Some(Deadline::Warning(control)) => self.warn(slot, control),
                None => {}
            }
            let member = self.members.get(slot);
            if let Some(due) = member.and_then(|member| member.subscriber.next_end()) {
                self.note_deadline(due);
            }
        }
    }

    pub(super) fn note_deadline(&mut self, due: Instant) {
        self.next_deadline = Some(self.next_deadline.map_or(due, |next| next.min(due)));
    }

    pub(super) fn set_expiry(&mut self, slot: usize, expires: Instant) {
        let subscriber = &mut self.members[slot].subscriber;
        subscriber.admitted.expires = Some(expires);
        let due = subscriber.next_end().unwrap_or(expires);
        self.note_deadline(due);
    }

    pub(super) async fn begin_drain(&mut self) {
        self.draining = true;
        self.next_deadline = None;
        for slot in self.members.slots() {
            if self.members.contains(slot) {
                self.set_expiry(slot, self.fanout.drain_expiry());
            }
            yield_at(slot).await;
        }
    }

    /// Moves the members together where most have left. Nobody may know a slot meanwhile.
    pub(super) fn close_ranks(&mut self) {
        if self.members.close_ranks()
            && let Some(groups) = &mut self.groups
        {
            **groups = Groups::default();
            for (slot, Member { subscriber, .. }) in self.members.iter() {
                groups.insert(slot, subscriber);
            }
        }
    }

    pub(super) fn take(&mut self, slot: usize) -> Option<(Socket, Member)> {
        let (socket, member) = self.members.remove(slot)?;
        self.inbox.subscriber_left();
        if let Some(groups) = &mut self.groups {
            groups.remove(slot, &member.subscriber);
        }
        Some((socket, member))
    }

    pub(super) fn remove(&mut self, slot: usize, reason: DisconnectReason) {
        if let Some((_, member)) = self.take(slot) {
            member.subscriber.ended(&self.fanout.metrics, reason);
        }
    }

    pub(super) fn leave_to_catch_up(&mut self, slot: usize, from: WritePosition, rest: Vec<u8>) {
        let Some((socket, Member { subscriber, .. })) = self.take(slot) else { return };
        let last_id = self.topic.state().ring.told_before(from.seq);
        let delivery = DeliveryState { last_id, live: true, source_down: !is_up(&self.reader) };
        let machine = CatchUp::left_by_shard(&self.topic, &subscriber, from, delivery, rest);
        catch_up(&self.fanout, socket, subscriber, machine);
    }

    pub(super) fn disconnect(
        &mut self,
        slot: usize,
        control: Option<Control>,
        reason: DisconnectReason,
    ) {
        let Some((socket, member)) = self.take(slot) else { return };
        let id = self.last_id(&member);
        let frame = self.fanout.closing_frame(&member.subscriber, id, control);
        member.subscriber.ended(&self.fanout.metrics, reason);
        close(&self.fanout, socket, member.subscriber, frame.bytes);
    }
}
