//! When a reader looks at its stream (`XINFO STREAM`). A look costs what the stream's first and last entry weigh: where
//! they are large, it is taken less often, and beside the reads in between the stream's length is asked for.

use std::time::{Duration, Instant};

/// A look that weighs more than this is taken less often.
const HEAVY_BYTES: usize = 16 << 10;
/// A stream in which nothing seems to happen is looked at this often all the same.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is asked together with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    Look,
    Length,
    Nothing,
}

/// The looks of one connection.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    last: Option<Look>,
    /// The user may not ask for the length.
    is_length_denied: bool,
    /// When it wakes from a read, the server answers nothing else that it has received.
    is_asked_by_itself: bool,
}

#[derive(Debug)]
struct Look {
    when: Instant,
    bytes: usize,
    /// The stream's length then, and the entries that were read since.
    length: u64,
    has_read: bool,
}

impl Looks {
    /// Whether a look costs little, as far as is known.
    pub(crate) fn are_light(&self) -> bool {
        self.last.as_ref().is_some_and(|look| look.bytes <= HEAVY_BYTES)
    }

    pub(super) fn beside_read(&self) -> Beside {
        let is_heavy = self.last.is_some() && !self.are_light();
        match (self.is_asked_by_itself, is_heavy && !self.is_length_denied) {
            (true, _) => Beside::Nothing,
            (false, true) => Beside::Length,
            (false, false) => Beside::Look,
        }
    }

    /// Whether a look has to follow a read that found so many entries, and beside which the length was asked for;
    /// `None`: the user may not ask. A stream that grows by what is read and by nothing else has lost nothing, if it
    /// still holds the entry that the read went on from: it may have been trimmed to just this length. While entries
    /// come, each `block` has its look all the same.
    pub(super) fn is_due(&mut self, found: u64, length: Option<u64>, block: Duration) -> bool {
        self.is_length_denied |= length.is_none();
        let (Some(look), Some(length)) = (&mut self.last, length) else { return true };
        look.length += found;
        look.has_read |= found > 0;
        let pause = if look.has_read { block } else { LONGEST_PAUSE };
        look.length != length || look.when.elapsed() >= pause
    }

    /// A look has shown a stream of this length, and weighed so many bytes.
    pub(super) fn note(&mut self, length: u64, bytes: usize) {
        self.last = Some(Look { when: Instant::now(), bytes, length, has_read: false });
    }

    /// The server did not answer a look beside a read until it was asked again.
    pub(super) fn note_late(&mut self) {
        self.is_asked_by_itself = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::MAX;

    #[test]
    fn a_light_look_goes_with_each_read() {
        let mut looks = Looks::default();
        assert_eq!(looks.beside_read(), Beside::Look);
        looks.note(5, HEAVY_BYTES);
        assert_eq!(looks.beside_read(), Beside::Look);
        looks.note_late();
        assert_eq!(looks.beside_read(), Beside::Nothing);
    }

    #[test]
    fn a_heavy_look_is_due_once_in_a_while_and_when_the_length_shows_a_change() {
        let mut looks = Looks::default();
        looks.note(5, HEAVY_BYTES + 1);
        assert_eq!(looks.beside_read(), Beside::Length);
        assert!(!looks.is_due(1, Some(6), NEVER), "its time is not over");
        assert!(looks.is_due(1, Some(7), Duration::ZERO));
        assert!(looks.is_due(0, Some(7), Duration::ZERO), "it was read since");
        looks.note(7, HEAVY_BYTES + 1);
        assert!(!looks.is_due(0, Some(7), Duration::ZERO), "nothing has happened");
        assert!(looks.is_due(0, Some(6), NEVER), "something is gone");
        assert!(looks.is_due(2, Some(2), NEVER), "it is another stream");
        assert!(looks.is_due(0, None, NEVER));
        assert_eq!(looks.beside_read(), Beside::Look, "the length may not be asked for");
    }
}
