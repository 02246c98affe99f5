//! What the log calls a client, and what the access log says of its stream.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::Subscriber;
use crate::telemetry::log::ACCESS;
use crate::telemetry::metrics::{DisconnectReason, Metrics};

/// Names a connection in every line of the log, and its streams where it has many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogId {
    /// Counts connections.
    pub connection: u64,
    /// Counts its requests, over HTTP/2.
    pub stream: Option<u32>,
}

/// What the access log says of one stream.
pub struct AccessRecord {
    id: LogId,
    asked: AccessedStream,
    begun: Instant,
    events: AtomicU64,
    gaps: AtomicU64,
    bytes: AtomicU64,
}

/// What a stream was asked for with.
#[derive(Clone, Debug)]
pub struct AccessedStream {
    /// The client's.
    pub address: Option<IpAddr>,
    /// Without the query, where tokens may be.
    pub path: Box<str>,
    /// The route's path.
    pub route: Box<str>,
    /// The version of HTTP.
    pub protocol: &'static str,
}

impl AccessRecord {
    /// Of a stream that begins now; `None`: nobody wants to know.
    pub fn handoff(id: LogId, asked: impl FnOnce() -> AccessedStream) -> Option<Arc<Self>> {
        tracing::enabled!(target: ACCESS, tracing::Level::INFO).then(|| {
            let [events, gaps, bytes] = Default::default();
            Arc::new(Self { id, asked: asked(), begun: Instant::now(), events, gaps, bytes })
        })
    }

    /// Counts what was written. One task at a time does so.
    pub(super) fn add(&self, events: u64, gaps: u64, bytes: usize) {
        for (count, by) in [(&self.events, events), (&self.gaps, gaps), (&self.bytes, bytes as u64)]
        {
            if by > 0 {
                count.store(count.load(Ordering::Relaxed) + by, Ordering::Relaxed);
            }
        }
    }

    /// The line of a stream that has ended, or never began.
    pub fn end(&self, reason: &'static str) {
        let AccessedStream { address, path, route, protocol } = &self.asked;
        tracing::info!(
            target: ACCESS,
            connection = self.id.connection,
            stream = self.id.stream,
            address = address.map(tracing::field::display),
            path = &**path,
            route = &**route,
            protocol,
            events = self.events.load(Ordering::Relaxed),
            gaps = self.gaps.load(Ordering::Relaxed),
            bytes = self.bytes.load(Ordering::Relaxed),
            duration_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            reason,
            "access"
        );
    }
}

impl Subscriber {
    /// Counts what was written to it.
    pub(super) fn record(&self, events: u64, gaps: u64, bytes: usize) {
        if let Some(record) = &self.record {
            record.add(events, gaps, bytes);
        }
    }

    /// Its stream has ended.
    pub(super) fn ended(&self, metrics: &Metrics, why: DisconnectReason) {
        let (LogId { connection, stream }, why_text) = (self.id, why.as_str());
        tracing::debug!(connection, stream, why = why_text, "stream ended");
        metrics.disconnected(why, self.opened);
        if let Some(record) = &self.record {
            record.end(why_text);
        }
    }
}
