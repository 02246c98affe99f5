//! Several streams on one connection.
//!
//! ```text
//!  one task for each client
//!  +-----------------------------------------------------------------+
//!  | part: catch-up, a topic ──▶ slot ─┐                             |
//!  | part: catch-up, a topic ──▶ slot ─┼─▶ composer ──▶ socket, body |
//!  | part: catch-up, a topic ──▶ slot ─┘                             |
//!  +-----------------------------------------------------------------+
//! ```
//!
//! Each part is an ordinary catch-up subscriber, which fills a slot with bare events and knows nothing of the others.
//! The composer passes these on, one whole event after the other, with an id that has the position in each part. What
//! concerns the client and not a stream is the composer's: keepalives, deadlines, a client that takes nothing, the close.
//!
//! A client that is level with all of its streams goes to those that follow the same (`crowd/`), and comes back from there.

mod composer;
mod events;
mod parts;
mod task;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use super::body::body;
use super::socket::watched;
use super::writer::SubscriberWriter;
use super::{Admitted, Body, CatchUp, CatchUpHalf, Fanout, Socket, Subscriber, WireFormat};
use crate::config::StreamRules;
use crate::sse::{Control, StreamId};
use crate::telemetry::metrics::DisconnectReason;
use composer::Composer;
use task::Task;
use tokio::io::Interest;

/// A client that follows several streams, besides its socket.
pub struct MergedStream {
    /// The client as it was admitted.
    pub admitted: Admitted,
    /// How it wants the bytes.
    pub format: WireFormat,
    /// Index of its route in the configuration.
    pub route: u16,
    /// How its stream speaks and ends.
    pub rules: Arc<StreamRules>,
    /// What it follows.
    pub parts: Vec<MergedPart>,
    /// Positions that it has in streams which are no parts.
    pub strangers: Vec<(String, StreamId)>,
    /// What is written first.
    pub opening: Vec<u8>,
}

/// A client that follows several streams, is level with all of them, and was told so.
pub(super) struct LevelStream {
    pub(super) admitted: Admitted,
    pub(super) format: WireFormat,
    pub(super) route: u16,
    pub(super) rules: Arc<StreamRules>,
    pub(super) parts: Vec<LevelPart>,
}

/// One of its streams.
pub(super) struct LevelPart {
    pub(super) name: Arc<str>,
    pub(super) subscriber: Subscriber,
    /// Its client has everything before this item,
    pub(super) seq: u64,
    /// of which the last has this id.
    pub(super) id: StreamId,
}

/// One of several streams on a connection.
pub struct MergedPart {
    /// What the client calls it.
    pub name: Arc<str>,
    /// Its subscriber, which has no client of its own.
    pub subscriber: Subscriber,
    /// Where it begins.
    pub machine: CatchUp,
}

impl MergedStream {
    /// Follows all of it on a socket, until the client is gone or disconnected. Most come for what is new and take their
    /// opening bytes at once: these need no task of their own.
    pub fn welcome(self, fanout: &Arc<Fanout>, socket: Socket) {
        let is_draining = fanout.draining.is_cancelled();
        let Some(positions) = self.level_positions().filter(|_| !is_draining) else {
            return follow(fanout, socket, self, false);
        };
        let (stream, opening) = self.level_at(positions);
        // A client that is gone already is one that takes nothing: its task finds out.
        let sent = socket.send(&opening).unwrap_or(0);
        stream.admitted.count_bytes(&fanout.metrics, stream.route, sent);
        if sent == opening.len() {
            fanout.join_crowd(socket, stream);
        } else {
            stream.go_on(fanout, socket, opening[sent..].to_vec());
        }
    }

    /// The item that comes next of each part, and the id of the last before it, if it is level with all of them.
    fn level_positions(&self) -> Option<Vec<(u64, StreamId)>> {
        let position = |part: &MergedPart| part.machine.level().zip(part.machine.first_position());
        let is_plain = self.strangers.is_empty() && may_join_crowd(&self.rules, &self.parts);
        self.parts.iter().map(position).collect::<Option<_>>().filter(|_| is_plain)
    }

    /// The same stream at these positions, and what its client is told first.
    fn level_at(self, positions: Vec<(u64, StreamId)>) -> (LevelStream, Vec<u8>) {
        let Self { admitted, format, route, rules, parts, mut opening, .. } = self;
        let named = parts.iter().zip(&positions);
        let named = named.map(|(part, (_, id))| (part.name.clone(), Some(*id)));
        Composer::new(format, named, true).tell(Control::Live { replayed: 0 }, &mut opening);
        let parts = parts.into_iter().zip(positions).map(|(part, (seq, id))| {
            let MergedPart { name, subscriber, .. } = part;
            LevelPart { name, subscriber, seq, id }
        });
        let parts = parts.collect();
        (LevelStream { admitted, format, route, rules, parts }, opening)
    }

    /// A body, and what fills it.
    pub fn follow_in_body(self, fanout: &Arc<Fanout>) -> (CatchUpHalf, Body) {
        let (sink, body) = body();
        let task = Task::new(fanout.clone(), SubscriberWriter::Body(sink), self, false);
        let half = CatchUpHalf::new(&body, fanout.tasks.track_future(task.run()));
        (half, body)
    }
}

impl LevelStream {
    /// Goes on in a task of its own, which writes these bytes first.
    pub(super) fn go_on(self, fanout: &Arc<Fanout>, socket: Socket, unsent: Vec<u8>) {
        let Self { admitted, format, route, rules, parts } = self;
        let part = |LevelPart { name, subscriber, seq, id }: LevelPart| {
            let machine = CatchUp::level_at(&subscriber, seq, id);
            MergedPart { name, subscriber, machine }
        };
        let parts = parts.into_iter().map(part).collect();
        let (strangers, opening) = (Vec::new(), unsent);
        let stream = MergedStream { admitted, format, route, rules, parts, strangers, opening };
        follow(fanout, socket, stream, true);
    }
}

fn follow(fanout: &Arc<Fanout>, socket: Socket, stream: MergedStream, is_live: bool) {
    let task = fanout.clone();
    fanout.tasks.spawn(async move {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match watched(socket, interest) {
            Ok(socket) => {
                let writer = SubscriberWriter::Socket(socket);
                Task::new(task, writer, stream, is_live).run().await;
            }
            Err(error) => {
                task.warn_unwatched(&stream.admitted, &error);
                stream.admitted.ended(&task.metrics, stream.route, DisconnectReason::Error);
            }
        }
    });
}

/// Whether such clients can be served together: what a crowd knows nothing of does not happen to them, and none of their
/// streams has two names.
fn may_join_crowd(rules: &StreamRules, parts: &[MergedPart]) -> bool {
    let is_endless = rules.end().is_none() && rules.stalled.is_zero();
    let topics: HashSet<u64> = parts.iter().map(|part| part.subscriber.topic().id).collect();
    let is_all = |part: &MergedPart| part.subscriber.selection().is_none();
    is_endless && topics.len() == parts.len() && parts.iter().all(is_all)
}
