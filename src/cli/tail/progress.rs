//! The progress line on a terminal: it is overwritten each second, and hidden while other lines are
//! printed.

use std::io::Write;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::text::in_words;

/// How often it is written,
const INTERVAL: Duration = Duration::from_secs(1);
/// and how soon after it was hidden.
const BACK: Duration = Duration::from_millis(100);
/// The line must not wrap on a narrow terminal: only its last row could be overwritten.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
/// To the start of the line, which is then cleared.
const CLEAR: &str = "\r\x1b[K";

/// The figures of the line.
pub(super) struct Progress {
    begun: Instant,
    events: u64,
    gaps: u64,
    /// Entries that the gaps report as lost.
    lost: u64,
    connections: u64,
    last_lag_ms: Option<i128>,
    most_lag_ms: Option<i128>,
    /// Events in the last second; their total at its end, and when that was.
    rate: f64,
    before: (u64, Instant),
    is_shown: bool,
    /// When the line is written next.
    due: Instant,
}

impl Progress {
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            events: 0,
            gaps: 0,
            lost: 0,
            connections: 0,
            last_lag_ms: None,
            most_lag_ms: None,
            rate: 0.0,
            before: (0, now),
            is_shown: false,
            due: now + INTERVAL,
        }
    }

    pub(super) fn connected(&mut self) {
        self.connections += 1;
    }

    pub(super) fn event(&mut self, lag_ms: Option<i128>) {
        self.events += 1;
        self.last_lag_ms = lag_ms;
        self.most_lag_ms = self.most_lag_ms.max(lag_ms);
    }

    pub(super) fn gap(&mut self, lost: Option<u64>) {
        self.gaps += 1;
        self.lost += lost.unwrap_or(0);
    }

    /// Returns when the line has to be written.
    pub(super) async fn is_due(&self) {
        sleep_until(self.due.into()).await;
    }

    /// Overwrites the line.
    pub(super) fn show(&mut self, terminal: &mut impl Write) {
        let now = Instant::now();
        let (events, since) = self.before;
        if now - since >= INTERVAL {
            self.rate = (self.events - events) as f64 / (now - since).as_secs_f64();
            self.before = (self.events, now);
        }
        // Failures do not matter: the line is only for people.
        let _ = write!(terminal, "{CLEAR}{NO_WRAP}{}, {:.0}/s{WRAP}", self.line(), self.rate);
        let _ = terminal.flush();
        (self.is_shown, self.due) = (true, now + INTERVAL);
    }

    /// Makes room for another line, and comes back soon.
    pub(super) fn hide(&mut self, terminal: &mut impl Write) {
        if std::mem::take(&mut self.is_shown) {
            let _ = terminal.write_all(CLEAR.as_bytes());
            let _ = terminal.flush();
            self.due = self.due.min(Instant::now() + BACK);
        }
    }

    /// All figures, on one line.
    pub(super) fn line(&self) -> String {
        let lag = |lag_ms: Option<i128>| lag_ms.map_or("-".to_owned(), in_words);
        format!(
            "{} s: {} events, lag {} (most {}), {} gaps ({} lost), {} reconnects",
            self.begun.elapsed().as_secs(),
            self.events,
            lag(self.last_lag_ms),
            lag(self.most_lag_ms),
            self.gaps,
            self.lost,
            self.connections.saturating_sub(1)
        )
    }
}
