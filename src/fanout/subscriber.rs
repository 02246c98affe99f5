//! One client stream as the fan-out holds it, and what is counted of it.

use std::sync::Arc;
use std::time::Instant;

use super::access_record::{AccessRecord, LogId};
use super::wire::WireFormat;
use crate::auth::TokenEnd;
use crate::auth::grant::GrantHandle;
use crate::config::{OnGap, StateQuery, StreamRules};
use crate::limits::Permit;
use crate::sse::Selection;
use crate::stream::{Batch, Lease, Topic, View};
use crate::telemetry::metrics::{DisconnectReason, Metrics};

/// One client stream, besides its socket; or one part of a merged one. There are many: keep it small.
pub struct Subscriber {
    /// Holds the topic open.
    pub lease: Lease,
    /// The client as it was admitted.
    pub admitted: Admitted,
    /// How its client wants the bytes.
    pub format: WireFormat,
    /// Index of its route in the configuration.
    pub route: u16,
    /// How its stream speaks and ends.
    pub rules: Arc<StreamRules>,
    /// The state that its client gets before entries, where its route gives one.
    pub state: Option<Arc<StateQuery>>,
}

/// What a client's stream has once, however many streams it is merged of.
pub struct Admitted {
    /// Its place among all subscribers; a part of a merged stream has none of its own,
    pub permit: Option<Permit>,
    /// nor anything that it was admitted by.
    pub grant: Option<GrantHandle>,
    /// Names it in the log.
    pub id: LogId,
    /// For the access log, where there is one.
    pub record: Option<Arc<AccessRecord>>,
    /// When its stream began.
    pub opened: Instant,
    /// When it is closed so that it resumes elsewhere.
    pub expires: Option<Instant>,
    /// When its token ends, where it has one.
    pub token: Option<Box<TokenEnd>>,
}

impl Admitted {
    /// For a part of its stream. What becomes of the client is not the part's to say.
    #[must_use]
    pub fn for_part(&self) -> Self {
        let Self { id, opened, .. } = *self;
        let (permit, grant, expires, token) = Default::default();
        Self { permit, grant, id, record: self.record.clone(), opened, expires, token }
    }

    /// Counts what was written, for the access log alone.
    pub(super) fn record(&self, events: u64, gaps: u64, bytes: usize) {
        if let Some(record) = &self.record {
            record.add(events, gaps, bytes);
        }
    }

    /// Counts bytes that its client took, for its route and for the access log.
    pub(super) fn count_bytes(&self, metrics: &Metrics, route: u16, sent: usize) {
        metrics.routes()[usize::from(route)].bytes.increment(sent as u64);
        self.record(0, 0, sent);
    }

    /// Its stream has ended.
    pub fn ended(&self, metrics: &Metrics, route: u16, reason: DisconnectReason) {
        let (LogId { connection, stream }, why) = (self.id, reason.as_str());
        tracing::debug!(connection, stream, why, "stream ended");
        metrics.disconnected(reason, self.opened);
        if let DisconnectReason::Ended(over) = reason {
            metrics.routes()[usize::from(route)].ended(over).increment(1);
        }
        if let Some(record) = &self.record {
            record.end(why);
        }
    }
}

impl Subscriber {
    /// Its topic.
    pub fn topic(&self) -> &Arc<Topic> {
        self.lease.topic()
    }

    /// The entries that its client gets; `None`: all.
    pub fn selection(&self) -> Option<&Arc<Selection>> {
        self.lease.selection()
    }

    /// What its client gets of it.
    pub(super) fn view(&self) -> View<'_> {
        View {
            rendering: self.format.rendering.into(),
            selection: self.selection().map(|it| &**it),
        }
    }

    /// Whether its stream may be over with an item of these batches from `from_seq` on, or goes on otherwise than with
    /// the next item: catch-up sees to that.
    pub(super) fn may_leave_in(&self, batches: &[Arc<Batch>], from_seq: u64) -> bool {
        let (rules, rendering) = (&self.rules, usize::from(self.format.rendering));
        let stops_at_gap = rules.on_gap != OnGap::Tell;
        let ends = |batch: &Arc<Batch>| {
            batch.ends_stream(rendering)
                || stops_at_gap && batch.next_gap(rendering, from_seq).is_some()
        };
        let mut ahead = batches.iter().filter(|batch| batch.end_seq() > from_seq);
        (stops_at_gap || rules.end().is_some()) && ahead.any(ends)
    }

    /// Counts bytes that its client took. Those of a part are counted as its client takes them.
    pub(super) fn count_bytes(&self, metrics: &Metrics, sent: usize) {
        if !self.rules.of_part {
            self.admitted.count_bytes(metrics, self.route, sent);
        }
    }

    /// Counts events that its client has whole: of entries, and of gaps.
    pub(super) fn count_events(&self, metrics: &Metrics, events: u64, gaps: u64) {
        metrics.routes()[usize::from(self.route)].events.increment(events);
        self.record(events, gaps, 0);
    }

    /// Counts what was written, for the access log alone.
    pub(super) fn record(&self, events: u64, gaps: u64, bytes: usize) {
        self.admitted.record(events, gaps, bytes);
    }

    /// Its stream has ended.
    pub fn ended(&self, metrics: &Metrics, reason: DisconnectReason) {
        self.admitted.ended(metrics, self.route, reason);
    }
}
