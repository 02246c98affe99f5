//! Rounds over all members of a crowd: signs of life, deadlines, and the end of the crowd.

use std::time::Instant;

use super::task::{Crowd, Member, count};
use crate::fanout::signal::Signal;
use crate::fanout::uring;

/// In a round over all slots: lets other tasks have their turns now and then.
async fn yield_at(slot: usize) {
    if slot % uring::MOST == uring::MOST - 1 {
        tokio::task::yield_now().await;
    }
}

impl Crowd {
    pub(super) async fn keep_alive(&mut self) {
        let bytes = Signal::Keepalive.bytes(self.format, self.key.signals);
        for slot in 0..self.members.capacity() {
            yield_at(slot).await;
            let Some(Member { socket, admitted, route, .. }) = self.members.get(slot) else {
                continue;
            };
            match socket.get().send(&bytes) {
                Ok(sent) => {
                    count(&self.fanout.metrics, admitted, *route, 0, sent);
                    if sent < bytes.len() {
                        let positions = self.positions.clone();
                        self.send_back(slot, &positions, bytes[sent..].to_vec());
                    }
                }
                Err(_) => self.remove(slot),
            }
        }
        self.last_write = Instant::now();
        self.fanout.metrics.heartbeats.increment(self.members.len() as u64);
    }

    /// Sends those members back for whom something is due.
    pub(super) fn send_back_those_due(&mut self) {
        self.next_deadline = None;
        let (now, positions) = (Instant::now(), self.positions.clone());
        for slot in 0..self.members.capacity() {
            let Some(member) = self.members.get(slot) else { continue };
            match member.admitted.next_deadline() {
                Some(due) if due <= now => self.send_back(slot, &positions, Vec::new()),
                Some(due) => {
                    self.next_deadline = Some(self.next_deadline.map_or(due, |next| next.min(due)));
                }
                None => {}
            }
        }
    }

    /// Sends all members back.
    pub(super) fn dissolve(&mut self) {
        let positions = self.positions.clone();
        for slot in 0..self.members.capacity() {
            self.send_back(slot, &positions, Vec::new());
        }
    }
}
