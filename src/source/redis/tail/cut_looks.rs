//! Streams at which no look succeeds: the server closes the connection instead of answering, because the first and the
//! last entry are more than it holds for one client (`client-output-buffer-limit`). They are read without a look.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::warn;

/// A connection may be lost in the middle of a look by chance, but hardly twice in a row.
const CUTS: u32 = 2;
/// Then a look is tried again after this.
const PAUSE: Duration = Duration::from_secs(60);

/// By stream key: how many looks were cut in a row, and when the last one was.
#[derive(Default)]
pub(super) struct CutLooks {
    known: Mutex<HashMap<String, (u32, Instant)>>,
}

impl CutLooks {
    /// Whether no look at this stream should be tried now.
    pub(super) fn are_cut(&self, key: &str) -> bool {
        let known = self.known.lock().expect("no holder of the lock panics");
        known.get(key).is_some_and(|(cuts, last)| *cuts >= CUTS && last.elapsed() < PAUSE)
    }

    pub(super) fn note_cut(&self, key: &str) {
        let mut known = self.known.lock().expect("no holder of the lock panics");
        known.retain(|_, (_, last)| last.elapsed() < 2 * PAUSE);
        let (cuts, last) = known.entry(key.to_owned()).or_insert((0, Instant::now()));
        (*cuts, *last) = (*cuts + 1, Instant::now());
        if *cuts == CUTS {
            warn!(
                key,
                "Redis closes the connection when it is asked about the stream, so nobody hears of entries that are lost; raise client-output-buffer-limit normal above the size of two entries"
            );
        }
    }

    pub(super) fn note_answer(&self, key: &str) {
        let mut known = self.known.lock().expect("no holder of the lock panics");
        if !known.is_empty() {
            known.remove(key);
        }
    }
}
