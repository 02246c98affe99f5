//! What a stream is told besides its entries: signs of life, the loss of Redis, the closing frame.

use std::time::Duration;

use crate::config::Signals;
use crate::sse::{Control, StreamId, comment, write_control, write_retry};
use crate::stream::ReaderState;

use super::WireFormat;

/// A client whose token has expired comes back after once to twice this: time for a new one.
const AFTER_EXPIRY: Duration = Duration::from_secs(5);

/// A sign of life, or of Redis' coming and going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Nothing happened for a while.
    Keepalive,
    /// Redis is away.
    SourceDown,
    /// Redis is back.
    SourceUp,
}

impl Signal {
    /// What a silent stream is told while its reader fares like this.
    pub(super) fn of_silence(reader: &ReaderState) -> Self {
        if is_up(reader) { Self::Keepalive } else { Self::SourceDown }
    }

    /// What a stream is told when Redis comes or goes.
    pub(super) fn of_state(down: bool) -> Self {
        if down { Self::SourceDown } else { Self::SourceUp }
    }

    /// Its bytes for one kind of client.
    pub(super) fn bytes(self, format: WireFormat, signals: Signals) -> Vec<u8> {
        let (text, control) = match self {
            Self::Keepalive => (comment::KEEPALIVE, Control::Ping),
            Self::SourceDown => (comment::RECONNECTING, Control::Source { up: false }),
            Self::SourceUp => (comment::RECONNECTED, Control::Source { up: true }),
        };
        let mut bare = text.as_bytes().to_vec();
        if signals == Signals::Event {
            write_control(&mut bare, format.controls, None, control);
        }
        format.frame(&bare)
    }
}

/// What a client is to be told of a reader.
pub(super) enum StatusChange {
    /// Nothing that it was not told.
    None,
    /// Redis went away or came back.
    Told(Signal),
    /// The key cannot be read: the client has to go.
    Refused(&'static str),
}

/// What a client is to be told of a reader in this state that was told so far whether Redis is away.
pub(super) fn status_change(told_down: bool, reader: &ReaderState) -> StatusChange {
    match reader {
        ReaderState::Refused(reason) => StatusChange::Refused(reason),
        reader if told_down == is_up(reader) => StatusChange::Told(Signal::of_state(!told_down)),
        _ => StatusChange::None,
    }
}

/// Whether a client may believe that it hears of everything at once.
pub(super) fn is_up(reader: &ReaderState) -> bool {
    matches!(reader, ReaderState::Up | ReaderState::Starting)
}

/// The last bytes of a stream; its client is to come back after `wait`, or once it may have a new token.
pub(super) fn closing_frame(
    wait: Duration,
    format: WireFormat,
    id: Option<StreamId>,
    control: Option<Control>,
) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(control) = control {
        let mut bare = Vec::new();
        let wait = match control {
            Control::Expired => AFTER_EXPIRY.mul_f64(1.0 + fastrand::f64()),
            _ => wait,
        };
        write_retry(&mut bare, wait);
        write_control(&mut bare, format.controls, id, control);
        format.append_event(&bare, &mut out);
    }
    out.extend_from_slice(format.end());
    out
}
