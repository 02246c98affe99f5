//! The loop of a hall, and what stands in it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use slab::Slab;
use tokio::sync::mpsc;

use super::feed::Feeds;
use super::write::Position;
use super::{CrowdKey, HallMessage};
use crate::config::StreamRules;
use crate::fanout::members::Members;
use crate::fanout::{Admitted, Fanout, Subscriber, WireFormat};

type Inbox = mpsc::UnboundedReceiver<HallMessage>;

/// A hall, as its task has it.
pub(super) struct Hall {
    pub(super) fanout: Arc<Fanout>,
    /// Which of the halls it is.
    index: usize,
    pub(super) feeds: Feeds,
    pub(super) crowds: Slab<Crowd>,
    pub(super) by_key: HashMap<CrowdKey, usize>,
    pub(super) members: Members<Member>,
    /// No crowd was written to before this.
    pub(super) oldest_write: Instant,
    /// No member is due before this.
    pub(super) next_deadline: Option<Instant>,
}

/// Clients that get the same bytes.
pub(super) struct Crowd {
    pub(super) key: CrowdKey,
    pub(super) format: WireFormat,
    pub(super) parts: Vec<Part>,
    /// Its members.
    pub(super) slots: Vec<usize>,
    pub(super) last_write: Instant,
}

/// One of its streams.
pub(super) struct Part {
    pub(super) name: Arc<str>,
    pub(super) feed: usize,
    pub(super) format: WireFormat,
}

/// One client of a crowd.
pub(super) struct Member {
    pub(super) admitted: Admitted,
    pub(super) route: u16,
    pub(super) rules: Arc<StreamRules>,
    /// Of each part; it holds the topic open.
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) crowd: usize,
    /// Its place among the crowd's slots.
    pub(super) place: usize,
}

/// Starts a hall for the first client that comes into it.
pub(super) fn spawn(fanout: &Arc<Fanout>, index: usize, inbox: Inbox) {
    // Not tracked: a drain sends its members back to tasks that are.
    tokio::spawn(Hall::new(fanout, index).run(inbox));
}

impl Hall {
    pub(super) fn new(fanout: &Arc<Fanout>, index: usize) -> Self {
        let number = fanout.opened_shards.fetch_add(1, Ordering::Relaxed);
        Self {
            fanout: fanout.clone(),
            index,
            feeds: Feeds::new(number),
            crowds: Slab::new(),
            by_key: HashMap::new(),
            members: Members::with_capacity(1),
            oldest_write: Instant::now(),
            next_deadline: None,
        }
    }

    async fn run(mut self, mut inbox: Inbox) {
        let draining = self.fanout.draining.clone();
        while !self.is_over(&inbox) {
            self.close_ranks();
            let wake = self.next_wake();
            // No branch comes first: under a flood of entries the others have their turns as well.
            tokio::select! {
                () = draining.cancelled(), if !self.members.is_empty() => self.dissolve_all(),
                Some(feed) = self.feeds.next() => self.write_news(feed).await,
                () = std::future::ready(()), if self.feeds.is_any_behind() => {
                    tokio::task::yield_now().await;
                    for feed in self.feeds.take_behind() {
                        self.write_news(feed).await;
                    }
                }
                Some(message) = inbox.recv() => self.receive(message).await,
                Ok(slots) = self.members.readable() => self.read_input(&slots),
                () = tokio::time::sleep_until(wake.into()) => self.tick().await,
            }
        }
    }

    /// Whether nobody is there, and nobody is on the way.
    fn is_over(&self, inbox: &Inbox) -> bool {
        let is_left =
            || self.fanout.halls.remove_if(&self.index, |_, _| inbox.is_empty()).is_some();
        self.members.is_empty() && is_left()
    }

    async fn receive(&mut self, message: HallMessage) {
        match message {
            HallMessage::Join(joining) => {
                let (socket, stream) = *joining;
                // Level with the rings, it is nowhere behind a newcomer.
                for part in &stream.parts {
                    if let Some(feed) = self.feeds.of_topic(part.subscriber.topic()) {
                        self.write_news(feed).await;
                    }
                }
                self.admit(socket, stream);
            }
            HallMessage::Probe(probe) => drop(probe),
            HallMessage::RecheckGrants => self.send_back_those_due(),
        }
    }

    /// Where a crowd is in each of its streams.
    pub(super) fn positions(&self, crowd: usize) -> Vec<Position> {
        let position = |part: &Part| {
            let feed = self.feeds.get(part.feed).expect("a crowd follows its parts' topics");
            Position { name: part.name.clone(), seq: feed.seq, id: feed.id }
        };
        self.crowds[crowd].parts.iter().map(position).collect()
    }

    fn next_wake(&self) -> Instant {
        let keepalive = self.oldest_write + self.fanout.settings().keepalive;
        self.next_deadline.map_or(keepalive, |due| due.min(keepalive))
    }
}
