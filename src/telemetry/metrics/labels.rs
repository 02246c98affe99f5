//! Label values of the metrics: every value is known beforehand, so clients and stream keys add none.

use crate::sse::EndReason;

/// Who noticed a gap.
#[derive(Clone, Copy, Debug)]
pub enum Scope {
    /// The reader: every client of the stream key misses it.
    Reader,
    /// The resume of a client: only this client misses it.
    Resume,
}

impl Scope {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Resume => "resume",
        }
    }
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The client closed it.
    Client,
    /// The client took nothing for too long, or lagged too far behind.
    Slow,
    /// Its maximum age was reached.
    Rotated,
    /// Its token expired, or a reload forbids the stream.
    Expired,
    /// The stream is over.
    Ended(EndReason),
    /// The server stops.
    Drain,
    /// The connection or the stream key failed.
    Error,
}

impl DisconnectReason {
    /// One for each label.
    pub(super) const ALL: [Self; 7] = [
        Self::Client,
        Self::Slow,
        Self::Rotated,
        Self::Expired,
        Self::Ended(EndReason::Marker),
        Self::Drain,
        Self::Error,
    ];

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Slow => "slow",
            Self::Rotated => "rotated",
            Self::Expired => "expired",
            Self::Ended(_) => "ended",
            Self::Drain => "drain",
            Self::Error => "error",
        }
    }
}

/// Why a client is refused: the name of a limit, what was wrong, or why Redis cannot read the stream key.
pub(super) const REFUSALS: [&str; 25] = [
    "clients",
    "clients_per_ip",
    "clients_per_principal",
    "clients_per_key",
    "selections",
    "new_clients_per_second",
    "new_clients_per_second_per_ip",
    "readers",
    "readers_per_ip",
    "readers_per_principal",
    "pending",
    "pending_timeout",
    "header_timeout",
    "proxy_header",
    "tls",
    "head",
    "malformed",
    "request_line",
    "query",
    "drain",
    "source",
    "snapshot",
    "keys",
    "WRONGTYPE",
    "NOPERM",
];
