//! How the log names a stream, and what the access log says of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::telemetry::log::ACCESS;

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

/// What a client asked for a stream with.
#[derive(Clone, Debug)]
pub struct AccessedStream {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The path without the query, which may hold a token.
    pub path: Box<str>,
    /// The route's path.
    pub route: Box<str>,
    /// The version of HTTP.
    pub protocol: &'static str,
}

impl AccessRecord {
    /// Of a stream that begins now; `None` where the access log is off.
    pub fn begin(id: LogId, asked: impl FnOnce() -> AccessedStream) -> Option<Arc<Self>> {
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

    /// Writes the line of a stream that has ended, or was refused.
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
