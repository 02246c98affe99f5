//! The state that a stream holds in itself: the newest entry for each value of a field.

use std::collections::HashMap;

use bytes::Bytes;

use super::Found;
use crate::source::{Error, ErrorClass, ReadRequest, Source, StreamState};
use crate::sse::{Entry, Rendering, Selection, State, StreamId, data_of, whole_row};
use crate::stream::Sizes;
use crate::stream::continuity::{Continuity, Verdict};
use crate::stream::start::rule::before_first;

/// One read stays near this,
const READ_BYTES: usize = 256 << 10;
/// and is never larger than this, unless it is one entry.
const MOST_READ_BYTES: usize = 4 * READ_BYTES;
/// A stream that is trimmed faster than it is read is begun again so often.
const ATTEMPTS: usize = 5;
/// What each value takes in memory besides its bytes and its data, about.
const VALUE_BYTES: usize = 128;
/// An entry with this field, or with an empty payload, removes what was before it.
const DELETED: &str = "deleted";
const PAYLOAD: &str = "payload";

/// The newest entry of each value, as far as the stream was read.
struct Newest<'a> {
    field: &'a str,
    rendering: &'a Rendering,
    selection: Option<&'a Selection>,
    by_value: HashMap<Bytes, (StreamId, String)>,
    bytes: usize,
}

impl Newest<'_> {
    fn take(&mut self, entry: &Entry) {
        let row = || whole_row(entry, &self.rendering.columns);
        if self.selection.is_some_and(|selection| !selection.admits(&row())) {
            return;
        }
        let Some(value) = entry.field(self.field) else { return };
        let is_removal =
            entry.field(DELETED).is_some() || entry.field(PAYLOAD).is_some_and(Bytes::is_empty);
        let data = data_of(entry, self.rendering).filter(|_| !is_removal);
        let before = match data {
            Some(data) => {
                self.bytes += VALUE_BYTES + value.len() + data.len();
                self.by_value.insert(value.clone(), (entry.id, data.into_owned()))
            }
            None => self.by_value.remove(value),
        };
        if let Some((_, data)) = before {
            self.bytes -= VALUE_BYTES + value.len() + data.len();
        }
    }

    /// As a hash would hold it, the oldest first.
    fn into_state(self) -> State {
        let mut all: Vec<_> = self.by_value.into_iter().collect();
        all.sort_by_key(|(_, (id, _))| *id);
        State::Fields(all.into_iter().map(|(value, (_, data))| (value, data.into())).collect())
    }
}

/// What is asked of which stream.
pub(super) struct NewestBy<'a> {
    pub(super) source: &'a Source,
    pub(super) key: &'a str,
    pub(super) field: &'a str,
    pub(super) rendering: &'a Rendering,
    /// Which entries are folded; `None`: all.
    pub(super) selection: Option<&'a Selection>,
    /// Learns how large the entries are.
    pub(super) sizes: &'a Sizes,
    /// What is folded may take this much memory.
    pub(super) most_bytes: usize,
}

impl NewestBy<'_> {
    /// Reads all that the stream holds. Fails with `TOOLARGE` if the newest entries take more memory than they may, and
    /// with `LAGGING` if the stream is trimmed or recreated faster than it is read.
    pub(super) async fn fold(&self) -> Result<Found, Error> {
        for _ in 0..ATTEMPTS {
            if let Some(found) = self.fold_once().await? {
                return Ok(found);
            }
        }
        let message = "the stream is trimmed faster than it is read".to_owned();
        Err(Error { class: ErrorClass::Away, code: "LAGGING", message })
    }

    /// `None`: entries were missing between two reads.
    async fn fold_once(&self) -> Result<Option<Found>, Error> {
        let info = self.source.info(self.key).await?;
        let mut next = Continuity::after(before_first(info.as_ref())).without_holes_told();
        let (field, rendering, selection) = (self.field, self.rendering, self.selection);
        let mut newest = Newest { field, rendering, selection, by_value: HashMap::new(), bytes: 0 };
        loop {
            let count = self.sizes.count(READ_BYTES);
            let (key, after) = (self.key, next.cursor());
            let ask = ReadRequest { key, after, count, most_bytes: MOST_READ_BYTES };
            let reply = match self.source.read(ask).await {
                Err(error) if error.class == ErrorClass::TooLarge && count > 1 => {
                    self.sizes.were_too_many(count, READ_BYTES);
                    continue;
                }
                reply => reply?,
            };
            if reply.entries.len() as u64 == count {
                self.sizes.observe(&reply.entries);
            }
            // The first entry of all may have gone before the first read: that is no loss to a state.
            let is_first = newest.by_value.is_empty();
            match next.check(&reply) {
                Verdict::Whole => {}
                Verdict::Missing(_) if is_first => {}
                Verdict::Missing(_) | Verdict::Reset(_) => return Ok(None),
            }
            for entry in &reply.entries {
                newest.take(entry);
            }
            if newest.bytes > self.most_bytes {
                return Err(too_large(self.most_bytes));
            }
            let is_at_end = match reply.seen {
                StreamState::Stream(info) => info.last_generated <= next.cursor(),
                StreamState::Missing | StreamState::Gone => true,
                StreamState::Unseen => false,
            };
            if is_at_end || reply.entries.is_empty() {
                return Ok(Some(Found { state: newest.into_state(), next }));
            }
        }
    }
}

pub(super) fn too_large(most_bytes: usize) -> Error {
    let message = format!("the state takes more than {most_bytes} bytes");
    Error { class: ErrorClass::TooLarge, code: "TOOLARGE", message }
}
