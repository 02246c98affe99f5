//! What a pack tells all of its clients besides entries: signs of life, Redis' coming and going.

use std::io;
use std::time::Instant;

use bytes::Bytes;

use super::super::broadcast_write::Shared;
use super::super::signal::{Signal, is_up};
use super::super::wire::Spot;
use super::super::{Client, uring};
use super::{Member, Pack};
use crate::config::Signals;
use crate::sse::{Control, StreamId, write_control};
use crate::stream::Reader;
use crate::telemetry::metrics::Left;

impl Pack {
    pub(super) fn reader_changed(&mut self, reader: Reader) {
        if let Reader::Refused(reason) = reader {
            for slot in 0..self.members.capacity() {
                self.send_away(slot, Some(Control::Unavailable { reason }), Left::Error);
            }
        }
        let changed = is_up(&self.reader) != is_up(&reader);
        self.reader = reader;
        if changed {
            self.signal(Signal::of_state(!is_up(&self.reader)));
        }
    }

    /// The same few bytes to everybody.
    pub(super) fn signal(&mut self, signal: Signal) {
        let (mut shared, mut outcomes) = (Shared::default(), Vec::new());
        let at_once = self.fanout.settings().at_once;
        for first in (0..self.members.capacity()).step_by(uring::MOST) {
            let slots = (first..first + uring::MOST).filter(|slot| self.members.contains(*slot));
            let due: Vec<_> = slots
                .map(|slot| (slot, signal_for(&self.members[slot].client, signal, &mut shared)))
                .collect();
            let sends = due.iter().map(|(slot, bytes)| (&self.members[*slot].socket, &**bytes));
            uring::send(at_once, sends, &mut outcomes);
            for ((slot, bytes), outcome) in due.iter().zip(outcomes.drain(..)) {
                self.signalled(*slot, bytes, &outcome);
            }
        }
        self.last_write = Instant::now();
    }

    /// Tells one client that its token expires.
    pub(super) fn warn(&mut self, slot: usize, control: Control) {
        let member = &mut self.members[slot];
        member.client.warned();
        let member = &self.members[slot];
        let mut bare = Vec::new();
        write_control(&mut bare, self.last_id(member), control);
        let bytes = Bytes::from(member.client.view.frame(&bare));
        let outcome = member.socket.send(&bytes);
        self.signalled(slot, &bytes, &outcome);
    }

    /// The last event id that a member was told.
    pub(super) fn last_id(&self, member: &Member) -> Option<StreamId> {
        self.topic.state().ring.told_before(self.position.max(member.has_until))
    }

    fn signalled(&mut self, slot: usize, bytes: &Bytes, outcome: &io::Result<usize>) {
        match *outcome {
            Ok(sent) if sent == bytes.len() => {}
            Ok(sent) => {
                let seq = self.members[slot].has_until.max(self.position);
                let rest = bytes[sent..].to_vec();
                self.leave_to_follower(slot, Spot { seq, offset: 0 }, rest);
            }
            Err(_) => self.remove(slot, Left::Client),
        }
    }
}

/// The signal as this client gets it; made once for each kind of client.
fn signal_for(
    client: &Client,
    signal: Signal,
    shared: &mut Shared<(bool, Signals), Bytes>,
) -> Bytes {
    let (view, signals) = (client.view, client.signals);
    shared.get((view.framed, signals), || Bytes::from(signal.bytes(view, signals)))
}
