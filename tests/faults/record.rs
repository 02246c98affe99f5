//! What one client has heard of one stream so far.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::history::{Heard, Listener, What};
use crate::selection::Selection;
use crate::writer::Writer;

/// It.
pub struct Record {
    /// What it asks for.
    pub selection: Selection,
    /// There are other streams on its connection.
    is_part: bool,
    began: Instant,
    heard: Mutex<Vec<Heard>>,
    live: AtomicBool,
    last: AtomicU64,
    /// In nanoseconds since the beginning; zero: never.
    over: AtomicU64,
    /// It was told of the end on the connection that it has.
    is_ended: AtomicBool,
}

impl Record {
    pub fn new(began: Instant, selection: Selection, is_part: bool) -> Self {
        let (heard, live, is_ended) = (Mutex::default(), AtomicBool::default(), false.into());
        let (last, over) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { selection, is_part, began, heard, live, last, over, is_ended }
    }

    /// Whether it was told after this time, counted from the beginning, that the stream is over. Where others are on
    /// its connection it is told so once on each.
    pub fn is_over_since(&self, time: Duration) -> bool {
        let is_ended = self.is_part && self.is_ended.load(Ordering::Relaxed);
        is_ended || Duration::from_nanos(self.over.load(Ordering::Relaxed)) > time
    }

    /// Whether it ever got the mark that it is level with the tail.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    /// The number of the last entry.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Whether that is the last that it gets of what this writer added.
    pub fn is_level(&self, writer: &Writer) -> bool {
        self.last() == writer.last_added(self.selection)
    }

    /// Everything.
    pub fn listener(&self) -> Listener {
        let heard = self.heard.lock().unwrap().clone();
        Listener { selection: self.selection, is_part: self.is_part, heard }
    }

    pub fn note(&self, what: What) {
        let at = self.began.elapsed();
        match &what {
            What::Over => {
                self.over.store(u64::try_from(at.as_nanos()).unwrap(), Ordering::Relaxed);
            }
            What::Opened(_) => self.is_ended.store(false, Ordering::Relaxed),
            What::End(_) | What::EndAtGap => self.is_ended.store(true, Ordering::Relaxed),
            What::Entry(_, number) => self.last.store(*number, Ordering::Relaxed),
            What::Signal(signal) if signal == "live" => self.live.store(true, Ordering::Relaxed),
            _ => {}
        }
        self.heard.lock().unwrap().push(Heard { at, what });
    }
}
