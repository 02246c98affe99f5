//! Readers: one task per stream key reads from the source into the topic's ring, however many subscribers
//! there are. Each reply is checked against the stream before its entries are believed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::config;
use crate::source::{Connection, Error, ErrorClass, LARGE_REPLIES, Reply, Source};
use crate::sse::{Entry, Gap, Reason, StreamId};
use crate::stream::continuity::Verdict;
use crate::stream::{
    ConnectionStatus, Hub, Item, Pushed, ReadFailure, ReaderState, Topic, TopicState,
};
use crate::telemetry::metrics::{Metrics, Scope};
use crate::telemetry::throttle::LogThrottle;

mod history_check;
mod pace;
mod progress;

use history_check::{CheckedRead, HistoryCheck};
use pace::Pace;
use progress::{MOST_REPLY_BYTES, Progress};

/// The most memory that the replies to all readers together may take.
pub const MOST_REPLIES_BYTES: usize = LARGE_REPLIES * MOST_REPLY_BYTES;
/// The first wait after a failure is at most this, and each further one may be twice as long,
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// but never longer than this.
const BACKOFF_LAST: Duration = Duration::from_secs(1);
/// A key that cannot be read is tried again after half to all of this. Its subscribers were disconnected, come
/// back later than others do, and should find it readable as soon as it is.
const KEY_RETRY: Duration = Duration::from_secs(2);

/// What every reader needs.
pub struct Readers {
    /// Where the entries are.
    pub source: Source,
    /// How to read them.
    pub config: ArcSwap<config::Source>,
    /// The hub that holds the readers' topics.
    pub hub: Arc<Hub>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// One log line for the failures of all readers, by code.
    pub failures_told: LogThrottle,
    /// One log line for the recoveries of all readers, by code.
    pub returns_told: LogThrottle,
}

impl Readers {
    /// Reads for `topic` until it has had no subscriber for the linger time.
    pub async fn run(&self, topic: &Arc<Topic>) {
        tokio::select! {
            () = self.close_when_abandoned(topic) => {}
            never = self.read_for_ever(topic) => match never {},
        }
    }

    /// Closes the topic once it has had no subscriber for the linger time; a topic that has nothing to offer
    /// to a subscriber that comes back, and one whose stream is over, does not linger.
    async fn close_when_abandoned(&self, topic: &Arc<Topic>) {
        loop {
            topic.abandoned.notified().await;
            let linger = self.config.load().linger;
            // Its stream may end meanwhile. Elapsed: nobody came. Boxed: most have a client.
            let _ = Box::pin(timeout(linger, becomes_useless(topic))).await;
            let is_idle = {
                let state = topic.state();
                let is_due = is_useless(&state) || state.idle_since.elapsed() >= linger;
                state.clients == 0 && is_due
            };
            if is_idle && self.hub.close(topic) {
                return;
            }
        }
    }

    async fn read_for_ever(&self, topic: &Topic) -> Infallible {
        let mut progress: Option<Progress> = None;
        let mut failures = 0;
        loop {
            let Err(error) = self.session(topic, &mut progress, &mut failures).await else {
                continue;
            };
            if let Some(wait) = self.failed(topic, error, progress.as_mut(), &mut failures) {
                self.back_off(wait).await;
            }
        }
    }

    /// Tells of a failure; how long to wait then.
    fn failed(
        &self,
        topic: &Topic,
        error: Error,
        progress: Option<&mut Progress>,
        failures: &mut u32,
    ) -> Option<Duration> {
        self.metrics.reader_error(error.code);
        if let Some(progress) = progress
            && (error.class == ErrorClass::TooLarge || error.code == "TIMEOUT")
        {
            // Entries have grown, perhaps to more than the network brings in time.
            progress.ask_for_fewer();
        }
        let reader = match error.class {
            ErrorClass::TooLarge => return None,
            ErrorClass::Key => ReaderState::Refused(error.code),
            ErrorClass::Away | ErrorClass::Login => ReaderState::Away(error.code),
        };
        if topic.state().reader != reader {
            self.log_failure(&topic.key, &error);
        }
        *failures += 1;
        let wait = backoff(error.class, *failures);
        let retry_at = Instant::now() + wait;
        topic.failed(reader, ReadFailure { message: error.message, retry_at });
        Some(wait)
    }

    async fn back_off(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Soon, but not all readers at once.
            () = self.source.server_changed() => {
                tokio::time::sleep(backoff(ErrorClass::Away, 1)).await;
            }
        }
    }

    /// What concerns one key gets a line for each key. All readers lose Redis together: that gets one line.
    fn log_failure(&self, key: &str, error: &Error) {
        match (error.class, error.code) {
            (ErrorClass::Key, "WRONGTYPE") => {
                warn!(key, %error, "reader refused: the key holds no stream; delete it, or correct the route's key");
            }
            (ErrorClass::Key, _) if error.is_command_denied() => {
                warn!(key, %error, "reader refused: allow the user the command that the error names (ACL SETUSER … +xread +xinfo|stream)");
            }
            (ErrorClass::Key, _) => {
                warn!(key, %error, "reader refused: allow the user to read the key (ACL SETUSER … %R~key; before Redis 7: ~key)");
            }
            (ErrorClass::Away | ErrorClass::Login, _) if self.failures_told.allows(error.code) => {
                warn!(key, %error, "reader cannot read and tries again; other readers with the same error are not logged");
            }
            (ErrorClass::Away | ErrorClass::Login | ErrorClass::TooLarge, _) => {
                debug!(key, %error, "reader cannot read and tries again");
            }
        }
    }

    /// Reads over one connection until it fails, or is to be opened again.
    async fn session(
        &self,
        topic: &Topic,
        progress: &mut Option<Progress>,
        failures: &mut u32,
    ) -> Result<(), Error> {
        let mut connection = self.source.connect(&topic.key, progress.is_some()).await?;
        let is_cursor_at_entry = progress.as_ref().is_some_and(Progress::is_cursor_at_entry);
        let mut history = HistoryCheck::new(is_cursor_at_entry);
        let progress = match progress {
            Some(progress) => progress,
            None => progress.insert(self.start_at_tail(topic, &mut connection).await?),
        };
        // The first read does not block, so that whatever happened since the last one is delivered at once.
        let mut block = Duration::from_millis(1);
        let mut pace = Pace::new(Instant::now());
        loop {
            connection.release_permit();
            topic.wait_for_room().await;
            let ask = history.ask(progress.ask(&topic.key, self.config.load().read_count));
            if let Connection::Shared(reader) = &mut connection {
                reader.wait(&ask, block).await;
            }
            let reply = connection.read(ask, block).await;
            let reply = reply.inspect_err(|error| {
                if error.code == "IO" && !connection.is_shared() {
                    progress.was_lost();
                }
            })?;
            let Some(reply) = reply else { return Ok(()) };
            progress.was_answered();
            let may_be_more = reply.entries.len() as u64 >= ask.count;
            // Boxed: of ten thousand readers that wait, few have a reply.
            let taking =
                self.take_in(reply, topic, progress, &mut history, &mut connection, failures);
            if !Box::pin(taking).await? {
                continue;
            }
            if connection.is_to_be_redialed() {
                return Ok(());
            }
            block = self.config.load().block;
            let rest = if may_be_more { Duration::ZERO } else { pace.rest(Instant::now()) };
            if !rest.is_zero() {
                connection.release_permit();
                tokio::time::sleep(rest).await;
            }
        }
    }

    /// Takes in what a read found; whether it is believed, else it is read again.
    async fn take_in(
        &self,
        reply: Reply,
        topic: &Topic,
        progress: &mut Progress,
        history: &mut HistoryCheck,
        connection: &mut Connection,
        failures: &mut u32,
    ) -> Result<bool, Error> {
        let judged = history.judge(reply, progress.continuity, &topic.key, connection).await;
        let judged = judged.inspect_err(|error| connection.report_lagging(error))?;
        let Some(read) = judged else { return Ok(false) };
        if read.is_nothing() {
            connection.release_permit();
            connection.check_orphaned().await?;
        }
        if *failures > 0 {
            self.log_return(topic);
            *failures = 0;
        }
        // Subscribers hear first that Redis is back, then what it had meanwhile.
        topic.answered();
        self.hub.wait_for_room().await;
        progress.advance(read.continuity, read.entries.last());
        report_status(topic, progress, connection);
        self.deliver(topic, progress, read);
        topic.has_delivered();
        Ok(true)
    }

    fn log_return(&self, topic: &Topic) {
        let before = topic.state().reader.clone();
        match before {
            ReaderState::Refused(code) => info!(key = %topic.key, code, "reader is back"),
            ReaderState::Away(code) => {
                self.metrics.redis_reconnects.increment(1);
                if self.returns_told.allows(code) {
                    info!(key = %topic.key, code, "reader is back; other readers that are back are not logged");
                }
            }
            ReaderState::Starting | ReaderState::Up => {}
        }
    }

    async fn start_at_tail(
        &self,
        topic: &Topic,
        connection: &mut Connection,
    ) -> Result<Progress, Error> {
        let info = connection.info(&topic.key).await?;
        let progress = Progress::at_tail(info.as_ref());
        // Before anybody may take it that the tail is known.
        report_status(topic, &progress, connection);
        topic.begin(progress.continuity.cursor());
        Ok(progress)
    }

    /// Pushes what a read found into the ring: first what is missing, then the entries.
    fn deliver(&self, topic: &Topic, progress: &mut Progress, read: CheckedRead) {
        let CheckedRead { entries, verdict, .. } = read;
        progress.sizes.observe(&entries);
        let max_entry_bytes = self.config.load().max_entry_bytes;
        let mut items = Vec::with_capacity(entries.len() + 1);
        match verdict {
            Verdict::Whole => {}
            Verdict::Missing(gap) => {
                let id = gap.next.map_or(progress.continuity.cursor(), StreamId::prev);
                items.push(self.gap_item(topic, progress, gap, id));
            }
            Verdict::Reset(gap) => {
                progress.last_entry = None;
                let base = progress.continuity.cursor();
                let item = self.gap_item(topic, progress, gap, base);
                topic.push_generation(base, &[item], max_entry_bytes);
                return;
            }
        }
        self.metrics.reader_entries.increment(entries.len() as u64);
        let bytes: usize = entries.iter().map(Entry::size_bytes).sum();
        self.metrics.reader_bytes.increment(bytes as u64);
        items.extend(entries.into_iter().map(Item::Entry));
        if !items.is_empty() {
            let Pushed { unsent, reopened } = topic.push(&items, max_entry_bytes);
            self.metrics.reopened.increment(reopened);
            self.metrics.unsent(Scope::Reader, &unsent);
            let is_unreadable = |(reason, entries)| reason == Reason::Unreadable && entries > 0;
            if unsent.into_iter().any(is_unreadable)
                && progress.gap_log.allows(Reason::Unreadable.as_str())
            {
                warn!(key = %topic.key, "an entry cannot be read, and clients are told; look at what the server answers to XREAD (other such entries of this stream are not logged)");
            }
            self.hub.make_room();
        }
    }

    /// Counts and logs a gap; the item tells subscribers of it.
    fn gap_item(&self, topic: &Topic, progress: &Progress, gap: Gap, id: StreamId) -> Item {
        if progress.gap_log.allows(gap.reason.as_str()) {
            warn!(
                key = %topic.key,
                reason = gap.reason.as_str(),
                after = ?gap.after.map(|id| id.to_string()),
                next = ?gap.next.map(|id| id.to_string()),
                lost = ?gap.lost,
                "entries are missing from the stream; clients are told (ssegate_gaps_total counts every gap)"
            );
        }
        self.metrics.gap(Scope::Reader, gap);
        Item::Gap(gap, id)
    }
}

/// Returns once the topic has nothing to offer to a subscriber that comes back.
async fn becomes_useless(topic: &Topic) {
    let mut news = topic.subscribe();
    while !is_useless(&topic.state()) {
        // A lagged channel is news as well.
        let _ = news.recv().await;
    }
}

fn is_useless(topic: &TopicState) -> bool {
    let is_refused = matches!(topic.reader, ReaderState::Refused(_));
    topic.ends.is_over() || topic.ring.next_seq() == 0 && !is_refused
}

/// For the operator: how far the reader is, and which server it reads from.
fn report_status(topic: &Topic, progress: &Progress, connection: &Connection) {
    let server = connection.server();
    let is_shared = connection.is_shared();
    let mut state = topic.state();
    let status = &mut state.status;
    status.connection = connection.number().map(|number| ConnectionStatus { number, is_shared });
    status.lag_entries = progress.continuity.behind();
    status.source_last_id = progress.continuity.end();
    if status.server.as_ref() != server {
        status.server = server.cloned();
    }
}

/// How long to wait before the next attempt. The wait is random, so that readers do not retry in step.
fn backoff(class: ErrorClass, failures: u32) -> Duration {
    if class == ErrorClass::Key {
        return KEY_RETRY.mul_f64(0.5 + fastrand::f64() / 2.0);
    }
    let longest = (BACKOFF_FIRST * 2_u32.saturating_pow(failures.min(16) - 1)).min(BACKOFF_LAST);
    longest.mul_f64(fastrand::f64())
}
