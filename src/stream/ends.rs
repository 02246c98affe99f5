//! What a topic knows of its stream's end. Each route names the entry that ends a stream in its own way, so the answer
//! is kept for each of these markers that some client has; a topic whose clients have none keeps nothing.

use std::time::Instant;

use crate::sse::{EndMarker, Entry, StreamId};

/// Whether a stream is over, as far as one marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// Its last entry is no end.
    Open,
    /// Its last entry is the end, and has this id.
    Ended(StreamId),
    /// There is no such key.
    Absent,
    /// There is no such key any more, and it had ended.
    Gone,
}

impl StreamEnd {
    /// Whether there is no such key.
    pub fn is_gone(self) -> bool {
        matches!(self, Self::Absent | Self::Gone)
    }

    /// As this marker says of the stream's last entry.
    pub(super) fn at(marker: &EndMarker, last: Option<&Entry>) -> Self {
        let end = last.filter(|last| marker.is(last));
        end.map_or(Self::Open, |end| Self::Ended(end.id))
    }
}

/// Whether the stream is over, by marker.
#[derive(Debug, Default)]
pub struct Ends {
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    marker: EndMarker,
    /// As the reader sees it; `None`: the source is asked, and the reader has found nothing since.
    end: Option<StreamEnd>,
    /// The source has said that the stream went on after this end; the reader is still to see how.
    is_passed: bool,
    /// What the source has answered last, and when it was asked.
    answer: Option<(Instant, StreamEnd)>,
}

impl Known {
    fn now(&self) -> Option<StreamEnd> {
        if self.is_passed { Some(StreamEnd::Open) } else { self.end }
    }

    fn set(&mut self, end: StreamEnd) {
        (self.end, self.is_passed) = (Some(end), false);
    }
}

impl Ends {
    /// Whether the stream is over; `None`: nobody knows yet.
    pub fn find(&self, marker: &EndMarker) -> Option<StreamEnd> {
        self.known(marker)?.now()
    }

    /// What the source has answered to a question that was asked after `since`.
    pub(super) fn asked_since(&self, marker: &EndMarker, since: Instant) -> Option<StreamEnd> {
        let (asked, end) = self.known(marker)?.answer?;
        (asked >= since).then_some(end)
    }

    fn known(&self, marker: &EndMarker) -> Option<&Known> {
        self.known.iter().find(|known| known.marker == *marker)
    }

    /// Whether it is over as any marker says.
    pub fn is_over(&self) -> bool {
        let is_over = |end| matches!(end, Some(StreamEnd::Ended(_) | StreamEnd::Gone));
        self.known.iter().any(|known| is_over(known.now()))
    }

    /// Forgets what no marker among these says.
    pub(super) fn keep(&mut self, is_used: impl Fn(&EndMarker) -> bool) {
        self.known.retain(|known| is_used(&known.marker));
    }

    /// The source is going to be asked: what the reader finds from now on counts for more than the answer.
    pub(super) fn expect(&mut self, marker: &EndMarker) {
        if self.known(marker).is_none() {
            let marker = marker.clone();
            self.known.push(Known { marker, end: None, is_passed: false, answer: None });
        }
    }

    /// The source was asked at this time, and answered so; its stream's last entry has the id `last`.
    pub(super) fn note(
        &mut self,
        marker: &EndMarker,
        end: StreamEnd,
        last: Option<StreamId>,
        asked: Instant,
    ) {
        let known = self.known.iter_mut().find(|known| known.marker == *marker);
        let Some(known) = known else { return };
        known.answer = Some((asked, end));
        match known.end {
            None => known.end = Some(end),
            Some(StreamEnd::Ended(at)) if end == StreamEnd::Ended(at) => known.is_passed = false,
            // Its reader is behind; how often the stream was reopened is counted when it is not.
            Some(StreamEnd::Ended(at)) if last.is_some_and(|last| last > at) => {
                known.is_passed = true;
            }
            Some(_) => {}
        }
    }

    /// The reader has found these entries; how often the stream had ended, and went on.
    pub(super) fn move_over<'a>(
        &mut self,
        entries: &(impl Iterator<Item = &'a Entry> + Clone),
    ) -> u64 {
        let mut most = 0;
        for known in &mut self.known {
            let mut reopened = 0;
            for entry in entries.clone() {
                let has_ended = matches!(known.end, Some(StreamEnd::Ended(at)) if at < entry.id);
                reopened += u64::from(has_ended);
                known.set(StreamEnd::at(&known.marker, Some(entry)));
            }
            most = most.max(reopened);
        }
        most
    }

    /// The stream was recreated, or its key is gone.
    pub(super) fn new_generation(&mut self) {
        for known in &mut self.known {
            known.set(match known.end {
                Some(StreamEnd::Ended(_) | StreamEnd::Gone) => StreamEnd::Gone,
                // The source was asked before the reader has noticed.
                Some(StreamEnd::Absent) => StreamEnd::Absent,
                Some(StreamEnd::Open) | None => StreamEnd::Open,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: StreamId = StreamId { ms: 1, seq: 0 };

    fn marker(value: &str) -> EndMarker {
        EndMarker { field: "type".into(), equals: vec![value.into()] }
    }

    fn entries(values: &[&str]) -> Vec<Entry> {
        let fields = |value: &str| vec![("type".into(), value.to_owned().into())];
        let ids = (1..).map(|ms| StreamId { ms, seq: 0 });
        values.iter().zip(ids).map(|(value, id)| Entry { id, fields: fields(value) }).collect()
    }

    fn note(ends: &mut Ends, marker: &EndMarker, last: Option<&Entry>) {
        ends.expect(marker);
        let end = StreamEnd::at(marker, last);
        ends.note(marker, end, last.map(|last| last.id), Instant::now());
    }

    #[test]
    fn each_marker_has_its_own_answer() {
        let (done, error) = (marker("done"), marker("error"));
        let mut ends = Ends::default();
        assert_eq!(ends.find(&done), None);
        ends.move_over(&entries(&["done"]).iter());
        assert!(!ends.is_over(), "nobody asks for the end");
        let last = entries(&["done"]);
        note(&mut ends, &done, last.first());
        note(&mut ends, &error, last.first());
        assert_eq!(ends.find(&done), Some(StreamEnd::Ended(FIRST)));
        assert_eq!(ends.find(&error), Some(StreamEnd::Open));
        assert!(ends.is_over());
    }

    #[test]
    fn an_entry_behind_the_end_reopens_the_stream_and_is_counted() {
        let done = marker("done");
        let mut ends = Ends::default();
        note(&mut ends, &done, None);
        assert_eq!(ends.move_over(&entries(&["done"]).iter()), 0, "it was open");
        assert_eq!(
            ends.move_over(&entries(&["done"]).iter()),
            0,
            "its reader is behind the question"
        );
        assert_eq!(ends.move_over(&entries(&["done", "more", "done", "more"]).iter()), 2);
        assert_eq!(ends.find(&done), Some(StreamEnd::Open));
    }

    #[test]
    fn a_reader_behind_the_source_ends_nobody() {
        let done = marker("done");
        let mut ends = Ends::default();
        note(&mut ends, &done, entries(&["done"]).first());
        note(&mut ends, &done, entries(&["done", "more"]).last());
        assert_eq!(ends.find(&done), Some(StreamEnd::Open));
        assert!(!ends.is_over());
        assert_eq!(ends.move_over(&entries(&["done", "more"])[1..].iter()), 1);
        assert_eq!(ends.find(&done), Some(StreamEnd::Open));
        assert_eq!(ends.move_over(&entries(&["done", "more", "done"])[2..].iter()), 0);
        assert!(ends.is_over());
    }

    #[test]
    fn a_new_life_clears_the_end_and_is_no_reopening() {
        let done = marker("done");
        let mut ends = Ends::default();
        note(&mut ends, &done, entries(&["done"]).first());
        ends.new_generation();
        assert_eq!(ends.find(&done), Some(StreamEnd::Gone));
        assert_eq!(ends.move_over(&entries(&["first", "second"]).iter()), 0);
        assert_eq!(ends.find(&done), Some(StreamEnd::Open));
        ends.new_generation();
        assert_eq!(ends.find(&done), Some(StreamEnd::Open));
    }
}
