//! A catch-up subscriber that is one part of a merged stream: it fills a body that the composer takes from.

use std::sync::Arc;

use super::driver::Driver;
use super::level::{LeaveRequest, Level};
use super::machine::{Beginning, CatchUp, DeliveryState, End, Phase};
use crate::fanout::body::{Body, body};
use crate::fanout::wire::WritePosition;
use crate::fanout::writer::SubscriberWriter;
use crate::fanout::{Fanout, Subscriber};
use crate::sse::{Control, EndReason, StreamId};
use crate::stream::start::{Resolved, Start, StartPoint};
use crate::telemetry::metrics::DisconnectReason;

/// How a part ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fanout) enum PartEnd {
    /// It was asked to leave, and is level with the tail: everything before this item is written, and this was told.
    Level(u64, DeliveryState),
    /// It is over, and its client has everything up to this id that it gets.
    Over(EndReason, Option<StreamId>),
    /// Its client is to be cut where it stands.
    Cut(DisconnectReason),
    /// Its client is to be disconnected, and told this.
    Disconnect(Option<Control>, DisconnectReason),
}

/// What fills a body with the bare events of a part, and the body. In the end it gives the subscriber back.
pub(in crate::fanout) fn follow_part(
    fanout: &Arc<Fanout>,
    subscriber: Subscriber,
    machine: CatchUp,
    leave: LeaveRequest,
) -> (impl Future<Output = (PartEnd, Subscriber)> + Send + 'static, Body) {
    let (sink, body) = body();
    let level = Level { leave, ..Level::new(subscriber.topic()) };
    let writer = SubscriberWriter::Body(sink);
    let mut driver = Driver::new(fanout.clone(), writer, subscriber, machine);
    driver.level = Some(level);
    (driver.run_part(), body)
}

impl Driver {
    async fn run_part(mut self) -> (PartEnd, Subscriber) {
        let end = self.run_to_end().await;
        (self.end_of_part(end).await, self.subscriber)
    }

    async fn end_of_part(&mut self, end: End) -> PartEnd {
        match end {
            End::Cut(reason) => PartEnd::Cut(reason),
            End::Level(seq) => PartEnd::Level(seq, self.machine.delivery),
            End::Disconnect(_, reason) if self.machine.half_written.is_some() => {
                PartEnd::Cut(reason)
            }
            End::Disconnect(control, reason) => {
                if let Err(reason) = self.put_unsent().await {
                    return PartEnd::Cut(reason);
                }
                match reason {
                    DisconnectReason::Ended(over) => {
                        PartEnd::Over(over, self.machine.delivery.last_id)
                    }
                    reason => PartEnd::Disconnect(control, reason),
                }
            }
        }
    }

    async fn put_unsent(&mut self) -> Result<(), DisconnectReason> {
        let gone = |_| DisconnectReason::Client;
        while !self.machine.unsent.is_empty() {
            let sent = self.writer.send(&self.machine.unsent).map_err(gone)?;
            self.machine.sent(sent);
            self.writer.writable().await.map_err(gone)?;
        }
        Ok(())
    }
}

impl CatchUp {
    /// Of a client that is level with the tail and was told so: it has everything before this item, of which the last
    /// has this id.
    pub(in crate::fanout) fn level_at(subscriber: &Subscriber, seq: u64, id: StreamId) -> Self {
        let delivery = DeliveryState { last_id: Some(id), live: true, source_down: false };
        Self::goes_on_at(subscriber, seq, delivery)
    }

    /// Of a client for which everything before this item is written, and that was told this.
    pub(in crate::fanout) fn goes_on_at(
        subscriber: &Subscriber,
        seq: u64,
        delivery: DeliveryState,
    ) -> Self {
        let phase = Phase::Ring(WritePosition { seq, offset: 0 });
        Self::at(subscriber, phase, delivery, Vec::new())
    }

    /// What its client has before anything is written; `None`: it has no position yet.
    pub(in crate::fanout) fn first_position(&self) -> Option<StreamId> {
        let from_now = match &self.phase {
            Phase::Start(Beginning {
                asked: Start::Live,
                now: Some(Resolved { from: StartPoint::Ring(_, tail), gap: None }),
                ..
            }) => Some(*tail),
            _ => None,
        };
        self.delivery.last_id.or(from_now)
    }
}
