//! What a stream carries besides entries: comments, gaps, and the other control events.

use super::line::write_line;
use super::render::json_string;
use super::{EndReason, StreamId};

/// The type of every control event; a route may not use it for its own events.
pub const CONTROL_EVENT: &str = "ssegate";

/// Comments, which every parser ignores. Each is a line without a blank one after it: some parsers make an
/// empty message of every blank line, and to a strict one a blank line before the first id empties the
/// client's last event id.
pub mod comment {
    /// Sent when nothing happened for a while.
    pub const KEEPALIVE: &str = ": keepalive\n";
    /// Redis is away; the stream stays open.
    pub const RECONNECTING: &str = ": reconnecting\n";
    /// Redis is back.
    pub const RECONNECTED: &str = ": reconnected\n";
    /// The first bytes of a stream, so that every proxy passes the response head on.
    pub const OPEN: &str = ": ssegate\n";
}

/// Why entries cannot be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Trimmed from the stream before they were read.
    Trimmed,
    /// Deleted from the stream before they were read.
    Deleted,
    /// The stream was recreated: its ids have no order with the earlier ones.
    Reset,
    /// Larger than `max_entry`.
    Oversize,
    /// The source gave the entry in a form that cannot be read.
    Unreadable,
    /// Further back than the route's `replay` allows.
    Limit,
    /// The client's last event id is not one of ours.
    Unknown,
}

impl Reason {
    /// Every reason: a metric for each starts at zero.
    pub const ALL: [Self; 7] = [
        Self::Trimmed,
        Self::Deleted,
        Self::Reset,
        Self::Oversize,
        Self::Unreadable,
        Self::Limit,
        Self::Unknown,
    ];

    /// Its name on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Deleted => "deleted",
            Self::Reset => "reset",
            Self::Oversize => "oversize",
            Self::Unreadable => "unreadable",
            Self::Limit => "limit",
            Self::Unknown => "unknown",
        }
    }
}

/// Entries that cannot be delivered, as the client is told within its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last id before the gap, if it is known.
    pub after: Option<StreamId>,
    /// The first entry after the gap, if it is known.
    pub next: Option<StreamId>,
    /// How many entries are missing, if Redis can tell.
    pub lost: Option<u64>,
    /// Why they are missing.
    pub reason: Reason,
}

/// Whether control events are sent, and in which form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Controls {
    /// As events of the type [`CONTROL_EVENT`].
    #[default]
    Event,
    /// As comments, for clients that expect no event but their own. They have no `id:`, for some parsers make an
    /// empty message of an id without data.
    Comment,
    /// Not at all.
    None,
}

/// A control event: [`CONTROL_EVENT`] with a JSON object as its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The client is level with the tail.
    Live {
        /// How many entries were replayed to it before.
        replayed: u64,
    },
    /// Entries are missing.
    Gap(Gap),
    /// The same for a client that gets only some entries: those that are missing may be others'.
    GapAtMost(Gap),
    /// The client has everything up to here that it gets; there may be more that it does not get.
    At,
    /// The client was behind, and was spared entries that newer ones supersede.
    Conflated {
        /// How many.
        entries: u64,
    },
    /// The gateway stops, and ends this stream.
    Drain,
    /// The token that the stream was opened with expires soon.
    Expiring {
        /// How many seconds are left.
        seconds: u64,
    },
    /// The stream ends: its token has expired, or a new configuration does not allow it.
    Expired,
    /// The gateway cannot serve this stream now.
    Unavailable {
        /// Why, in one word: a limit's name, `source`, or Redis' error code.
        reason: &'static str,
    },
    /// The stream is over.
    End {
        /// Why.
        reason: EndReason,
    },
    /// A keepalive that JavaScript sees.
    Ping,
    /// Redis went away or came back.
    Source {
        /// Whether Redis answers.
        up: bool,
    },
}

/// Writes a control event in this form. As an event `id` becomes the client's last event id; with `None` that stays
/// as it is.
pub fn write_control(out: &mut Vec<u8>, form: Controls, id: Option<StreamId>, control: Control) {
    let id = id.filter(|_| form == Controls::Event).map(|id| id.to_string());
    write_control_json(out, form, id.as_deref(), &control_json(control));
}

/// The same, of a control event that was written as JSON already, with any id.
pub fn write_control_json(out: &mut Vec<u8>, form: Controls, id: Option<&str>, json: &str) {
    match form {
        Controls::Event => {
            if let Some(id) = id {
                write_line(out, "id", id);
            }
            write_line(out, "event", CONTROL_EVENT);
            write_line(out, "data", json);
            out.push(b'\n');
        }
        Controls::Comment => {
            out.extend_from_slice(format!(": {} {json}\n", type_in(json)).as_bytes());
        }
        Controls::None => {}
    }
}

/// A control event as JSON, told of one stream among several.
pub fn control_of_stream(json: &str, stream: &str) -> String {
    let type_bytes = TYPE.len() + type_in(json).len() + "\"".len();
    let (type_only, rest) = json.split_at_checked(type_bytes).unwrap_or((json, ""));
    format!("{type_only},\"stream\":{}{rest}", json_string(stream))
}

/// With this every control event begins.
const TYPE: &str = r#"{"type":""#;

/// The type of a control event that was written as JSON.
fn type_in(json: &str) -> &str {
    let rest = json.strip_prefix(TYPE).unwrap_or_default();
    rest.split_once('"').map_or("", |(name, _)| name)
}

impl Control {
    /// Of entries that are missing, which may be those of clients that get others.
    pub fn gap(gap: Gap, may_be_others: bool) -> Self {
        if may_be_others { Self::GapAtMost(gap) } else { Self::Gap(gap) }
    }

    /// As JSON.
    pub fn json(self) -> String {
        control_json(self)
    }
}

fn control_json(control: Control) -> String {
    match control {
        Control::Live { replayed } => format!(r#"{{"type":"live","replayed":{replayed}}}"#),
        Control::Conflated { entries } => {
            format!(r#"{{"type":"conflated","entries":{entries}}}"#)
        }
        Control::Drain => r#"{"type":"drain"}"#.into(),
        Control::Expiring { seconds } => format!(r#"{{"type":"expiring","seconds":{seconds}}}"#),
        Control::Expired => r#"{"type":"expired"}"#.into(),
        Control::Unavailable { reason } => {
            format!(r#"{{"type":"unavailable","reason":"{reason}"}}"#)
        }
        Control::End { reason } => format!(r#"{{"type":"end","reason":"{}"}}"#, reason.as_str()),
        Control::Ping => r#"{"type":"ping"}"#.into(),
        Control::Source { up } => format!(r#"{{"type":"source","up":{up}}}"#),
        Control::At => r#"{"type":"at"}"#.into(),
        Control::Gap(gap) => gap_json(gap, &format!(r#""lost":{}"#, count_json(gap.lost))),
        Control::GapAtMost(gap) => {
            gap_json(gap, &format!(r#""lost":null,"at_most":{}"#, count_json(gap.lost)))
        }
    }
}

fn gap_json(gap: Gap, lost: &str) -> String {
    let id = |id: Option<StreamId>| id.map_or("null".into(), |id| format!("\"{id}\""));
    let (after, next, reason) = (id(gap.after), id(gap.next), gap.reason.as_str());
    format!(r#"{{"type":"gap","after":{after},"next":{next},{lost},"reason":"{reason}"}}"#)
}

fn count_json(count: Option<u64>) -> String {
    count.map_or("null".into(), |count| count.to_string())
}
