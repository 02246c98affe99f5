//! One task per stream key: reads on from where it is, holds every reply against the stream, fills
//! the topic's ring. Redis sees this one reader however many clients there are.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::{debug, info, warn};

use crate::config;
use crate::limits::Share;
use crate::source::{
    Connection, Error, ErrorClass, LARGE_REPLIES, ReadRequest, Source, StreamInfo,
};
use crate::sse::{Entry, Gap, StreamId};
use crate::stream::continuity::{Continuity, Verdict};
use crate::stream::{Hub, Item, ReadFailure, ReaderState, Sizes, Topic};
use crate::telemetry::metrics::{Metrics, Scope};
use crate::telemetry::throttle::LogThrottle;

mod history_check;

use history_check::{CheckedRead, HistoryCheck};

/// One reply is meant to stay near this, and never gets larger than twice of it, but for one entry.
const REPLY_BYTES: usize = 2 << 20;
const MOST_REPLY_BYTES: usize = 2 * REPLY_BYTES;
/// What replies to all readers together may have in memory.
pub const MOST_REPLIES_BYTES: usize = LARGE_REPLIES * MOST_REPLY_BYTES;
/// The first wait after a failure is at most this; each further one may be twice as long.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// No wait is longer than this while Redis is away.
const BACKOFF_LAST: Duration = Duration::from_secs(1);
/// A key that cannot be read is looked at again after this much, at least half of it: its clients come
/// back later than the others, and are not to find it refused still.
const KEY_RETRY: Duration = Duration::from_secs(2);

/// What every reader needs.
pub struct Readers {
    /// Where the entries are.
    pub source: Source,
    /// How to read them.
    pub config: ArcSwap<config::Source>,
    /// Where readers' topics live.
    pub hub: Arc<Hub>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Which failures the log has told of, by code.
    pub failures_told: LogThrottle,
    /// And of which returns.
    pub returns_told: LogThrottle,
}

impl Readers {
    /// Reads for `topic` until nobody has wanted it for the linger time.
    pub async fn run(&self, topic: Arc<Topic>, _share: Option<Share>) {
        tokio::select! {
            () = self.unwanted(&topic) => {}
            never = self.read_for_ever(&topic) => match never {},
        }
    }

    /// Returns once the topic is closed, for nobody wants it any more.
    async fn unwanted(&self, topic: &Arc<Topic>) {
        loop {
            topic.abandoned.notified().await;
            let linger = {
                let state = topic.state();
                let of_use =
                    state.ring.next_seq() > 0 || matches!(state.reader, ReaderState::Refused(_));
                if of_use { self.config.load().linger } else { Duration::ZERO }
            };
            tokio::time::sleep(linger).await;
            let idle = {
                let state = topic.state();
                state.clients == 0 && state.idle_since.elapsed() >= linger
            };
            if idle && self.hub.close(topic) {
                return;
            }
        }
    }

    async fn read_for_ever(&self, topic: &Topic) -> Infallible {
        let mut position: Option<Position> = None;
        let mut failures = 0;
        loop {
            let error = match self.session(topic, &mut position, &mut failures).await {
                Err(error) => error,
                Ok(never) => match never {},
            };
            self.metrics.reader_error(error.code);
            if let Some(position) = position.as_mut()
                && (error.class == ErrorClass::TooLarge || error.code == "TIMEOUT")
            {
                // Entries have grown; to more than the connection brings in time, it may be.
                position.sizes.were_too_many(position.asked, REPLY_BYTES);
            }
            let reader = match error.class {
                ErrorClass::TooLarge => continue,
                ErrorClass::Key => ReaderState::Refused(error.code),
                ErrorClass::Away | ErrorClass::Login => ReaderState::Away(error.code),
            };
            if topic.state().reader != reader {
                self.tell_failure(&topic.key, &error);
            }
            failures += 1;
            let wait = pause(error.class, failures);
            let retry_at = Instant::now() + wait;
            topic.failed(reader, ReadFailure { message: error.message, retry_at });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Soon, and still not all readers at once.
                () = self.source.moved() => tokio::time::sleep(pause(ErrorClass::Away, 1)).await,
            }
        }
    }

    /// What concerns one key is told for each; the loss of Redis once, for all lose it together.
    fn tell_failure(&self, key: &str, error: &Error) {
        match (error.class, error.code) {
            (ErrorClass::Key, "WRONGTYPE") => {
                warn!(key, %error, "reader refused: the key holds no stream; delete it, or correct the route's key");
            }
            (ErrorClass::Key, _) => {
                warn!(key, %error, "reader refused: allow the user to read the key (ACL SETUSER … %R~key)");
            }
            (ErrorClass::Away | ErrorClass::Login, _) if self.failures_told.allows(error.code) => {
                warn!(key, %error, "reader cannot read; it tries again (others that fail likewise are not told)");
            }
            (ErrorClass::Away | ErrorClass::Login | ErrorClass::TooLarge, _) => {
                debug!(key, %error, "reader cannot read; it tries again");
            }
        }
    }

    /// Reads over one connection until it fails.
    async fn session(
        &self,
        topic: &Topic,
        position: &mut Option<Position>,
        failures: &mut u32,
    ) -> Result<Infallible, Error> {
        let mut connection = self.source.connect(&topic.key).await?;
        let mut history = HistoryCheck::new(position.as_ref().is_some_and(Position::is_at_entry));
        let position = match position {
            Some(position) => position,
            None => position.insert(self.find_tail(topic, &mut connection).await?),
        };
        // The first read does not block: whatever happened since the last one is told at once.
        let mut longest = Duration::from_millis(1);
        loop {
            connection.release_permit();
            topic.room().await;
            let ask = history.ask(position.ask(&topic.key, self.config.load().read_count));
            let reply = connection.read(ask, longest).await?;
            let judged =
                history.judge(reply, position.continuity, &topic.key, &mut connection).await;
            let judged = judged.inspect_err(|error| connection.report_lagging(error))?;
            let Some(found) = judged else { continue };
            if found.is_nothing() {
                connection.hears_primary().await?;
            }
            if *failures > 0 {
                self.tell_return(topic);
                *failures = 0;
            }
            // First that Redis is back, then what it had meanwhile.
            topic.answered();
            self.hub.room().await;
            self.take(topic, position, found);
            tell(topic, position, &connection);
            longest = self.config.load().block;
        }
    }

    fn tell_return(&self, topic: &Topic) {
        let before = topic.state().reader.clone();
        match before {
            ReaderState::Refused(code) => info!(key = %topic.key, code, "reader is back"),
            ReaderState::Away(code) => {
                self.metrics.redis_reconnects.increment(1);
                if self.returns_told.allows(code) {
                    info!(key = %topic.key, code, "reader is back (others that are back are not told)");
                }
            }
            ReaderState::Starting | ReaderState::Up => {}
        }
    }

    async fn find_tail(
        &self,
        topic: &Topic,
        connection: &mut Connection,
    ) -> Result<Position, Error> {
        let info = connection.info(&topic.key).await?;
        let position = Position::at_tail(info.as_ref());
        topic.start_generation(position.continuity.cursor());
        topic.answered();
        tell(topic, &position, connection);
        Ok(position)
    }

    /// Hands on what a read found, what is missing first.
    fn take(&self, topic: &Topic, position: &mut Position, found: CheckedRead) {
        let CheckedRead { entries, verdict, continuity } = found;
        position.sizes.observe(&entries);
        position.went_to(continuity, entries.last());
        let mut items = Vec::with_capacity(entries.len() + 1);
        match verdict {
            Verdict::Whole => {}
            Verdict::Missing(gap) => {
                let id = gap.next.map_or(position.continuity.cursor(), StreamId::prev);
                items.push(self.told(topic, position, gap, id));
            }
            Verdict::Reset(gap) => {
                position.last_entry = None;
                let base = position.continuity.cursor();
                let item = self.told(topic, position, gap, base);
                topic.push_generation(base, &[item], self.config.load().max_entry_bytes);
                return;
            }
        }
        self.metrics.reader_entries.increment(entries.len() as u64);
        let bytes: usize = entries.iter().map(Entry::size_bytes).sum();
        self.metrics.reader_bytes.increment(bytes as u64);
        items.extend(entries.into_iter().map(Item::Entry));
        if !items.is_empty() {
            let oversize = topic.push(&items, self.config.load().max_entry_bytes);
            self.metrics.oversize(Scope::Reader, oversize);
            self.hub.make_room();
        }
    }

    fn told(&self, topic: &Topic, position: &mut Position, gap: Gap, id: StreamId) -> Item {
        if position.gaps_told.allows(gap.reason.as_str()) {
            warn!(
                key = %topic.key,
                reason = gap.reason.as_str(),
                after = ?gap.after.map(|id| id.to_string()),
                next = ?gap.next.map(|id| id.to_string()),
                lost = ?gap.lost,
                "entries are missing from the stream; clients are told (ssegate_gaps_total counts on)"
            );
        }
        self.metrics.gap(Scope::Reader, gap);
        Item::Gap(gap, id)
    }
}

/// For the operator: how far the reader is, and where it reads.
fn tell(topic: &Topic, position: &Position, connection: &Connection) {
    let server = connection.server();
    let mut state = topic.state();
    let account = &mut state.status;
    account.lag_entries = position.continuity.behind();
    account.source_last_id = position.continuity.end();
    if account.server.as_ref() != server {
        account.server = server.cloned();
    }
}

/// Where a reader is in its stream, and how much it asks for.
struct Position {
    continuity: Continuity,
    /// The last entry that was read, or was the last one at the start; `None` after a reset.
    last_entry: Option<StreamId>,
    sizes: Sizes,
    /// What the last read asked for.
    asked: u64,
    gaps_told: LogThrottle,
}

impl Position {
    fn at_tail(info: Option<&StreamInfo>) -> Self {
        Self {
            continuity: Continuity::at_tail(info),
            last_entry: info.and_then(|info| info.last),
            sizes: Sizes::default(),
            asked: 1,
            gaps_told: LogThrottle::default(),
        }
    }

    fn went_to(&mut self, continuity: Continuity, last_read: Option<&Entry>) {
        self.continuity = continuity;
        self.last_entry = last_read.map(|entry| entry.id).or(self.last_entry);
    }

    /// Whether the cursor is an entry that was there, rather than an end that moved by itself.
    fn is_at_entry(&self) -> bool {
        self.last_entry == Some(self.continuity.cursor())
    }

    fn ask<'a>(&mut self, key: &'a str, read_count: u64) -> ReadRequest<'a> {
        self.asked = self.sizes.count(REPLY_BYTES).min(read_count);
        let after = self.continuity.cursor();
        ReadRequest { key, after, count: self.asked, most_bytes: MOST_REPLY_BYTES }
    }
}

/// How long to wait before the next try: with full jitter, so that readers do not come in step.
fn pause(class: ErrorClass, failures: u32) -> Duration {
    if class == ErrorClass::Key {
        return KEY_RETRY.mul_f64(0.5 + fastrand::f64() / 2.0);
    }
    let longest = (BACKOFF_FIRST * 2_u32.saturating_pow(failures.min(16) - 1)).min(BACKOFF_LAST);
    longest.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Reply, StreamState};

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    /// A stream of 1, 2 and 3, whose end an operator has moved.
    fn ends_at(end: u64) -> StreamInfo {
        StreamInfo {
            length: 3,
            last_generated: id(end),
            first: Some(id(1)),
            last: Some(id(3)),
            max_deleted: StreamId::ZERO,
            entries_added: Some(3),
        }
    }

    #[test]
    fn an_end_that_moved_by_itself_is_no_entry() {
        assert!(Position::at_tail(Some(&ends_at(3))).is_at_entry());
        assert!(!Position::at_tail(Some(&ends_at(10))).is_at_entry());
        assert!(!Position::at_tail(None).is_at_entry());
        let mut position = Position::at_tail(Some(&ends_at(3)));
        let mut look = |info: StreamInfo, read: &[u64]| {
            let entries = read.iter().map(|ms| Entry { id: id(*ms), fields: Vec::new() });
            let reply = Reply { entries: entries.collect(), seen: StreamState::Stream(info) };
            let mut continuity = position.continuity;
            assert_eq!(continuity.check(&reply), Verdict::Whole);
            position.went_to(continuity, reply.entries.last());
            (continuity.cursor(), position.is_at_entry())
        };
        look(ends_at(10), &[]);
        assert_eq!(look(ends_at(10), &[]), (id(10), false));
        let added =
            StreamInfo { length: 4, entries_added: Some(4), last: Some(id(11)), ..ends_at(11) };
        assert_eq!(look(added, &[11]), (id(11), true));
    }
}
