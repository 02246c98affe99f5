//! Reads the state that a client is to get, and writes it.

use tokio::sync::SemaphorePermit;

use super::driver::Driver;
use super::machine::{End, Phase};
use crate::source::ErrorClass;
use crate::sse::{Control, StreamId};
use crate::stream::View;
use crate::telemetry::metrics::DisconnectReason;

/// A state is written in pieces of this size, so that live clients have their turn in between.
const PIECE_BYTES: usize = 128 << 10;

impl Driver {
    /// Reads the state that the client is to get.
    pub(super) async fn read_state(&mut self, least: StreamId) -> Result<(), End> {
        let (topic, rules) = (self.subscriber.topic().clone(), self.subscriber.rules.clone());
        let (fanout, query) = (self.fanout.clone(), self.subscriber.state.clone());
        let query = query.expect("only a client whose route gives a state is to get one");
        let (rendering, selection) =
            (self.subscriber.format.rendering, self.subscriber.selection().cloned());
        let view = View { rendering: rendering.into(), selection: selection.as_deref() };
        let reading = async {
            fanout.replays.end_if_unknown(&topic, &rules).await?;
            fanout.replays.snapshot(&topic, view, &query, least).await
        };
        match self.meanwhile(reading).await? {
            Some(Ok(snapshot)) => {
                self.machine.state_read(snapshot);
                Ok(())
            }
            Some(Err(error)) if error.class == ErrorClass::TooLarge => {
                self.fanout.warn_too_large_state(&topic, &query);
                let control = Control::Unavailable { reason: "snapshot" };
                Err(End::Disconnect(Some(control), DisconnectReason::Error))
            }
            Some(Err(error)) => self.failed(&error).await,
            None => Ok(()),
        }
    }

    /// One write of a state.
    pub(super) async fn write_state(
        &mut self,
        permit: Option<SemaphorePermit<'_>>,
    ) -> Result<(), End> {
        let Phase::State(delivery) = &self.machine.phase else { return Ok(()) };
        let most_bytes = self.writer.most_bytes().min(PIECE_BYTES);
        let bytes = delivery.bytes(self.machine.format, most_bytes);
        let sent = self.writer.send_shared(&bytes)?;
        if sent == 0 {
            drop((bytes, permit));
            return self.wait_writable().await;
        }
        self.took(sent);
        let read_up_to = self.subscriber.topic().state().ring.tail();
        if self.machine.wrote_state(sent, read_up_to) {
            self.fanout.metrics.gaps_healed.increment(1);
        }
        Ok(())
    }
}
