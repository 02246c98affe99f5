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

mod composer;
mod events;
mod parts;
mod task;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::body::body;
use super::socket::watched;
use super::writer::SubscriberWriter;
use super::{Admitted, Body, CatchUp, CatchUpHalf, Fanout, Socket, Subscriber, WireFormat};
use crate::config::StreamRules;
use crate::sse::StreamId;
use crate::telemetry::metrics::DisconnectReason;
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
    /// Follows all of it on a socket, until the client is gone or disconnected.
    pub fn welcome(self, fanout: &Arc<Fanout>, socket: Socket) {
        let task = fanout.clone();
        fanout.tasks.spawn(async move {
            let interest = Interest::READABLE | Interest::WRITABLE;
            match watched(socket, interest) {
                Ok(socket) => {
                    Task::new(task, SubscriberWriter::Socket(socket), self).run().await;
                }
                Err(error) => {
                    task.warn_unwatched(&self.admitted, &error);
                    self.admitted.ended(&task.metrics, self.route, DisconnectReason::Error);
                }
            }
        });
    }

    /// A body, and what fills it.
    pub fn follow_in_body(self, fanout: &Arc<Fanout>) -> (CatchUpHalf, Body) {
        let (sink, body) = body();
        let task = Task::new(fanout.clone(), SubscriberWriter::Body(sink), self);
        let half = CatchUpHalf::new(&body, fanout.tasks.track_future(task.run()));
        (half, body)
    }
}
