//! The carrier: the task of a group. It waits for entries of all streams whose readers wait, and wakes those readers.
//! If it can, it is told of streams that change ([`Tracked`]); else it reads them together ([`Watch`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tracing::debug;

use super::tracking::Tracked;
use super::watch::{Manner, Watch, least_length};
use crate::source::redis::tail::routing::Tail;
use crate::source::redis::tail::seats::{Group, News, ServerSeats, Waiting};
use crate::source::redis::tail::topology::Node;
use crate::source::{Error, ErrorClass};

/// The streams of a group are looked at in so many rounds, one after the other,
const ROUNDS: u32 = 5;
/// or where Redis tells of its keys, and they may be many, in so many.
const TRACKED_ROUNDS: u32 = 25;
/// A reader that was told something waits again by then, unless its subscribers hold it up.
const READING: Duration = Duration::from_millis(5);
/// A group without readers ends after this.
const LINGER: Duration = Duration::from_secs(1);
/// The first wait after a failure; each further one is twice as long,
const BACKOFF_FIRST: Duration = Duration::from_millis(25);
/// but no longer than this.
const BACKOFF_LAST: Duration = Duration::from_secs(1);
/// After so many connections in a row that were lost over a read of several keys, keys are asked for in turn.
const LOST_READS: u32 = 2;

/// After so many connections in a row that were lost over the attempt to be told of keys, it is not tried any more.
const LOST_ATTEMPTS: u32 = 2;
/// Where being told of keys was refused, or what is told does not arrive, it is tried again after this.
const REFUSED: Duration = Duration::from_secs(600);
const SWALLOWED: Duration = Duration::from_secs(3600);

/// Runs a group until it is closed, or has had no reader for a while. `was_lost`: its first reader was connected before.
pub(super) async fn run(
    tail: Tail,
    node: Node,
    seats: Arc<ServerSeats>,
    group: Arc<Group>,
    was_lost: bool,
) {
    let (failures, lost_reads, lost_attempts) = (0, 0, 0);
    let mut carrier =
        Carrier { tail, node, seats, group, was_lost, failures, lost_reads, lost_attempts };
    {
        let _permit = carrier.seats.permit().await;
        carrier.carry_until_useless().await;
    }
    if carrier.seats.groups() == 0 {
        // Nobody reads over them any more.
        carrier.tail.reading_pool().retire(&carrier.node);
    }
}

struct Carrier {
    tail: Tail,
    node: Node,
    seats: Arc<ServerSeats>,
    group: Arc<Group>,
    /// It, or its first reader, has had a connection before.
    was_lost: bool,
    /// Failures in a row,
    failures: u32,
    /// and how many of them were of a read of several keys.
    lost_reads: u32,
    /// Connections in a row that were lost over the attempt to be told of keys.
    lost_attempts: u32,
}

impl Carrier {
    async fn carry_until_useless(&mut self) {
        while self.until_somebody_waits().await {
            let Err(error) = self.carry().await else { continue };
            if error.class == ErrorClass::TooLarge {
                // Each reads for itself, and then the entries that were too large are behind it.
                self.group.tell_all(|| News::Due);
                continue;
            }
            self.was_lost = true;
            self.fail(&error);
            let pause = BACKOFF_FIRST * 2_u32.saturating_pow(self.failures.min(16));
            self.failures += 1;
            sleep(pause.min(BACKOFF_LAST)).await;
        }
    }

    /// Returns once a reader waits for news, and whether the group goes on.
    async fn until_somebody_waits(&self) -> bool {
        while !self.group.is_waited_for() {
            let is_abandoned = timeout(LINGER, self.group.changed()).await.is_err();
            if self.group.is_closed() || is_abandoned && self.seats.end(&self.group) {
                return false;
            }
        }
        !self.group.is_closed()
    }

    fn fail(&self, error: &Error) {
        debug!(group = self.group.id, %error, "a shared connection failed; its readers come back");
        self.tail.retire_links(&self.node);
        self.tail.servers().report_failure(&self.node, error);
        self.group.tell_all(|| News::Lost(error.clone()));
    }

    /// Waits over one connection until the group ends, or the server's name is to be asked again.
    async fn carry(&mut self) -> Result<(), Error> {
        let (tail, node) = (self.tail.clone(), self.node.clone());
        let mut watch = Watch::open(&tail, &node, self.was_lost).await?;
        self.group.disarm_all();
        if self.track(&mut watch).await? {
            return self.carry_tracked(&mut watch).await;
        }
        watch.prepare_to_end_reads().await?;
        if self.lost_reads >= LOST_READS {
            watch.manner = Manner::InTurn(Instant::now());
        }
        let mut looked: Option<Instant> = None;
        while self.until_somebody_waits().await {
            let Some(pace) = self.group.pace() else { continue };
            self.seats.judge(Instant::now());
            let length = round(pace, ROUNDS);
            if looked.is_none_or(|when| when.elapsed() >= length) {
                looked = Some(Instant::now());
                if self.track(&mut watch).await? {
                    return self.carry_tracked(&mut watch).await;
                }
                self.look(&mut watch, length).await?;
            }
            let reads = self.group.reads();
            if reads.is_empty() {
                continue;
            }
            let began = Instant::now();
            let found = watch.wait(&reads, length, &self.group, self.seats.groups()).await;
            let found = found.inspect_err(|error| {
                self.lost_reads += u32::from(error.class != ErrorClass::TooLarge);
            })?;
            (self.failures, self.lost_reads) = (0, 0);
            if self.has_moved(&watch) {
                return Ok(());
            }
            if found.is_empty() {
                watch.check_server(length).await?;
                continue;
            }
            self.tell(&found).await;
            sleep(least_length(reads.len()).saturating_sub(began.elapsed())).await;
        }
        Ok(())
    }

    /// Whether the server is told to tell of keys from now on.
    async fn track(&mut self, watch: &mut Watch<'_>) -> Result<bool, Error> {
        if !self.seats.may_track(Instant::now()) {
            return Ok(false);
        }
        let is_tracked = watch.connection.track().await;
        self.lost_attempts = if is_tracked.is_err() { self.lost_attempts + 1 } else { 0 };
        match is_tracked {
            Ok(true) => self.seats.note_tracking(),
            Err(_) if self.lost_attempts < LOST_ATTEMPTS => {}
            _ => self.forgo_tracking(REFUSED),
        }
        is_tracked
    }

    fn forgo_tracking(&self, pause: Duration) {
        debug!(server = %self.node.address, "the server does not tell of keys that change; they are read together");
        self.seats.forgo_tracking(Instant::now(), pause);
    }

    /// Waits for what the server tells of its keys.
    async fn carry_tracked(&mut self, watch: &mut Watch<'_>) -> Result<(), Error> {
        let group = self.group.clone();
        let mut tracked = Tracked::new(watch, &group);
        while self.until_somebody_waits().await {
            let Some(pace) = self.group.pace() else { continue };
            self.seats.judge(Instant::now());
            let length = round(pace, TRACKED_ROUNDS);
            tracked.look(Instant::now() + length).await?;
            tracked.watch.check_server(round(pace, ROUNDS)).await?;
            if self.has_moved(tracked.watch) {
                return Ok(());
            }
            if tracked.is_swallowed() {
                self.forgo_tracking(SWALLOWED);
                return Ok(());
            }
            tracked.wait(length).await?;
            (self.failures, self.lost_reads) = (0, 0);
        }
        Ok(())
    }

    /// Whether another connection is to be opened: the server's name may lead to another one by now.
    fn has_moved(&mut self, watch: &Watch<'_>) -> bool {
        let has_moved = watch.connection.is_to_be_redialed();
        if has_moved {
            self.was_lost = true;
            self.tail.retire_links(&self.node);
            self.group.tell_all(|| News::Moved);
        }
        has_moved
    }

    async fn tell(&self, found: &[Waiting]) {
        self.tail.note_shared_read();
        for waiting in found {
            self.group.tell(waiting, News::Entries);
        }
        self.until_they_wait_again().await;
    }

    /// Looks at the streams that are due before the next round.
    async fn look(&self, watch: &mut Watch<'_>, length: Duration) -> Result<(), Error> {
        let due = self.group.looks(Instant::now() + length);
        let (light, heavy): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|waiting| waiting.is_light);
        for waiting in &heavy {
            self.group.tell(waiting, News::Due);
        }
        watch
            .look(&light, |waiting, look| {
                self.group.tell(waiting, look);
            })
            .await?;
        self.until_they_wait_again().await;
        Ok(())
    }

    /// Gives the readers that were told something the time to wait again: they are part of the next read.
    async fn until_they_wait_again(&self) {
        let _ = timeout(READING, self.group.all_wait_again()).await;
        self.group.wait_for_nobody();
    }
}

/// How long a round lasts.
fn round(pace: Duration, rounds: u32) -> Duration {
    (pace / rounds).max(Duration::from_millis(1))
}
