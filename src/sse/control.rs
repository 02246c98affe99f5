//! What a stream is told besides its entries: comments, gaps, and the other control events.

use super::StreamId;
use super::line::write_line;

/// The name of every control event; a route may not use it for its own.
pub const CONTROL_EVENT: &str = "ssegate";

/// Comments that keep a connection alive or tell about Redis; a parser ignores them.
pub mod comment {
    /// Nothing happened for a while.
    pub const KEEPALIVE: &str = ": keepalive\n\n";
    /// Redis is away; the stream stays open.
    pub const RECONNECTING: &str = ": reconnecting\n\n";
    /// Redis is back.
    pub const RECONNECTED: &str = ": reconnected\n\n";
    /// The first bytes of a stream, so that every proxy passes its head on. No blank line: read to
    /// the letter, one before the first id would empty the client's last event id.
    pub const OPEN: &str = ": ssegate\n";
}

/// Why entries cannot be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Trimmed from the stream before they were read.
    Trimmed,
    /// Deleted from the stream before they were read.
    Deleted,
    /// The stream began anew: its ids have no order with the earlier ones.
    Reset,
    /// Larger than `max_entry`.
    Oversize,
    /// Further back than the route's `replay`.
    Limit,
    /// The client's last event id is none of ours.
    Unknown,
}

impl Reason {
    /// Every reason, for metrics that start at zero.
    pub const ALL: [Self; 6] =
        [Self::Trimmed, Self::Deleted, Self::Reset, Self::Oversize, Self::Limit, Self::Unknown];

    /// Its name on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Deleted => "deleted",
            Self::Reset => "reset",
            Self::Oversize => "oversize",
            Self::Limit => "limit",
            Self::Unknown => "unknown",
        }
    }
}

/// Entries that cannot be delivered, told in-band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last id before the gap, where it is known.
    pub after: Option<StreamId>,
    /// The first entry after the gap, where it is known.
    pub next: Option<StreamId>,
    /// How many entries are missing, where Redis can tell.
    pub lost: Option<u64>,
    /// Why.
    pub reason: Reason,
}

/// A control event: [`CONTROL_EVENT`] with a JSON object as its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The client is level with the tail.
    Live {
        /// Entries replayed to it before.
        replayed: u64,
    },
    /// Entries are missing.
    Gap(Gap),
    /// The server closes this stream because it stops.
    Drain,
    /// The token that the stream was opened with expires soon.
    Expiring {
        /// In so many seconds.
        seconds: u64,
    },
    /// The token has expired, or another configuration does not allow the stream: it ends.
    Expired,
    /// The stream, or the server, cannot serve now.
    Unavailable {
        /// What is wrong, in one word: a limit's name, `source`, or Redis' error code.
        reason: &'static str,
    },
    /// A keepalive that JavaScript sees.
    Ping,
    /// Redis went away or came back.
    Source {
        /// Whether it answers.
        up: bool,
    },
}

/// Writes a control event; `id` moves the client's last event id, `None` leaves it.
pub fn write_control(out: &mut Vec<u8>, id: Option<StreamId>, control: Control) {
    if let Some(id) = id {
        write_line(out, "id", &id.to_string());
    }
    write_line(out, "event", CONTROL_EVENT);
    write_line(out, "data", &control_json(control));
    out.push(b'\n');
}

fn control_json(control: Control) -> String {
    match control {
        Control::Live { replayed } => format!(r#"{{"type":"live","replayed":{replayed}}}"#),
        Control::Drain => r#"{"type":"drain"}"#.into(),
        Control::Expiring { seconds } => format!(r#"{{"type":"expiring","seconds":{seconds}}}"#),
        Control::Expired => r#"{"type":"expired"}"#.into(),
        Control::Unavailable { reason } => {
            format!(r#"{{"type":"unavailable","reason":"{reason}"}}"#)
        }
        Control::Ping => r#"{"type":"ping"}"#.into(),
        Control::Source { up } => format!(r#"{{"type":"source","up":{up}}}"#),
        Control::Gap(gap) => {
            let id = |id: Option<StreamId>| id.map_or("null".into(), |id| format!("\"{id}\""));
            let lost = gap.lost.map_or("null".into(), |lost| lost.to_string());
            format!(
                r#"{{"type":"gap","after":{},"next":{},"lost":{lost},"reason":"{}"}}"#,
                id(gap.after),
                id(gap.next),
                gap.reason.as_str()
            )
        }
    }
}
