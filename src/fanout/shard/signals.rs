//! What a shard tells its clients besides entries: signs of life, and that Redis is away or back.

use std::io;
use std::time::Instant;

use bytes::Bytes;

use super::super::broadcast_write::PerKind;
use super::super::members::yield_at;
use super::super::signal::{Signal, is_up};
use super::super::wire::WritePosition;
use super::super::{Subscriber, uring};
use super::task::{Member, Shard};
use crate::config::Signals;
use crate::sse::{Control, Controls, StreamId};
use crate::stream::ReaderState;
use crate::telemetry::metrics::DisconnectReason;

impl Shard {
    pub(super) async fn reader_changed(&mut self, reader: ReaderState) {
        if let ReaderState::Refused(reason) = reader {
            let control = Some(Control::Unavailable { reason });
            for slot in self.members.slots() {
                self.disconnect(slot, control, DisconnectReason::Error);
                yield_at(slot).await;
            }
        }
        let changed = is_up(&self.reader) != is_up(&reader);
        self.reader = reader;
        if changed {
            self.signal(Signal::of_state(!is_up(&self.reader))).await;
        }
    }

    /// Tells every client the same.
    pub(super) async fn signal(&mut self, signal: Signal) {
        let (mut shared, mut outcomes) = (PerKind::default(), Vec::new());
        let at = self.position_to_tell(signal);
        let at_once = self.fanout.settings().at_once;
        for burst in self.members.bursts() {
            let due: Vec<_> = burst
                .filter(|slot| self.members.contains(*slot))
                .map(|slot| {
                    let Member { subscriber, has_until, .. } = &self.members[slot];
                    let at = at.filter(|_| *has_until <= self.position);
                    (slot, signal_for(subscriber, signal, at, &mut shared))
                })
                .collect();
            let sends = due.iter().map(|(slot, bytes)| (self.members.socket(*slot), &**bytes));
            uring::send(at_once, sends, &mut outcomes);
            for ((slot, bytes), outcome) in due.iter().zip(outcomes.drain(..)) {
                self.signalled(*slot, bytes, &outcome);
            }
            tokio::task::yield_now().await;
        }
        self.last_write = Instant::now();
    }

    /// Up to where members have come that get only some entries, where they are still to be told.
    fn position_to_tell(&mut self, signal: Signal) -> Option<StreamId> {
        let is_due = signal == Signal::Keepalive && self.told_position < self.position;
        self.groups.as_ref().filter(|_| is_due)?;
        self.told_position = self.position;
        self.topic.state().ring.told_before(self.position)
    }

    /// Tells one client that its token expires.
    pub(super) fn warn(&mut self, slot: usize, control: Control) {
        let member = &mut self.members[slot];
        member.subscriber.admitted.warned();
        let member = &self.members[slot];
        let (format, id) = (member.subscriber.format, self.last_id(member));
        let mut bytes = Vec::new();
        format.append_control(id, control, &mut bytes);
        let bytes = Bytes::from(bytes);
        let outcome = self.members.socket(slot).send(&bytes);
        self.signalled(slot, &bytes, &outcome);
    }

    /// The last event id that a member's client was told.
    pub(super) fn last_id(&self, member: &Member) -> Option<StreamId> {
        self.topic.state().ring.told_before(self.position.max(member.has_until))
    }

    fn signalled(&mut self, slot: usize, bytes: &Bytes, outcome: &io::Result<usize>) {
        match *outcome {
            Ok(sent) if sent == bytes.len() => {}
            Ok(sent) => {
                let seq = self.members[slot].has_until.max(self.position);
                let rest = bytes[sent..].to_vec();
                self.leave_to_catch_up(slot, WritePosition { seq, offset: 0 }, rest);
            }
            Err(_) => self.remove(slot, DisconnectReason::Client),
        }
    }
}

/// What one kind of client gets as a signal: framed or not, in which form, up to where it has come.
type SignalKind = (bool, Controls, Signals, Option<StreamId>);

/// The signal in the form that this client gets, and up to where it has come; made once for each kind.
fn signal_for(
    subscriber: &Subscriber,
    signal: Signal,
    at: Option<StreamId>,
    shared: &mut PerKind<SignalKind, Bytes>,
) -> Bytes {
    let (format, signals) = (subscriber.format, subscriber.rules.signals);
    shared.get((format.framed, format.controls, signals, at), || {
        let mut bytes = signal.bytes(format, signals);
        if at.is_some() {
            format.append_control(at, Control::At, &mut bytes);
        }
        Bytes::from(bytes)
    })
}
