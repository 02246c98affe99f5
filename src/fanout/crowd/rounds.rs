//! Rounds over all members of a hall: signs of life, deadlines, and the way back to tasks of their own.

use std::sync::Arc;
use std::time::Instant;

use super::hall::{Crowd, Hall, Member};
use super::news::count;
use crate::fanout::members::yield_at;
use crate::fanout::signal::Signal;
use crate::stream::Batch;

/// A crowd that is due within such a part of the keepalive's interval gets it as well, so that there are few rounds.
const EARLY_PARTS: u32 = 16;

impl Hall {
    pub(super) async fn tick(&mut self) {
        let now = Instant::now();
        if self.next_deadline.is_some_and(|due| due <= now) {
            self.send_back_those_due();
        }
        if self.oldest_write + self.fanout.settings().keepalive <= now {
            self.keep_alive().await;
        }
    }

    /// Gives a sign of life to the crowds that have heard nothing for long.
    pub(super) async fn keep_alive(&mut self) {
        let (keepalive, now) = (self.fanout.settings().keepalive, Instant::now());
        let wait = keepalive.saturating_sub(keepalive / EARLY_PARTS);
        let is_due = |(_, crowd): &(usize, &Crowd)| crowd.last_write + wait <= now;
        let due: Vec<usize> = self.crowds.iter().filter(is_due).map(|(crowd, _)| crowd).collect();
        let mut sends = 0;
        for crowd in due {
            self.keep_crowd_alive(crowd, &mut sends).await;
        }
        let writes = self.crowds.iter().map(|(_, crowd)| crowd.last_write);
        self.oldest_write = writes.min().unwrap_or(now);
    }

    /// `sends`: those of this round so far, to other crowds as well.
    async fn keep_crowd_alive(&mut self, index: usize, sends: &mut usize) {
        let crowd = &mut self.crowds[index];
        let bytes = Signal::Keepalive.bytes(crowd.format, crowd.key.signals);
        crowd.last_write = Instant::now();
        let slots = crowd.slots.clone();
        self.fanout.metrics.heartbeats.increment(slots.len() as u64);
        for slot in slots {
            let Member { admitted, route, .. } = &self.members[slot];
            match self.members.socket(slot).send(&bytes) {
                Ok(sent) => {
                    count(&self.fanout.metrics, admitted, *route, 0, sent);
                    if sent < bytes.len() {
                        let positions = self.positions(index);
                        self.send_back(slot, &positions, bytes[sent..].to_vec());
                    }
                }
                Err(_) => self.remove(slot),
            }
            *sends += 1;
            yield_at(*sends).await;
        }
    }

    /// Sends those members back for whom something is due.
    pub(super) fn send_back_those_due(&mut self) {
        self.next_deadline = None;
        let now = Instant::now();
        for slot in self.members.slots() {
            let Some(member) = self.members.get(slot) else { continue };
            match member.admitted.next_deadline() {
                Some(due) if due <= now => {
                    let positions = self.positions(member.crowd);
                    self.send_back(slot, &positions, Vec::new());
                }
                Some(due) => {
                    self.next_deadline = Some(self.next_deadline.map_or(due, |next| next.min(due)));
                }
                None => {}
            }
        }
    }

    /// Sends all members back.
    pub(super) fn dissolve_all(&mut self) {
        let crowds: Vec<usize> = self.crowds.iter().map(|(crowd, _)| crowd).collect();
        for crowd in crowds {
            self.dissolve(crowd);
        }
    }

    /// Sends those back that follow a topic; with `batches`, those for whom some of these were not encoded.
    pub(super) fn dissolve_followers(&mut self, feed: usize, batches: Option<&[Arc<Batch>]>) {
        let Some(found) = self.feeds.get(feed) else { return };
        let is_told = |(crowd, part): (&usize, &usize)| {
            let format = self.crowds[*crowd].parts[*part].format;
            let are_in = |batches: &[Arc<Batch>]| batches.iter().all(|batch| format.is_in(batch));
            batches.is_some_and(are_in)
        };
        let leaving = found.followers.iter().filter(|follower| !is_told(*follower));
        let leaving: Vec<usize> = leaving.map(|(crowd, _)| *crowd).collect();
        for crowd in leaving {
            self.dissolve(crowd);
        }
    }

    fn dissolve(&mut self, crowd: usize) {
        let positions = self.positions(crowd);
        for slot in self.crowds[crowd].slots.clone() {
            self.send_back(slot, &positions, Vec::new());
        }
    }
}
