//! Entries, and how they look on the wire as Server-Sent Events. No other room knows that.
//!
//! The rules are those of the WHATWG HTML standard, section 9.2 ("Server-sent events").

mod chunk;
mod composite;
mod control;
mod end;
mod entry;
mod id;
mod line;
pub mod parse;
mod render;
mod selection;
mod state;
#[cfg(test)]
mod tests;

pub use chunk::{LAST_CHUNK, unframed, write_chunk};
pub use composite::{COMPOSITE_BYTES, composite_id, longest_composite_bytes, parse_composite};
pub use control::{
    CONTROL_EVENT, Control, Controls, Gap, Reason, comment, control_of_stream, write_control,
    write_control_json,
};
pub use end::{EndMarker, EndReason};
pub use entry::{Entry, PART_BYTES};
pub use id::{NotAnId, StreamId};
pub use line::write_retry;
pub use render::{
    Data, EventName, Rendering, Written, data_of, escaped_line_ends, is_event_name, write_entry,
    write_last_event,
};
pub use selection::{Column, RowValue, Selection, row_of, whole_row};
pub use state::{SNAPSHOT_EVENT, State};

/// The media type of a stream. The standard fixes the charset, but without it some clients take ISO-8859-1.
pub const MEDIA_TYPE: &str = "text/event-stream; charset=utf-8";
