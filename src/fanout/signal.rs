//! What a stream is told besides its entries: signs of life, the loss of Redis, the closing frame.

use std::time::Duration;

use crate::config::{Signals, StreamRules};
use crate::sse::{
    Control, Controls, EndReason, comment, write_control, write_control_json, write_last_event,
    write_retry,
};
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

/// The last bytes of a stream.
pub(super) struct ClosingFrame {
    /// What is sent.
    pub(super) bytes: Vec<u8>,
    /// Whether the body ends there. Else it is left incomplete: its client knows that it is not whole.
    pub(super) is_whole: bool,
}

/// The last bytes of a stream that has come to its end.
pub fn end_frame(format: WireFormat, rules: &StreamRules) -> Vec<u8> {
    let control = Control::End { reason: EndReason::Marker };
    closing_frame(Duration::ZERO, format, rules, None, Some(control)).bytes
}

/// The last bytes of a stream; its client is to come back after `wait`, or once it may have a new token.
pub(super) fn closing_frame(
    wait: Duration,
    format: WireFormat,
    rules: &StreamRules,
    id: Option<&str>,
    control: Option<Control>,
) -> ClosingFrame {
    let mut bytes = Vec::new();
    if let Some(event) = last_event(wait, format, rules, id, control) {
        format.append_event(&event, &mut bytes);
    }
    let is_whole = match control {
        Some(Control::End { reason: EndReason::Marker }) => true,
        Some(Control::End { .. }) if format.controls != Controls::None => true,
        _ => !rules.cuts,
    };
    if is_whole {
        bytes.extend_from_slice(format.end());
    }
    ClosingFrame { bytes, is_whole }
}

fn last_event(
    wait: Duration,
    format: WireFormat,
    rules: &StreamRules,
    id: Option<&str>,
    control: Option<Control>,
) -> Option<Vec<u8>> {
    let mut bare = Vec::new();
    match (control?, &rules.end_data) {
        (Control::End { reason: EndReason::Marker }, Some(data)) => {
            write_last_event(&mut bare, &rules.rendering, data);
        }
        (control, _) => {
            let wait = match control {
                Control::Expired => AFTER_EXPIRY.mul_f64(1.0 + fastrand::f64()),
                _ => wait,
            };
            if !matches!(control, Control::End { .. }) {
                write_retry(&mut bare, wait);
            }
            write_control_json(&mut bare, format.controls, id, &control.json());
        }
    }
    Some(bare)
}
